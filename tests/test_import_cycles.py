"""No module imports itself through others, also not inside a function or for types only."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("stoke", "backends", "tui", "styles", "tests", "bench", "tools")


def modules_below(folder: Path) -> dict[str, Path]:
    """Return name and file of every module of our packages in a folder."""
    found = {}
    for package in PACKAGES:
        for path in (folder / package).rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def import_graph(folder: Path) -> dict[str, set[str]]:
    """Return which modules each module imports, wherever in its text."""
    modules = modules_below(folder)
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        graph[name] = set()
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path}: a relative import"
                imported = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for one in imported:
                # `from package import name` imports a module of that name, or else the package.
                target = one if one in modules else one.rpartition(".")[0]
                if target in modules and target != name:
                    graph[name].add(target)
    return graph


def cycle_in(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def test_no_modules_import_each_other() -> None:
    graph = import_graph(REPOSITORY)
    assert "stoke.history.database_file" in graph["stoke.history.database"]
    assert not cycle_in(graph)


@pytest.mark.parametrize(
    "back",
    [
        "import stoke.a",
        "from stoke.a import x",
        "from stoke import a",
        "def f():\n    from stoke.a import x",
        "TYPE_CHECKING = False\nif TYPE_CHECKING:\n    from stoke.a import x",
    ],
)
def test_a_cycle_is_found_wherever_the_import_is(tmp_path: Path, back: str) -> None:
    package = tmp_path / "stoke"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "a.py").write_text("from stoke.b import y\n")
    (package / "b.py").write_text(f"{back}\n")
    assert sorted(set(cycle_in(import_graph(tmp_path)))) == ["stoke.a", "stoke.b"]
