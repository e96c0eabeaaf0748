"""The paper's four tables with ours beside them, and the studies of variants, from run records.

Only profile `paper` runs on the paper's own images, so only there do our values stand beside the published ones. Every
other profile is compared by ordering: which rows come above which, pair by pair, and Kendall's tau over all pairs.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd

from paul.engine.files import write_text
from paul.experiments.records import outdated, read_records
from paul.experiments.rows import ROWS, STUDIES, TABLES
from paul.experiments.specs import METHODS, Places
from paul.report.frames import (
    METRICS,
    TARGETS,
    numbers,
    paired_differences,
    runs_frame,
    summarise,
    target_name,
    values_by_seed,
)
from paul.report.published import PRINTED, printed_rows, published, published_value
from paul.report.statistics import kendall_tau, mean_interval
from paul.report.variants import readable_variants, variants_table

SHOWN = ["rank1", "map_trapezoid", "map_step"]


def is_stale(record: dict, data: str | Path | None = None) -> bool:
    """Whether anything that decides a run's numbers has changed since its record; see `paul.experiments.records`.

    The data too, where `data` names their folder and they are there.
    """
    return bool(outdated(record, None if data is None else Places(data=str(data))))


def compares_methods(table: str) -> bool:
    """Whether the table sets methods beside each other, as Tables 1 and 2 do; else it takes one apart."""
    return TABLES[table].target is not None


def current_runs(results_dir, profile: str, data: str | Path | None = None) -> pd.DataFrame:
    """Every run recorded under results_dir/runs/profile, as `runs_frame` gives them, outdated ones marked `stale`;
    `data` as for `is_stale`."""
    return runs_frame(read_records(results_dir, profile), partial(is_stale, data=data))


def name_of(table: str, row: str) -> str:
    """What a method of Table 1 or 2 is called there; one that the paper doesn't print says so."""
    return TABLES[table].lines[row] or f"{ROWS[row].label} (not in the paper)"


def rerun_command(table: str, runs: pd.DataFrame) -> str:
    """The command that computes these runs, of one row and target, again."""
    first = runs.iloc[0]
    command = f"paul run {table} --profile {first['profile']} --rows {first['row']} --targets {first['target']}"
    command += f" --seeds {numbers(runs['seed'])}"
    if (runs["adapt_seed"] != runs["seed"]).any():
        command += f" --adapt-seeds {numbers(runs['adapt_seed'])}"
    return command + (f" --worlds {numbers(runs['world'])}" if runs["world"].any() else "")


def ablation_table(table: str, runs: pd.DataFrame, profile: str, paper: str | Path) -> pd.DataFrame:
    """Table 3 or 4 with a line per target and row that was run; `runs` comes from `current_runs`.

    Columns: row, label, in_paper, target, n, seeds; mean, _low and _high (95 % over source seeds) of every metric;
    paper_<metric>; position_<metric> and paper_position_<metric> among the printed rows that were run (1 = best);
    seconds (adaptation and test), pretrain_seconds (shared by the rows of one network), stale, command.
    """
    summary = summarise(runs[runs["row"].isin(list(TABLES[table].lines))]).set_index(["row", "target"])
    lines = []
    for target in sorted(runs["target"].unique(), key=lambda name: (list(TARGETS) + [name]).index(name)):
        for name, printed_line in TABLES[table].lines.items():
            if (name, target) not in summary.index:
                continue
            line = {"row": name, "label": ROWS[name].label, "in_paper": printed_line is not None, "target": target}
            line |= summary.loc[(name, target)].to_dict()
            for metric in PRINTED:
                line[f"paper_{metric}"] = published_value(table, name, target, metric, paper)
            line["command"] = rerun_command(table, runs[(runs["row"] == name) & (runs["target"] == target)])
            lines.append(line)
    columns = ["row", "label", "in_paper", "target", *summary.columns, *(f"paper_{m}" for m in PRINTED)]
    frame = pd.DataFrame(lines, columns=columns + ["command"])
    for metric in PRINTED:
        printed = frame[frame["in_paper"].astype(bool)].groupby("target")
        frame[f"position_{metric}"] = printed[metric].rank(ascending=False, method="min")
        frame[f"paper_position_{metric}"] = printed[f"paper_{metric}"].rank(ascending=False, method="min")
    return frame


