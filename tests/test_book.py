"""The driver on small throw-away chapters, and the pairs."""

import ast
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import nbformat
import pytest

from book import pairs
from book.__main__ import main
from book.costs import write_costs
from book.manifest import read_manifest, write_text
from book.pack import pack
from book.quickstart import quickstart
from book.run import locked, run_book
from book.start import own_world, rendering, start, validation_people
from book.toc import ROOT, BookError, load_book
from paul.experiments.profiles import PROFILES
from tests.people import write_set, write_study

TOML = """
[book]
title = "A small book"
cell_seconds = 60
"""
PARAMETERS = '# %% tags=["parameters"]\nprofile: str = "mini"\nk: int = 3\n'


@pytest.fixture
def small(tmp_path):
    """small(slug=(code, toml lines)) writes a book of such chapters and returns a function that runs it."""

    def write(**chapters):
        toml = TOML
        (tmp_path / "chapters").mkdir(exist_ok=True)
        for slug, (code, lines) in chapters.items():
            toml += f'\n[[chapter]]\nslug = "{slug}"\ntitle = "Title of {slug}"\n{lines}\n'
            (tmp_path / "chapters" / f"{slug}.py").write_text(f"# %% [markdown]\n# # {slug}\n\n{code}\n")
        (tmp_path / "book.toml").write_text(toml)
        book = load_book(tmp_path / "book.toml")

        def run(**options):
            said = []
            options = {"data": tmp_path / "data", "results": tmp_path / "results", "out": tmp_path / "out"} | options
            status = run_book(book, say=lambda *words, **_: said.append(" ".join(words)), **options)
            return status, json.loads((options["out"] / "manifest.json").read_text()), "\n".join(said)

        run.book = book
        return run

    return write


