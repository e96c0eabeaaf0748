"""The book's pictures. Every function returns a closed matplotlib Figure, which a notebook shows once.

Colours are Okabe and Ito's, told apart by every common kind of colour vision; right and wrong are never told by colour
alone. Images are uint8 tensors [..., 3, H, W] as `paul.data.images.load_images` gives them.
"""

import functools
import io
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Polygon, Rectangle

from paul.data.transforms import normalize, unit_range
from paul.engine.files import write_text
from paul.patches import sample_patches
from paul.report.frames import METRICS, metric_labels, target_name

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PINK, SKY, YELLOW, GREY = "#CC79A7", "#56B4E9", "#F0E442", "#8A8A8A"
COLOURS = [BLUE, ORANGE, GREEN, PINK, SKY, RED, GREY, YELLOW]
OUTCOMES = {"holds": GREEN, "fails": RED, "open": GREY}
IN_PAPER = {"color": BLUE}
CONTROL = {"facecolor": "white", "edgecolor": BLUE, "hatch": "//"}
VERDICTS = {"supported": GREEN, "contradicted": RED, "inconclusive": GREY, "not run": GREY}
STYLE = {
    "figure.dpi": 110,
    "font.size": 10.5,  # a figure 9.6 inches wide is shown at 9 points, in a column of 800 pixels
    "axes.titlesize": 11.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.prop_cycle": plt.cycler(color=COLOURS),
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "figure.constrained_layout.use": True,
}


def words(label: str) -> str:
    """A row's label with its losses set as mathematics."""
    return label.replace("L_c", "$L_c$").replace("L_v", "$L_v$")


def drawn(function):
    """Draw in the book's style and close the figure, so that returning it is what shows it."""

    @functools.wraps(function)
    def styled(*args, **kwargs):
        with plt.rc_context(STYLE):
            figure = function(*args, **kwargs)
            plt.close(figure)
        return figure

    return styled


