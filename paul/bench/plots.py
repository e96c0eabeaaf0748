"""Pictures of benchmark records: the roofline, growth curves, and what an approximation costs and misses."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import NullFormatter

from paul.plots import BLUE, COLOURS, GREEN, GREY, ORANGE, RED, drawn

MARKERS = "osD^vPX*<>ph"
METHODS = {"index": (BLUE, "o"), "random": (RED, "s"), "both": (GREEN, "D")}


@drawn
def roofline(rows: dict[str, dict], peaks: dict, title: str = ""):
    """Operations a second over operations per byte, under the roof that the measured peaks make.

    Args:
        rows: name -> row with flops, bytes, ours_seconds, precision; rows without counted operations are left out.
        peaks: bytes_per_second and flops_per_second by precision.
    """
    rows = {name: row for name, row in rows.items() if row["flops"] and row["bytes"]}
    figure, axis = plt.subplots(figsize=(8.6, 4.4))
    intensity = [row["flops"] / row["bytes"] for row in rows.values()]
    reach = np.geomspace(min([0.5, *intensity]) / 2, max([100, *intensity]) * 3, 200)
    for place, (name, rate) in enumerate(peaks["flops_per_second"].items()):
        axis.plot(
            reach,
            np.minimum(reach * peaks["bytes_per_second"], rate) / 1e9,
            color="black",
            linewidth=1.2,
            linestyle=("-", "--", ":")[place % 3],
            label=f"roof: {name}",
        )
    for place, (name, row) in enumerate(rows.items()):
        axis.plot(
            row["flops"] / row["bytes"],
            row["flops"] / row["ours_seconds"] / 1e9,
            linestyle="none",
            markersize=7,
            marker=MARKERS[place % len(MARKERS)],
            color=COLOURS[place % len(COLOURS)],
            label=f"{name}: {row['bound_seconds'] / row['ours_seconds']:.0%} of its bound",
        )
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="operations per byte that must be moved",
        ylabel="GFLOP a second",
        title=title,
    )
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=10)
    return figure


@drawn
def growth(rows: dict[str, dict], title: str = ""):
    """Seconds over size in logarithms, a panel per row with `curves`; the fitted exponent stands in the legend."""
    rows = {name: row for name, row in rows.items() if "curves" in row}
    columns = min(3, len(rows))
    lines = -(-len(rows) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(3.6 * columns, 2.9 * lines), squeeze=False)
    for axis in axes.flat[len(rows) :]:
        axis.axis("off")
    for axis, row in zip(axes.flat, rows.values()):
        for place, curve in enumerate(row["curves"]):
            colour = (BLUE, ORANGE)[place % 2]
            seconds, spread = np.array(curve["seconds"]), np.array(curve["spread"])
            axis.errorbar(
                curve["x"],
                seconds,
                yerr=seconds * spread / 2,
                color=colour,
                marker="o",
                markersize=4,
                capsize=2,
                label=f"{curve['name']}: power {curve['exponent']:.2f}",
            )
            if "bound_seconds" in curve:
                axis.plot(curve["x"], curve["bound_seconds"], color=GREY, linestyle=":", label="bound")
        axis.set(xscale="log", yscale="log", xlabel=row["curves"][0]["of"], title=row["title"])
        sizes = row["curves"][0]["x"]
        if max(sizes) < 100 * min(sizes):  # too few decades to label those alone
            axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.title.set_fontsize(9)
        axis.legend(fontsize=10)
    for axis in axes[:, 0]:
        axis.set_ylabel("seconds")
    figure.suptitle(title, fontsize=10)
    return figure


@drawn
def approximation(row: dict, title: str = ""):
    """Error of the gradient over the number of candidates, a panel per scale; and over seconds, at the first scale."""
    points = row["points"]
    scales = list(dict.fromkeys(point["s"] for point in points))
    figure, axes = plt.subplots(1, len(scales) + 1, figsize=(3.7 * (len(scales) + 1), 3.1), sharey=True)
    for axis, s in zip(axes, scales):
        for method, (colour, marker) in METHODS.items():
            taken = [point for point in points if point["method"] == method and point["s"] == s]
            count = [point["candidates"] for point in taken]
            axis.plot(count, [point["gradient_error"] for point in taken], color=colour, marker=marker, label=method)
            axis.plot(count, [point["loss_error"] for point in taken], color=colour, linestyle=":", linewidth=1)
        axis.set(xscale="log", yscale="log", xlabel="candidates", title=f"s = {s:g}; dotted: the loss")
    axes[0].set_ylabel("relative error of the gradient")
    for method, (colour, marker) in METHODS.items():
        taken = [point for point in points if point["method"] == method and point["s"] == scales[0]]
        axes[-1].plot(
            [point["seconds"] for point in taken],
            [point["gradient_error"] for point in taken],
            color=colour,
            marker=marker,
            label=method,
        )
    axes[-1].axvline(row["other_seconds"], color="black", linewidth=0.9, label="exact loss")
    axes[-1].set(xscale="log", xlabel="seconds a step", title=f"s = {scales[0]:g}")
    axes[-1].legend(fontsize=10)
    figure.suptitle(title, fontsize=10)
    return figure
