"""Who may import whom, and what has no place in the package."""

import ast
import re
import subprocess
import sys
import tokenize
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "actcli"
ALLOWED = {
    "pages": set(),
    "ingest": {"pages"},
    "shards": {"ingest"},
    "loaders": {"shards"},
    "models": set(),
    "engine": {"loaders", "models", "shards", "ingest", "pages"},
    "cli": {"engine", "loaders", "models", "shards", "ingest"},
}
"""Part → parts that it may import; ``cli → engine → {loaders, models} → shards → ingest``."""
MOST_LINES_WITH_ANY = 82
"""Imports included; a type that the data has is better wherever there is one."""
TORCH_IN_INGEST = {"flow.py"}
"""RAFT, one of the flow methods, is a torch network."""


def sources(part):
    return sorted((PACKAGE / part).rglob("*.py"))


def imported_modules(path):
    """Full names of all modules imported anywhere in a file, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_parts(path):
    names = (name.split(".") for name in imported_modules(path))
    return {parts[1] for parts in names if parts[0] == "actcli" and len(parts) > 1 and (PACKAGE / parts[1]).is_dir()}


def test_every_part_has_a_rule():
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(ALLOWED)


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_point_down_only(part):
    wrong = {path.name: found for path in sources(part) if (found := imported_parts(path) - ALLOWED[part] - {part})}
    assert wrong == {}


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def statements(body):
    """The statements of a module and of its ``if`` and ``try`` blocks: not what functions do when they are called."""
    for node in body:
        yield node
        for part in ("body", "orelse", "finalbody", "handlers"):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield from statements(getattr(node, part, []))


def modules_needed(path, known):
    """Modules of ours that a file imports when it is imported itself, or for its annotations alone."""
    for node in statements(ast.parse(path.read_text()).body):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else node.module for name in names]
        else:
            continue
        yield from (name for name in names if name in known)


def test_no_module_imports_itself_through_others():
    known = {module_name(path): path for path in PACKAGE.rglob("*.py")}
    graph = {name: set(modules_needed(path, known)) - {name} for name, path in known.items()}
    assert sum(map(len, graph.values())) > len(graph)
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("part", ["ingest", "shards"])
def test_no_torch_below_the_loaders(part):
    wrong = [
        path.name
        for path in sources(part)
        if "torch" in {name.split(".")[0] for name in imported_modules(path)}
        and not (part == "ingest" and path.name in TORCH_IN_INGEST)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("actcli", "torch"),
        ("actcli.ingest", "torch"),
        ("actcli.ingest.flow", "torch"),
        ("actcli.ingest", "av"),
        ("actcli.ingest.datasets", "numpy"),
        ("actcli.ingest.extract", "fsspec"),
        ("actcli.shards", "torch"),
        ("actcli.models", "actcli.shards"),
        ("actcli.cli", "numpy"),
    ],
)
def test_importing_a_part_leaves_out_what_it_must_not_need(module, absent):
    code = f"import sys, {module}; sys.exit({absent!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_ingest_says_the_same_of_its_names_to_programs_and_to_type_checkers():
    """They are brought when they are asked for, which no type checker follows."""
    from actcli import ingest

    [typed] = [node for node in ast.parse(Path(ingest.__file__).read_text()).body if isinstance(node, ast.If)]
    homes = {alias.asname: node.module for node in typed.body for alias in node.names}
    assert homes == {name: f"actcli.ingest.{home}" for name, home in ingest._HOMES.items()}
    for name, home in homes.items():
        assert getattr(ingest, name) is getattr(sys.modules[home], name)
    assert set(ingest.__all__) <= set(dir(ingest))
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        ingest.nonsense  # noqa: B018


def public_functions(body):
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body)
        elif isinstance(node, ast.FunctionDef) and (node.name == "__init__" or not node.name.startswith("_")):
            yield node


def annotations(function):
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return [one.annotation for one in named if one is not None] + [function.returns]


@pytest.mark.parametrize("part", ["loaders", "shards", "engine"])
def test_public_signatures_say_what_they_take(part):
    wrong = [
        f"{path.name}: {function.name}"
        for path in sources(part)
        if not path.name.startswith("_") or path.name == "__init__.py"
        for function in public_functions(ast.parse(path.read_text()).body)
        if any(re.search(r"\bAny\b", ast.unparse(one)) for one in annotations(function) if one)
    ]
    assert wrong == []


def lines_with_any(path):
    with path.open("rb") as file:
        return len({token.start[0] for token in tokenize.tokenize(file.readline) if token.string == "Any"})


def test_any_stands_only_where_a_library_is_untyped():
    found = {module_name(path): lines_with_any(path) for path in PACKAGE.rglob("*.py")}
    assert 0 < sum(found.values()) <= MOST_LINES_WITH_ANY, {name: lines for name, lines in found.items() if lines}


THIRD_PERSON = re.compile(
    "(Add|Check|Compute|Find|Give|Keep|Make|Open|Print|Raise|Read|Return|Say|Sort|Take|Tell|Turn|Write|Yield)s "
)


def test_docstrings_of_functions_name_what_they_give_or_say_what_to_do():
    docstrings = {
        f"{path.name}: {node.name}": documentation
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and (documentation := ast.get_docstring(node))
    }
    assert len(docstrings) > 500
    assert [name for name, text in docstrings.items() if text[0].islower() or THIRD_PERSON.match(text)] == []


def calls(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


@pytest.mark.parametrize("part", [part for part in ALLOWED if part != "cli"])
def test_the_library_neither_prints_nor_exits(part):
    wrong = [f"{path.name}: {name}" for path in sources(part) for name in calls(path) if name in ("print", "sys.exit")]
    assert wrong == []


def tracked_files():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def test_no_file_mentions_a_folder_of_one_machine():
    pattern = re.compile(rb"(?<![\w.])/(?:work|home|root|Users)/\w")
    wrong = [str(path) for path in tracked_files() if path.is_file() and pattern.search(path.read_bytes())]
    assert wrong == []


def test_the_readme_mentions_every_command():
    from actcli.cli._app import COMMANDS

    text = (ROOT / "README.md").read_text()
    assert [command for command in COMMANDS if not re.search(rf"\b{command}\b", text)] == []