def ordered_pairs(table: str, runs: pd.DataFrame, target: str, metric: str, paper: str | Path) -> pd.DataFrame:
    """Every pair of printed rows that the paper puts in an order and that share a source seed, `a` above `b` there.

    Columns: a, b, paper (points between them), n, ours (mean paired difference), low, high (95 %; NaN below two seeds),
    outcome: agrees or disagrees where the interval leaves out zero, else undecided.
    """
    values = {row: published_value(table, row, target, metric, paper) for row in printed_rows(table)}
    ranked = sorted(values, key=values.get, reverse=True)
    lines = []
    for place, a in enumerate(ranked):
        for b in ranked[place + 1 :]:
            differences = paired_differences(runs, a, b, target, metric)
            if values[a] == values[b] or differences.empty:
                continue
            ours = mean_interval(differences)
            outcome = "agrees" if ours.low > 0 else "disagrees" if ours.high < 0 else "undecided"
            lines.append([a, b, round(values[a] - values[b], 2), ours.n, ours.mean, ours.low, ours.high, outcome])
    return pd.DataFrame(lines, columns=["a", "b", "paper", "n", "ours", "low", "high", "outcome"])


def ordering(table: str, runs: pd.DataFrame, paper: str | Path) -> pd.DataFrame:
    """The paper's ordering against ours per target and metric: rows compared, pairs, how many agree, Kendall's tau."""
    lines = []
    for target in [name for name in TARGETS if name in set(runs["target"])]:
        for metric in PRINTED:
            pairs = ordered_pairs(table, runs, target, metric, paper)
            rows = [row for row in printed_rows(table) if len(values_by_seed(runs, row, target, metric))]
            theirs = [published_value(table, row, target, metric, paper) for row in rows]
            ours = [values_by_seed(runs, row, target, metric).mean() for row in rows]
            line = {"target": target, "metric": metric, "rows": len(rows), "pairs": len(pairs)}
            line["same_order"] = int((pairs["ours"] > 0).sum())
            line |= {name: int((pairs["outcome"] == name).sum()) for name in ["agrees", "disagrees", "undecided"]}
            lines.append({**line, "kendall_tau": kendall_tau(theirs, ours)})
    columns = ["target", "metric", "rows", "pairs", "same_order", "agrees", "disagrees", "undecided", "kendall_tau"]
    return pd.DataFrame(lines, columns=columns)


def comparison_table(table: str, runs: pd.DataFrame, profile: str, paper: str | Path) -> pd.DataFrame:
    """Table 1 or 2 as published, and the methods run here after it; sorted in by Rank-1 in profile `paper` alone.

    Columns: method, year, kind, profile ("published" or ours), n, seeds ("none" where nothing is drawn); rank1,
    rank5, rank10, map_trapezoid, map_step, each with _low and _high for ours. The published mAP stands in the
    trapezoid's column (ledger 28).
    """
    frame = published(table, paper).rename(columns={"mAP": "map_trapezoid"}).assign(profile="published")
    target = TABLES[table].target
    summary = summarise(runs[runs["target"] == target]).set_index("row")
    metrics = ["rank1", "rank5", "rank10", "map_trapezoid", "map_step"]
    kept = ["n", "seeds", "stale", *metrics, *(f"{m}{end}" for m in metrics for end in ("_low", "_high"))]
    cited = frame.set_index("method")
    for row in TABLES[table].lines:
        if row not in summary.index:
            continue
        name = name_of(table, row)
        ours = {"method": f"{name}, ours ({profile})", "kind": cited["kind"].get(name, ""), "profile": profile}
        ours |= summary.loc[row, kept].to_dict() | ({} if METHODS[ROWS[row].method].seeded else {"seeds": "none"})
        frame = pd.concat([frame, pd.DataFrame([ours])], ignore_index=True)
    columns = ["method", "year", "kind", "profile", "n", "seeds", *metrics]
    columns += [f"{m}{end}" for m in metrics for end in ("_low", "_high")] + ["stale"]
    frame = frame.reindex(columns=columns)
    if profile == "paper":
        frame = frame.sort_values("rank1", kind="stable", ignore_index=True)
    frame[["year", "n"]] = frame[["year", "n"]].astype("Int64")
    return frame


