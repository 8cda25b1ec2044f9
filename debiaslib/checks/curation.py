"""The exercises of notebook 01."""

import math

from debiaslib.checks.exercise import Exercise, Function, Mistake, Number

# Of 120 files of a group 6 are damaged, 24 without a face, 9 blurred, 5 near duplicates, in this order.
_REACHED = Number(
    right=9 / 90,
    mistakes=(
        Mistake(answer=9 / 120,
                hint="You divided by everybody who was there. Some had left before: the blur filter never saw the damaged "
                     "files, nor those without a face."),
        Mistake(answer=9 / 76,
                hint="You divided by those who were accepted in the end. The blurred ones came as far as the filter too, "
                     "and so did those whom a later filter turned away."),
        Mistake(answer=9 / 85,
                hint="You took the near duplicates away as well. Their filter comes later: they passed this one."),
        Mistake(answer=9 / 81,
                hint="That compares those turned away with those let through. A share is a part of the whole: both "
                     "together."),
        Mistake(answer=9 / 114, hint="Only the damaged files are gone in your sum. Which other filter comes before?"),
        Mistake(answer=9 / 44,
                hint="That is the blur filter's part of all rejections. It says how the work was divided among the filters, "
                     "and not how severe this one is."),
        Mistake(answer=44 / 120, hint="That is the share that all filters together turned away. Ask for one of them."),
        Mistake(answer=81 / 90, hint="That is the share it let through, and well divided. How many did it turn away?"),
        Mistake(answer=10, hint="Right in per cent. Give it as a share, between 0 and 1."),
    ),
    praise="A filter is judged by whom it saw. By the whole folder, a filter late in the row looks kinder than it is.",
    otherwise="Follow the 120 along the filters: how many are left when the blur filter begins? That is what its share is "
              "a part of.",
)

# The variance of the Laplacian of a picture whose grey levels are all multiplied by `light`.
_DIMMED = Function(
    right=lambda value, light: value * light**2,
    mistakes=(
        Mistake(answer=lambda value, light: value * light,
                hint="So much do the *differences* between pixels shrink. Sharpness is the variance of differences: what "
                     "does a variance do when everything in it is multiplied by one number?"),
        Mistake(answer=lambda value, light: value,
                hint="The focus has not changed, and one would wish that sharpness had not either. But this one is measured "
                     "in grey levels, and there are fewer of them now."),
        Mistake(answer=lambda value, light: value / light,
                hint="You divided: less light would make the picture sharper. In the dark, are two neighbouring pixels "
                     "further apart in grey level, or nearer?"),
        Mistake(answer=lambda value, light: value / light**2,
                hint="The square is right and the direction is not: with less light all differences shrink."),
        Mistake(answer=lambda value, light: value * math.sqrt(light),
                hint="You took the root. A standard deviation is the root of a variance; how do the two scale?"),
        Mistake(answer=lambda value, light: value * (1 - light) ** 2,
                hint="`light` is what is left of the light, and not what was taken away."),
        Mistake(answer=lambda value, light: value - light,
                hint="Light works by a factor: every grey level is multiplied by it, nothing is taken away."),
    ),
    praise="With 60 % of the light little more than a third of the sharpness is left, and nobody has touched the focus.",
    otherwise="Every grey level, and so every difference between neighbours, is multiplied by `light`. Sharpness is a "
              "variance of such differences.",
    tries=((36.0, 0.5), (20.0, 0.6), (12.0, 1.0), (15.0, 1.2)),
)

# The largest subset with four men to a woman, of 48 men and 90 women.
_LARGEST = Number(
    right=60,
    mistakes=(
        Mistake(answer=138, hint="So many faces are there. Used all together they have about one man to two women."),
        Mistake(answer=96, hint="That is the largest *even* subset. Here four men are wanted for each woman."),
        Mistake(answer=112.5, tolerance=0.6,
                hint="The ratio is upside down: that is the largest set with four women to each man. Male:female 4 means "
                     "four men to a woman."),
        Mistake(answer=450,
                hint="For 90 women there would have to be 360 men. There are 48: begin with whoever is scarce."),
        Mistake(answer=240, hint="You gave every man four women. It is the other way round: one woman to four men."),
        Mistake(answer=12, hint="So many women go with 48 men. How many faces is that in all?"),
        Mistake(answer=48, hint="So many men there are, and all are used. The women beside them count as well."),
        Mistake(answer=192, hint="That is four times the men. Four men go with *one* woman, so how many women go with 48?"),
        Mistake(answer=64, hint="You took a quarter of the men twice over, or a quarter of the whole for the women. With "
                                "four men to a woman, women are one in *five*."),
    ),
    praise="Whoever is scarce decides: 78 of the 90 women stay out. More women would not help, more men would.",
    otherwise="All 48 men can be used, if there are women enough. With four men to a woman, how many women go with 48 men? "
              "Add the two.",
    tolerance=0.5,
)

EXERCISES: dict[str, Exercise] = {
    "curation.reached": _REACHED,
    "curation.dimmed": _DIMMED,
    "curation.largest": _LARGEST,
}
