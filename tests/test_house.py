"""How the package is laid out: names, no circles, arrows that run down, options without torch, no path of others."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAUL = ROOT / "paul"
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PAUL.rglob("*.py")
}
# who may know whom, from the bottom to the top; a wing or a room of the ground floor each
FLOORS = (
    {"options", "engine"},
    {"data"},
    {"weights", "patches", "losses", "memory", "schedules", "metrics", "search"},
    {"backbones"},
    {"patchnet"},
    {"checkpoint", "objective"},
    {"sharded"},
    {"pretrain", "adapt"},
    {"method"},
    {"rivals"},
    {"experiments", "retrieval"},
    {"report"},
    {"plots"},
    {"bench"},
    {"commands"},
    {"cli"},
    {"__main__"},
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}


def imports(path, everywhere=True):
    """The modules of the package that a file imports; not `everywhere`: those imported when it is."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = [node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    hidden = {id(inner) for node in typing_only for inner in ast.walk(node)}
    nodes = ast.walk(tree) if everywhere else tree.body
    for node in nodes:
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FILES)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "paul":
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in FILES else node.module for name in inner)


def test_the_ground_floor_shows_at_most_28_names():
    shown = {path.name for path in PAUL.iterdir() if path.name != "__pycache__"}
    assert len(shown) <= 28, sorted(shown)
    assert {
        "losses.py",
        "memory.py",
        "patches.py",
        "patchnet.py",
        "objective.py",
        "schedules.py",
        "pretrain.py",
        "adapt.py",
        "metrics.py",
    } <= shown


def test_no_module_imports_itself_by_others():
    graph = {name: set(imports(path, everywhere=False)) - {name} for name, path in FILES.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(FILES)  # raises CycleError


def room(name):
    return (name.split(".") + ["__main__"])[1]


def test_every_room_stands_on_a_floor():
    assert {room(name) for name in FILES} - {"__init__"} == set(FLOOR)


def test_arrows_run_down():
    """`import` inside a function counts, too: it is an arrow all the same."""
    arrows = [
        (name, other) for name, path in FILES.items() if name != "paul" for other in imports(path) if other != "paul"
    ]
    up = [(name, other) for name, other in arrows if FLOOR[room(name)] < FLOOR[room(other)]]
    assert len(arrows) > 200 and not up


def test_what_is_promised_can_be_imported():
    for name in (
        "losses",
        "memory",
        "patches",
        "patchnet",
        "checkpoint",
        "schedules",
        "metrics",
        "search",
        "experiments",
    ):
        assert f"paul.{name}" in FILES
    from paul import Extractor
    from paul.experiments import load_model, load_runs, run_all, run_one, run_table, trained_model

    assert all(map(callable, (Extractor, load_model, load_runs, run_all, run_one, run_table, trained_model)))


def test_options_methods_rows_and_runs_are_described_without_torch():
    code = (
        "import sys, paul.options, paul.experiments.methods, paul.experiments.rows, paul.experiments.profiles\n"
        "import paul.experiments.specs as s; s.Spec('paul', 'market', 0, 'mini').hash; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


def texts(path):
    """All strings of a file that are no docstrings; of an f-string its fixed parts."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    ]


def test_the_library_opens_nothing_of_the_book_or_the_tests():
    """Paths are handed in: by the command line, whose default is the one place where "book" may stand."""
    found = [
        (name, text)
        for name, path in FILES.items()
        for text in texts(path)
        if text in ("book", "tests") or "book/" in text or "tests/" in text
    ]
    assert found == [("paul.commands._shared", "book")]


def test_the_library_speaks_of_arguments_and_not_of_flags():
    """`paul.cli.in_flags` says it in the words of the command line. Commands to type, whole, are something else."""
    from paul.cli import parser

    commands = parser()._subparsers._group_actions[0].choices.values()
    flags = {flag for command in commands for flag in command._option_string_actions if flag.startswith("--")}
    typed = ("paul.data.datasets", "paul.experiments.schedulers", "paul.report.tables", "paul.bench")
    typed += ("paul.report.registration",)
    said = [
        (name, text)
        for name, path in FILES.items()
        if room(name) not in ("commands", "cli") and name not in typed
        for text in texts(path)
        for flag in flags
        if re.search(rf"(?<![\w-]){flag}(?![\w-])", text)
    ]
    assert not said, said


def test_no_name_of_a_method_decides_anything_outside_its_own_folder():
    """A comparison with a method's name, or a look-up by it, is a branch that the next method would have to join."""
    from paul.experiments.methods import METHODS

    for name, path in FILES.items():
        if name.startswith("paul.rivals"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                words = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
                assert not words & set(METHODS), f"{name}, line {node.lineno}: {ast.unparse(node)}"