def places_of_methods(table: str, runs: pd.DataFrame, paper: str | Path) -> pd.DataFrame:
    """The paper's methods of Table 1 or 2 that were run here, in its order and in ours: places, never values.

    Columns: row, method, and for each published metric place_paper_<metric> and place_here_<metric>, 1 the best among
    these methods. attrs["kendall_tau"] holds tau per metric, NaN below two methods.
    """
    cited = published(table, paper).set_index("method")
    target = TABLES[table].target
    rows = [row for row in printed_rows(table) if len(values_by_seed(runs, row, target, "rank1"))]
    names = [TABLES[table].lines[row] for row in rows]
    frame = pd.DataFrame({"row": rows, "method": names})
    for metric, printed in PRINTED.items():
        theirs = cited.loc[names, printed].to_numpy()
        ours = [values_by_seed(runs, row, target, metric).mean() for row in rows]
        for name, values in (("paper", theirs), ("here", ours)):
            places = pd.Series(values).rank(ascending=False, method="min").astype("Int64")
            frame[f"place_{name}_{metric}"] = places
        frame.attrs.setdefault("kendall_tau", {})[metric] = kendall_tau(theirs, ours)
    return frame


def figure_text(mean: float, low: float, high: float) -> str:
    """'45.1 [40.2, 50.0]'; the mean alone when there is no interval, a dash when there is nothing."""
    if pd.isna(mean):
        return "-"
    return f"{mean:.1f}" if pd.isna(low) else f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def readable(frame: pd.DataFrame, profile: str) -> pd.DataFrame:
    """Any table of this module as text to read: one column per metric with its interval, published values beside it."""
    shown = pd.DataFrame(index=frame.index)
    if "label" in frame:
        shown["row"] = frame["label"].where(frame["in_paper"], frame["label"] + " (not in the paper)")
        for metric in PRINTED:
            shown[f"paper {METRICS[metric].split()[0]}"] = frame[f"paper_{metric}"].map("{:.1f}".format)
        shown = shown.replace("nan", "-")
    else:
        shown["method"] = frame["method"]
        shown["year"] = frame["year"].astype("string").fillna("")
        shown["kind"] = frame["kind"]
        shown["figures"] = frame["profile"].map({"published": "cited"}).fillna("run here")
    for metric in [m for m in METRICS if m in frame and (m in SHOWN or "method" in frame)]:
        heading = METRICS[metric] if "method" in frame else f"ours ({profile}) {METRICS[metric]}"
        texts = map(figure_text, frame[metric], frame[f"{metric}_low"], frame[f"{metric}_high"])
        shown[heading] = list(texts)
    shown["n seeds"] = frame["n"].astype("string").fillna("").mask(frame["seeds"] == "none", "1, nothing drawn")
    if "label" in frame:
        for metric in PRINTED:
            places = [frame[f"{end}position_{metric}"].astype("Int64").astype("string") for end in ("paper_", "")]
            shown[f"place by {METRICS[metric].split()[0]}: paper, ours"] = (places[0] + ", " + places[1]).fillna("-")
        shown["seconds"] = frame["seconds"].map("{:.0f}".format)
        shown["command"] = "`" + frame["command"] + "`"
    if frame["stale"].eq(True).any():
        shown["outdated"] = frame["stale"].map({True: "yes"}).fillna("")
    return shown


def in_brief(shown: pd.DataFrame) -> pd.DataFrame:
    """The columns of `readable` that fit a page: without the second mAP, seconds and commands, which the files have."""
    dropped = [name for name in shown if name in ("seconds", "command") or name.endswith(METRICS["map_step"])]
    return shown.drop(columns=dropped)


def markdown(frame: pd.DataFrame) -> str:
    """A frame of text as a Markdown table."""
    cells = [list(map(str, frame.columns))] + [["---"] * frame.shape[1]]
    cells += [[str(value).replace("|", "\\|") for value in line] for line in frame.itertuples(index=False)]
    return "".join("| " + " | ".join(line) + " |\n" for line in cells)


def places_text(table: str, runs: pd.DataFrame, paper: str | Path) -> str:
    """`places_of_methods` as Markdown, Kendall's tau below it."""
    frame = places_of_methods(table, runs, paper)
    shown = frame[["method"]].copy()
    for metric in PRINTED:
        both = zip(frame[f"place_paper_{metric}"], frame[f"place_here_{metric}"])
        shown[f"place by {METRICS[metric].split()[0]}: paper, here"] = [f"{a}, {b}" for a, b in both]
    taus = ", ".join(f"{METRICS[metric].split()[0]} {tau:.2f}" for metric, tau in frame.attrs["kendall_tau"].items())
    return markdown(shown) + f"\nKendall's tau: {taus}.\n"