def outputs(notebook):
    cells = [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    return "".join(part.get("text", "") for cell in cells for part in cell.outputs)


def test_a_chapter_runs_from_the_root_with_this_python_and_its_parameters(small, tmp_path):
    code = PARAMETERS + "# %%\nimport os, sys, paul\nprint(profile, k, os.getcwd(), sys.executable)"
    status, manifest, said = small(a=(code, ""))(profile="smoke", asked={"k": "5"})
    assert status == 0
    assert outputs(tmp_path / "out" / "a.ipynb") == f"smoke 5 {ROOT} {sys.executable}\n"
    entry = manifest["chapters"]["a"]
    assert entry["status"] == "ran" and entry["profile"] == "smoke" and entry["seconds"] > 0
    assert entry["parameters"] == {"profile": "smoke", "k": 5}
    assert manifest["status"] == "complete" and "a" in said
    assert json.loads((tmp_path / "results" / "manifest.json").read_text()) == manifest


def test_figures_are_drawn_inline(small, tmp_path):
    small(a=("# %%\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()", ""))()
    cell = nbformat.read(tmp_path / "out" / "a.ipynb", as_version=4).cells[-1]
    assert any("image/png" in part.get("data", {}) for part in cell.outputs)


def test_a_failure_stops_the_run_and_is_named(small):
    run = small(a=("# %%\nraise ValueError('too few people')", ""), b=("# %%\n1", ""))
    status, manifest, said = run()
    entries = manifest["chapters"]
    assert status == 1 and manifest["status"] == "failed"
    assert entries["a"]["status"] == "failed" and entries["a"]["error"] == "ValueError: too few people"
    assert entries["a"]["cell"] == 1
    assert entries["b"]["status"] == "skipped" and "a failed" in entries["b"]["why"]
    assert "too few people" in said


def test_keep_going_skips_only_what_depends_on_the_failure(small):
    fine = "# %%\n1"
    run = small(a=("# %%\n1 / 0", ""), b=(fine, 'after = ["a"]'), c=(fine, 'after = ["b"]'), d=(fine, ""))
    status, manifest, _ = run(keep_going=True)
    assert status == 1
    assert {slug: entry["status"] for slug, entry in manifest["chapters"].items()} == {
        "a": "failed",
        "b": "skipped",
        "c": "skipped",
        "d": "ran",
    }
    assert "comes after a, which failed" in manifest["chapters"]["b"]["why"]
    assert "comes after b, which was skipped" in manifest["chapters"]["c"]["why"]


def at_once(tmp_path):
    """Code of a cell that says when it began and ended, and how many others it found under way."""
    return (
        f"# %%\nimport pathlib, time, os\nfolder = pathlib.Path({str(tmp_path)!r})\n"
        "mine = folder / f'{os.getpid()}.on'\nmine.touch()\ntime.sleep(2)\n"
        "print(len(list(folder.glob('*.on'))) - 1)\nmine.unlink()"
    )


def test_two_chapters_run_at_once_but_for_those_that_wait_or_are_to_run_alone(small, tmp_path):
    code = at_once(tmp_path)
    meets = f"# %%\nimport pathlib, time\nfolder = pathlib.Path({str(tmp_path)!r})\n(folder / '{{}}').touch()\n"
    meets += "while not (folder / '{}').exists():\n    time.sleep(0.1)"
    run = small(
        a=(meets.format("one", "two"), ""),
        b=(meets.format("two", "one"), ""),
        c=("# %%\n1 / 0", 'waits = ["b"]'),
        d=(code, 'waits = ["c"]'),
        e=(code, 'after = ["d"]'),
        f=(code, "alone = true"),
        g=(code, 'waits = ["e"]'),
        h=("# %%\n1", 'after = ["c"]'),
    )
    status, manifest, said = run(keep_going=True, jobs=2)
    entries = manifest["chapters"]
    assert status == 1 and {slug for slug in entries if entries[slug]["status"] != "ran"} == {"c", "h"}
    assert list(entries) == list("abcdefgh") and entries["h"]["why"] == "comes after c, which failed"
    assert [outputs(tmp_path / "out" / f"{slug}.ipynb") for slug in "def"] == ["0\n"] * 3
    assert entries["a"]["machine"].endswith(", 2 chapters at once")
    assert " 1/8  a  begins" in said and " 3/8  c  failed" in said
    assert run(jobs=2)[1]["chapters"]["h"]["why"] == "c failed, and --keep-going wasn't given"


def test_a_process_of_chapters_that_dies_fails_them(small):
    status, manifest, _ = small(a=("# %%\nimport os, signal\nos.kill(os.getppid(), signal.SIGKILL)", ""))(jobs=2)
    assert status == 1 and "its process died" in manifest["chapters"]["a"]["error"]


def test_a_cell_that_takes_too_long_fails_its_chapter(small):
    status, manifest, _ = small(a=("# %%\nimport time\ntime.sleep(60)", "cell_seconds = 1"))()
    assert status == 1 and "longer than 1 s" in manifest["chapters"]["a"]["error"]


def test_a_dead_kernel_fails_its_chapter(small):
    status, manifest, _ = small(a=("# %%\nimport os\nos._exit(1)", ""))()
    assert status == 1 and "kernel died" in manifest["chapters"]["a"]["error"]


@pytest.mark.parametrize(
    "asked, message", [({"kk": "5"}, "a takes profile, k; b takes none"), ({"k": "many"}, "a: k wants int, not 'many'")]
)
def test_parameters_that_no_chapter_takes_are_refused_before_anything_runs(small, tmp_path, asked, message):
    run = small(a=(PARAMETERS, ""), b=("# %%\n1", ""))
    with pytest.raises(BookError, match=message):
        run(asked=asked)
    assert not (tmp_path / "out").exists()


def test_a_target_that_the_profile_has_not_is_refused_before_anything_runs(small, tmp_path):
    run = small(a=('# %% tags=["parameters"]\ntarget: str = "market"\n', ""))
    with pytest.raises(BookError, match="-p target=../../etc: unknown target '../../etc'; there are market, duke"):
        run(asked={"target": "../../etc"})
    assert not (tmp_path / "out").exists()


def test_a_wrong_parameter_in_book_toml_is_refused(small):
    with pytest.raises(BookError, match="a has no parameter 'kk'; it takes profile, k"):
        small(a=(PARAMETERS, "parameters = {kk = 1}"))()


def test_a_listed_chapter_that_does_not_exist_is_named(small, tmp_path):
    run = small(a=("# %%\n1", ""))
    (tmp_path / "chapters" / "a.py").unlink()
    with pytest.raises(BookError, match="a.py doesn't exist"):
        run()


def test_running_one_chapter_keeps_what_is_known_of_the_others(small):
    run = small(a=("# %%\n1", ""), b=("# %%\n1 / 0", 'after = ["a"]'))
    run(chapters="a")
    _, manifest, _ = run(chapters="b")
    assert [entry["status"] for entry in manifest["chapters"].values()] == ["ran", "failed"]


def test_what_needs_a_gpu_is_skipped_without_one(small, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    status, manifest, _ = small(a=("# %%\n1", 'needs = ["gpu"]'))()
    assert status == 1 and "needs a GPU" in manifest["chapters"]["a"]["why"]


def test_what_needs_data_is_skipped_when_rendering_fails(small, monkeypatch):
    monkeypatch.setattr("book.run.make_data", lambda data, profile: "no data: the disk is full")
    run = small(a=("# %%\n1", 'needs = ["data"]'), b=("# %%\n1", ""))
    _, manifest, _ = run()
    assert manifest["chapters"]["a"]["why"] == "no data: the disk is full"
    assert manifest["chapters"]["b"]["status"] == "ran"


def test_two_runs_cannot_write_the_same_folder(small, tmp_path):
    run = small(a=("# %%\n1", ""))
    with locked(tmp_path / "out"), pytest.raises(BookError, match="another run"):
        run()
    assert run()[0] == 0


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupt_leaves_a_whole_manifest_and_no_kernel(small, tmp_path, jobs):
    begins = f"# %%\nimport os, pathlib, time\nmark = pathlib.Path({str(tmp_path / 'begun')!r})\n"
    begins += "mark.with_suffix('.half').write_text(str(os.getpid()))\nos.rename(mark.with_suffix('.half'), mark)\n"
    begins += "time.sleep(600)"
    small(a=("# %%\n1", ""), b=(begins, 'after = ["a"]'))
    code = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background is born deaf to it
from pathlib import Path
from book.run import run_book
from book.toc import load_book
folder = Path({str(tmp_path)!r})
if __name__ == "__main__":
    sys.exit(run_book(load_book(folder / "book.toml"), results=folder / "results", out=folder / "out", jobs={jobs}))
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    wait_for((tmp_path / "begun").exists)
    kernel = int((tmp_path / "begun").read_text())
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    wait_for(lambda: not alive(kernel))
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert process.returncode == 130 and "interrupted" in said
    assert manifest["status"] == "interrupted"
    a, b = manifest["chapters"].values()
    assert a["status"] == "ran"
    assert b["status"] == "skipped" and b["why"] == "the run was interrupted"


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "manifest.json"
    write_text(path, "whole")

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError):
        write_text(path, "half")
    assert path.read_text() == "whole" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"5",
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"chapters": 3}',
        b"{}",
        b'{"chapters": {"a": [], "b": {}, "c": {"status": "ran"}, "d": {"status": "failed", "error": 3}}}',
        b'{"chapters": {"a": {"status": "ran", "profile": "mini", "machine": "m", "at": 5, "seconds": 1}}}',
    ],
)
def test_what_is_no_manifest_or_no_whole_entry_counts_as_none(content, small, tmp_path):
    run = small(a=("# %%\n1", ""))
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(BookError, match="no chapter that ran"):
        write_costs(run.book, tmp_path / "manifest.json")
    assert not read_manifest(tmp_path / "manifest.json")["chapters"]


