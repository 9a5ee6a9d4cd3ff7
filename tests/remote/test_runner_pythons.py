"""The runner on every Python of this machine, as an image with that Python runs it."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from uv import find_uv_bin

from stoke.delivery.payload import live_output_source
from stoke.delivery.uv_config import uv_config
from stoke.remote.events import Event, EventScanner
from stoke.remote.hints import hint_text
from stoke.remote.protocol import PAYLOAD_VERSION
from stoke.remote.runner.other_python import image_hint
from stoke.request.spec import make_spec
from tests.package_index import PackageIndex
from tests.remote.programs import runner_file

NO_INDEX: dict[str, Any] = {
    "url": None,
    "extra": [],
    "proxy": None,
    "ca_bundle": None,
    "authorities": [],
    "proxies": {},
    "secrets": [],
}


@cache
def pythons() -> list[str]:
    """Return an interpreter for each minor version from 3.9, from PATH and version managers."""
    managed = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    folders = [*os.environ["PATH"].split(os.pathsep), *map(str, managed.glob("3.*/bin"))]
    found = {sys.version_info[1]: sys.executable}
    for minor in range(9, 20):
        for folder in folders:
            python = Path(folder) / f"python3.{minor}"
            # A version manager's shim is there for versions that are not.
            if (
                minor not in found
                and python.exists()
                and not subprocess.run(
                    [python, "-I", "-S", "-c", ""], capture_output=True
                ).returncode
            ):
                found[minor] = str(python)
    return [found[minor] for minor in sorted(found)]


class Runner:
    """Starts the runner as an engine does, and separates its events from its stderr."""

    def __init__(self, python: str, folder: Path) -> None:
        self.python = python
        self.folder = folder
        self.program = runner_file()
        self.flags: tuple[str, ...] = ()

    def run(
        self, code: str, pack: bytes | None = None, **payload: Any
    ) -> tuple[int, bytes, bytes, list[Event]]:
        whole = {
            "version": PAYLOAD_VERSION,
            "nonce": "0123456789abcdef",
            "program": "main.py",
            "code": code,
            "start": {"kind": "code", "name": ""},
            "project": None,
            "args": [],
            "env": {},
            "withheld": [],
            "python": None,
            "system": None,
            "requirements": [],
            "pre": False,
            "constraints": [],
            "hashes": {},
            "require_hashes": False,
            "encoding": "utf-8",
            "lock": None,
            "request": "r",
            "lock_ttl": 86400,
            "upgrade": False,
            "use_cache": True,
            "on_cache_trouble": "fail",
            "compile": False,
            "lock_only": False,
            "timeout": None,
            "results": [],
            "checkpoint": None,
            "hold": None,
            "live_output": live_output_source(),
            "index": NO_INDEX,
            "settings": uv_config(make_spec({"code": "pass"})).for_runner(),
            "uv": {"version": "0", "wheels": {}, "index": None},
            **payload,
        }
        path = self.folder / "payload"
        path.write_bytes(gzip.compress(json.dumps(whole).encode()))
        command = [self.python, "-I", "-S", self.program, str(path), "--uv", find_uv_bin()]
        command += ["--cache", str(self.folder / "cache"), "--work", str(self.folder / "work")]
        command += self.flags
        if pack is not None:
            (self.folder / "pack").write_bytes(pack)
            command += ["--pack", str(self.folder / "pack")]
        done = subprocess.run(command, capture_output=True, timeout=120)
        assert not path.exists(), "the payload may hold secrets and has to be gone"
        scanner = EventScanner("0123456789abcdef")
        pieces = [*scanner.feed(done.stderr), scanner.flush()]
        events = [piece for piece in pieces if isinstance(piece, dict)]
        stderr = b"".join(piece for piece in pieces if isinstance(piece, bytes))
        return done.returncode, done.stdout, stderr, events


@pytest.fixture(params=pythons())
def runner(request: pytest.FixtureRequest, tmp_path: Path) -> Runner:
    return Runner(request.param, tmp_path)


def test_code_runs_and_its_end_is_reported(runner: Runner) -> None:
    code, out, err, events = runner.run(
        "import sys; print(sys.argv[1]); sys.exit(3)", args=["{{a}}"]
    )
    assert (code, out, err) == (3, b"{{a}}\n", b"")
    assert [event["event"] for event in events] == ["begin", "phase", "end"]
    assert events[-1]["exit_code"] == 3
    assert events[-1]["peak_memory"] > 1024**2


def test_an_environment_is_built_and_found(runner: Runner) -> None:
    index = PackageIndex("127.0.0.1")
    index.add("alpha", "1.0")
    settings = {**NO_INDEX, "url": index.url}
    hits = []
    for _ in range(2):
        code, out, err, events = runner.run(
            "import alpha; print(alpha.version)", requirements=["alpha"], index=settings
        )
        assert (code, out, err) == (0, b"1.0\n", b""), events
        hits.append([event["hit"] for event in events if event["event"] == "phase"])
    index.stop()
    assert hits == [[False, False, None], [True, True, None]]


def test_a_python_that_no_image_has_is_refused_without_a_hint(runner: Runner) -> None:
    code, out, _, events = runner.run("print(1)", python="3.99")
    (error,) = [event for event in events if event["event"] == "error"]
    assert (code, out) == (125, b"")
    assert "Python 3.99" in error["text"] and error["hint"] is None


def hinted(wanted: str) -> str | None:
    hint = image_hint(wanted)
    if hint is None:
        return None
    text = hint_text(hint, "docker", "default")
    assert text is not None
    return text.rpartition(" --image python:")[2].removesuffix("-slim")


@pytest.mark.parametrize(
    ("wanted", "version"),
    [
        ("<3.10", "3.9"),
        ("!=3.11.*,>=3.9", "3.14"),
        (">=3.9,<3.12,!=3.11.*", "3.10"),
        ("<=3.12", "3.11"),
        ("~=3.11.2", "3.11"),
        ("3.12", "3.12"),
        ("3", "3.14"),
        ("==3.12.*", "3.12"),
        ("==3.11.4", "3.11.4"),
        ("3.11.4", "3.11.4"),
        ("<3.9", None),
        ("3.99", None),
        ("==2.7.18", None),
        (">=3.99", None),
    ],
)
def test_the_hint_names_an_image_that_satisfies_the_bounds(
    wanted: str, version: str | None
) -> None:
    assert hinted(wanted) == version


@given(
    st.lists(
        st.builds(
            "{}{}".format,
            st.sampled_from(["<", "<=", ">", ">=", "==", "!=", "~="]),
            st.sampled_from(["3.8", "3.9", "3.10", "3.10.4", "3.11.2", "3.12", "3.13.1", "3.15"]),
        ),
        min_size=1,
        max_size=3,
    ).map(",".join)
)
def test_every_hinted_image_satisfies_its_bounds(wanted: str) -> None:
    version = hinted(wanted)
    if version is not None:
        last_patch = version if version.count(".") == 2 else f"{version}.25"
        assert SpecifierSet(wanted).contains(last_patch), wanted


def test_a_long_error_is_cut_in_the_event_and_complete_in_the_log(runner: Runner) -> None:
    index = PackageIndex("127.0.0.1")
    index.add("alpha", "1.0")
    snakes = {"alpha": ["\N{SNAKE}" * 5000]}
    code, _, err, events = runner.run(
        "pass", requirements=["alpha"], hashes=snakes, index={**NO_INDEX, "url": index.url}
    )
    index.stop()
    (error,) = [event for event in events if event["event"] == "error"]
    assert code == 125
    assert "none of the hashes given for alpha" in error["text"] and error["text"].endswith(" ...")
    assert error["tail"].endswith("\N{SNAKE}")
    assert err.decode().count("\N{SNAKE}") == 5000 and err.endswith(b"\n")


@pytest.mark.parametrize("wanted", ["==3.*", ">=3.9", ">=3.9,<4", "~=3.9"])
def test_bounds_that_this_python_meets(runner: Runner, wanted: str) -> None:
    code, _, _, events = runner.run("pass", python=wanted)
    assert code == 0, events


def test_a_hash_that_the_index_lacks_is_refused(runner: Runner) -> None:
    index = PackageIndex("127.0.0.1")
    index.add("alpha", "1.0")
    settings = {**NO_INDEX, "url": index.url}
    code, _, _, events = runner.run(
        "import alpha",
        requirements=["Alpha"],
        hashes={"alpha": ["sha256:" + "0" * 64]},
        index=settings,
    )
    index.stop()
    (error,) = [event for event in events if event["event"] == "error"]
    assert code == 125
    assert "alpha==1.0" in error["text"]


def test_the_environment_of_a_request_is_recorded_on_the_volume(runner: Runner) -> None:
    """Use a lockfile without packages, which needs no index."""
    kept = runner.folder / "cache" / "requests" / "r"
    looked = []
    for hit in (False, True):
        code, _, err, events = runner.run("pass", requirements=["x"], lock=[])
        assert code == 0, err
        (python,) = [
            event for event in events if event["event"] == "phase" and event["phase"] == "python"
        ]
        assert (python["hit"], kept.read_text()) == (hit, python["key"])
        assert (runner.folder / "cache" / "venvs" / python["key"]).is_dir()
        looked.append(kept.stat())
    assert looked[0] == looked[1], "a warm job writes nothing"

    code, _, _, events = runner.run(
        "pass", requirements=["x"], lock=[], use_cache=False, request="q"
    )
    assert code == 0
    assert not kept.with_name("q").exists()
    assert not any(event.get("key") for event in events)


def test_with_lock_only_the_lockfile_is_printed_and_nothing_is_built(runner: Runner) -> None:
    lock = [["alpha==1", ["sha256:aa", "sha256:bb"], None], ["beta==2", ["sha256:cc"], None]]
    code, out, err, events = runner.run(
        "print('no')", requirements=["x"], lock=lock, lock_only=True
    )
    assert (code, err) == (0, b"")
    text = "alpha==1 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
    assert out.decode() == text + "beta==2 \\\n    --hash=sha256:cc\n"
    assert [event["phase"] for event in events if event["event"] == "phase"] == ["lock"]
    assert not (runner.folder / "cache" / "venvs").exists()
