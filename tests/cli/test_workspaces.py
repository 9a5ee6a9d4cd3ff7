"""`stoke workspace` and `--workspace` as users type them, and the hints of both followed."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Stoke, job_count
from tests.cli.test_hints import Done, command_in, hint
from tests.hints import filled
from tests.terminals import Terminal

WRITES = "print('kept', file=open('out.txt', 'w'))"
READS = "print(open('out.txt').read(), end='')"


LOCAL = ("-b", "local")


def run(stoke: Stoke, name: str, code: str, *options: str) -> Done:
    return stoke("run", "--workspace", name, *options, "-c", code)


def listed(stoke: Stoke, *options: str) -> dict[str, Any]:
    done = stoke("workspace", "list", "--json", *(options or LOCAL))
    assert done.returncode == 0, done.stderr
    return {one["name"]: one for one in json.loads(done.stdout)}


@pytest.fixture
def name() -> str:
    return f"t{secrets.token_hex(4)}"


@pytest.fixture
def on_docker(
    name: str, docker_image: str, docker_cleanup: Callable[[str], None]
) -> Iterator[tuple[str, ...]]:
    docker_cleanup(name)
    os.environ["STOKE_DOCKER__IMAGE"] = docker_image
    yield "-b", "docker"
    del os.environ["STOKE_DOCKER__IMAGE"]


def test_a_new_name_is_noted_with_those_that_are_like_it(stoke: Stoke) -> None:
    done = run(stoke, "data", WRITES)
    assert b"workspace data: new\n" in done.stderr
    done = run(stoke, "data", READS)
    assert done.stdout == b"kept\n" and b"new" not in done.stderr
    done = run(stoke, "dtaa", READS)
    assert done.returncode == 1 and b"workspace dtaa: new (there is data)" in done.stderr
    shown = json.loads(stoke("jobs", "--all", "--json").stdout)
    assert shown[0]["spec"]["workspace"] == "dtaa"
    assert shown[0]["notes"][0]["text"] == "workspace dtaa: new (there is data)"


def test_a_path_for_a_name_creates_no_job(stoke: Stoke, own_home: Path) -> None:
    done = run(stoke, "../../x", "1")
    assert done.returncode == 2 and b"is a path; write a name, such as 'x'" in done.stderr
    done = stoke(
        "run", "--workspace", "x", "--mount", f"{own_home}:/workspace/a", "-c", "1",
    )  # fmt: skip
    assert done.returncode == 2 and b"would hide the workspace" in done.stderr
    assert job_count(own_home) == 0 and not (own_home / "state/workspaces").exists()


def test_listing_copying_and_removing(stoke: Stoke, own_home: Path) -> None:
    assert stoke("workspace", "list", *LOCAL).stderr.startswith(b"stoke: no workspaces yet")
    run(stoke, "ada", WRITES)
    one = listed(stoke)["ada"]
    assert one["backend"] == "local" and one["bytes"] is None and one["in_use_by"] == []
    assert (own_home / "state/workspaces/ada/files").stat().st_mode & 0o777 == 0o700
    assert listed(stoke, "--measure", *LOCAL)["ada"]["files"] == 1
    (own_home / "in").mkdir()
    (own_home / "in" / "x").write_text("in")
    done = stoke("workspace", "cp", "in", "ada:/some/where")
    assert (done.returncode, done.stderr) == (0, b"stoke: copied 1 file, 2 B\n")
    assert stoke("workspace", "cp", "ada:some/where/x", "y").returncode == 0
    assert (own_home / "y").read_text() == "in"
    table = stoke("workspace", "ls", *LOCAL).stdout.decode().splitlines()
    assert table[0].split()[:2] == ["WORKSPACE", "BACKEND"] and table[1].startswith("ada")
    assert stoke("workspace", "clone", "ada", "eve").returncode == 0
    assert stoke("workspace", "rename", "ada", "bob").returncode == 0
    assert set(listed(stoke)) == {"bob", "eve"}
    assert set(listed(stoke, "eve", *LOCAL)) == {"eve"}
    assert run(stoke, "bob", READS).stdout == b"kept\n"
    for words in (("in", "out"), ("ada:/x", "bob:/y")):
        assert b"Write one of the two as NAME:/path" in stoke("workspace", "cp", *words).stderr
    refused = stoke("workspace", "remove", "bob")
    assert refused.returncode == 2 and hint(refused) == "pass --yes"
    assert stoke("workspace", "rm", "bob", "--yes").returncode == 0
    assert set(listed(stoke)) == {"eve"}


def test_removing_asks_for_the_name(stoke: Stoke, terminal: Callable[..., Terminal]) -> None:
    run(stoke, "ada", WRITES)
    asked = terminal("workspace", "remove", "ada")
    asked.until(b"to confirm")
    assert b"1 file" in asked.screen
    asked.type("eve\n")
    assert asked.wait() == 2 and set(listed(stoke)) == {"ada"}
    asked = terminal("workspace", "remove", "ada")
    asked.until(b"to confirm")
    asked.type("ada\n")
    assert asked.wait() == 0 and listed(stoke) == {}


def test_what_is_left_out_is_named(stoke: Stoke, own_home: Path) -> None:
    run(stoke, "ada", "import os; os.mkfifo('pipe\\x1b[31m'); os.symlink('/etc', 'etc')")
    done = stoke("workspace", "cp", "ada:/", "all")
    assert done.returncode == 125
    assert b"left out etc: is a link out of the copy" in done.stderr
    assert b"is neither a file, a folder nor a link" in done.stderr and b"\x1b" not in done.stderr
    assert os.listdir(own_home / "all") == []


# ---------------------------------------------------------------------------- hints


def test_a_name_that_is_nearly_right(stoke: Stoke) -> None:
    run(stoke, "data", WRITES)
    for words in (
        ("list", "daat"),
        ("remove", "daat"),
        ("cp", "daat:/out.txt", "."),
        ("clone", "daat", "x"),
    ):
        said = hint(stoke("workspace", *words))
        assert said == "did you mean data? See: stoke workspace list"
    said = hint(stoke("workspace", "remove", "else"), "see: stoke workspace list")
    assert b"data" in stoke(*command_in(said)).stdout


def test_a_name_that_is_taken(stoke: Stoke) -> None:
    run(stoke, "one", WRITES)
    run(stoke, "two", "1")
    said = hint(
        stoke("workspace", "clone", "one", "two"), "remove it first: stoke workspace remove {}"
    )
    assert stoke(*command_in(said), "--yes").returncode == 0
    assert stoke("workspace", "clone", "one", "two").returncode == 0
    assert run(stoke, "two", READS).stdout == b"kept\n"


def test_a_copy_that_fails_is_repeated(stoke: Stoke, own_home: Path) -> None:
    run(stoke, "ada", "1")
    (own_home / "x").write_text("x")
    said = hint(stoke("workspace", "cp", "ada:/x", "y"))
    assert said == "copy again: a second copy replaces the files of the first"
    assert stoke("workspace", "cp", "x", "ada:/").returncode == 0
    assert stoke("workspace", "cp", "ada:/x", "y").returncode == 0


@pytest.mark.docker
def test_a_part_that_cannot_be_copied_is_not_lost(
    stoke: Stoke, name: str, on_docker: tuple[str, ...]
) -> None:
    code = WRITES + "; import os; os.mkfifo('pipe')"
    run(stoke, name, code, "--scope", name, *on_docker)
    said = hint(
        stoke("workspace", "rename", name, f"{name}x", *on_docker),
        "remove that first; or copy the rest: stoke workspace clone {} {}",
    )
    assert name in listed(stoke, *on_docker) and f"{name}x" not in listed(stoke, *on_docker)
    done = stoke(*command_in(said), *on_docker)
    assert b"left out pipe" in done.stderr
    again = run(stoke, f"{name}x", READS, "--scope", name, *on_docker)
    assert again.stdout == b"kept\n"


@pytest.mark.docker
def test_an_ended_job_is_finished_first(
    stoke: Stoke, name: str, on_docker: tuple[str, ...]
) -> None:
    done = run(stoke, name, WRITES, "--scope", name, "-d", *on_docker)
    job = done.stdout.decode().strip()
    subprocess.run(["docker", "wait", job], check=True, capture_output=True, timeout=60)
    said = hint(stoke("workspace", "remove", name, "--yes", *on_docker))
    assert filled(said, "save their logs, which removes them: stoke logs {}") == (job,)
    assert stoke(*command_in(said)).returncode == 0
    assert stoke("workspace", "remove", name, "--yes", *on_docker).returncode == 0


@pytest.mark.docker
def test_a_foreign_container_and_a_foreign_volume(
    stoke: Stoke, name: str, on_docker: tuple[str, ...], docker_engine: Any, docker_image: str
) -> None:
    if shutil.which("docker") is None:
        pytest.skip("Docker's own program is not here")
    run(stoke, name, WRITES, "--scope", name, *on_docker)
    volume = f"stoke-workspace.{name}"
    host = docker_engine.create_host_config(binds=[f"{volume}:/x"])
    foreign = docker_engine.create_container(docker_image, ["true"], host_config=host)["Id"]
    try:
        said = hint(stoke("workspace", "remove", name, "--yes", *on_docker))
        (found,) = filled(said, "find it: docker ps --all --filter volume={}")
        listing = ["docker", "ps", "--all", "--quiet", "--no-trunc", "--filter", f"volume={found}"]
        there = subprocess.run(listing, check=True, capture_output=True, text=True).stdout
        assert there.strip() == foreign
    finally:
        docker_engine.remove_container(foreign, v=True)
    assert stoke("workspace", "remove", name, "--yes", *on_docker).returncode == 0
    # A volume of that name that is not ours is neither mounted nor changed.
    docker_engine.create_volume(volume)
    said = hint(run(stoke, name, "1", "--scope", name, *on_docker))
    (theirs,) = filled(
        said,
        "choose another name: --workspace NAME; or, if it is yours to remove: docker volume rm {}",
    )
    subprocess.run(["docker", "volume", "rm", theirs], check=True, capture_output=True)
    assert run(stoke, name, "1", "--scope", name, *on_docker).returncode == 0