def test_measured_costs_come_from_the_manifest(small, tmp_path):
    run = small(a=("# %%\n1", ""), b=("# %%\n1 / 0", ""))
    _, manifest, _ = run(keep_going=True)
    assert write_costs(run.book, tmp_path / "out" / "manifest.json") == ["mini/a"]
    once = (tmp_path / "book.toml").read_text()
    book = load_book(tmp_path / "book.toml")
    assert book.measured["mini"]["seconds"] == {"a": manifest["chapters"]["a"]["seconds"]}
    assert book.measured["mini"]["machine"] == manifest["chapters"]["a"]["machine"]
    write_costs(book, tmp_path / "out" / "manifest.json")
    assert (tmp_path / "book.toml").read_text() == once


@pytest.mark.parametrize(
    "toml, message",
    [
        ('[[chapter]]\nslug = "a"\ntitle = "A"\nafter = ["b"]', "no earlier chapter"),
        ('[[chapter]]\nslug = "a"\ntitle = "A"\nneeds = ["luck"]', "needs 'luck'"),
        ('[[chapter]]\nslug = "a"\ntitle = "A"\n[[chapter]]\nslug = "a"\ntitle = "A"', "listed twice"),
    ],
)
def test_book_toml_is_checked(tmp_path, toml, message):
    (tmp_path / "book.toml").write_text(TOML + toml)
    with pytest.raises(BookError, match=message):
        load_book(tmp_path / "book.toml")


