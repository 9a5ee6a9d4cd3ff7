"""Which modules a command loads, so that quick commands stay quick, and the import contracts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
STOKE = Path(sys.executable).with_name("stoke")
ENGINES = {"docker", "kubernetes", "hera"}
SCREENS = {"textual", "rich", "tui", "styles"}


def loaded_by(code: str) -> set[str]:
    """The top-level modules, and ours with their full names, that a fresh Python has after `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('\\n' + ' '.join(sys.modules))"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    names = done.stdout.rpartition("\n\n")[2].split() or done.stdout.split()
    return {name.partition(".")[0] for name in names} | set(names)


def command(*words: str) -> str:
    """Code that runs a command in this Python, as the installed program does."""
    return (
        f"import sys; sys.argv = ['stoke', *{words!r}]\n"
        "from stoke.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "sys.stdout.flush()"
    )


def test_records_and_history_need_no_pydantic() -> None:
    loaded = loaded_by(
        "import stoke.history.database, stoke.history.job, stoke.errors, stoke.files.paths\n"
        "import stoke.remote.events"
    )
    assert not loaded & (
        {"pydantic", "importlib.metadata", "packaging", "click"} | ENGINES | SCREENS
    )


@pytest.mark.parametrize(
    "module",
    [
        "stoke.jobs.submit",
        "stoke.jobs.refresh",
        "stoke.jobs.tracker",
        "stoke.request.sources",
        "stoke.logs.follower",
    ],
)
def test_the_core_loads_no_engine_and_no_screen(module: str) -> None:
    loaded = loaded_by(f"import {module}")
    assert loaded & ({"pydantic_settings", "backends"} | ENGINES | SCREENS) == set()


def test_loading_the_local_backend_loads_no_other() -> None:
    loaded = loaded_by(
        "from stoke.backend.registry import load_backend\nfrom stoke.config.model import Config\n"
        "load_backend('local', Config())"
    )
    assert "backends.local" in loaded
    assert loaded & ({"backends.docker"} | ENGINES | SCREENS) == set()


def test_our_own_backends_are_those_of_the_entry_points() -> None:
    from importlib.metadata import distribution

    from stoke.backend.registry import OWN

    named = distribution("stoke-tui").entry_points.select(group="stoke.backends")
    assert {(one.name, f"{one.module}:{one.attr}") for one in OWN} == {
        (point.name, point.value) for point in named
    }


def test_a_pydantic_that_wants_more_than_plugins_gets_its_own_module() -> None:
    loaded_by(
        "import stoke.request.spec\nfrom pydantic.plugin._loader import get_plugins\n"
        "assert get_plugins() == ()\n"
        "from pydantic.plugin._loader import PYDANTIC_ENTRY_POINT_GROUP, _plugins\n"
        "assert PYDANTIC_ENTRY_POINT_GROUP == 'pydantic'"
    )


def test_the_docker_backend_does_not_load_the_runner() -> None:
    loaded = loaded_by(
        "from stoke.backend.registry import load_backend\nfrom stoke.config.model import Config\n"
        "load_backend('docker', Config())"
    )
    assert "backends.docker" in loaded and "stoke.remote.runner.job" not in loaded


def test_a_cluster_that_is_only_looked_at_costs_no_models() -> None:
    loaded = loaded_by(
        "from stoke.backend.registry import load_backend\nfrom stoke.config.model import Config\n"
        "load_backend('argo', Config()).volumes()"
    )
    assert "backends.argo" in loaded
    assert loaded & ({"backends.docker", "backends.local"} | ENGINES | SCREENS) == set()


@pytest.mark.parametrize("words", [["--help"], ["jobs"], ["jobs", "--json"]])
def test_help_and_jobs_load_next_to_nothing(words: list[str]) -> None:
    loaded = loaded_by(command(*words))
    assert loaded & ({"pydantic", "importlib.metadata", "backends"} | ENGINES | SCREENS) == set()


@pytest.mark.parametrize(
    "words", [["run", "--help"], ["logs", "--help"], ["doctor", "--help"], ["race", "--help"]]
)
def test_a_commands_help_loads_no_engine_and_no_screen(words: list[str]) -> None:
    assert loaded_by(command(*words)) & (ENGINES | SCREENS) == set()


def test_a_warm_local_job_loads_only_what_it_needs() -> None:
    """Each millisecond of imports is one of every `stoke run`. pydantic is half of the modules."""
    words = ("run", "-q", "-b", "local", "--no-folder", "-c", "pass")
    loaded_by(command(*words))  # finds out what the next one reads from its caches
    loaded = loaded_by(command(*words))
    unneeded = {"ctypes", "statistics", "logging", "http", "asyncio", "unittest"}
    unneeded |= {"importlib.metadata", "importlib.resources", "email", "zipfile"}
    unneeded |= {"pydantic_settings", "stoke.cache.metrics", "stoke.cache.volumes"}
    assert "pydantic" in loaded and loaded & (unneeded | ENGINES | SCREENS) == set()
    own = [name for name in loaded if name.startswith(("stoke.", "backends."))]
    # 122 and 335 at the time of writing: a few more are fine, a library is not.
    assert len(own) <= 125, sorted(own)
    assert len(loaded) <= 345, sorted(loaded)


def test_logs_of_a_finished_job_load_no_engine() -> None:
    code = """
from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.logs.spool import SpoolWriter
from stoke.files.paths import job_dir
with History() as history:
    history.add(Job('a-aaaaaa', 'a', 'docker', 'default', JobState.QUEUED, 1.0), '{}', 'n')
    history.update('a-aaaaaa', state=JobState.SUCCEEDED, exit_code=0, finished_at=2.0)
writer = SpoolWriter(job_dir('a-aaaaaa'))
writer.add(1, 1, b'hello\\n')
writer.close()
"""
    loaded = loaded_by(code + command("logs", "a-aaaaaa"))
    assert loaded & ({"backends.docker"} | ENGINES | SCREENS) == set()
    loaded = loaded_by(command("jobs"))
    assert loaded & ({"pydantic", "backends"} | ENGINES | SCREENS) == set()


def test_code_of_no_project_loads_nothing_of_snapshots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = loaded_by(command("run", "-q", "-c", "pass"))
    assert "stoke.project.root" in loaded
    assert not loaded & {"pathspec", "stoke.jobs.snapshot_delivery", "stoke.project.rules"}


@pytest.fixture
def foreign(tmp_path: Path) -> dict[str, str]:
    """An environment whose PYTHONPATH holds other packages by the names of ours."""
    for name in ("tui", "backends", "styles", "stoke"):
        (tmp_path / "foreign" / name).mkdir(parents=True)
        (tmp_path / "foreign" / name / "__init__.py").write_text("raise SystemExit('foreign')\n")
    return {**os.environ, "PYTHONPATH": str(tmp_path / "foreign")}


@pytest.mark.parametrize("name", ["tui", "backends", "styles"])
def test_the_installed_program_works_beside_packages_of_the_same_names(
    foreign: dict[str, str], tmp_path: Path, name: str
) -> None:
    """`stoke` itself is not protected: a package of that name is another program."""
    (tmp_path / "foreign" / "stoke" / "__init__.py").unlink()
    (tmp_path / "foreign" / "stoke").rmdir()
    for words in (["--version"], ["jobs"], ["run", "-b", "local", "-c", "print(42)"]):
        done = subprocess.run(
            [str(STOKE), *words],
            env=foreign,
            cwd=tmp_path / "foreign",
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert "foreign" not in done.stdout + done.stderr
    assert done.stdout == "42\n"


def test_the_import_contracts_hold() -> None:
    """The import contracts in pyproject.toml."""
    done = subprocess.run(
        [str(STOKE.with_name("lint-imports")), "--no-cache"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_the_first_paint_does_not_wait_for_plots() -> None:
    assert "plotext" not in loaded_by("import tui.app")
