"""The widgets show paul's numbers, whole in one page and with a picture where no script runs."""

import json
import re
import shutil

import pytest

from book.widgets import NAMES, fragment, with_widgets
from tests.widgets import WIDGETS, loss, negative, run_script

needs_node = pytest.mark.skipif(not shutil.which("node"), reason="node runs the widgets' scripts, and isn't here")


def committed(name):
    return json.loads((WIDGETS / f"{name}.json").read_text(encoding="utf-8"))


def test_the_table_of_losses_is_pauls():
    for case in committed("pedal")["cases"]:
        assert case.pop("loss") == pytest.approx(loss(**case), abs=1e-8), case


def test_the_table_of_negatives_is_pauls():
    for case in committed("cyclic")["cases"]:
        assert case.pop("negative") == negative(**case), case


@needs_node
def test_the_circles_loss_is_pedals():
    cases = committed("pedal")["cases"]
    losses = run_script("pedal", "data.cases.map((state) => pedal({...data, ...state}).loss)")
    assert losses == pytest.approx([case["loss"] for case in cases], abs=1e-8)
    assert len({case["loss"] for case in cases}) > len(cases) / 2


@needs_node
def test_the_arrow_points_where_the_loss_falls():
    turned = "data.cases.map((state) => [pedal({...data, ...state}).turn, ...[1e-4, -1e-4].map((by) => "
    turned += "pedal({...data, ...state, angle: state.angle + by}).loss)])"
    for turn, ahead, behind in run_script("pedal", turned):
        slope = (ahead - behind) / (2e-4 * 3.141592653589793 / 180)
        assert -turn == pytest.approx(slope, abs=1e-4)


@needs_node
def test_the_walks_negative_is_cyclic_rankings():
    negatives = [case["negative"] for case in committed("cyclic")["cases"]]
    assert run_script("cyclic", "data.cases.map((state) => walk(state).negative)") == negatives
    assert -1 in negatives and len(set(negatives)) > 5


@needs_node
@pytest.mark.parametrize("name", NAMES)
def test_the_picture_without_a_script_is_the_first_one(name):
    still = (WIDGETS / f"{name}.html").read_text(encoding="utf-8").rstrip("\n")
    assert run_script(name, "draw(start(data))") == still, "write it anew with 'python -m tests.widgets'"


@pytest.mark.parametrize("name", NAMES)
def test_a_widget_loads_nothing_and_markdown_leaves_it_whole(name):
    page = with_widgets(f"before\n\n<!-- widget: {name} -->\n\nafter")
    box, script = page.split("\n\n<script>", 1)
    assert "\n\n" not in box.removeprefix("before\n\n") and "<svg" in box and 'class="said"' in box
    assert not re.search(r"(src|href|import|fetch)\s*[=(]|https?:", fragment(name))
    assert script.count("</script>") == 1 and script.endswith("\n\nafter")


@pytest.mark.parametrize(
    "name, chapter, page", [("pedal", "04_pedal", "pedals_circle"), ("cyclic", "05_ipfl", "cyclic_ranking")]
)
def test_a_widget_stands_in_its_chapter_and_on_a_page_that_the_chapter_links_to(name, chapter, page):
    book = WIDGETS.parent
    text = (book / "chapters" / f"{chapter}.py").read_text(encoding="utf-8")
    assert text.count(f"# <!-- widget: {name} -->") == 1 and f"(../pages/{page}.md)" in text
    assert (book / "pages" / f"{page}.md").read_text(encoding="utf-8").count(f"<!-- widget: {name} -->") == 1