def test_chapters_are_chosen_by_number_or_name_in_the_books_order():
    book = load_book()
    assert [chapter.slug for chapter in book.select("05_ipfl,03")] == ["03_patchnet", "05_ipfl"]
    with pytest.raises(BookError, match="no chapter 77; there are 00_setup"):
        book.select("77")


def test_appendices_have_letters_by_their_place_and_are_chosen_by_them(small):
    book = small(**dict.fromkeys(("00_one", "10_two", "a_three", "a_four"), ("# %%\n1", ""))).book
    assert [(chapter.number, chapter.appendix) for chapter in book.chapters] == [
        ("00", False),
        ("10", False),
        ("A", True),
        ("B", True),
    ]
    assert [chapter.slug for chapter in book.select("B,10")] == ["10_two", "a_four"]


def test_the_command_line_says_what_is_wrong_and_exits_with_2(capsys):
    assert main(["run", "--chapters", "77"]) == 2
    assert main(["run", "-p", "k"]) == 2
    assert "no chapter 77" in (said := capsys.readouterr().err) and "write it as name=value" in said


# --- the quick start ---


def quick(tmp_path, monkeypatch, code):
    """A book with a quick start that consists of this code, and nothing to render."""
    (tmp_path / "chapters").mkdir(exist_ok=True)
    quick, chapter = ('slug = "quick"\ntitle = "Quick"\n', 'slug = "00_a"\ntitle = "A"\n')
    (tmp_path / "book.toml").write_text(f"{TOML}\n[quickstart]\n{quick}\n[[chapter]]\n{chapter}")
    parameters = '# %% tags=["parameters"]\ndata_dir: str = "data"\n'
    (tmp_path / "chapters" / "quick.py").write_text(f"# %% [markdown]\n# # Quick $x$\n\n{parameters}\n# %%\n{code}\n")
    monkeypatch.setattr("book.quickstart.make_data", lambda data, profile: None)
    return load_book(tmp_path / "book.toml")


def test_the_quick_start_makes_a_page_that_loads_nothing(tmp_path, monkeypatch):
    book = quick(tmp_path, monkeypatch, "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nprint(data_dir)")
    page = quickstart(book, tmp_path / "people", tmp_path / "out", say=lambda *_, **__: None).read_text(
        encoding="utf-8"
    )
    assert str(tmp_path / "people") in page and 'src="data:image/png;base64,' in page and "MathJax" in page
    assert not re.findall(r"<(?:script|img|link|iframe)[^>]*(?:src|href)=[\"'](?!data:)", page)


def test_a_quick_start_that_fails_says_where_and_leaves_no_page(tmp_path, monkeypatch):
    book = quick(tmp_path, monkeypatch, "raise ValueError('no such people')")
    with pytest.raises(BookError, match="ValueError: no such people; .*quick.ipynb"):
        quickstart(book, tmp_path / "people", tmp_path / "out", say=lambda *_, **__: None)
    assert not (tmp_path / "out" / "quick.html").exists()


