"""`stoke render`: what would be submitted, without submitting it and without secrets."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.cli.conftest import Stoke, job_count
from tests.package_index import PackageIndex

SECRETS = ("--env", "MY_TOKEN=hunter2", "--secret", "PIN=env:LOGIN")


def test_json_can_be_submitted(stoke: Stoke, own_home: Path) -> None:
    rendered = stoke("render", "json", "-c", "print('same')", "--timeout", "1m")
    assert job_count(own_home) == 0
    assert json.loads(rendered.stdout)["timeout"] == 60
    assert stoke("submit", "-", "-q", stdin=rendered.stdout).stdout == b"same\n"


def test_json_hides_secrets(stoke: Stoke) -> None:
    spec = json.loads(stoke("render", "json", "-c", "1", *SECRETS).stdout)
    assert (spec["env"], spec["secrets"]) == ({"MY_TOKEN": "***"}, {"PIN": "env:LOGIN"})


def test_docker_is_what_the_engine_would_be_told(
    stoke: Stoke, own_home: Path, tmp_path: Path
) -> None:
    no_engine = {"DOCKER_HOST": f"unix://{tmp_path}/no.sock", "LOGIN": "hunter3"}
    done = stoke(
        "render", "docker", "-c", "print('{{x}} $(id)')", "--memory", "1g", "--image", "python:3.12",
        *SECRETS, "--", "; touch /tmp/pwn", env=no_engine,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    container = json.loads(done.stdout)
    assert container["Image"] == "python:3.12"
    assert container["HostConfig"]["Memory"] == 1024**3
    for text in ("{{x}}", "$(id)", "touch", "hunter"):
        assert text not in done.stdout.decode()
    assert job_count(own_home) == 0


def run_script(script: bytes, cache: Path, **env: str) -> subprocess.CompletedProcess[bytes]:
    """With another Python, an empty environment and nothing of ours in reach."""
    return subprocess.run(
        ["/usr/bin/env", "python3", "-I", "-", "--cache", str(cache)],
        input=script,
        capture_output=True,
        cwd="/",
        env={"PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": str(cache), **env},
    )


def test_a_script_runs_anywhere(stoke: Stoke, tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "os.write(1, b'\\xff out')\nos.write(2, b'err')\n"
        "print(os.environ['MY_TOKEN'], os.environ['PIN'], sys.argv[1:])\nsys.exit(3)\n"
    )
    rendered = stoke(
        "render", "script", "-c", code, *SECRETS, "--", "a b", env={"LOGIN": "hunter3"}
    )
    assert rendered.returncode == 0
    assert b"hunter" not in rendered.stdout
    done = run_script(rendered.stdout, tmp_path, MY_TOKEN="two", LOGIN="three")
    assert done.returncode == 3, done.stderr
    assert (done.stdout, done.stderr) == (b"\xff outtwo three ['a b']\n", b"err")


def test_a_script_is_rendered_where_its_secrets_are_not(stoke: Stoke, tmp_path: Path) -> None:
    rendered = stoke("render", "script", "-c", "1", "--secret", "PIN=env:LOGIN")
    assert rendered.returncode == 0
    done = run_script(rendered.stdout, tmp_path)
    assert done.returncode == 1
    assert b"env:LOGIN" in done.stderr and b"Traceback" not in done.stderr


def test_a_script_brings_its_packages(stoke: Stoke, index: PackageIndex, tmp_path: Path) -> None:
    from uv import find_uv_bin

    rendered = stoke(
        "render", "script", "-w", "beta", "-c", "import alpha, beta; print(alpha.version)"
    )
    path = f"{Path(find_uv_bin()).parent}:/usr/bin:/bin:/usr/local/bin"
    for _ in range(2):
        done = run_script(rendered.stdout, tmp_path / "cache", PATH=path)
        assert (done.returncode, done.stdout) == (0, b"2.0\n"), done.stderr


def test_a_script_reads_the_indexs_password_where_it_runs(stoke: Stoke, tmp_path: Path) -> None:
    from uv import find_uv_bin

    private = PackageIndex("127.0.0.1", "ada:correct horse/battery")
    private.add("alpha", "1.0")
    rendered = stoke(
        "render", "script", "-w", "alpha", "--index", private.url, "--index-credentials", "env:LOGIN",
        "-c", "import alpha; print(alpha.version)", env={"LOGIN": "ada:correct horse/battery"},
    )  # fmt: skip
    assert b"battery" not in rendered.stdout
    path = f"{Path(find_uv_bin()).parent}:/usr/bin:/bin:/usr/local/bin"
    done = run_script(
        rendered.stdout, tmp_path / "cache", PATH=path, LOGIN="ada:correct horse/battery"
    )
    private.stop()
    assert (done.returncode, done.stdout) == (0, b"1.0\n"), done.stderr
    assert b"battery" not in done.stderr
