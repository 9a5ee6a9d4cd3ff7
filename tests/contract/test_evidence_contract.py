"""Reports of environments that cannot be built: complete, at the end, and only facts."""

from __future__ import annotations

import base64
import functools
import os
import subprocess
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.lab import Lab, Outcome
from tests.package_index import PackageIndex, wheel

# Each is something that a compiler, a script or a server may print.
MISLEADING = [
    "Permission denied",
    "OSError: [Errno 28] No space left on device",
    "  cause: No space left on device (os error 28)",
    'Read-only file system (os error 30) at path "/cache/uv/x"',
    "error: error sending request for url ({index}/alpha/)",
    "  cause: error sending request for url ({index}/alpha/)",
    "hint: Packages were unavailable because the network was disabled",
    "building needs the vendor daemon on port 7777: Connection refused",
    "you seem to be offline",
]


def failing(*statements: str) -> str:
    """A build backend that runs `statements` and fails."""
    body = "\n".join(f"    {statement}" for statement in statements)
    return f"import sys\ndef build_wheel(*_, **__):\n{body}\n    raise SystemExit(7)\n"


def notes(done: Outcome) -> list[str]:
    return [event["text"] for event in done.events if event["event"] == "note"]


def assert_blames_neither_cache_nor_network(done: Outcome) -> None:
    assert done.job.exit_code == 125
    assert "could not be reached" not in done.error["text"]
    assert not [note for note in notes(done) if "cache" in note or "network" in note]
    assert done.error["hint"] is None


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_failed_build_is_reported_with_its_output_and_not_repeated(
    lab: Lab, index: PackageIndex, stream: str
) -> None:
    lines = [line.replace("{index}", index.url) for line in MISLEADING]
    index.add_sdist("evil", "1.0", failing(f"print({lines!r}, *{lines!r}, sep='\\n', "
                                           f"file=sys.{stream})"))  # fmt: skip
    done = lab.run("print('never')", dependencies=["evil"])
    assert_blames_neither_cache_nor_network(done)
    assert "evil" in done.error["text"] and "build" in done.error["text"]
    written = done.stderr.decode().splitlines()
    for line in lines:
        assert written.count(line) == 1
    assert done.error["tail"].splitlines()[-len(lines) :] == lines


def test_the_log_has_the_whole_output_of_a_build_and_the_error_its_end(
    lab: Lab, index: PackageIndex
) -> None:
    index.add_sdist("long", "1.0", failing(
        "for number in range(40_000): print(f'line {number} of a compiler', file=sys.stderr)",
        "print('main.c:3: error: \\x1b[31mexpected ;\\x1b[m', file=sys.stderr)",
    ))  # fmt: skip
    done = lab.run("print('never')", dependencies=["long"])
    lines = done.stderr.decode().splitlines()
    assert [line for line in lines if line.startswith("line ")] == [
        f"line {number} of a compiler" for number in range(40_000)
    ]
    assert "main.c:3: error" in lines[-1]
    tail = done.error["tail"].splitlines()
    assert "main.c:3: error" in tail[-1] and "line 39999 of a compiler" in tail
    assert len(tail) > 10
    assert "\n" not in (done.job.reason or "")


def test_a_package_named_like_a_network_error_is_reported_as_missing(
    lab: Lab, index: PackageIndex
) -> None:
    done = lab.run("print('never')", dependencies=["plotly-offline-timed-out"])
    assert_blames_neither_cache_nor_network(done)
    assert "no solution: Because plotly-offline-timed-out was not found" in done.error["text"]
    pages = [path for path in index.requests if "offline" in path]
    assert len(set(pages)) == len(pages), "asked once"