def test_the_quick_start_is_paired_and_no_chapter_of_a_run(tmp_path, monkeypatch):
    book = quick(tmp_path, monkeypatch, "1")
    assert [chapter.slug for chapter in book.paired] == ["00_a", "quick"]
    assert [chapter.slug for chapter in book.select(None)] == ["00_a"]


# --- the pages as one file ---


def test_the_pages_as_one_file_unpack_to_themselves_and_are_the_same_bytes_each_time(tmp_path):
    site, out = tmp_path / "site", tmp_path / "site.zip"
    for name in ("index.html", "chapters/ä.html", "_static/a.js"):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(name)
    once = pack(site, out).read_bytes()
    os.utime(site / "index.html", (0, 0))
    assert pack(site, out).read_bytes() == once
    zipfile.ZipFile(out).extractall(tmp_path / "unpacked")
    files = [path for path in (tmp_path / "unpacked" / "paul-book").rglob("*") if path.is_file()]
    assert len(files) == 3
    assert all(path.read_text() == str(path.relative_to(tmp_path / "unpacked" / "paul-book")) for path in files)


def test_pages_that_are_not_there_are_not_packed_and_the_last_file_stays(tmp_path, monkeypatch, capsys):
    (tmp_path / "site.zip").write_text("the last one")
    assert main(["zip", "--site", str(tmp_path / "site"), "--out", str(tmp_path / "site.zip")]) == 2
    assert "'make book' makes them" in capsys.readouterr().err
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").touch()
    with pytest.raises(BookError, match="among the pages"):
        pack(tmp_path / "site", tmp_path / "site" / "site.zip")
    monkeypatch.setattr(zipfile.ZipFile, "writestr", lambda *_, **__: os.write(-1, b""))
    with pytest.raises(OSError, match="could not write .*site.zip"):
        pack(tmp_path / "site", tmp_path / "site.zip")
    assert (tmp_path / "site.zip").read_text() == "the last one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["site", "site.zip"]


# --- pairs ---------------------------------------------------------------------------------------------------------


def test_every_notebook_says_what_its_chapter_says():
    assert pairs.differing(load_book()) == [], "write them anew with 'python -m book pair'"


def test_a_pair_is_the_same_bytes_each_time_and_its_ids_follow_the_cells(small):
    book = small(a=("# %%\n1\n\n# %%\n1\n\n# %%\n2", "")).book
    chapter = book.chapters[0]
    once = pairs.write_pair(chapter).read_bytes()
    assert pairs.write_pair(chapter).read_bytes() == once
    ids = [cell["id"] for cell in json.loads(once)["cells"]]
    assert len(set(ids)) == len(ids)
    chapter.source.write_text(chapter.source.read_text().replace("# %%\n2", "# %%\n3"))
    changed = [cell["id"] for cell in json.loads(pairs.write_pair(chapter).read_bytes())["cells"]]
    assert changed[:-1] == ids[:-1] and changed[-1] != ids[-1]


def test_pairs_that_differ_are_named(small):
    book = small(a=("# %%\n1", ""), b=("# %%\n1", ""), c=("# %%\n1", ""), d=("# %%\n1", "")).book
    for chapter in book.chapters[:3]:
        pairs.write_pair(chapter)
    a, b, c, d = book.chapters
    a.source.write_text(a.source.read_text().replace("# %%\n1", '# %% tags=["hide-input"]\n1'))
    notebook = nbformat.read(b.pair, as_version=4)
    notebook.cells[-1].outputs = [nbformat.v4.new_output("stream", text="1")]
    nbformat.write(notebook, b.pair)
    said = pairs.differing(book)
    assert [line.split(":")[0] for line in said] == ["a", "b", "d"]
    assert "something else" in said[0] and "outputs" in said[1] and "no notebook" in said[2]


def test_the_chapters_parameters_cell_is_there_and_typed():
    import papermill

    for chapter in load_book().chapters:
        taken = papermill.inspect_notebook(pairs.read_chapter(chapter))
        assert {"profile", "results_dir"} | ({"data_dir"} if "data" in chapter.needs else set()) <= set(taken), (
            chapter.slug
        )
        assert all(parameter["inferred_type_name"] != "None" for parameter in taken.values()), chapter.slug


