"""`stoke cache` and `stoke doctor`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Stoke
from tests.lab import until
from tests.package_index import PackageIndex
from tests.terminals import Terminal

KEYS = [
    "backend", "node", "scope", "kind", "name", "bytes", "measured_at", "entries", "hit_rate",
    "saved_seconds", "saved_bytes", "in_use_by",
]  # fmt: skip
LOCAL = ("-b", "local")


def volumes(stoke: Stoke) -> list[dict[str, object]]:
    done = stoke("cache", "ls", *LOCAL, "--measure", "--json")
    assert done.returncode == 0
    listed: list[dict[str, object]] = json.loads(done.stdout)
    return listed


def test_the_json_of_ls_has_its_keys_and_the_saved_figures(
    stoke: Stoke, index: PackageIndex
) -> None:
    assert volumes(stoke) == []
    for _ in range(2):
        assert stoke("run", "-q", "-w", "alpha", "-c", "1").returncode == 0
    (volume,) = volumes(stoke)
    assert list(volume) == KEYS
    assert (volume["backend"], volume["scope"], volume["kind"]) == ("local", "default", "python")
    assert isinstance(volume["bytes"], int) and volume["bytes"] > 0
    assert (volume["entries"], volume["hit_rate"], volume["in_use_by"]) == (1, 0.5, [])
    assert isinstance(volume["saved_seconds"], float)
    # This backend cannot count what it receives.
    assert (volume["saved_bytes"], volume["node"]) == (None, None)
    table = stoke("cache", "ls", *LOCAL).stdout.decode()
    assert "50%" in table and table.startswith("BACKEND")


def test_ls_leaves_out_a_backend_that_cannot_be_asked_unless_it_was_named(
    stoke: Stoke, tmp_path: Path
) -> None:
    gone = {"DOCKER_HOST": f"unix://{tmp_path}/no.sock"}
    done = stoke("cache", "ls", "--json", env=gone)
    assert (done.returncode, json.loads(done.stdout)) == (0, [])
    assert b"docker is not listed" in done.stderr
    named = stoke("cache", "ls", "-b", "docker", env=gone)
    assert named.returncode == 125 and named.stderr.startswith(b"error: ")


def test_clear_needs_a_yes_and_reports_the_freed_bytes(stoke: Stoke, index: PackageIndex) -> None:
    assert stoke("run", "-q", "-w", "alpha", "-c", "1").returncode == 0
    asked = stoke("cache", "clear", *LOCAL)
    assert asked.returncode == 2 and b"hint: pass --yes" in asked.stderr
    (before,) = volumes(stoke)
    assert before["entries"] == 1
    done = stoke("cache", "clear", *LOCAL, "--yes")
    assert done.returncode == 0 and b"freed " in done.stderr
    assert [volume["entries"] for volume in volumes(stoke)] in ([0], [])
    assert stoke("run", "-q", "-w", "alpha", "-c", "import alpha").returncode == 0


def test_clear_at_a_terminal_asks_for_the_scopes_name(
    stoke: Stoke, terminal: Callable[..., Terminal], index: PackageIndex
) -> None:
    assert stoke("run", "-q", "-w", "alpha", "-c", "1", "--scope", "team-a").returncode == 0
    wrong = terminal("cache", "clear", *LOCAL, "--scope", "team-a")
    wrong.until(b"Type the scope's name (team-a)")
    wrong.type("y\n")
    assert wrong.wait() == 2
    assert b"nothing was cleared" in wrong.screen
    (volume,) = volumes(stoke)
    assert volume["entries"] == 1
    right = terminal("cache", "clear", *LOCAL, "--scope", "team-a")
    right.until(b"Type the scope's name (team-a)")
    right.type("team-a\n")
    assert right.wait() == 0
    assert b"freed " in right.screen


def test_clear_refuses_while_a_job_uses_it(stoke: Stoke, index: PackageIndex) -> None:
    code = "import time\nwhile True: time.sleep(0.05)"
    job_id = stoke("run", "--detach", "-w", "alpha", "-c", code).stdout.decode().strip()
    until(lambda: [v["entries"] for v in volumes(stoke)] == [1], "its environment")
    refused = stoke("cache", "clear", *LOCAL, "--yes")
    assert refused.returncode == 125
    first, second = refused.stderr.decode().splitlines()[-2:]
    assert job_id in first and second.endswith(f"stoke stop {job_id}")
    assert [volume["in_use_by"] for volume in volumes(stoke)] == [[job_id]]
    assert stoke("stop", "--now", job_id).returncode == 0


def test_clear_of_nothing_says_so(stoke: Stoke) -> None:
    done = stoke("cache", "clear", *LOCAL, "--scope", "nobody", "--yes")
    assert done.returncode == 2
    assert b"nobody has no caches on the local backend" in done.stderr


@pytest.mark.usefixtures("index")
def test_doctor_reports_each_check_with_a_hint_for_failures(stoke: Stoke, tmp_path: Path) -> None:
    gone = {"DOCKER_HOST": f"unix://{tmp_path}/no.sock"}
    done = stoke("doctor", env=gone)
    assert done.returncode == 0  # The default backend works, and the other was not requested.
    told = done.stdout.decode()
    assert "local (default)" in told and "  no  " in told and "hint: " in told
    document = json.loads(stoke("doctor", "--json", env=gone).stdout)
    assert (document["works"], document["default_backend"]) == (True, "local")
    assert list(document["backends"]["local"][0]) == ["what", "works", "detail", "hint"]
    broken = stoke("doctor", env={**gone, "STOKE_BACKEND": "docker"})
    assert broken.returncode == 1


def test_doctor_survives_a_wrong_configuration(stoke: Stoke, own_home: Path) -> None:
    (own_home / "config.toml").write_text("scope = 3 3\n")
    done = stoke("doctor")
    assert done.returncode == 1
    assert b"no  configuration" in done.stdout and b"cannot be read as TOML" in done.stdout


@pytest.mark.usefixtures("index")
def test_doctor_names_variables_that_are_no_settings(stoke: Stoke) -> None:
    done = stoke("doctor", env={"STOKE_SCOP": "team-a", "STOKE_DOCKER__NETWORK": "none"})
    assert done.returncode == 0  # They keep nothing from working.
    told = done.stdout.decode()
    assert "STOKE_SCOP is set, but is not a setting" in told and "did you mean STOKE_SCOPE?" in told
    assert "STOKE_DOCKER" not in told