def test_a_refused_key_is_reported_with_the_servers_message(
    lab: Lab, index: PackageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lab.backend.name != "local":
        pytest.skip("only a job on this machine has this machine's ssh")
    calls = tmp_path / "calls"
    ssh = tmp_path / "ssh"
    ssh.write_text(
        f"#!/bin/sh\necho x >> '{calls}'\n"
        "echo 'git@git.example.org: Permission denied (publickey).' >&2\nexit 255\n"
    )
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    done = lab.run("1", dependencies=["inner @ git+ssh://git@git.example.org/t/i.git"])
    assert_blames_neither_cache_nor_network(done)
    assert b"git@git.example.org: Permission denied (publickey)." in done.stderr
    assert "Permission denied (publickey)" in done.error["tail"]
    assert calls.read_text() == "x\n"


@pytest.mark.parametrize("columns", ["20", "80"])
def test_a_server_that_is_not_there_is_named(
    lab: Lab, index: PackageIndex, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    index.stop()
    done = lab.run("print('never')", dependencies=["alpha"])
    assert f"{index.host} could not be reached" in done.error["text"]
    assert "Connection refused" in done.error["text"]
    assert "\n" not in done.error["text"]
    assert "stoke doctor" in done.error["hint"]
    assert done.stderr == b""


def test_a_warning_of_uv_is_noted_once(lab: Lab, index: PackageIndex) -> None:
    index.yank("alpha", "1.5", "breaks\x1b[31m everything")
    done = lab.run(
        "import alpha; print(alpha.version)", dependencies=["alpha[less]==1.5", "beta<2"]
    )
    assert done.stdout == b"1.5\n"
    said = notes(done)
    assert len([note for note in said if "yanked" in note and "breaks" in note]) == 1
    assert len([note for note in said if "extra" in note and "less" in note]) == 1
    assert len(said) == 2


def test_the_hint_for_a_version_of_a_later_index_works(lab: Lab, index: PackageIndex) -> None:
    other = PackageIndex(lab.address)
    other.add("alpha", "9.0")
    settings = {"url": other.url, "extra": [index.url]}
    done = lab.run("1", dependencies=["alpha==9.0"], index=settings)
    hint = done.error["hint"] or ""
    assert "--index-strategy" not in done.error["text"] + hint
    assert f"--extra-index {other.url}" in hint
    # The hint, followed.
    settings = {"url": index.url, "extra": [other.url]}
    done = lab.run(
        "import alpha; print(alpha.version)", dependencies=["alpha==9.0"], index=settings
    )
    other.stop()
    assert done.stdout == b"9.0\n"


def test_a_failed_build_leaves_no_files(lab: Lab, index: PackageIndex) -> None:
    if lab.backend.name != "local":
        pytest.skip("the folder is looked at on this machine")
    index.add_sdist("evil", "1.0", failing("print('no')"))
    lab.run("1", dependencies=["evil"])
    cache = Path(os.environ["STOKE_CACHE_DIR"])
    assert not list(cache.glob("scopes/*/python/venvs/*.tmp"))


def test_a_git_server_that_is_gone_leaves_the_older_lock(
    lab: Lab, index: PackageIndex, tmp_path: Path
) -> None:
    if lab.backend.name != "local":
        pytest.skip("a repository is served to this machine")
    repository = tmp_path / "inner"
    repository.mkdir()
    (repository / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "inner"\nversion = "1.0"\n'
    )
    (repository / "backend.py").write_text(
        "import base64, os\n"
        f"WHEEL = {base64.b64encode(wheel('inner', '1.0')).decode()!r}\n"
        "def build_wheel(folder, *_):\n"
        "    name = 'inner-1.0-py3-none-any.whl'\n"
        "    with open(os.path.join(folder, name), 'wb') as file:\n"
        "        file.write(base64.b64decode(WHEEL))\n"
        "    return name\n"
    )
    git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"], ["update-server-info"]):
        subprocess.run([*git, *arguments], check=True)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(repository / ".git"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    wanted = [f"inner @ git+http://127.0.0.1:{server.server_address[1]}/"]
    code = "import inner; print(inner.version)"
    try:
        assert lab.run(code, dependencies=wanted).stdout == b"1.0\n"
    finally:
        server.shutdown()
        server.server_close()
    again = lab.run(code, dependencies=wanted, upgrade=True)
    assert again.stdout == b"1.0\n"
    assert any("no network: 127.0.0.1 could not be reached" in note for note in notes(again))