def table_text(table: str, runs: pd.DataFrame, profile: str, paper: str | Path) -> str:
    """One table as a Markdown page, with the rule by which it may be read."""
    text = f"# {TABLES[table].title} (profile {profile})\n\n"
    if profile == "paper":
        text += "Ours is on the paper's own data: values may be compared.\n"
    else:
        text += f"Ours is on the people of profile {profile}: compare orderings with the paper, never values.\n"
    over = "worlds" if runs["world"].nunique() > 1 else "source seeds"
    text += f"Ours: mean over {over} and its 95 % Student-t interval. In %. The paper's mAP is the trapezoid's.\n"
    if (runs.groupby(["row", "target", "world", "seed"]).size() > 1).any():
        text += "Several adaptations from one source model count as one value, their mean.\n"
    if compares_methods(table):
        *most, last = (name_of(table, row) for row in TABLES[table].lines)
        text += f"Run here on the same images by the same protocol: {', '.join(most)} and {last}. "
        text += "The other methods are cited only.\n"
        text += "\n" + markdown(readable(comparison_table(table, runs, profile, paper), profile))
        return text + "\n## The paper's order of these methods, and ours\n\n" + places_text(table, runs, paper)
    frame = ablation_table(table, runs, profile, paper)
    for target, part in frame.groupby("target", sort=False):
        shown = readable(part, profile).rename(columns={"n seeds": f"n {over.split()[-1]}"})
        text += f"\n## {target_name(target, profile)}\n\n" + markdown(shown)
    order = ordering(table, runs, paper)
    order["target"] = [target_name(target, profile) for target in order["target"]]
    order["metric"] = order["metric"].map(METRICS)
    order["kendall_tau"] = order["kendall_tau"].map("{:.2f}".format)
    return text + (
        "\n## The paper's ordering against ours\n\nPairs of rows that the paper puts in an order: `same_order` by our "
        "means; agrees, disagrees or undecided by the interval of the paired difference.\n\n" + markdown(order)
    )


def study_text(study: str, frame: pd.DataFrame, profile: str) -> str:
    """`paul.report.variants.variants_table` as a Markdown page."""
    text = f"# {STUDIES[study].title} (profile {profile})\n\n"
    text += "In %. A change is the difference to the row that is varied, paired by source model, with its 95 % "
    text += "Student-t interval over n source seeds, or worlds.\n\n"
    return text + markdown(readable_variants(frame, profile))


def on_the_papers_sets(table: str, results_dir, profile: str, paper: str | Path) -> tuple[str, pd.DataFrame | None]:
    """What the records of profile `paper` say of a table, for a page of any profile: a sentence, and the table as text.

    None in place of the table where there are no such records, or the page shows them already.
    """
    runs = current_runs(results_dir, "paper")
    if profile == "paper":
        return "The runs above are those on the paper's own sets.", None
    runs = runs[runs["row"].isin(list(TABLES[table].lines))]
    if compares_methods(table):
        runs = runs[runs["target"] == TABLES[table].target]
    if runs.empty:
        return (
            f"No runs on the paper's own sets are recorded in `{results_dir}`. Whoever holds the sets computes them "
            f"with `paul run {table} --profile paper --seeds 0-2`, which prints first what it will take."
        ), None
    frame = (comparison_table if compares_methods(table) else ablation_table)(table, runs, "paper", paper)
    shown = readable(frame, "paper")
    if not compares_methods(table):
        shown.insert(0, "target", [target_name(name, "paper") for name in frame["target"]])
    return f"{len(runs)} runs at profile `paper`, on the paper's own sets: these values may be compared.", shown


def write_tables(
    results_dir, profile: str, paper: str | Path, data: str | Path | None = None, runs: pd.DataFrame | None = None
) -> list[Path]:
    """Write results_dir/tables/<profile>/table1..4 as .csv and .md from the run records, and the studies that have
    runs; returns the paths.

    `data` as for `is_stale`; `runs` where they are others than `current_runs` gives.
    """
    runs = current_runs(results_dir, profile, data) if runs is None else runs
    folder = Path(results_dir) / "tables" / profile
    paths = []
    found = []
    for table in TABLES:
        frame = (comparison_table if compares_methods(table) else ablation_table)(table, runs, profile, paper)
        found.append((table, frame, table_text(table, runs, profile, paper)))
    for study in STUDIES:
        frame = variants_table(study, runs)
        if len(frame):
            found.append((study, frame, study_text(study, frame, profile)))
    for name, frame, text in found:
        csv = frame.to_csv(index=False, float_format="%.4f", lineterminator="\n")
        for path, content in [(folder / f"{name}.csv", csv), (folder / f"{name}.md", text)]:
            write_text(path, content)
            paths.append(path)
    return paths
