# %% [markdown] tags=["slide"]
# # All claims, and what each choice is worth
#
# **What you will learn**
#
# - how far one option of PAUL moves the result, the question of the paper's Figure 5;
# - the verdict on every claim, on one page, and how easily noise would have reached it;
# - what each choice that the paper leaves open is worth, where runs can say it.
#
# Paper: Figure 5, and all of Section 4.

# %% tags=["parameters"]
profile: str = "mini"
results_dir: str = "results"

# %%
from pathlib import Path

import pandas as pd
from book.start import start
from IPython.display import display
from paul.plots import claims_panel, save, table_bars, variant_curves
from paul.report.claims import judge_all, load_claims, verdict_frame, write_claims
from paul.report.ledger import ledger_frame
from paul.report.registration import load_registration
from paul.report.tables import ablation_table, current_runs, write_tables
from paul.report.variants import variants_table

start()
paper = "book/paper"  # the published tables
everything = current_runs(results_dir, profile)

# %% [markdown] tags=["slide"]
# ## How far one option moves the result
#
# The paper turns $k$, $s$ and $l$ (`rate`) in its Figure 5 and finds the result stable. Here every option of PAUL that
# has a size is turned, one at a time, by factors of the value that is used; the source models are the same. C11 takes
# *stable* to mean that half or twice the value of any of the three moves no score by four points, C10's margin.

# %% tags=["slide"]
#| caption: One option of PAUL in each panel: how mAP changes when it is turned by the
#|   factor below, with 95 % intervals, a colour for each target.
turned = variants_table("figure5", everything)
if len(turned):
    display(variant_curves(turned, profile))
else:
    print(f"no such runs at profile {profile}: "
          f"paul run figure5 --profile {profile} makes them")

# %% [markdown] tags=["slide"]
# ## How a verdict comes about
#
# World 0 is for development: options, rules and pictures were made while looking at it. What it says of a claim, by
# intervals over its source seeds, is a remark. A *verdict* comes from worlds that nobody had rendered when
# `book/preregistration.toml` was committed, with the contrasts, the number of worlds and the smallest effects that
# matter. A contrast is a difference of mAP, averaged over both targets: one number a world.
#
# - *Supported*: **every** contrast of the claim lies where the claim says, each by a one-sided $t$ test at 2.5 %. All
#   must hold, so no correction is needed (an intersection-union test).
# - *Contradicted*: **one** lies on the other side, by Holm's correction over all contrasts of all claims.
# - *Inconclusive*: neither; the sentence says how large an effect could still hide.
# - *Not run*: a registered world is missing, or nothing here can test it.
#
# Each is about rendered people and a small network, and says so. Worlds run one after the other, and their tables are
# seen before the last has run; therefore nothing may change in between: `paul register --check` holds the options,
# the renderer and the tests of every record to the registration. World 1's Table 3 was looked at that way.

# %% tags=["slide"]
registration = load_registration("book/preregistration.toml")
if registration is None:
    print("nothing is registered: every verdict is world 0's")
else:
    print(f"registered, of profile {registration.profile}: worlds",
          *registration.worlds)
    display(pd.DataFrame([{
        "claim": one.contrast.claim, "contrast": one.contrast.name,
        "wanted": f"within ±{one.contrast.margin:g}"
        if one.contrast.kind == "within" else f"above {one.contrast.margin:g}",
        "smallest effect": one.contrast.smallest, "spread of seeds": one.spread,
        "power, %": 100 * one.power, "if spread is wider, %": 100 * one.cautious}
        for one in registration.planned
    ]).style.format(precision=1).hide(axis="index"))

# %% [markdown]
# *Power* is the chance of finding the smallest effect of interest if worlds differ as much as world 0's seeds do. They
# may differ by more, so the last column reckons with the upper end of what three seeds leave possible. Where power is
# low, *inconclusive* is the likeliest outcome even of a claim that is true: that was known before the first run.
#
# World 0's own rule is quicker to contradict: one interval of a claim on the wrong side is enough. Exercise 1 asks how
# often pure noise would reach that.

# %% [markdown]
# ## All claims on one page
#
# The whole paper at this profile. The next cell also writes `claims.json`, the four tables and two figures into the
# results folder; all of them can be made again from the run records.

# %% tags=["slide"]
#| caption: Every comparison behind every verdict: mean difference, 95 % interval and
#|   border; world 0's comparisons while registered worlds are still to be run.
development = judge_all(load_claims("book/claims.toml"), everything, profile, paper)
written = write_claims(results_dir, "book/claims.toml", paper)
verdicts = written.get(profile, development)
write_tables(results_dir, profile, paper)
figures = Path(results_dir) / "figures" / profile
table = ablation_table("table4", everything, profile, paper)
if len(table):
    save(table_bars(table, profile), figures / "table4.svg")
