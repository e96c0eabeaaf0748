"""What a page makes of an executed notebook: parameters once, set-up and plotting folded, figures with captions."""

import ast
import io
import re
from base64 import b64decode

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

from book.alone import alone
from book.dress import captions, dressed, folds, with_values
from book.pairs import read_chapter
from book.toc import ROOT, load_book
from paul import plots

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
PICTURE = {"image/png": PIXEL, "text/plain": "<Figure>"}


def pixels(data):
    with Image.open(io.BytesIO(data)) as picture:
        return picture.convert("RGBA").getpixel((0, 0))


def picture():
    return new_output("display_data", PICTURE)


def text(words, name="stdout"):
    return new_output("stream", name=name, text=words)


def notebook(*cells):
    return dressed(new_notebook(cells=list(cells)), "4")


def test_the_parameters_of_the_run_stand_in_the_cell_of_parameters_and_nowhere_else():
    parameters = new_code_cell('profile: str = "mini"\nk: int = 3', metadata={"tags": ["parameters"]})
    injected = new_code_cell("# Parameters\nprofile = 'it is \"x\"'\nk = 5", metadata={"tags": ["injected-parameters"]})
    page = notebook(parameters, injected)
    assert [cell.source for cell in page.cells] == ["profile: str = 'it is \"x\"'\nk: int = 5"]
    assert with_values('a: str = "b"\nc: int = 1', "a = 'd'") == 'a: str = "d"\nc: int = 1'


def test_captions_stand_at_the_head_of_a_cell_and_may_go_on():
    said, code = captions("#| caption: One\n#|   and the same.\n#| caption: Two.\nx = 1\n#| caption: no\n")
    assert said == ["One and the same.", "Two."] and code == "x = 1\n#| caption: no"
    assert captions("# a comment\nx") == ([], "# a comment\nx")


def test_each_figure_gets_its_number_its_caption_and_an_alt_text_and_nothing_is_lost():
    code = "#| caption: A curve of $L_c$.\n#| caption: A table.\nx"
    page = notebook(
        new_code_cell(code, outputs=[text("before"), picture(), text("between"), text("more"), picture()]),
        new_code_cell("y", outputs=[text("none")]),
        new_code_cell("#| caption: Again.\nz", outputs=[picture()]),
    )
    told = [cell.metadata.get("mystnb") for cell in page.cells if "mystnb" in cell.metadata]
    assert [one["figure"]["caption"] for one in told] == [
        "**Figure 4.1.** A curve of $L_c$.",
        "**Figure 4.2.** A table.",
        "**Figure 4.3.** Again.",
    ]
    assert [one["image"]["alt"] for one in told] == ["A curve of L_c.", "A table.", "Again."]
    outputs = [output for cell in page.cells for output in cell.outputs]
    assert [output.get("text", "picture") for output in outputs] == [
        *("before", "picture", "between", "more", "picture", "none", "picture")
    ]
    for cell in page.cells:
        assert "mystnb" not in cell.metadata or len(cell.outputs) == 1
        assert cell.source in ("x", "y", "z") or cell.metadata["tags"] == ["remove-input"]
    nbformat.validate(page)


def test_progress_and_empty_boxes_are_left_out_and_warnings_are_not():
    bar = new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "0%"})
    noise = text("training on cpu; 5 images\nwarning: old\n", "stderr")
    (cell,) = notebook(new_code_cell("x", outputs=[bar, text("\n\r"), noise, text("training on x", "stderr")])).cells
    assert [output.text for output in cell.outputs] == ["warning: old\n"]


@pytest.mark.parametrize(
    "code, folded",
    [
        ("import a\nfrom book.start import start\n\nstart(data_dir)\nx = 1", True),
        ("figure, axis = plt.subplots()\naxis.plot(x)\naxis.set(a=1)\nplt.show()", True),
        ("def loss(x):\n    y = x**2\n    z = y + 1\n    return z\n\n\nplt.plot(loss(2))", False),
        ("plt.plot(x)\nplt.show()", False),
        ("%time x", False),
    ],
)
def test_what_only_sets_up_or_draws_is_folded(code, folded):
    assert folds(code) == folded
    (cell,) = notebook(new_code_cell(code)).cells
    assert ("hide-input" in cell.metadata.get("tags", [])) == folded


def test_what_a_student_writes_is_never_folded():
    code = "figure, axis = plt.subplots()\naxis.plot(x)\naxis.set(a=1)\nplt.show()"
    (cell,) = notebook(new_code_cell(code, metadata={"tags": ["implement"]})).cells
    assert cell.metadata["tags"] == ["implement"]


def test_text_in_figures_is_large_enough_in_the_column_of_a_page():
    """Of 800 pixels at 110 a figure of 9.2 inches takes four fifths, and text of 10 points is read at 9."""
    sources = [*(ROOT / "book/chapters").glob("*.py"), ROOT / "paul/plots.py", ROOT / "paul/bench/plots.py"]
    for path in sources:
        text = path.read_text(encoding="utf-8")
        small = [size for size in re.findall(r"(?:fontsize|labelsize)=([\d.]+)", text) if float(size) < 10]
        wide = [width for width in re.findall(r"figsize=\(([\d.]+),", text) if float(width) > 9.5]
        assert not small and not wide, (path.name, small, wide)


class Shown(ast.NodeTransformer):
    """Code without what it writes into files and without the bodies of its functions."""

    def visit_Call(self, node):
        return ast.Constant(None) if getattr(node.func, "id", "") == "save" else self.generic_visit(node)

    def visit_FunctionDef(self, node):
        return None


def names_in(tree):
    return {node.id if isinstance(node, ast.Name) else getattr(node, "attr", "") for node in ast.walk(tree)}


@pytest.mark.parametrize("chapter", load_book().paired, ids=lambda chapter: chapter.slug)
def test_every_cell_of_a_chapter_that_makes_a_figure_says_what_it_shows(chapter):
    """A function that is marked as drawn makes one where it is called; the other ways are few."""
    ways = {"subplots", "image_grid", "roofline", "growth", "approximation", "picture"}
    ways |= {name for name, value in vars(plots).items() if hasattr(value, "__wrapped__")}
    made = 0
    for cell in read_chapter(chapter).cells:
        if cell.cell_type != "code" or cell.source.lstrip().startswith("%"):
            continue
        said, code = captions(cell.source)
        tree = ast.parse(code)
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        ways |= {node.name for node in functions if any("drawn" in names_in(one) for one in node.decorator_list)}
        if names_in(Shown().visit(tree)) & ways:
            assert said, f"{chapter.slug}: no caption for the figure of the cell that begins {code[:60]!r}"
            assert all(len(one) > 30 and one.endswith((".", "?")) for one in said), said
            made += 1
    assert made


def test_a_chapter_to_take_along_shows_figures_with_captions():
    page = alone(notebook(new_code_cell("#| caption: A < B.\nx", outputs=[picture()])), "T")
    (picture_in_it,) = re.findall(r'src="data:image/webp;base64,([^"]*)"', page)
    assert pixels(b64decode(picture_in_it)) == pixels(b64decode(PIXEL))
    assert 'alt="A &lt; B."' in page
    assert "<figcaption><b>Figure 4.1.</b> A &lt; B.</figcaption>" in page
