"""The book's pages: executed notebooks in, a folder of HTML out that needs no network to be read."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from html import escape
from pathlib import Path

import nbformat

from .alone import alone, as_webp
from .claims import claims_page, read_claims, verdicts_part
from .dress import dressed
from .front import badge, front_page
from .manifest import read_manifest, write_text
from .pairs import read_chapter
from .reference import linker, write_pages
from .toc import ROOT, Book, BookError, Chapter
from .trace import write_trace
from .widgets import with_widgets

SITE = Path(__file__).resolve().parent / "site"
PAGES = Path(__file__).resolve().parent / "pages"
COURSE = Path(__file__).resolve().parent / "course"  # its pages, in the order of their use
COURSE_PAGES = ("plan", "misconceptions", "ethics", "exam", "grading")
FUZZED = "<!-- fuzz.json -->"  # where a page shows what fuzzing came to
DOWNLOADS = """
<div class="run-line downloads">To take along: <a href="../downloads/{slug}.html" download>this chapter as one page</a>
that needs no network, and <a href="../downloads/{slug}.ipynb" download>the notebook as it ran</a></div>
"""


def build_site(book: Book, executed: Path, out: Path, results: Path = ROOT / "results") -> Path:
    """Make the pages in `out` and return its index.html.

    Raises BookError when no chapter has been executed or Sphinx fails.
    """
    executed, out = Path(executed).resolve(), Path(out).resolve()
    entries = read_manifest(executed / "manifest.json")["chapters"]
    if not any((executed / f"{chapter.slug}.ipynb").is_file() for chapter in book.chapters):
        raise BookError(f"no executed chapter in {executed}: start with 'python -m book run'")
    source = out.with_name(out.name + "-source")
    shutil.rmtree(source, ignore_errors=True)
    (source / "chapters").mkdir(parents=True)
    (source / "downloads").mkdir()
    shutil.copytree(PAGES, source / "pages")
    (source / "course").mkdir()
    for name in COURSE_PAGES:
        shutil.copyfile(COURSE / f"{name}.md", source / "course" / f"{name}.md")
    page = source / "pages" / "when_things_break.md"
    said = page.read_text(encoding="utf-8").replace(FUZZED, _fuzzed(Path(results) / "fuzz.json"))
    page.write_text(said, encoding="utf-8")
    for page in (source / "pages").iterdir():
        page.write_text(with_widgets(linker()(page.read_text(encoding="utf-8"))), encoding="utf-8")
    write_pages(book, source / "pages")
    pages = [chapter for chapter in book.chapters if _write_page(chapter, executed, entries.get(chapter.slug), source)]
    picture = Path(results) / "figures" / "contact.png"
    if picture.is_file():
        shutil.copyfile(picture, source / "contact.png")
    profile, judged = read_claims(entries, Path(results) / "claims.json")
    traced = write_trace(Path(results), profile, source / "pages", source / "downloads") if profile else set()
    if judged:
        (source / "pages" / "claims.md").write_text(claims_page(judged, profile, book, traced), encoding="utf-8")
    beside = sorted(page.stem for page in (source / "pages").glob("*.md"))
    front = front_page(book, pages, beside, COURSE_PAGES, entries, picture.is_file(), verdicts_part(judged, profile))
    (source / "index.md").write_text(front, encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-c", str(SITE), "-d", str(source / ".doctrees")]
    command += ["-D", f"html_extra_path={source / 'downloads'}"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    if subprocess.run([*command, str(source), str(out)], cwd=ROOT, env=environment, check=False).returncode:
        raise BookError(f"Sphinx couldn't make the pages from {source}; what it said is above")
    if picture.is_file():
        shutil.copyfile(picture, out / "card.png")
    _lighten(out)
    return out / "index.html"


def _lighten(out: Path) -> None:
    """Take out what no page loads, and give figures half their bytes: the pages are to be sent, too."""
    static = out / "_static"
    unread = [*static.rglob("*.map"), *(path for path in static.glob("mathjax/*.js") if path.name != "tex-chtml.js")]
    for path in unread:
        path.unlink()
    for path in (out / "_images").glob("*.png"):
        path.with_suffix(".webp").write_bytes(as_webp(path.read_bytes()))
        path.unlink()
    for page in [out / "index.html", *(out / "chapters").glob("*.html"), *(out / "pages").glob("*.html")]:
        text = page.read_text(encoding="utf-8")
        page.write_text(re.sub(r'(_images/[^"/]+)\.png"', r'\1.webp"', text), encoding="utf-8")


def _write_page(chapter: Chapter, executed: Path, entry: dict | None, source: Path) -> bool:
    """Put the executed notebook, or failing that the plain chapter, where Sphinx looks; False when there is neither."""
    path = executed / f"{chapter.slug}.ipynb"
    ran = path.is_file() and entry and entry["status"] in ("ran", "failed")
    if ran:
        notebook = nbformat.read(path, as_version=4)
    elif chapter.source.is_file():
        notebook = read_chapter(chapter)
    else:
        return False
    notebook = dressed(notebook, chapter.number.lstrip("0") or "0")
    first = notebook.cells[0]
    if first.cell_type != "markdown" or not first.source.startswith("# "):
        notebook.cells.insert(0, nbformat.v4.new_markdown_cell("# "))
    downloads = ""
    if ran:
        folder = source / "downloads" / "downloads"  # Sphinx copies what is in the first
        write_text(folder / f"{chapter.slug}.html", alone(notebook, chapter.title))
        shutil.copyfile(path, folder / f"{chapter.slug}.ipynb")
        downloads = DOWNLOADS.format(slug=chapter.slug)
    linked = linker()
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = with_widgets(linked(cell.source))
    _, _, rest = notebook.cells[0].source.partition("\n")  # one title on the page, in the sidebar and on the front page
    notebook.cells[0].source = f"# {chapter.number} {chapter.title}\n\n{_run_line(chapter, entry)}{downloads}\n{rest}"
    nbformat.write(notebook, source / "chapters" / f"{chapter.slug}.ipynb")
    return True


def _run_line(chapter: Chapter, entry: dict | None) -> str:
    """One line of HTML: what happened to the chapter, when, how long it took, on what, and how to do it again."""
    words = [badge(entry["status"] if entry else "unknown")]
    if entry and entry["status"] in ("ran", "failed"):
        commit = f"commit <code>{entry['commit'][:8]}</code>" if entry.get("commit") else ""
        if commit and entry.get("changed_since_commit"):
            commit += " and changes"
        again = f"<code>python -m book run --chapters {chapter.number} --profile {escape(entry['profile'])}</code>"
        when = entry["at"][:16].replace("T", " ") + " UTC"
        words += [f"profile {escape(entry['profile'])}", f"{entry['seconds']:.0f} s", when]
        words += [escape(entry["machine"]), commit, again]
    if entry and (entry.get("error") or entry.get("why")):
        words.append(escape(entry.get("error") or entry["why"]))
    return f'<div class="run-line">{" · ".join(word for word in words if word)}</div>\n'


def _fuzzed(path: Path) -> str:
    """What the last fuzzing of each reader came to, as a table; a sentence where none is recorded."""
    if not path.is_file():
        return "No run of it is recorded here."
    try:
        rows = [
            f"| {escape(reader)} | {last['contents']:,} | {last['minutes']:g} | {last['found']:,} "
            f"| {escape(last['by'])} | {escape(last['date'])} |"
            for reader, last in json.loads(path.read_text(encoding="utf-8")).items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BookError(f"{path}: no outcome of fuzzing ({error}); 'python -m tests.fuzz' makes it") from error
    return "\n".join(["| Reader | Contents tried | Minutes | Found | By | On |", "|---|---|---|---|---|---|", *rows])
