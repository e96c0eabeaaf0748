"""The pages: what a chapter said is on them, nothing is fetched from a network; and the whole book runs at smoke."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from book.build import build_site
from book.game import ROUNDS
from book.quickstart import quickstart
from book.run import run_book
from book.toc import ROOT, BookError, load_book

CHAPTER = """# %% [markdown]
# # All that a page can hold
#
# The equation $x^2$, and
#
# $$ \\sum_i x_i $$
#
# > **The paper.** A statement.

# %% tags=["parameters"]
profile: str = "mini"

# %%
import matplotlib.pyplot as plt
import pandas as pd
plt.plot([1, 2])
plt.show()
print("\\n\\r", end="")
pd.DataFrame({"Rank-1": [41.5]})
"""
BROKEN = "# %% [markdown]\n# # A broken chapter\n\n# %%\nraise ValueError('<b>too few</b> people')\n"


class Fetched(HTMLParser):
    """Addresses that a browser loads by itself, and the links that a reader may follow."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.links = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "a":
            self.links.append(attributes.get("href") or "")
        else:
            self.loads += [attributes[key] for key in ("src", "href", "data", "srcset") if attributes.get(key)]


def check_offline(site):
    """Every file that a page or a style sheet loads is there, and none comes from elsewhere."""
    pages = [page for page in site.rglob("*.html") if "_static" not in page.relative_to(site).parts]
    assert pages
    for page in pages:
        for address in Fetched(page.read_text(encoding="utf-8")).loads:
            assert not re.match(r"(https?:)?//", address), f"{page.name} loads {address}"
            if not address.startswith(("data:", "#")):
                assert (page.parent / re.split("[?#]", address)[0]).exists(), f"{page.name}: no {address}"
    for sheet in site.rglob("*.css"):
        elsewhere = re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//[^)\s]*", sheet.read_text(encoding="utf-8"))
        assert not elsewhere, f"{sheet.name} loads {elsewhere}"


def check_inner_links(site):
    """Every link to ledger, glossary or another of the site's pages leads somewhere, its anchor included."""
    pages = {page: page.read_text(encoding="utf-8") for page in site.rglob("*.html") if "_static" not in page.parts}
    anchors = {page.resolve(): set(re.findall(r'\bid="([^"]+)"', text)) for page, text in pages.items()}
    for page, text in pages.items():
        for link in Fetched(text).links:
            file, _, anchor = link.partition("#")
            target = (page.parent / file).resolve() if file else page.resolve()
            if not re.match(r"\w+:", link) and target in anchors:
                assert not anchor or anchor in anchors[target], f"{page.name}: {link}"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    (folder / "chapters").mkdir()
    toml = '[book]\ntitle = "A small book"\ncell_seconds = 60\n'
    for slug, text in {"00_whole": CHAPTER, "01_broken": BROKEN, "02_after": CHAPTER}.items():
        (folder / "chapters" / f"{slug}.py").write_text(text)
        toml += f'[[chapter]]\nslug = "{slug}"\ntitle = "Title of {slug}"\nteaches = "Lesson of {slug}."\n'
    (folder / "book.toml").write_text(toml + 'after = ["01_broken"]\n')
    book = load_book(folder / "book.toml")
    run_book(book, results=folder / "results", out=folder / "out", keep_going=True, say=lambda *_, **__: None)
    claim = {"id": "C3", "text": "Patches < images.", "where": "Table 3", "verdict": "not run"}
    claim |= {"sentence": "Nothing measures it.", "evidence": []}
    (folder / "results" / "claims.json").write_text(json.dumps({"mini": [claim], "gpu": [claim | {"id": "C4"}]}))
    build_site(book, folder / "out", folder / "build" / "site", folder / "results")
    return folder / "build" / "site"


def read(site, page):
    return (site / page).read_text(encoding="utf-8")


def test_nothing_is_fetched_from_a_network(site):
    check_offline(site)


def test_math_is_typeset_by_a_script_that_is_shipped(site):
    page = read(site, "chapters/00_whole.html")
    script = next(address for address in Fetched(page).loads if "mathjax" in address)
    assert (site / "chapters" / script.split("?")[0]).stat().st_size > 100_000
    assert r"\(x^2\)" in page and r"\sum_i x_i" in page


def test_a_page_shows_figure_table_quotation_and_how_it_ran(site):
    page = read(site, "chapters/00_whole.html")
    assert "41.5" in page and "<blockquote>" in page and 'src="../_images/' in page
    assert "status-ran" in page and "python -m book run --chapters 00 --profile mini" in page


def test_a_page_has_no_empty_box(site):
    assert not re.search(r"<pre>(<span></span>)?\s*</pre>", read(site, "chapters/00_whole.html"))


