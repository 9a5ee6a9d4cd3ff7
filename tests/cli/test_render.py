"""`stoke render`: what would be submitted, without submitting it and without secrets."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

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


def test_docker_prints_the_requests_to_the_engine(
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


def test_a_script_gives_the_hints_that_a_job_gives(stoke: Stoke, tmp_path: Path) -> None:
    from uv import find_uv_bin

    rendered = stoke(
        "render", "script", "-w", "alpha", "-c", "1", "--index", "http://127.0.0.1:9/s"
    )
    path = f"{Path(find_uv_bin()).parent}:/usr/bin:/bin:/usr/local/bin"
    done = run_script(rendered.stdout, tmp_path / "cache", PATH=path, UV_HTTP_RETRIES="0")
    assert done.returncode == 125
    error, hint = done.stderr.decode().splitlines()
    assert error.startswith("error: lock: 127.0.0.1:9 could not be reached")
    assert hint == "hint: check the network and the index settings: stoke doctor"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_script_whose_cache_is_full_names_the_folder(
    stoke: Stoke, index: PackageIndex, tmp_path: Path
) -> None:
    from uv import find_uv_bin

    index.add("heavy", "1.0", size=8_000_000)
    rendered = stoke(
        "render", "script", "-w", "heavy", "-c", "1", env={"STOKE_ON_CACHE_TROUBLE": "fail"}
    )
    path = f"{Path(find_uv_bin()).parent}:/usr/bin:/bin:/usr/local/bin"
    cache = tmp_path / "cache"
    cache.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(cache)], check=True)
    try:
        done = run_script(rendered.stdout, cache, PATH=path)
    finally:
        subprocess.run(["umount", "--lazy", str(cache)], check=True)
    assert done.returncode == 125
    hint = done.stderr.decode().splitlines()[-1]
    assert hint == f"hint: free space on the disk that holds {cache}"


def test_a_scripts_own_code_gets_no_word_in_its_voice(stoke: Stoke, tmp_path: Path) -> None:
    """The nonce is in the script, so its code can read it and print events."""
    script = tmp_path / "job.py"
    code = (
        "import base64, gzip, json, os, re\n"
        "parcel = open(os.environ['SCRIPT']).read()\n"
        "payload = re.search(r'payload\\W+([A-Za-z0-9+/=]+)', parcel[parcel.rindex('sys.exit('):])\n"
        "nonce = json.loads(gzip.decompress(base64.b64decode(payload[1])))['nonce']\n"
        "event = {'event': 'error', 'phase': 'run', 'text': 'x', 'hint': ['did-you-mean', 'evil']}\n"
        "os.write(2, b'\\n\\x1e' + nonce.encode() + json.dumps(event).encode() + b'\\n')\n"
        "print('lied')\n"
    )
    script.write_bytes(stoke("render", "script", "-c", code, "--env", f"SCRIPT={script}").stdout)
    done = run_script(script.read_bytes(), tmp_path)
    assert (done.stdout, done.returncode) == (b"lied\n", 0), done.stderr
    assert b"evil" not in done.stderr


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


def test_a_lock_comes_back_as_the_same_environment(
    stoke: Stoke, index: PackageIndex, tmp_path: Path
) -> None:
    lock = tmp_path / "requirements.lock"
    rendered = stoke("render", "lock", "-w", "beta")
    assert rendered.returncode == 0, rendered.stderr
    header = f"--index-url {index.url}\n\n".encode()
    assert rendered.stdout.startswith(header + b"alpha==2.0 \\\n    --hash=sha256:")
    lock.write_bytes(rendered.stdout)
    assert b"expecting" not in rendered.stderr

    # What is stored answers: a release in between changes nothing.
    index.add("alpha", "3.0")
    assert stoke("render", "lock", "-w", "beta").stdout == rendered.stdout
    first = stoke("run", "-c", "import alpha; print(alpha.version)", "-w", "beta", "--json")
    given = stoke("run", "-c", "import alpha; print(alpha.version)", "--lock", str(lock), "--json")
    one, two = (json.loads(done.stdout) for done in (first, given))
    python = {phase["name"]: phase for phase in two["phases"]}["python"]
    assert two["predicted"]["python"] == "hit" and python["hit"] is True
    assert python["key"] == next(it["key"] for it in one["phases"] if it["name"] == "python")
    assert one["lock"]["age"] > 0 and two["lock"] is None

    newer = stoke("render", "lock", "-w", "beta", "--upgrade").stdout
    assert newer.startswith(header + b"alpha==3.0 ")
    # A job's lock is that of the environment it ran in, whatever was resolved since.
    assert stoke("render", "lock", "--job", one["id"]).stdout == rendered.stdout
    assert stoke("render", "lock", "--job", two["id"]).stdout == rendered.stdout


def test_a_lock_that_cannot_be_had_says_why(stoke: Stoke, index: PackageIndex) -> None:
    nothing = stoke("render", "lock")
    assert nothing.returncode == 2
    assert b"nothing to lock" in nothing.stderr
    unknown = stoke("render", "lock", "-w", "nonesuch")
    assert (unknown.returncode, unknown.stdout) == (125, b"")
    assert b"nonesuch" in unknown.stderr

    alone = json.loads(stoke("run", "-c", "1", "-w", "alpha", "--no-cache", "--json").stdout)["id"]
    refused = stoke("render", "lock", "--job", alone)
    assert (refused.returncode, refused.stdout) == (125, b"")
    assert f"stoke rerun {alone}".encode() in refused.stderr

    kept = json.loads(stoke("run", "-c", "1", "-w", "alpha", "--json").stdout)["id"]
    assert stoke("cache", "clear", "--yes").returncode == 0
    gone = stoke("render", "lock", "--job", kept)
    assert gone.returncode == 125
    assert b"no environment" in gone.stderr and b"stoke rerun" in gone.stderr
    assert stoke("render", "lock", "--job", kept, "-w", "beta").returncode == 2
    assert stoke("render", "json", "--job", kept).returncode == 2
