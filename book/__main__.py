"""The book's command line: python -m book run | build | zip | quickstart | pair | sentences | costs | verify, and for
courses student | grade | slides | course."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from .toc import ROOT, BookError, load_book


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    try:
        return options.do(options, "python -m book " + shlex.join(arguments))
    except (BookError, OSError) as error:  # the system's own words name the file
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it was", file=sys.stderr)
        return 130


def _run(options, command: str) -> int:
    from .run import run_book

    asked = {}
    for text in options.parameter:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise BookError(f"-p {text}: write it as name=value")
        asked[name] = value
    book = load_book()
    return run_book(
        book,
        chapters=options.chapters,
        profile=options.profile,
        data=options.data,
        results=options.results,
        out=options.out,
        asked=asked,
        keep_going=options.keep_going,
        jobs=options.jobs,
        command=command,
    )


def _build(options, command: str) -> int:
    from .build import build_site

    index = build_site(load_book(), options.executed, options.out)
    print(f"The pages are in {index}")
    return 0


def _zip(options, command: str) -> int:
    from .pack import pack

    out = pack(options.site, options.out)
    print(f"{out}, {out.stat().st_size / 1e6:.0f} MB: unpack it and open paul-book/index.html")
    return 0


def _quickstart(options, command: str) -> int:
    from .quickstart import quickstart

    print(f"Open this page: {quickstart(load_book(), options.data, options.out)}")
    return 0


def _pair(options, command: str) -> int:
    from .pairs import differing, write_pair

    book = load_book()
    if not options.check:
        for chapter in sorted(book.paired, key=lambda chapter: not chapter.source.is_file()):
            print(write_pair(chapter))  # the first missing chapter stops this, after all the others
        return 0
    lines = differing(book)
    print("\n".join(lines) or "every notebook says what its chapter says")
    if lines:
        print("write them anew with 'python -m book pair'")
    return 1 if lines else 0


def _costs(options, command: str) -> int:
    from .costs import write_costs

    print("\n".join(write_costs(load_book(), options.manifest)))
    return 0


def _sentences(options, command: str) -> int:
    from .sentences import compared, held, relist

    book = load_book()
    if options.write:
        relist(book)
    missing, gone = compared(book, held())
    for slug, sentence in missing:
        print(f"{slug}: not listed: {sentence}")
    for start in gone:
        print(f"listed, but no chapter says it: {start}")
    print(f"{len(held()['unheld'])} sentences about results are held by nothing")
    return 1 if missing or gone else 0


def _student(options, command: str) -> int:
    from .course.notebooks import write_course

    paths = write_course(load_book(), options.out, options.with_solutions)
    print(f"{len(paths)} notebooks in {options.out}")
    return 0


def _grade(options, command: str) -> int:
    from .course.grade import grade_notebook, report

    print(report(grade_notebook(options.submission, options.seed)))
    return 0


def _slides(options, command: str) -> int:
    from .course.slides import write_slides

    paths = write_slides(load_book(), options.executed, options.out, options.chapters)
    print(f"{len(paths)} decks in {options.out}; in a browser, S opens the speaker's notes")
    return 0


def _course(options, command: str) -> int:
    from .course.archive import write_archive

    write_archive(load_book(), options.executed, options.site, options.out)
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB")
    return 0


def _verify(options, command: str) -> int:
    from .verify import verify

    return verify(
        options.results,
        options.data,
        options.profile,
        row=options.row,
        count=options.count,
        everything=options.all,
        pick=options.pick,
        workers=options.workers,
        device=options.device,
        tolerance=options.tolerance,
    )


def _count(text: str) -> int:
    if not (text.isdecimal() and len(text) < 3 and int(text)):
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number from 1 to 99")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m book", description="Run the book, build its pages.")
    commands = parser.add_subparsers(required=True, metavar="command")

    run = commands.add_parser("run", help="execute chapters through papermill")
    run.add_argument("--profile", default="mini", choices=("smoke", "mini", "gpu", "paper"), help="default: mini")
    run.add_argument("--chapters", help="numbers or slugs, such as 03,05; all when left out")
    run.add_argument("--keep-going", action="store_true", help="after a failed chapter run those that don't need it")
    run.add_argument("--jobs", type=_count, default=1, metavar="N", help="chapters at once (default: 1)")
    run.add_argument("--data", type=Path, default=ROOT / "data", help="folder of the data sets, rendered when missing")
    run.add_argument("--results", type=Path, default=ROOT / "results", help="folder of run records, tables and figures")
    run.add_argument("--out", type=Path, default=ROOT / "build" / "executed", help="folder of the executed notebooks")
    run.add_argument("-p", dest="parameter", action="append", default=[], metavar="name=value", help="set a parameter")
    run.set_defaults(do=_run)

    build = commands.add_parser("build", help="make the pages from the executed notebooks")
    build.add_argument("--executed", type=Path, default=ROOT / "build" / "executed")
    build.add_argument("--out", type=Path, default=ROOT / "build" / "site")
    build.set_defaults(do=_build)

    packed = commands.add_parser("zip", help="put the pages that were made into one file, to be read without network")
    packed.add_argument("--site", type=Path, default=ROOT / "build" / "site", help="folder of the pages")
    packed.add_argument("--out", type=Path, default=ROOT / "build" / "site.zip", help="the file")
    packed.set_defaults(do=_zip)

    quick = commands.add_parser("quickstart", help="train, adapt and search in three minutes, at the profile smoke")
    quick.add_argument(
        "--data", type=Path, default=ROOT / "data", help="folder of the data sets, rendered when missing"
    )
    quick.add_argument("--out", type=Path, default=ROOT / "build" / "quickstart", help="folder of notebook and page")
    quick.set_defaults(do=_quickstart)

    pair = commands.add_parser("pair", help="write the notebooks that belong to the chapters")
    pair.add_argument("--check", action="store_true", help="only say which differ; exit 1 if any does")
    pair.set_defaults(do=_pair)

    truth = commands.add_parser("sentences", help="compare what chapters say of results with sentences.toml")
    truth.add_argument("--write", action="store_true", help="take out what is gone, put what is new under 'unheld'")
    truth.set_defaults(do=_sentences)

    costs = commands.add_parser("costs", help="write the last run's seconds into book.toml")
    costs.add_argument("--manifest", type=Path, default=ROOT / "build" / "executed" / "manifest.json")
    costs.set_defaults(do=_costs)

    student = commands.add_parser("student", help="write the chapters with functions left to write, for a course")
    student.add_argument("--out", type=Path, required=True, help="folder of the notebooks")
    student.add_argument("--with-solutions", action="store_true", help="the teacher's copies, solutions marked")
    student.set_defaults(do=_student)

    grade = commands.add_parser("grade", help="give points for the functions that a student wrote")
    grade.add_argument("submission", type=Path, help="the student's notebook of one chapter, or of several")
    grade.add_argument("--seed", type=int, help="of the checks' inputs; another one each time when left out")
    grade.set_defaults(do=_grade)

    slides = commands.add_parser("slides", help="make each executed chapter's slides, a file each")
    slides.add_argument("--executed", type=Path, default=ROOT / "build" / "executed")
    slides.add_argument("--out", type=Path, required=True, help="folder of the slides")
    slides.add_argument("--chapters", help="numbers or slugs, such as 03,05; all when left out")
    slides.set_defaults(do=_slides)

    course = commands.add_parser("course", help="put pages, slides and notebooks into one archive")
    course.add_argument("--executed", type=Path, default=ROOT / "build" / "executed")
    course.add_argument("--site", type=Path, default=ROOT / "build" / "site", help="the pages that 'build' made")
    course.add_argument("--out", type=Path, required=True, help="the archive, a .zip")
    course.set_defaults(do=_course)

    check = commands.add_parser("verify", help="compute random committed records again and compare")
    check.add_argument("--profile", default="mini", choices=("smoke", "mini", "gpu", "paper"), help="default: mini")
    check.add_argument("--row", help="choose among the records of one row, such as paul")
    check.add_argument("--count", type=int, default=1, metavar="N", help="how many records (default: 1)")
    check.add_argument("--all", action="store_true", help="every record")
    check.add_argument("--pick", type=int, metavar="SEED", help="choose by this number instead of by chance")
    check.add_argument("--data", type=Path, default=ROOT / "data", help="folder of the data sets")
    check.add_argument("--results", type=Path, default=ROOT / "results", help="folder of run records and their index")
    check.add_argument("--workers", type=int, default=2, help="processes on a CPU")
    check.add_argument("--device", help="cpu, cuda, cuda:1; a GPU when there is one")
    check.add_argument("--tolerance", type=float, metavar="POINTS", help="on another kind of machine (default: 5)")
    check.set_defaults(do=_verify)
    return parser


if __name__ == "__main__":
    sys.exit(main())
