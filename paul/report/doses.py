"""What adapting adds to AdaBN under every condition that was run, beside the purity of the neighbourhoods it starts
from: the data behind "when does it work?"."""

from __future__ import annotations

import pandas as pd

from paul.data.worlds import KNOBS
from paul.experiments.methods import PURITY
from paul.experiments.rows import CONDITIONS, TRAINED
from paul.report.contrasts import PRIMARY
from paul.report.statistics import mean_interval
from paul.report.worlds import row_at

START = "patch_neighbours"  # AdaBN, with its neighbourhoods measured
PLACES = ["world", "seed", "target"]


def _condition(row: str) -> tuple[str, float] | None:
    """What of a row of neighbourhoods is changed, and how far: "patch_neighbours_people_x0.5" -> ("people", 0.5),
    "patch_neighbours@gap4.0" -> ("gap", 4.0), the row itself -> ("", 1.0); None for another row."""
    name, knobs = row_at(row)
    if name == START:
        if not knobs:
            return "", 1.0
        knob = next(knob for knob in KNOBS if knobs.startswith(knob))
        value = knobs.removeprefix(knob)
        return (knob, float(value)) if value.replace(".", "", 1).isdigit() else None
    condition = name.removeprefix(f"{START}_")
    if knobs or condition not in CONDITIONS:
        return None
    what, _, dose = condition.partition("_x")
    return what, float(dose)


def _line(start: pd.DataFrame, runs: pd.DataFrame, rows, metric: str) -> pd.DataFrame:
    """AdaBN's runs with the gains of these rows, one for each of TRAINED."""
    line = start.set_index(PLACES)[[metric, *PURITY]].rename(columns={metric: "start"})
    for trained, row in zip(TRAINED, rows):
        line[trained] = runs[runs["row"] == row].groupby(PLACES)[metric].mean() - line["start"]
    return line.reset_index()


def doses(runs: pd.DataFrame, metric: str = PRIMARY) -> pd.DataFrame:
    """A line for every condition, world, source seed and target that AdaBN ran on.

    Columns: what ("people", "images", "dim", "epochs", or a knob of the rendered people; "" for none) and dose; world,
    seed, target; start, AdaBN's score in %; the purities of `paul.experiments.methods.PURITY` in %; and for each row of
    TRAINED what it adds to that score, in points, NaN where it did not run. `runs` are those of
    `paul.report.worlds.runs_of_worlds`.
    """
    frames = []
    for row in dict.fromkeys(runs["row"]):
        found = _condition(row)
        if found:
            rows = [row.replace(START, trained, 1) for trained in TRAINED]
            line = _line(runs[runs["row"] == row], runs, rows, metric)
            frames.append(line.assign(what=found[0], dose=found[1]))
    longer = [f"{row}_long" for row in TRAINED]
    if runs["row"].isin(longer).any():
        line = _line(runs[runs["row"] == START], runs, longer, metric).dropna(subset=TRAINED, how="all")
        frames.append(line.assign(what="epochs", dose=4.0))
    columns = ["what", "dose", *PLACES, "start", *PURITY, *TRAINED]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


def dose_response(found: pd.DataFrame, what: str) -> pd.DataFrame:
    """The gains over AdaBN at every dose of one condition, what is usual among them: per dose and target the mean over
    worlds (over source seeds where there is one world) with its 95 % interval, in points.

    Only worlds and seeds that ran the condition at all count. Columns: dose, target, row, mean, low, high, n.
    """
    usual, turned = found[found["what"] == ""], found[found["what"] == what]
    usual = usual.merge(turned[PLACES].drop_duplicates(), on=PLACES)
    lines = []
    for (dose, target), part in pd.concat([usual, turned]).groupby(["dose", "target"], sort=True):
        each = part.groupby("world" if found["world"].nunique() > 1 else "seed")[list(TRAINED)].mean()
        for row in TRAINED:
            values = each[row].dropna()
            if len(values):
                interval = mean_interval(values)
                lines.append([dose, target, row, interval.mean, interval.low, interval.high, interval.n])
    return pd.DataFrame(lines, columns=["dose", "target", "row", "mean", "low", "high", "n"])


def rank_correlations(found: pd.DataFrame, purity: str, gain: str) -> pd.Series:
    """Spearman's correlation of a purity with a gain over the conditions of each world and seed, averaged over targets;
    indexed by both. Four conditions at least; longer training is none, since it starts from the same neighbourhoods."""
    lines = [
        [*place, part[purity].corr(part[gain], method="spearman")]
        for place, part in found[found["what"] != "epochs"].dropna(subset=[gain]).groupby(PLACES)
        if len(part) >= 4
    ]
    return pd.DataFrame(lines, columns=[*PLACES, "value"]).groupby(["world", "seed"])["value"].mean()
