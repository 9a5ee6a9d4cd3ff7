"""`stoke race`: cold against warm on real local jobs, and what is left when it is interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backends.local.caches import TAG, TAG_TEXT
from stoke.cache.scopes import is_ephemeral
from stoke.history.database import History
from stoke.history.job import Job, JobState
from tests.cli.conftest import Stoke, job_count
from tests.lab import until
from tests.package_index import PackageIndex
from tests.terminals import Terminal

Start = Callable[..., subprocess.Popen[bytes]]
RACE = ("race", "-w", "beta", "-c")
FOREVER = "import time\nwhile True: time.sleep(0.05)"


def jobs() -> list[Job]:
    with History() as history:
        return history.list()


def left(home: Path) -> list[str]:
    """What there is of ephemeral scopes: jobs, caches, notes, what is known of them."""
    places = (home / "state/ephemeral", home / "cache/scopes")
    found = [str(path) for place in places for path in place.glob("ephemeral-*")]
    if job_count(home):
        found += [job.id for job in jobs() if is_ephemeral(job.scope)]
        with History() as history:
            rows = history.query("SELECT DISTINCT scope FROM held_environments")
        found += [row["scope"] for row in rows if is_ephemeral(row["scope"])]
    return found


def raced(stoke: Stoke, *arguments: str) -> dict[str, Any]:
    done = stoke(*RACE, "import beta", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def hits(run: dict[str, Any]) -> dict[str, bool | None]:
    return {one["name"]: one["hit"] for one in run["phases"] if one["name"] in ("lock", "python")}


def test_the_figures_of_both_runs(stoke: Stoke, index: PackageIndex, own_home: Path) -> None:
    first = raced(stoke)
    assert hits(first["cold"]) == {"lock": False, "python": False}
    assert hits(first["warm"]) == {"lock": True, "python": True}
    assert (first["backend"], first["scope"], first["packages"]) == ("local", "default", ["beta"])
    assert first["ratio"] == pytest.approx(
        first["cold"]["ready"] / first["warm"]["ready"], abs=0.001
    )
    assert first["saved_bytes"] is None  # The local backend does not count them.
    assert first["warmed"] is not None
    assert sorted(job.name for job in jobs()) == ["job", "warm"]
    assert left(own_home) == []
    # The second is warm already, and as cold as the first.
    second = raced(stoke)
    assert hits(second["cold"]) == {"lock": False, "python": False}
    assert second["warmed"] is None
    assert left(own_home) == []


def test_the_table_and_the_notes_beside_it(stoke: Stoke, index: PackageIndex) -> None:
    done = stoke(*RACE, "print('not shown')")
    assert done.returncode == 0
    head, *rows, result, warmed = done.stdout.decode().splitlines()
    assert head.split()[:2] == ["PHASE", "PACKAGES"]
    assert [row.split()[0] for row in rows] == ["start", "lock", "python", "run", "code", "whole"]
    assert "x faster: code started after " in result
    assert warmed.startswith("scope default was not warm: warming it took ")
    assert b"cold run, nothing cached" in done.stderr
    quiet = stoke(*RACE, "1", "-q")
    assert (quiet.returncode, quiet.stderr) == (0, b"")


def test_a_recording_is_shown_again_without_an_engine(
    stoke: Stoke, index: PackageIndex, tmp_path: Path
) -> None:
    file = tmp_path / "race.json"
    told = raced(stoke, "--record", str(file))
    index.stop()
    elsewhere = {"STOKE_STATE_DIR": "/nowhere", "STOKE_CACHE_DIR": "/nowhere"}
    again = stoke("race", "--replay", str(file), "--json", env=elsewhere)
    assert again.returncode == 0, again.stderr
    assert without_keys(json.loads(again.stdout)) == without_keys(told)
    assert stoke("race", "--replay", str(file)).stdout.startswith(b"PHASE")
    assert "import beta" not in file.read_text()


def without_keys(document: dict[str, Any]) -> dict[str, Any]:
    for run in ("cold", "warm"):
        document[run]["phases"] = [
            {**phase, "key": None, "seconds": pytest.approx(phase["seconds"])}
            for phase in document[run]["phases"]
        ]
    return document


def test_a_recording_has_no_secret(stoke: Stoke, tmp_path: Path) -> None:
    index = PackageIndex("127.0.0.1", "ada:correct horse")
    index.add("beta", "1.0")
    (tmp_path / "token").write_text("from-a-file")
    secrets = ("--secret", "A=env:TOKEN", "--secret", f"B=file:{tmp_path / 'token'}")
    login = ("--index", index.url, "--index-credentials", "env:LOGIN")
    file = tmp_path / "race.json"
    code = "import beta, os, sys; print(os.environ['A']); print(os.environ['B'], file=sys.stderr)"
    try:
        done = stoke(
            "race", "-w", "beta", *secrets, *login, "--record", str(file), "--json", "-c", code,
            env={"TOKEN": "from-a-variable", "LOGIN": "ada:correct horse"},
        )  # fmt: skip
    finally:
        index.stop()
    assert done.returncode == 0, done.stderr
    for text in (file.read_bytes(), done.stdout):
        assert b"beta" in text
        for secret in (b"from-a-file", b"from-a-variable", b"correct", b"horse", b"os.environ"):
            assert secret not in text


def test_at_a_terminal_a_recording_replays_on_the_screen(
    stoke: Stoke, index: PackageIndex, tmp_path: Path, terminal: Callable[..., Terminal]
) -> None:
    file = tmp_path / "race.json"
    raced(stoke, "--record", str(file))
    shown = terminal("race", "--replay", str(file))
    shown.until(b"5 Race")
    shown.until(b"faster")
    shown.type("qq")
    assert shown.wait() == 0


def test_a_cache_that_lost_its_packages_is_warmed_by_the_run_that_missed(
    stoke: Stoke, index: PackageIndex, own_home: Path
) -> None:
    raced(stoke)
    subprocess.run(["rm", "-rf", *(own_home / "cache/scopes").glob("*")], check=True)
    again = raced(stoke)
    assert hits(again["warm"]) == {"lock": True, "python": True}
    assert again["warmed"] is not None


def test_a_budget_does_not_count_ephemeral_scopes(
    stoke: Stoke, index: PackageIndex, own_home: Path
) -> None:
    (own_home / "config.toml").write_text('max_size = "10g"\n')
    raced(stoke)
    budgets = sorted(path.name for path in (own_home / "state/budgets").glob("*.log"))
    assert budgets == ["local-default.log"]


# ------------------------------------------------------------------ when it goes wrong


def test_code_that_fails_ends_the_race(stoke: Stoke, index: PackageIndex, own_home: Path) -> None:
    done = stoke(*RACE, "print('so \\x1b[2J far'); raise SystemExit(7)")
    assert (done.returncode, done.stdout) == (7, b"")
    assert b"| so  far" in done.stderr and b"the cold run failed: exit code 7" in done.stderr
    assert (jobs(), left(own_home)) == ([], [])


def test_a_package_that_does_not_exist(stoke: Stoke, index: PackageIndex, own_home: Path) -> None:
    done = stoke("race", "-w", "nope-nope", "-c", "1")
    assert (done.returncode, done.stdout) == (125, b"")
    assert b"nope-nope" in done.stderr
    assert (jobs(), left(own_home)) == ([], [])


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("-c", "1"), b"a race needs packages"),
        (("-w", "alpha", "--no-cache", "-c", "1"), b"this request uses no cache"),
        (("--replay", "x.json", "-w", "alpha"), b"cannot be combined with a request"),
        (("--replay", "/dev/null"), b"is not a recording of a race"),
        (("--replay", "nowhere.json"), b"cannot be read"),
    ],
)
def test_refused_requests(
    stoke: Stoke, own_home: Path, arguments: tuple[str, ...], why: bytes
) -> None:
    done = stoke("race", *arguments)
    assert done.returncode == 2
    assert why in done.stderr
    assert left(own_home) == []


def test_no_engine(stoke: Stoke, own_home: Path) -> None:
    done = stoke(
        "race", "-b", "docker", "-w", "alpha", "-c", "1",
        env={"DOCKER_HOST": f"unix://{own_home}/nothing.sock"},
    )  # fmt: skip
    assert done.returncode == 125
    assert b"no Docker engine" in done.stderr
    assert left(own_home) == []


# ------------------------------------------------------------------ interrupted


def runs_cold() -> bool:
    return any(job.state is JobState.RUNNING and is_ephemeral(job.scope) for job in jobs())


def runs_warm() -> bool:
    known = [job for job in jobs() if job.name == "job" and not is_ephemeral(job.scope)]
    return any(job.state is JobState.RUNNING for job in known)


def test_ctrl_c_in_the_cold_run_leaves_nothing(
    start: Start, index: PackageIndex, own_home: Path
) -> None:
    race = start(*RACE, FOREVER)
    until(lambda: job_count(own_home) > 0 and runs_cold(), "a cold run")
    race.send_signal(signal.SIGINT)
    out, err = race.communicate(timeout=60)
    assert (race.returncode, out) == (130, b""), err
    assert b"the cold run was removed" in err
    assert (jobs(), left(own_home)) == ([], [])


def test_ctrl_c_before_anything_was_submitted(
    start: Start, index: PackageIndex, own_home: Path
) -> None:
    race = start(*RACE, FOREVER)
    until(lambda: left(own_home) != [], "a note of the scope")
    race.send_signal(signal.SIGINT)
    assert race.wait(60) == 130
    until(lambda: left(own_home) == [], "nothing left")


def test_ctrl_c_in_the_warm_run_stops_it(
    start: Start, index: PackageIndex, own_home: Path, tmp_path: Path
) -> None:
    code = (
        f"import os, time\nseen = os.path.exists({str(tmp_path / 'seen')!r})\n"
        f"open({str(tmp_path / 'seen')!r}, 'w').close()\nwhile seen: time.sleep(0.05)"
    )
    race = start(*RACE, code)
    until(lambda: job_count(own_home) > 0 and runs_warm(), "a warm run")
    race.send_signal(signal.SIGINT)
    assert race.wait(60) == 130
    assert {job.name: job.state for job in jobs()}["job"] is JobState.STOPPED
    assert left(own_home) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_program_that_dies_leaves_nothing_either(
    start: Start, index: PackageIndex, own_home: Path, number: signal.Signals
) -> None:
    race = start(*RACE, FOREVER)
    until(lambda: job_count(own_home) > 0 and runs_cold(), "a cold run")
    race.send_signal(number)
    race.wait(60)
    until(lambda: left(own_home) == [], "nothing left")
    assert list((own_home / "state/local").iterdir()) == []


def test_the_next_race_removes_leftovers_of_a_crashed_machine(
    stoke: Stoke, index: PackageIndex, own_home: Path
) -> None:
    scope = "ephemeral-0123abcd"
    notes, cache = own_home / "state/ephemeral", own_home / f"cache/scopes/{scope}/python"
    for folder in (notes, cache):
        folder.mkdir(parents=True)
    (notes / scope).write_text('{"backend": "local"}')
    (cache / TAG).write_text(TAG_TEXT)
    os.makedirs(cache / "venvs/x")
    raced(stoke)
    assert left(own_home) == []
