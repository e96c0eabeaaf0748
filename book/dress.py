"""An executed notebook as a reader sees it: parameters as they were, set-up and plotting folded, figures with captions.

A cell that makes a figure says what it shows in its first lines, one caption a figure:

    #| caption: Lengths of entries after each visit: the median, and 5 to 95 % of them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from nbformat import NotebookNode, v4

CAPTION = "#| caption: "
DRAWING = {"plt", "figure", "axis", "axes", "left", "right", "image_grid", "draw_on", "show_image", "save"}
PROGRESS = "application/vnd.jupyter.widget-view+json"
SAID = re.compile(r"^training on .*\n?", re.MULTILINE)  # where a training's images are: news while it runs


def captions(source: str) -> tuple[list[str], str]:
    """The captions at a cell's head, and the code below them; a line that goes on begins with '#|' and spaces."""
    lines, found = source.splitlines(), []
    while lines and lines[0].startswith("#| "):
        line = lines.pop(0)
        if line.startswith(CAPTION):
            found.append(line.removeprefix(CAPTION).strip())
        elif found:
            found[-1] += " " + line.removeprefix("#|").strip()
    return found, "\n".join(lines)


def shows_figure(output: NotebookNode) -> bool:
    """Whether an output is a picture."""
    return any(kind.startswith("image/") for kind in output.get("data", {}))


def folds(source: str) -> bool:
    """Whether a cell sets up, or only draws: `start` is called, or most of its lines are about axes."""
    try:
        body = ast.parse(source).body
    except SyntaxError:  # a magic line
        return False
    drawing = total = 0
    for statement in body:
        names = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
        if "start" in names and isinstance(statement, ast.Expr):
            return True
        lines = statement.end_lineno - statement.lineno + 1
        total += lines
        drawing += lines if names & DRAWING else 0
    return total > 3 and drawing > 0.75 * total


def with_values(source: str, injected: str) -> str:
    """The cell of parameters with the values of this run in the place of its own."""
    values = {
        node.targets[0].id: ast.unparse(node.value)
        for node in ast.parse(injected).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    lines = source.splitlines()
    for node in ast.parse(source).body:
        if isinstance(node, ast.AnnAssign) and node.target.id in values:
            kind = ast.unparse(node.annotation)
            lines[node.lineno - 1] = f"{node.target.id}: {kind} = {_quoted(values[node.target.id])}"
    return "\n".join(lines)


def _quoted(value: str) -> str:
    """As chapters write it: text in double quotes."""
    return f'"{value[1:-1]}"' if value.startswith("'") and '"' not in value else value


def dressed(notebook: NotebookNode, number: str) -> NotebookNode:
    """A copy of a chapter's notebook for its page; its figures are called `number`.1, `number`.2 and so on."""
    tagged = {tag: cell for cell in notebook.cells for tag in cell.metadata.get("tags", [])}
    injected = tagged["injected-parameters"].source if "injected-parameters" in tagged else ""
    cells, count = [], 0
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if {"papermill-error-cell-tag", "injected-parameters"} & set(tags):
            continue  # the line under the title says what failed
        cell = NotebookNode({**cell, "metadata": NotebookNode({"tags": list(tags)} if tags else {})})
        cells.append(cell)
        if cell.cell_type != "code":
            continue
        said, cell.source = captions(cell.source)
        if "parameters" in tags:
            cell.source = with_values(cell.source, injected)
        if "implement" not in tags and folds(cell.source):
            cell.metadata["tags"] = [*dict.fromkeys([*tags, "hide-input"])]
        parts = list(_parts(cell.outputs))
        cell.outputs = parts[0] if parts else []
        cells += [_more(cell, place, part) for place, part in enumerate(parts[1:], 1)]
        for part in cells[len(cells) - max(len(parts), 1) :]:
            if said and any(map(shows_figure, part.outputs)):
                count += 1
                text = said.pop(0) if len(said) > 1 else said[0]
                part.metadata["mystnb"] = {
                    "figure": {"caption": f"**Figure {number}.{count}.** {text}"},
                    "image": {"alt": text.replace("$", "").replace("`", "")},
                }
    about = {key: value for key, value in notebook.metadata.items() if key in ("kernelspec", "language_info")}
    return v4.new_notebook(cells=cells, metadata=about)


def _parts(outputs: list[NotebookNode]) -> Iterator[list[NotebookNode]]:
    """Outputs without progress and empty boxes, a figure by itself, what stands between two figures together."""
    kept: list[NotebookNode] = []
    for output in outputs:
        if PROGRESS in output.get("data", {}):
            continue
        if output.get("name") == "stderr":
            output = NotebookNode({**output, "text": SAID.sub("", output["text"])})
        if not output.get("text", "shown").strip():
            continue
        if kept and (shows_figure(output) or shows_figure(kept[-1])):
            yield kept
            kept = []
        kept = [*kept, output]
    if kept:
        yield kept


def _more(cell: NotebookNode, place: int, outputs: list[NotebookNode]) -> NotebookNode:
    """A cell of further outputs, its code shown by the one before it."""
    return v4.new_code_cell(
        "# as above",  # myst-nb passes over a cell without code
        id=f"{cell.id}-{place}", metadata={"tags": ["remove-input"]}, outputs=outputs,
        execution_count=cell.execution_count,
    )  # fmt: skip
