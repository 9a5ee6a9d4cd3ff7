"""`stoke cache` as people and schedules use it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from stoke.history.database import History
from tests.cli.conftest import Stoke
from tests.package_index import PackageIndex
from tests.terminals import Terminal

pytestmark = pytest.mark.usefixtures("index")


@pytest.fixture
def filled(stoke: Stoke, index: PackageIndex) -> Path:
    """Two environments in the default scope, alpha's used twice; returns the cache's folder."""
    index.add("heavy", "1.0", size=2_000_000)
    for name in ("heavy", "alpha", "alpha"):
        assert stoke("run", "-q", "-w", name, "-c", f"import {name}").returncode == 0
    return Path(os.environ["STOKE_CACHE_DIR"]) / "scopes/default/python"


def du(folder: Path) -> int:
    done = subprocess.run(["du", "-s", "--block-size=1", folder], capture_output=True, check=True)
    return int(done.stdout.split()[0])


def listed(stoke: Stoke, *options: str) -> dict[str, object]:
    done = stoke("cache", "ls", "-b", "local", "--json", *options)
    (volume,) = json.loads(done.stdout)
    assert isinstance(volume, dict)
    return volume


def test_sizes_are_those_of_the_last_measuring(stoke: Stoke, filled: Path) -> None:
    unmeasured = listed(stoke)
    assert (unmeasured["bytes"], unmeasured["measured_at"], unmeasured["entries"]) == (None,) * 3
    assert b"never measured" in stoke("cache", "ls", "-b", "local").stderr
    measured = listed(stoke, "--measure")
    assert measured["bytes"] == pytest.approx(du(filled), rel=0.01)
    assert measured["entries"] == 2
    assert listed(stoke) == measured
    assert stoke("run", "-q", "-w", "beta", "-c", "import beta").returncode == 0
    after = listed(stoke)
    assert after["bytes"] == measured["bytes"], "as it was when it was measured"


def test_environments_are_shown(stoke: Stoke, filled: Path) -> None:
    last, first = json.loads(stoke("cache", "show", "-b", "local", "--json").stdout)
    assert (last["packages"], last["uses"], last["in_use"]) == (["alpha==2.0"], 2, False)
    assert (first["packages"], first["uses"]) == (["heavy==1.0"], 1)
    assert first["would_free"] > 2_000_000
    table = stoke("cache", "show").stdout
    assert b"heavy==1.0" in table and b"WOULD FREE" in table
    nobody = stoke("cache", "show", "nobody")
    assert (nobody.returncode, nobody.stdout) == (2, b"")


def test_pruning_lists_first_what_it_removes(stoke: Stoke, filled: Path) -> None:
    before = du(filled)
    dry = stoke("cache", "prune", "--unused", "0s", "--dry-run")
    assert dry.returncode == 0 and b"2 environments and 2 packages to drop" in dry.stderr
    asked = stoke("cache", "prune", "--unused", "0s")
    assert asked.returncode == 2 and b"--yes" in asked.stderr
    assert du(filled) == pytest.approx(before, abs=20_000)
    some = stoke("cache", "prune", "--max-size", str(before - 1_000_000), "--yes")
    assert some.returncode == 0 and b"freed" in some.stderr
    assert before - du(filled) > 2_000_000
    (left,) = json.loads(stoke("cache", "show", "--json").stdout)
    assert left["packages"] == ["alpha==2.0"]


def test_pruning_asks_at_a_terminal(
    terminal: Callable[..., Terminal], stoke: Stoke, filled: Path
) -> None:
    no = terminal("cache", "prune", "--unused", "0s")
    no.until(b"Drop them?")
    no.type("\n")
    assert no.wait() == 2
    assert len(json.loads(stoke("cache", "show", "--json").stdout)) == 2
    yes = terminal("cache", "prune", "--unused", "0s")
    yes.until(b"Drop them?")
    yes.type("y\n")
    assert yes.wait() == 0
    assert json.loads(stoke("cache", "show", "--json").stdout) == []


def test_without_limits_the_budgets_apply(stoke: Stoke, filled: Path, own_home: Path) -> None:
    none = stoke("cache", "prune", "--yes")
    assert none.returncode == 2 and b"--unused" in none.stderr
    (own_home / "config.toml").write_text('max_size = "4m"\n[scopes.default]\nmax_size = "1g"\n')
    assert b"nothing to drop" in stoke("cache", "prune", "--yes").stderr
    (own_home / "config.toml").write_text('[scopes.default]\nmax_size = "1k"\n')
    wrong = stoke("cache", "prune", "--yes")
    assert wrong.returncode == 2 and b"scopes.default.max_size" in wrong.stderr


@pytest.mark.parametrize(
    "options", [["--unused", "soon"], ["--max-size", "much"], ["--max-size", "-1"]]
)
def test_a_limit_that_is_none_is_refused(stoke: Stoke, filled: Path, options: list[str]) -> None:
    done = stoke("cache", "prune", "--yes", *options)
    assert done.returncode == 2, done.stderr
    assert options[0].encode() in done.stderr or options[0][2:].encode() in done.stderr
    assert len(json.loads(stoke("cache", "show", "--json").stdout)) == 2


def test_warming_makes_the_next_job_a_hit(stoke: Stoke, own_home: Path) -> None:
    done = stoke("cache", "warm", "-w", "beta")
    assert done.returncode == 0, done.stderr
    compiled = own_home.glob(
        "cache/scopes/default/python/venvs/*/lib/*/site-packages/*/__pycache__"
    )
    assert sorted(folder.parent.name for folder in compiled) == ["alpha", "beta"]
    job = json.loads(stoke("run", "--json", "-q", "-w", "beta", "-c", "import beta").stdout)
    (python,) = [phase for phase in job["phases"] if phase["name"] == "python"]
    assert python["hit"] is True


def test_warming_the_most_used(stoke: Stoke, filled: Path) -> None:
    assert stoke("run", "-q", "-c", "print(1)").returncode == 0
    assert stoke("cache", "prune", "--unused", "0s", "--yes").returncode == 0
    assert stoke("cache", "warm", "--top", "1").returncode == 0
    (environment,) = json.loads(stoke("cache", "show", "--json").stdout)
    assert environment["packages"] == ["alpha==2.0"]
    with History() as history:
        (warm,) = [job for job in history.list() if job.name == "warm"]
    assert warm.exit_code == 0
    nothing = stoke("cache", "warm", "--top", "1", "--scope", "elsewhere")
    assert nothing.returncode == 2 and b"no job has asked" in nothing.stderr
    assert stoke("cache", "warm").returncode == 2


def test_clearing_wants_the_scopes_name(
    terminal: Callable[..., Terminal], stoke: Stoke, filled: Path
) -> None:
    asked = terminal("cache", "clear")
    asked.until(b"Type the scope's name")
    asked.type("defualt\n")
    assert asked.wait() == 2
    assert len(json.loads(stoke("cache", "show", "--json").stdout)) == 2
    assert stoke("cache", "clear").returncode == 2
    asked = terminal("cache", "clear")
    asked.until(b"Type the scope's name")
    asked.type("default\n")
    assert asked.wait() == 0
    assert json.loads(stoke("cache", "show", "--json").stdout) == []


def test_the_schedule_that_is_printed_runs(stoke: Stoke, filled: Path) -> None:
    line = stoke("setup", "schedule", "--unused", "0s").stdout.decode()
    times, command = line.split(" ", 5)[:5], line.split(" ", 5)[5]
    assert times == ["17", "4", "*", "*", "*"]
    done = subprocess.run(["sh", "-c", command], check=True, cwd="/", capture_output=True)
    assert (done.stdout, done.stderr) == (b"", b""), "cron mails any output"
    assert json.loads(stoke("cache", "show", "--json").stdout) == []
    units = stoke("setup", "schedule", "--every", "weekly", "--systemd").stdout
    assert b"OnCalendar=weekly" in units and b"cache prune --yes --quiet" in units
    assert stoke("setup", "schedule", "--unused", "soon").returncode == 2


def test_a_quiet_prune_says_errors_and_nothing_else(
    stoke: Stoke, filled: Path, tmp_path: Path
) -> None:
    for limits in (["--unused", "9d"], ["--unused", "0s"], ["--unused", "0s", "--kind", "system"]):
        done = stoke("cache", "prune", "--yes", "-q", *limits)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert json.loads(stoke("cache", "show", "--json").stdout) == []
    none = stoke("cache", "prune", "--yes", "-q")
    assert none.returncode == 2 and b"no budget is configured" in none.stderr
    gone = {"DOCKER_HOST": f"unix://{tmp_path}/no.sock"}
    down = stoke("cache", "prune", "--yes", "-q", "--unused", "0s", "-b", "docker", env=gone)
    assert down.returncode == 125 and down.stderr.startswith(b"error: ")


@pytest.mark.parametrize("scope", ["..", "nobody", "../default", "-rf", "a b"])
def test_a_scope_that_is_none_is_refused_by_every_command(
    stoke: Stoke, filled: Path, scope: str
) -> None:
    for words in (
        ["prune", "--unused", "0s", "--yes", f"--scope={scope}"],
        ["clear", "--yes", f"--scope={scope}"],
        ["show", "--", scope],
    ):
        done = stoke("cache", *words)
        assert (done.returncode, done.stdout) == (2, b""), words
        assert b"scope" in done.stderr
    assert json.loads(stoke("cache", "ls", "--json", f"--scope={scope}").stdout) == []
    assert len(json.loads(stoke("cache", "show", "--json").stdout)) == 2


def test_listing_is_narrowed_to_a_scope_and_a_kind(stoke: Stoke, filled: Path) -> None:
    assert stoke("run", "-q", "-w", "alpha", "--scope", "team-a", "-c", "1").returncode == 0
    for options, scopes, measured in (
        ([], ["default", "team-a"], [False, False]),
        (["--scope", "team-a", "--measure"], ["team-a"], [True]),
        (["--kind", "system"], [], []),
        (["--kind", "python"], ["default", "team-a"], [False, True]),
    ):
        listed = json.loads(stoke("cache", "ls", "-b", "local", "--json", *options).stdout)
        assert [volume["scope"] for volume in listed] == scopes
        assert [volume["bytes"] is not None for volume in listed] == measured


def test_warming_system_packages_here_is_refused_with_a_place_for_it(stoke: Stoke) -> None:
    done = stoke("cache", "warm", "-s", "gcc")
    assert done.returncode == 2 and b"-b docker" in done.stderr
    wrong = stoke("cache", "warm", "-s", "gcc; rm -rf /")
    assert wrong.returncode == 2 and b"system" in wrong.stderr