def test_a_page_can_be_downloaded_as_a_notebook(site):
    links = Fetched(read(site, "chapters/00_whole.html")).links
    notebook = next(link for link in links if link.endswith(".ipynb"))
    cells = json.loads((site / "chapters" / notebook).read_text())["cells"]
    assert any(cell.get("outputs") for cell in cells)


def test_a_failed_chapter_says_so(site):
    page = read(site, "chapters/01_broken.html")
    assert "status-failed" in page and "ValueError: &lt;b&gt;too few&lt;/b&gt; people" in page
    assert "Traceback" in page


def test_the_front_page_lists_every_chapter_with_its_lesson_and_status(site):
    page = read(site, "index.html")
    for slug, status in {"00_whole": "ran", "01_broken": "failed", "02_after": "skipped"}.items():
        card = re.search(rf'<a class="chapter"[^>]*href="chapters/{slug}.html">.*?</a>', page, re.DOTALL).group()
        assert f"Title of {slug}" in card and f"Lesson of {slug}." in card and f"status-{status}" in card


def test_the_front_page_shows_the_verdicts_of_the_profile_that_ran(site):
    page = read(site, "index.html")
    assert '<a href="pages/claims.html#claim-c3">C3</a>' in page and "Patches &lt; images." in page
    assert "verdict-not-run" in page and "claim-c4" not in page
    assert 'id="claim-c3"' in read(site, "pages/claims.html")


def test_page_sidebar_and_tab_agree_on_a_chapters_title(site):
    page = read(site, "chapters/00_whole.html")
    assert re.search(r"<h1>00 Title of 00_whole<", page) and "<title>00 Title of 00_whole " in page
    assert re.search(r'href="chapters/00_whole.html">\s*00 Title of 00_whole', read(site, "index.html"))


def test_a_link_to_a_page_can_be_shown_as_a_card(site):
    tags = dict(re.findall(r'<meta property="og:(\w+)" content="([^"]*)">', read(site, "index.html")))
    assert tags["title"] and tags["description"] and "image" not in tags  # these results have no picture


def test_pages_link_to_the_previous_and_the_next_and_can_be_searched(site):
    links = Fetched(read(site, "chapters/01_broken.html")).links
    assert "00_whole.html" in links and "02_after.html" in links
    assert (site / "search.html").exists() and "statement" in read(site, "searchindex.js")


def test_nothing_to_show_is_an_error(tmp_path):
    with pytest.raises(BookError, match="no executed chapter"):
        build_site(load_book(), tmp_path, tmp_path / "site")


# --- the whole book ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smoke")
    command = [
        sys.executable,
        "-m",
        "book",
        "run",
        "--profile",
        "smoke",
        "--keep-going",
        "--jobs",
        "2",
        "-p",
        "seeds=0-1",
        "-p",
        "adapt_seeds=",
    ]
    for option in ("data", "results", "out"):
        command += [f"--{option}", str(folder / option)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return folder, done


def test_the_whole_book_runs_at_smoke(smoke):
    folder, done = smoke
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    told = {slug: entry.get("error") or entry.get("why") for slug, entry in manifest["chapters"].items()}
    assert done.returncode == 0, (told, done.stderr[-2000:])
    assert [entry["status"] for entry in manifest["chapters"].values()] == ["ran"] * len(load_book().chapters)


def test_the_quick_start_runs_on_the_same_people(smoke):
    folder, _ = smoke
    page = quickstart(load_book(), folder / "data", folder / "quick", say=lambda *_, **__: None)
    assert page.read_text(encoding="utf-8").count('src="data:image/webp;base64,') == 2


def test_the_whole_book_makes_tables_verdicts_and_pages(smoke):
    folder, _ = smoke
    report = [sys.executable, "-m", "paul", "report", "--profile", "smoke", "--results", str(folder / "results")]
    subprocess.run(report, cwd=ROOT, check=True, capture_output=True)
    tables = {path.name for path in (folder / "results" / "tables" / "smoke").iterdir()}
    assert {f"table{number}.{kind}" for number in (1, 2, 3, 4) for kind in ("csv", "md")} <= tables
    index = build_site(load_book(), folder / "out", folder / "site", folder / "results")
    check_offline(index.parent)
    front = read(index.parent, "index.html")
    assert "claims.html#claim-c10" in front and front.count("data-right") == ROUNDS
    check_inner_links(index.parent)
    for page in (index.parent / "chapters").glob("*.html"):
        alts = re.findall(r'<img alt="([^"]*)"[^>]* src="\.\./_images', page.read_text(encoding="utf-8"))
        assert not [alt for alt in alts if len(alt) < 30 or alt.endswith((".png", ".webp"))], page.name
        cells = json.loads((folder / "out" / f"{page.stem}.ipynb").read_text())["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        assert len(alts) == sum(any(kind.startswith("image/") for kind in one.get("data", {})) for one in outputs)
    for chapter in load_book().chapters:
        assert "status-ran" in read(index.parent, f"chapters/{chapter.slug}.html")