def save(figure, path) -> Path:
    """Write a figure as SVG, the same bytes for the same picture; makes the folder."""
    text = io.StringIO()
    with plt.rc_context({"svg.hashsalt": "paul"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    write_text(path, text.getvalue())
    return Path(path)


def show_image(axis, image, frame=None, title="", width=3.0) -> None:
    """One image [3, H, W] without ticks, in a coloured frame if one is given."""
    height, breadth = image.shape[-2:]
    axis.imshow(np.asarray(image).transpose(1, 2, 0), extent=(0, breadth, height, 0), interpolation="nearest")
    axis.set(xticks=[], yticks=[], xlim=(0, breadth), ylim=(height, 0))
    axis.set_title(title, fontsize=10, loc="center", pad=3)
    for spine in axis.spines.values():
        spine.set(visible=frame is not None, color=frame, linewidth=width)


def image_grid(rows: int, columns: int, image, scale: float = 0.9, gap: float = 0.2):
    """Axes [rows, columns] shaped like the image, `scale` inches wide each, `gap` inches for what stands above.

    Many columns are narrower: a figure of more than 9 inches is shrunk in the column of a page, and its text with it.
    """
    scale = min(scale, 9 / columns)
    height, breadth = image.shape[-2:]
    size = (scale * columns, rows * (scale * height / breadth + gap))
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    return figure, axes


def draw_on(axis, *args, **kwargs) -> None:
    axis.axis("on")
    show_image(axis, *args, **kwargs)


@drawn
def two_rows(above, below):
    """Images [n, 3, H, W] in a row, and below each of them what belongs to it."""
    figure, axes = image_grid(2, len(above), above[0], scale=0.92, gap=0.05)
    for line, pictures in zip(axes, (above, below), strict=True):
        for axis, picture in zip(line, pictures, strict=True):
            draw_on(axis, picture)
    return figure


def quadrilateral(theta, height: int, width: int) -> np.ndarray:
    """Corners [4, 2] (x, y in pixels) of the patch that theta [2, 3] cuts, the map's [-1, 1] laid over the image."""
    corners = np.array([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]], dtype=float)
    return (corners @ np.asarray(theta, dtype=float).T + 1) / 2 * [width, height]


def add_patch(axis, image, theta, colour, **kwargs) -> None:
    corners = quadrilateral(theta, *image.shape[-2:])
    axis.add_patch(Polygon(corners, closed=True, fill=False, edgecolor=colour, **{"linewidth": 1.8, **kwargs}))


@drawn
def contact_sheet(images, columns: int, titles=None):
    """Images [n, 3, H, W] in lines of `columns`, each under its title where there are some."""
    columns = min(columns, len(images))
    gap = 0.05 if titles is None else 0.2
    figure, axes = image_grid(-(-len(images) // columns), columns, images[0], scale=9.2 / max(columns, 8), gap=gap)
    for axis, image, title in zip(axes.flat, images, titles or [""] * len(images)):
        draw_on(axis, image, title=str(title))
    return figure


@drawn
def close_up(images: dict, distances):
    """As the paper's Fig. 1: an anchor between the same person and a stranger, and how far the two are from it.

    `images` are [3, H, W] under "anchor", "same person" and "stranger", cut into six by lines; `distances` is a frame
    with a column for each of the two and a line for each way to compare.
    """
    figure, axes = plt.subplots(1, 4, figsize=(9.2, 3.4), width_ratios=(1, 1, 1, 2.6))
    frames = {"same person": GREEN, "anchor": "black", "stranger": RED}
    for axis, (name, colour) in zip(axes, frames.items()):
        draw_on(axis, images[name], colour, name)
        for m in range(1, 6):
            axis.axhline(m * images[name].shape[1] / 6, color="white", linewidth=0.8)
    rows = np.arange(len(distances))
    for name, shift in (("same person", -0.2), ("stranger", 0.2)):
        axes[3].barh(rows + shift, distances[name], height=0.38, color=frames[name], label=name)
    axes[3].set(yticks=rows, yticklabels=distances.index, xlabel="distance to the anchor", ylim=(len(rows) - 0.4, -0.6))
    figure.legend(loc="outside lower right", ncols=2)
    return figure


@drawn
def patches_on_people(images, theta, titles=None, columns: int = 8):
    """Images [N, 3, H, W], each with its M patches theta [N, M, 2, 3] drawn on it, a colour per patch position."""
    theta = torch.as_tensor(theta).detach().cpu()
    rows = -(-len(images) // columns)
    gap = 0.05 if titles is None else 0.2
    figure, axes = image_grid(rows, min(columns, len(images)), images[0], scale=1.0, gap=gap)
    for place, (axis, image) in enumerate(zip(axes.flat, images, strict=False)):
        draw_on(axis, image, title=titles[place] if titles is not None else "")
        for m, patch in enumerate(theta[place]):
            add_patch(axis, image, patch, COLOURS[m % len(COLOURS)])
    return figure


@drawn
def ranked_list(queries, ranked, right, skipped=None, titles=None):
    """Queries [Q, 3, H, W], each before the first K of its gallery [Q, K, 3, H, W].

    `right` [Q, K] frames the right person green and ticked, the others red and crossed; where `skipped` [Q, K] is true
    (junk, or the query's own person and camera) the frame is grey and dashed: the evaluation leaves the image out.
    """
    right = np.asarray(right, dtype=bool)
    skipped = np.zeros_like(right) if skipped is None else np.asarray(skipped, dtype=bool)
    count, length = right.shape
    figure, axes = image_grid(count, length + 1, queries[0], scale=0.85)
    for q in range(count):
        draw_on(axes[q, 0], queries[q], "black", titles[q] if titles is not None else "query", width=2)
        rank = 0
        for k in range(length):
            rank += not skipped[q, k]
            if skipped[q, k]:
                draw_on(axes[q, k + 1], ranked[q][k], GREY, "left out")
                for spine in axes[q, k + 1].spines.values():
                    spine.set_linestyle(":")
            else:
                mark = "\N{CHECK MARK}" if right[q, k] else "\N{BALLOT X}"
                draw_on(axes[q, k + 1], ranked[q][k], GREEN if right[q, k] else RED, f"{rank} {mark}")
                axes[q, k + 1].title.set_color(GREEN if right[q, k] else RED)
    return figure


@drawn
def nearest_patches(images, theta, features, anchors, patch: int, count: int = 6, person_ids=None, among=None):
    """As the paper's Fig. 6: anchors, each before the `count` images whose patch lies nearest, the patch drawn on both.

    images [N, 3, H, W], theta [N, M, 2, 3], features [M, N, D] (an image is never its own neighbour); `anchors` are
    positions in N, and so are `among`, which may be neighbours (all, if left out). With person_ids [N], neighbours of
    the anchor's person are framed and ticked.
    """
    far = torch.full((len(images),), float("inf"))
    far[torch.arange(len(images)) if among is None else torch.as_tensor(among)] = 0
    features = torch.as_tensor(features).detach().cpu().float()[patch]
    theta = torch.as_tensor(theta).detach().cpu()[:, patch]
    figure, axes = image_grid(len(anchors), count + 1, images[0], scale=0.9)
    for line, anchor in zip(axes, anchors, strict=True):
        distance = (features - features[anchor]).norm(dim=1) + far
        distance[anchor] = float("inf")
        nearest = distance.argsort(stable=True)[:count].tolist()
        for axis, place in zip(line, [anchor, *nearest], strict=False):
            same = person_ids is not None and place != anchor and bool(person_ids[place] == person_ids[anchor])
            name = "anchor" if place == anchor else f"{distance[place]:.2f}" + (" \N{CHECK MARK}" if same else "")
            draw_on(axis, images[place], "black" if place == anchor else GREEN if same else None, name)
            add_patch(axis, images[place], theta[place], ORANGE, linewidth=2.2)
    return figure


PARTS = ("image", "backbone", "map", "PGN", "patches", "branches", "features", "L_c", "image feature", "L_v")
DIM = "#8F8F8F"


def inside(network, image) -> dict[str, torch.Tensor]:
    """What a PatchNet makes of one image [3, H, W] on its way, taken from its parts while they run in eval mode:

    map [C, h, w], theta [M, 2, 3], patches [M, h, w] (mean over channels), pooled [M, C], features [M, D].
    """
    seen, training = {}, network.training
    hooks = [
        getattr(network, name).register_forward_hook(
            lambda _, given, made, name=name: seen.update({name: (given[0].detach(), made.detach())})
        )
        for name in ("backbone", "generator", "branch")
    ]
    try:
        device = next(network.parameters()).device
        with torch.no_grad():
            features = network.eval()(normalize(unit_range(image[None].to(device)))).features
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    feature_map, theta = seen["backbone"][1].float(), seen["generator"][1].float()
    patches = sample_patches(feature_map.mean(1, keepdim=True), theta)
    tensors = {"map": feature_map[0], "theta": theta[0], "patches": patches[:, 0, 0]}
    tensors |= {"pooled": seen["branch"][0][:, 0], "features": features[:, 0]}
    return {name: tensor.float().cpu() for name, tensor in tensors.items()}


@drawn
def network_drawing(network, image, lit=PARTS):
    """As the paper's Fig. 2: a PatchNet from an image [3, H, W] to both losses, with the shapes of its own tensors.

    Of PARTS those not in `lit` are grey. Raises ValueError for a name that is none of them.
    """
    if unknown := set(lit) - set(PARTS):
        raise ValueError(f"no part of the network: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    made = inside(network, image)
    M, C, D = *made["pooled"].shape, made["features"].shape[1]
    figure, axis = plt.subplots(figsize=(9.2, 3.9))  # a tenth of an inch is the unit

    def shape(*sizes):
        return " \N{MULTIPLICATION SIGN} ".join(str(size) for size in sizes)

    def write(part, x, y, text):
        colour = "black" if part in lit else "#6E6E6E"
        axis.text(x, y, text, ha="center", va="center", fontsize=10, color=colour)

    def box(part, x, y, width, height, colour, text=""):
        colour = colour if part in lit else DIM
        style = {"boxstyle": "round,pad=0,rounding_size=0.6", "facecolor": colour + "30", "edgecolor": colour}
        axis.add_patch(FancyBboxPatch((x, y), width, height, linewidth=1.6, **style))
        if text:
            write(part, x + width / 2, y + height / 2, text)

    def picture(part, x, y, width, height, values, frame="black"):
        axis.imshow(np.asarray(values), extent=(x, x + width, y, y + height), cmap="viridis", aspect="auto",
                    alpha=1 if part in lit else 0.3)  # fmt: skip
        colour = frame if part in lit else DIM
        axis.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=colour, linewidth=1.2))

    def arrow(part, start, end, bend="arc3"):
        colour = "black" if part in lit else DIM
        style = {"arrowstyle": "-|>", "color": colour, "connectionstyle": bend, "shrinkA": 0, "shrinkB": 0}
        axis.annotate("", end, start, arrowprops=style)

    def named(part, x, name, size):
        write(part, x, 36.5, name)
        write(part, x, 10.5, size)

    middle, low, tall = 23.5, 13, 21
    picture("image", 0.5, middle - 8, 8, 16, image.permute(1, 2, 0))
    named("image", 4.5, "image", shape(*image.shape))
    arrow("backbone", (9, middle), (11.5, middle))
    box("backbone", 11.5, middle - 4, 9, 8, BLUE, "backbone")
    arrow("map", (20.5, middle), (23, middle))
    picture("map", 23, middle - 8, 8, 16, made["map"].mean(0))
    named("map", 27, "feature map", shape(*made["map"].shape))
    arrow("patches", (31.5, middle), (38.5, middle))
    write("patches", 35, middle + 1.6, "cut")
    box("PGN", 29, 1, 11, 5.5, ORANGE, "PGN")
    arrow("PGN", (27, 9), (28.5, 3.7), "angle,angleA=-90,angleB=180,rad=0")
    arrow("PGN", (40.5, 3.7), (42.5, 9), "angle,angleA=0,angleB=-90,rad=0")
    write("PGN", 48.5, 5.5, f"$\\theta$: {shape(*made['theta'].shape)}")
    named("patches", 42.5, "patches", f"{shape(M, C)}")
    write("branches", 53, 36.5, "branches")
    named("features", 64, "patch features", shape(M, D))
    step = tall / M
    for m in range(M):
        y, colour = low + tall - (m + 1) * step + 0.35, COLOURS[m % len(COLOURS)]
        height = step - 0.7
        picture("patches", 39, y, 7, height, made["patches"][m], colour)
        arrow("branches", (46.5, y + height / 2), (49.5, y + height / 2))
        box("branches", 49.5, y, 7, height, colour)
        arrow("features", (56.5, y + height / 2), (59.5, y + height / 2))
        picture("features", 59.5, y, 9, height, made["features"][m][None], colour)
        picture("image feature", 73, low + tall - (m + 1) * step, 4, step, made["features"][m][:, None], colour)
    arrow("image feature", (69, middle), (72.5, middle))
    write("image feature", 75, 10.5, str(M * D))
    write("image feature", 75, 8.2, "image feature")
    box("L_c", 72, 35, 19.5, 8, GREEN, f"memory bank\n{shape(M, 'N', D)}\n$L_c$: PEDAL")
    arrow("L_c", (64, 38), (71.5, 40.5), "angle,angleA=90,angleB=180,rad=0")
    arrow("L_v", (77.5, middle), (80, middle))
    box("L_v", 80, middle - 6, 11.5, 12, PINK, "cyclic\nranking\n$L_v$: IPFL")
    axis.set(xlim=(0, 92), ylim=(0, 44), aspect="equal")
    axis.axis("off")
    return figure


def walk(features, centers, owner, anchor: int, r: int = 3, include_self: bool = True, max_candidates: int = 15):
    """The steps of cyclic ranking for one anchor: (candidate, its list of r centres, taken as negative?) in order.

    features [A, D], centers [n, D], owner [A]; the last step is the negative unless the walk gave up (ledger 12).
    """
    features, centers = (torch.as_tensor(x).detach().cpu().double() for x in (features, centers))
    own, steps = int(owner[anchor]), []
    for candidate in (centers - features[anchor]).norm(dim=1).argsort(stable=True).tolist():
        if candidate == own:
            continue
        near = (centers - centers[candidate]).norm(dim=1).argsort(stable=True).tolist()
        near = [j for j in near if include_self or j != candidate][:r]
        steps.append((candidate, near, own not in near))
        if own not in near or len(steps) == max_candidates:
            break
    return steps


@drawn
def cyclic_walk(images, features, centers, owner, anchor: int, r: int = 3, include_self: bool = True,
                max_candidates: int = 15, person_ids=None):  # fmt: skip
    """The paper's Fig. 4 on a real batch: a line per candidate, nearest first, each with its own r nearest centres.

    images [n, 3, H, W] are the centres' images, features [A, D] the anchors, owner [A] each anchor's centre. The anchor
    is framed in blue wherever it appears: a candidate that lists it is passed over, the first that doesn't is the hard
    negative. With person_ids [n] the true relation stands under each candidate.
    """
    steps = walk(features, centers, owner, anchor, r, include_self, max_candidates)
    own = int(owner[anchor])
    width = max(len(near) for _, near, _ in steps)
    figure, axes = image_grid(len(steps), width + 3, images[0], scale=0.95, gap=0.36)
    draw_on(axes[0, 0], images[own], BLUE, "anchor")
    for number, (line, (candidate, near, taken)) in enumerate(zip(axes, steps, strict=True), 1):
        draw_on(line[1], images[candidate], RED if taken else GREY, f"candidate {number}")
        if person_ids is not None:
            same = bool(person_ids[candidate] == person_ids[own])
            line[1].set_xlabel("same person" if same else "someone else", fontsize=10, labelpad=2)
        for axis, place in zip(line[2:], near, strict=False):
            name = "anchor" if place == own else "itself" if place == candidate else ""
            draw_on(axis, images[place], BLUE if place == own else None, name)
        line[2].set_ylabel(f"its {len(near)} nearest", fontsize=10, labelpad=2)
        text = "hard negative:\nanchor not in its list" if taken else "may be the same\nperson: go on"
        line[-1].text(0, 0.5, text, transform=line[-1].transAxes, va="center", fontsize=10, color=RED if taken else "k")
    return figure


@drawn
def curves(records, quantities=("loss", "loss_c", "loss_v"), labels=None):
    """Loss per epoch from run records: a panel per quantity, a colour per row, a thin line per seed, their mean thick.

    `labels` maps row names to what the legend calls them; a row whose curve lacks a quantity is absent from its panel.
    """
    rows = list(dict.fromkeys(record["row"] for record in records))
    figure, axes = plt.subplots(1, len(quantities), figsize=(3.4 * len(quantities), 2.8), squeeze=False)
    for axis, quantity in zip(axes[0], quantities, strict=True):
        for place, row in enumerate(rows):
            lines = [
                [(point["epoch"], point[quantity]) for point in record["curve"] if point.get(quantity) is not None]
                for record in records
                if record["row"] == row
            ]
            lines = [np.array(line, dtype=float) for line in lines if line]
            for line in lines:
                axis.plot(*line.T, color=COLOURS[place % len(COLOURS)], linewidth=0.7, alpha=0.6)
            if lines and len({len(line) for line in lines}) == 1:
                axis.plot(*np.mean(lines, axis=0).T, color=COLOURS[place % len(COLOURS)], marker="o", markersize=3)
        axis.set(title=words(quantity.replace("loss_", "L_")), xlabel="epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
    names = [words((labels or {}).get(row, row)) for row in rows]
    handles = [Line2D([], [], color=COLOURS[place % len(COLOURS)]) for place in range(len(rows))]
    figure.legend(handles, names, loc="outside lower center", ncols=min(len(rows), 4))
    return figure


@drawn
def two_areas(points, ranks, areas):
    """Average precision of a list as the area under steps, and under straight lines.

    `points` are (recall, precision) before the first image and after each one, `ranks` the places of the right images,
    `areas` (step, trapezoid) stand in the titles.
    """
    recall, precision = np.array(points).T
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.1), sharey=True)
    axes[0].fill_between(recall, np.append(precision[1:], precision[-1]), step="post", color=BLUE, alpha=0.25)
    axes[1].fill_between(recall, precision, color=ORANGE, alpha=0.25)
    for axis, name, area in zip(axes, ("step", "trapezoid"), areas, strict=True):
        axis.plot(recall, precision, "o-", color=GREY, markersize=4, linewidth=1)
        axis.plot(recall[ranks], precision[ranks], "o", color=GREEN, markersize=8)
        for i, rank in enumerate(ranks, start=1):
            place = {"xytext": (-6, 7), "textcoords": "offset points", "ha": "right"}
            axis.annotate(f"{i}/{rank}", (recall[rank], precision[rank]), **place)
        axis.set(xlabel="recall", ylim=(0, 1.15), xlim=(0, 1.05), title=f"{name}: {area:.3f}")
    axes[0].set_ylabel("precision")
    return figure


@drawn
def mean_and_range(frame, x: str, columns):
    """Each of the `columns`, in percent, over column `x`: the mean of the rows that share an x, and their range."""
    figure, axis = plt.subplots(figsize=(7, 3))
    for column, colour in zip(columns, COLOURS):
        each = frame.groupby(x)[column]
        axis.plot(each.mean(), "o-", color=colour, label=column)
        axis.fill_between(each.mean().index, each.min(), each.max(), color=colour, alpha=0.15)
    axis.set(xlabel=x, ylabel="%", ylim=(0, None))
    axis.legend()
    return figure


@drawn
def learning_rates(stages: dict, share):
    """Learning rates over a stage, a panel for each: {title: {group: its rate at each of `share`}}, zeros left out."""
    figure, axes = plt.subplots(1, len(stages), figsize=(9.2, 2.9), sharey=True, squeeze=False)
    for axis, (title, groups) in zip(axes[0], stages.items(), strict=True):
        for (name, rates), dashes in zip(groups.items(), ("-", "--", "-."), strict=False):
            rates = np.asarray(rates, dtype=float)
            axis.plot(share, np.where(rates > 0, rates, np.nan), dashes, label=name.replace("_", " "))
        axis.set(yscale="log", xlabel="share of the stage", title=title)
        axis.legend(fontsize=10)
    axes[0, 0].set_ylabel("learning rate")
    return figure


@drawn
def per_query_ap(scores: dict):
    """Average precision query by query, in [0, 1], for each named model: sorted on the left, counted on the right."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3.0))
    for place, (name, values) in enumerate(scores.items()):
        values = np.sort(np.asarray(values, dtype=float))[::-1]
        colour = COLOURS[place % len(COLOURS)]
        left.plot((np.arange(len(values)) + 0.5) / len(values), values, color=colour, label=name)
        left.axhline(values.mean(), color=colour, linewidth=0.9, linestyle="--")
        right.hist(values, bins=np.linspace(0, 1, 21), histtype="step", linewidth=1.8, color=colour)
    left.set(title="sorted; dashed: its mean, mAP", xlabel="share of queries", ylabel="average precision", ylim=(0, 1))
    left.legend()
    right.set(title="how many queries", xlabel="average precision", ylabel="queries", xlim=(0, 1))
    return figure


@drawn
def table_bars(frame, profile: str, metric: str = "rank1"):
    """An ablation table (`paul.report.tables.ablation_table`) as bars with 95 % intervals, a panel per target.

    Rows that the paper prints are filled, controls hatched. Values belong to `profile` and to nothing else.
    """
    targets = list(dict.fromkeys(frame["target"]))
    rows = list(dict.fromkeys(frame["row"]))
    labels = frame.drop_duplicates("row").set_index("row")["label"].map(words)
    size = (3.8 * len(targets) + 1.5, 0.36 * len(rows) + 1.1)
    figure, axes = plt.subplots(1, len(targets), figsize=size, squeeze=False, sharex=True)
    for axis, target in zip(axes[0], targets, strict=True):
        part = frame[frame["target"] == target].set_index("row").reindex(rows)
        places = np.arange(len(rows))
        printed = part["in_paper"].fillna(False).astype(bool)
        axis.barh(places[printed], part.loc[printed, metric], height=0.68, **IN_PAPER)
        axis.barh(places[~printed], part.loc[~printed, metric], height=0.68, **CONTROL)
        errors = np.array([part[metric] - part[f"{metric}_low"], part[f"{metric}_high"] - part[metric]], dtype=float)
        errors = np.nan_to_num(errors)
        axis.errorbar(part[metric], places, xerr=errors, fmt="none", color="black", capsize=3, linewidth=1)
        axis.set(yticks=places, yticklabels=labels[rows] if axis is axes[0, 0] else [], xlabel=f"{METRICS[metric]}, %")
        axis.set_xlim(left=0)
        axis.set_title(target_name(target, profile))
        axis.invert_yaxis()
    handles = [plt.Rectangle((0, 0), 1, 1, **style) for style in (IN_PAPER, CONTROL)]
    figure.legend(handles, ["in the paper", "control, not in the paper"], loc="outside lower center", ncols=2)
    figure.suptitle(f"profile {profile}: mean over source seeds, 95 % interval", fontsize=10)
    return figure


@drawn
def ordering_lines(frame, profile: str, metric: str = "rank1"):
    """The paper's order of its rows on the left of each panel, ours on the right; crossing lines are a disagreement.

    Rows that share a place end in one point, their labels one below the other beside it.
    """
    frame = frame[frame["in_paper"]]
    targets = list(dict.fromkeys(frame["target"]))
    height = 0.38 * frame["row"].nunique() + 0.9
    figure, axes = plt.subplots(1, len(targets), figsize=(4.6 * len(targets), height), squeeze=False)
    for axis, target in zip(axes[0], targets, strict=True):
        part = frame[frame["target"] == target]
        positions = part[[f"paper_position_{metric}", f"position_{metric}"]]
        ends, texts = positions.rank().to_numpy(), positions.rank(method="first").to_numpy()
        for place, label in enumerate(part["label"].map(words)):
            axis.plot([0, 1], ends[place], color=COLOURS[place % len(COLOURS)], marker="o")
            axis.text(-0.05, texts[place, 0], label, ha="right", va="center", fontsize=10)
            axis.text(1.05, texts[place, 1], label, ha="left", va="center", fontsize=10)
        axis.set(xlim=(-1.3, 2.3), ylim=(len(part) + 0.5, 0.4), yticks=[], xticks=[0, 1])
        axis.set_xticklabels(["paper", f"ours ({profile})"])
        axis.set_title(f"{METRICS[metric].split()[0]}, best first: {target_name(target, profile)}", fontsize=10)
        axis.spines[["left", "bottom"]].set_visible(False)
        axis.tick_params(length=0)
    return figure


@drawn
def variant_curves(frame, profile: str, metric: str = "map_trapezoid"):
    """What an option does to the result (`paul.report.variants.variants_table` of "figure5"), a panel for each: the
    change against the value that is used, which stands at "x 1", with 95 % intervals, a line for each target."""
    option = frame["row"].str.split("_x").str[0]
    names = list(dict.fromkeys(option))
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    size = (2.6 * columns + 0.4, 2.3 * rows + 0.6)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, sharey=True)
    for axis, name in zip(axes.flat, names):
        part = frame[option == name]
        part = part.assign(factor=part["row"].str.split("_x").str[1].astype(float))
        factors = sorted({1.0, *part["factor"]})
        for place, (target, line) in enumerate(part.groupby("target", sort=False)):
            line = line.set_index("factor").reindex(factors)
            line.loc[1.0, f"{metric}_change"] = 0
            change, low, high = (line[f"{metric}_{end}"] for end in ("change", "low", "high"))
            errors = np.nan_to_num([change - low, high - change])
            x = np.arange(len(factors)) + 0.1 * (place - 0.5)
            axis.errorbar(x, change, yerr=errors, color=COLOURS[place], marker="o", capsize=3,
                          label=target_name(target, profile))  # fmt: skip
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set(xticks=range(len(factors)), title=name)
        axis.set_xticklabels([f"x {factor:g}" for factor in factors])
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    for axis in axes[:, 0]:
        axis.set_ylabel(f"{METRICS[metric].split()[0]}, change in points")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _against_border(line) -> tuple[float, float, float, list[float]]:
    """Mean and interval of a line of evidence, and where its borders are; a level is shown from its bound."""
    values = [line[name] for name in ("mean", "low", "high")]
    if line["kind"] == "level":
        bound = line["below"] if line["above"] is None else line["above"]
        return *(value - bound for value in values), [0.0]
    return *values, [-line["margin"], line["margin"]] if line["kind"] == "within" else [line["margin"]]


@drawn
def claims_panel(verdicts, labels=None):
    """Every comparison behind the verdicts (`paul.report.claims.judge_all`): mean difference, interval and its border.

    Green circles hold, red crosses point the other way, grey squares are undecided; a claim without runs has no marks.
    A target and metric that all of them share stand below the axis, once.
    """
    lines, borders, ticks, names = [], [], [], []
    place = 0
    for verdict in verdicts:
        evidence = [line for line in verdict["evidence"] if line["outcome"] != "missing"]
        names.append(f"{verdict['id']}  {verdict['verdict']}")
        ticks.append(place + max(len(evidence) - 1, 0) / 2)
        for line in evidence:
            lines.append((place, line))
            place += 1
        borders.append(place - 0.5 + (0 if evidence else 1))
        place = borders[-1] + 0.5
    figure, axis = plt.subplots(figsize=(9.2, 0.19 * place + 1.2))
    measured = {f"{line['target']} {metric_labels()[line['metric']].split()[0]}" for _, line in lines}
    shared = measured.pop() if len(measured) == 1 and len(lines) > 1 else ""
    for y, line in lines:
        colour = OUTCOMES[line["outcome"]]
        marker = {"holds": "o", "fails": "X", "open": "s"}[line["outcome"]]
        mean, low, high, borders = _against_border(line)
        axis.plot([low, high], [y, y], color=colour, linewidth=1.5)
        axis.plot(mean, y, marker=marker, color=colour, markersize=5)
        axis.plot(borders, [y] * len(borders), linestyle="none", marker="|", color="black", markersize=9)
        compared = [words((labels or {}).get(line[side], line[side])) for side in ("a", "b") if line[side]]
        name = " \N{MINUS SIGN} ".join(compared)
        text = name if shared else f"{name}, {line['target']} {metric_labels()[line['metric']].split()[0]}"
        axis.annotate(text, (1.01, y), xycoords=("axes fraction", "data"), fontsize=10, va="center")
    for border in borders[:-1]:
        axis.axhline(border, color="#DDDDDD", linewidth=0.8)
    axis.axvline(0, color="black", linewidth=0.8)
    unit = f"points ({shared})" if shared else "points"
    axis.set(yticks=ticks, ylim=(place - 0.5, -0.5), xlabel=f"{unit}, paired by seed or world; | is the border")
    axis.set_yticklabels(names)
    for tick, verdict in zip(axis.get_yticklabels(), verdicts, strict=True):
        tick.set_color(VERDICTS[verdict["verdict"]])
    axis.tick_params(axis="y", length=0)
    return figure
