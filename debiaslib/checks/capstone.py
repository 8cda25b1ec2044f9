"""The exercises of notebook 08."""

import math

from debiaslib.checks.exercise import Exercise, Function, Mistake, Number

_UNET, _VAE, _TEXT = 859_520_964, 83_653_863, 123_060_480

# All weights of the U-Net trained in fp32 with Adam, no adapter: bytes on the card before the first activation, in GB.
_FULL_TRAINING = Number(
    right=16 * _UNET / 1e9,
    tolerance=0.05,
    mistakes=(
        Mistake(answer=4 * _UNET / 1e9, tolerance=0.05,
                hint="That is the weights alone. What else does a step of Adam hold for each of them?"),
        Mistake(answer=8 * _UNET / 1e9, tolerance=0.05,
                hint="Weights and gradients, as for plain gradient descent. Adam remembers two running means of each "
                     "weight's gradient."),
        Mistake(answer=12 * _UNET / 1e9, tolerance=0.05,
                hint="One of four numbers is missing: the weight, its gradient, and *two* moments (the mean of gradients "
                     "and of their squares)."),
        Mistake(answer=20 * _UNET / 1e9, tolerance=0.05,
                hint="Five numbers for each weight are one too many. Count them by name."),
        Mistake(answer=16 * (_UNET + _VAE + _TEXT) / 1e9, tolerance=0.05,
                hint="You train the autoencoder and the text encoder as well. They stay as they are: the question is "
                     "about the U-Net."),
        Mistake(answer=4 * _UNET, tolerance=1e9,
                hint="Those are bytes, and of the weights alone. Divide by 10^9, and ask what else Adam holds."),
        Mistake(answer=16 * _UNET, tolerance=1e9, hint="Right in bytes. Give it in GB: divide by 10^9."),
        Mistake(answer=16 * _UNET / 2**30, tolerance=0.05,
                hint="Right in GiB (2^30 bytes), which is what some tools print. Here a GB is 10^9 bytes."),
    ),
    praise="13.8 GB before the first activation, on a card of 12. The adapter's share of that is 13 MB: this is why LoRA.",
    otherwise="Four numbers of four bytes for each of 859,520,964 weights: the weight, its gradient, and Adam's two "
              "moments. In GB of 10^9 bytes.",
)

# 8 pictures in 60 s: each 41 U-Net calls, twice, at .803 TFLOP, and a decode of 2.51.
_PICTURE = 2 * 41 * 0.803 + 2.51
_CARD_SPEED = Number(
    right=8 * _PICTURE / 60,
    tolerance=0.02,
    mistakes=(
        Mistake(answer=8 * (41 * 0.803 + 2.51) / 60, tolerance=0.02,
                hint="With guidance the U-Net is asked twice a step: once with the prompt, once without."),
        Mistake(answer=8 * (2 * 40 * 0.803 + 2.51) / 60, tolerance=0.02,
                hint="Nearly. The published sampler calls the U-Net one time more than it is asked for: 41 times for 40 "
                     "steps."),
        Mistake(answer=8 * 2 * 41 * 0.803 / 60, tolerance=0.02,
                hint="The latents are not a picture yet. Who decodes them?"),
        Mistake(answer=_PICTURE / 60, tolerance=0.02,
                hint="That would be one picture in the 60 seconds. There were eight."),
        Mistake(answer=8 * _PICTURE, tolerance=0.5, hint="That is the work, all of it. How much is it in a second?"),
        Mistake(answer=8 * 0.803 / 60, tolerance=0.001,
                hint="That is a single call of the U-Net a picture. There are 41, each twice."),
        Mistake(answer=60 / (8 * _PICTURE), tolerance=0.001,
                hint="Upside down: you have seconds for each 10^12 operations."),
        Mistake(answer=60 / 8, tolerance=0.02, hint="That is seconds a picture. How many operations does a picture take?"),
    ),
    praise="About 9 x 10^12 operations a second: an entry-level card of 12 GB, kept reasonably busy. Put yours into the "
           "widget.",
    otherwise="A picture: 41 calls of the U-Net, each twice for guidance, at .803 x 10^12 operations, and one decoding at "
              "2.51. Times eight, over 60 seconds.",
)


def _pictures(p: float, q: float, *, reach: float = 1.96 + 0.84, fall: float | None = None,
              spread: float | None = None) -> float:
    fall = abs(p - 0.5) - abs(q - 0.5) if fall is None else fall
    return reach**2 * (p * (1 - p) + q * (1 - q) if spread is None else spread) / fall**2


# Pictures a model so that the fall of FD from a share p to a share q is found 4 of 5 times.
_PICTURES = Function(
    right=_pictures,
    tolerance=1.01,  # rounded up or not: a part of a picture is none
    tries=((0.36, 0.58), (0.36, 0.42), (0.2, 0.35), (0.8, 0.6)),
    mistakes=(
        Mistake(answer=lambda p, q: _pictures(p, q, fall=p - q),
                hint="You took the difference of the *shares*. From .36 to .58 the share moves by .22, and FD only by "
                     ".06: it crosses one half."),
        Mistake(answer=lambda p, q: _pictures(p, q, reach=1.96),
                hint="With 1.96 alone you find the fall every second time. The .84 is there for the other times."),
        Mistake(answer=lambda p, q: _pictures(p, q, reach=0.84),
                hint="The .84 alone is for the power. The interval has its 1.96."),
        Mistake(answer=lambda p, q: math.sqrt(_pictures(p, q)),
                hint="You did not square. n grows with the square of what you want to see."),
        Mistake(answer=lambda p, q: _pictures(p, q, spread=p * (1 - p)),
                hint="The second model's share was counted on a sample, too. Add its variance."),
        Mistake(answer=lambda p, q: 2 * _pictures(p, q),
                hint="That is the pictures of both models together. Asked for is each."),
        Mistake(answer=lambda p, q: _pictures(p, q) * abs(abs(p - 0.5) - abs(q - 0.5)),
                hint="The fall of FD comes in squared: half the fall takes four times the pictures."),
        Mistake(answer=lambda p, q: _pictures(p, q, reach=math.sqrt(1.96 + 0.84)),
                hint="The sum 1.96 + .84 is squared, as the fall is."),
    ),
    praise="Half the fall takes four times the pictures. And this counts sampling alone: neither the judge nor the luck "
           "of training.",
    otherwise="n = (1.96 + .84)^2 times the two variances p (1 - p) + q (1 - q), over the squared fall of FD, |p - .5| - "
              "|q - .5|.",
)

EXERCISES: dict[str, Exercise] = {
    "capstone.full_training": _FULL_TRAINING,
    "capstone.card_speed": _CARD_SPEED,
    "capstone.pictures": _PICTURES,
}