lines = [line for verdict in verdicts for line in verdict["evidence"]]
whole = any(line["outcome"] != "missing" for line in lines)  # registered worlds
panel = claims_panel(verdicts if whole else development)
save(panel, figures / "claims.svg")
display(panel)

# %% [markdown]
# Power was planned with the spread of world 0's source seeds, which is all that was known. What worlds differ by, now
# that they have run, says how far that plan could be trusted:

# %% tags=["slide"]
planned = {one.contrast.name: one for one in registration.planned} \
    if registration else {}
spreads = [{"contrast": f"{line['a']} - {line['b']}",
            "seeds": planned[f"{line['a']} - {line['b']}"].spread,
            "worlds": pd.Series(line["per_world"]).std()}
           for line in lines if line.get("per_world") and line["mean"] is not None]
spreads = pd.DataFrame(spreads).drop_duplicates()
if len(spreads):
    wider = (spreads["worlds"] > spreads["seeds"]).sum()
    print(f"{wider} of {len(spreads)} contrasts differ more between worlds than "
          "between seeds: for them the planned power promised too much")
    display(spreads.style.format(precision=1).hide(axis="index"))

# %% tags=["slide"]
to_read = {"text-align": "left", "vertical-align": "top"}
verdict_frame(verdicts).style.set_properties(**to_read)

# %% [markdown] tags=["slide"]
# ## The ledger
#
# A page beside the chapters has it whole. Here are the entries whose worth the runs at hand can measure, the largest
# effect first. `paul run ledger` takes the other readings one by one.

# %% tags=["slide"]
ledger = ledger_frame(everything, profile, "book/ledger.toml")
ledger = ledger.dropna(subset="largest").sort_values("largest", ascending=False)
ledger[["item", "ours", "effect"]].style.set_properties(**to_read)

# %% [markdown] tags=["slide"]
# ## Summary
#
# - A verdict is a rule that was written down before the runs, applied to worlds that nobody had seen.
# - What was developed on a world can't be judged on it: world 0's line is a remark.
# - A list sorted by the size of an effect has noise at its top when all effects are small.

# %% [markdown]
# ## Exercises
#
# 1. *Predict.* Suppose PAUL did nothing, so that every difference is noise. By world 0's rule, how often would a claim
#    of eight independent comparisons be supported, and how often contradicted? Say two numbers first.
# 2. *Break it.* Put noise in the place of the ledger's effects: twenty entries, each worth nothing, each measured with
#    a standard error of one point. What does the first line of the sorted table say?
# 3. *Extend.* Write a claim of your own into a copy of `book/claims.toml`, before you look, and judge it with
#    `load_claims` and `judge`.

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# An interval lies above zero in 2.5 % of the cases, and below it in as many. Supported takes all eight, $0.025^8$:
# never. Contradicted takes one, $1 - 0.975^8 \approx 18$ %. Real comparisons share source models, which makes both less
# extreme; but a claim can well be contradicted by nothing at all. Holm's correction is there for that.
#
# ```python
# # runs alone
# import numpy as np
# from scipy import stats
#
# values = np.random.default_rng(0).standard_normal((20_000, 8, 3))
# half = stats.t.ppf(0.975, 2) * values.std(2, ddof=1) / 3**0.5
# means = values.mean(2)
# assert (means > half).all(1).mean() < 0.001
# assert abs((means < -half).any(1).mean() - (1 - 0.975**8)) < 0.01
# ```
#
# </details>
#
# <details><summary>Solution 2</summary>
#
# The largest of twenty noises: about 2.2 standard errors on average, by size, so two points that mean nothing. Sorting
# selects what was lucky. Look at the interval, and at how many entries there are, before the order.
#
# ```python
# # runs alone
# import numpy as np
#
# noise = abs(np.random.default_rng(0).standard_normal((20_000, 20)))
# assert 2.1 < noise.max(1).mean() < 2.4
# ```
#
# </details>
#
# <details><summary>Solution 3</summary>
#
# The file is its own documentation: a `higher` test names pairs of rows, metrics, targets and a smallest effect. What
# counts is that the margin was chosen before the runs were read.
#
# - *full*: claim, margin and a reason for it, dated before; verdict; what would have reversed it;
# - *half*: a claim whose margin was chosen after a look at the table, said so;
# - *some*: a claim that the file's reader accepts.
#
# </details>

# %% [markdown]
# ## Next
#
# *When does it work?*: the same method with fewer people, fewer images and other cameras.