def code_cells(slug):
    """A chapter's code: parameters, imports, and on."""
    (chapter,) = load_book().select(slug)
    return [cell.source for cell in pairs.read_chapter(chapter).cells if cell.cell_type == "code"]


def test_a_chapter_begins_in_the_root_wherever_its_kernel_stands(tmp_path, monkeypatch):
    """Its published table has a path that counts from there; the people's folder was given as papermill gives it."""
    for folder in PROFILES["smoke"].folders.values():
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "index.csv").touch()
    parameters, imports, table = code_cells("07_tables_1_and_2")[:3]
    for folder in (ROOT, ROOT / "book" / "notebooks", tmp_path):
        monkeypatch.chdir(folder)
        names = {}
        exec(f"{parameters}\nprofile, data_dir = 'smoke', {str(tmp_path)!r}\n{imports}", names)
        exec(table, names)
        assert len(names["table"]) > 5 and Path.cwd() == ROOT


def test_missing_people_are_named_with_the_line_that_renders_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as stopped:
        start(str(tmp_path / "no people"), "smoke")
    said = str(stopped.value)
    (line,) = [line for line in said.splitlines() if line.startswith("!")]
    assert shlex.split(line[1:]) == rendering(tmp_path / "no people", "smoke")
    assert all(str(tmp_path / "no people" / folder) in said for folder in PROFILES["smoke"].folders.values())
    assert "--data" not in said


def test_chapters_look_at_validation_people_and_at_training_people_where_there_are_none(tmp_path):
    size = PROFILES["smoke"].image_size
    frame, images = validation_people(str(write_study(tmp_path, size)), "smoke", "market")
    assert frame["person_id"].tolist() == [25, 25, 24] and frame.index.tolist() == [0, 1, 2]
    assert images.shape == (3, 3, *size)
    write_set(tmp_path / "real" / "smoke" / "market", {"train": [(1, 1), (2, 2)]}, size=size)
    assert validation_people(str(tmp_path / "real"), "smoke", "market")[0]["person_id"].tolist() == [1, 2]


def test_every_chapter_starts_before_it_opens_anything():
    """With its people, where it needs them: in the first cell after the parameters, behind the imports."""
    for chapter in load_book().chapters:
        second = ast.parse(code_cells(chapter.slug)[1]).body
        code = [node for node in second if not isinstance(node, ast.Import | ast.ImportFrom)]
        wanted = "start(data_dir, profile)" if "data" in chapter.needs else "start()"
        assert ast.unparse(code[0]) == wanted, chapter.slug


def test_no_chapter_is_too_long_to_be_read_in_one_go():
    lines = {path.stem: path.read_text(encoding="utf-8").count("\n") for path in (ROOT / "book/chapters").glob("*.py")}
    assert len(lines) > 10 and max(lines.values()) <= 450, lines


def test_code_of_chapters_fits_the_column_of_a_page():
    """Comments of text cells are prose, whose lines a page breaks anew."""
    wide = [
        (path.name, number)
        for path in (ROOT / "book/chapters").glob("*.py")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > 84 and not line.startswith("#")
    ]
    assert not wide


def test_a_machines_own_world_is_one_number_that_no_verdict_waits_for(monkeypatch):
    numbers = []
    for name in ("one", "two", "three"):
        monkeypatch.setattr("platform.node", lambda name=name: name)
        assert own_world() == own_world()
        numbers.append(own_world())
    assert len(set(numbers)) == 3 and all(1000 <= number < 10**6 for number in numbers)
    command = rendering("data", "smoke", numbers[0])
    assert command[command.index("--world") + 1] == str(numbers[0]) and "--world" not in rendering("data", "smoke")


def test_the_readme_counts_the_chapters():
    words = {8: "eight", 9: "nine", 10: "ten", 11: "eleven", 12: "twelve"}
    appendices = [chapter.appendix for chapter in load_book().chapters]
    said = f"{words[len(appendices) - sum(appendices)]} chapters and {words[sum(appendices)]} appendices"
    assert said in " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
