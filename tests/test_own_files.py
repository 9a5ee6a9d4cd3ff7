"""Files that this program wrote earlier, and what anything else in their place does: nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from backends.argo import bundle, credential_plugins
from backends.argo.job_locations import JobLocations
from backends.argo.pods import JobPods
from stoke.config.model import ArgoConfig, Config
from stoke.delivery.network import own_authorities
from stoke.delivery.payload import read_reference
from stoke.errors import EngineError, RequestError, StokeError
from stoke.files.crash_report import crash_file, report_crash
from stoke.files.paths import job_dir, make_private, state_dir
from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.jobs.warm import most_used
from stoke.logs.spool import SpoolReader, SpoolWriter
from stoke.results.collect import Collected, ResultFile
from stoke.results.copy_out import copy_out
from tests.malice import bounded

JOB = "job-aaaaaa"
DAMAGED = ["[" * 100_000, "5", "null", '["x", 5, {}]', '{"gaps": "many"}', "[[], [], []]", "\udcff"]
SOUND = {("plugins", DAMAGED[3]), ("pods", DAMAGED[4])}
SPECIAL = ["pipe", "folder", "huge"]


def put(path: Path, what: str) -> None:
    make_private(path.parent)
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "link":
        path.symlink_to(path)
    elif what == "huge":
        with path.open("wb") as file:
            file.write(b"[")
            file.truncate(2 << 30)
    else:
        path.write_bytes(what.encode(errors="surrogateescape"))


READERS: dict[str, tuple[Callable[[], Path], Callable[[], object], object]] = {
    "pods": (
        lambda: job_dir(JOB) / "pods.json",
        lambda: JobPods(JOB)._seen,
        {},
    ),
    "plugins": (
        lambda: state_dir() / "kubeconfig-plugins.json",
        credential_plugins._allowed,
        [],
    ),
    "gaps": (lambda: job_dir(JOB) / "log.pos", lambda: SpoolReader(job_dir(JOB)).gaps(), 0),
}


@pytest.mark.parametrize("what", [*DAMAGED, *SPECIAL], ids=range(len(DAMAGED) + len(SPECIAL)))
@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_note_is_ignored(reader: str, what: str) -> None:
    where, read, nothing = READERS[reader]
    put(where(), what)
    with bounded(100):
        found = read()
    # Texts in a list of permissions, and names in a register of pods, are what these may hold.
    assert found == nothing or (reader, what) in SOUND


@pytest.mark.parametrize("what", [*DAMAGED, *SPECIAL], ids=range(len(DAMAGED) + len(SPECIAL)))
def test_a_job_with_a_damaged_note_is_in_the_configured_location(what: str, tmp_path: Path) -> None:
    config = tmp_path / "kubeconfig"
    cluster = {"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}
    context = {"name": "x", "context": {"cluster": "c", "user": ""}}
    config.write_text(
        json.dumps({"clusters": [cluster], "contexts": [context], "current-context": "x"})
    )
    put(job_dir(JOB) / "cluster.json", what)
    locations = JobLocations(ArgoConfig(kubeconfig=str(config)))
    assert locations.of(JOB) is locations.current
    locations.close()


@pytest.mark.parametrize("what", ["pipe", "folder", "link"])
@pytest.mark.parametrize("name", ["log", "log.idx"])
def test_a_log_that_is_no_file_is_empty_and_not_written(name: str, what: str) -> None:
    for one in ("log", "log.idx"):
        put(job_dir(JOB) / one, what if one == name else "")
    with bounded(100), pytest.raises(EngineError, match="not a regular file"):
        SpoolWriter(job_dir(JOB))
    with bounded(100):
        assert SpoolReader(job_dir(JOB)).size() == (0, 0)


@pytest.mark.parametrize("where", ["state", "target"])
def test_a_pipe_in_the_place_of_a_result_is_not_waited_for(where: str, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for folder in (source, target):
        folder.mkdir()
        put(folder / "r", "pipe" if (folder is source) == (where == "state") else "one")
    found = Collected((ResultFile("r", 3, hashlib.sha256(b"one").hexdigest()),))
    if where == "state":
        (target / "r").unlink()
    with bounded(100), pytest.raises(StokeError):
        copy_out(found, source, target, force=False, progress=lambda *_: None)


@pytest.mark.parametrize("what", ["pipe", "folder", "link"])
def test_the_report_of_a_crash_waits_for_no_pipe(what: str) -> None:
    put(crash_file(), what)
    with bounded(100):
        shown, hint = report_crash(ZeroDivisionError("x"))
    assert "ZeroDivisionError" in shown and "STOKE_DEBUG=1" in hint


def test_a_packed_spec_is_unpacked_within_limits() -> None:
    sound = json.dumps({"code": "x" * 10_000}).encode()
    packed = bundle.pack_spec(sound)
    assert packed is not None and bundle.unpack_spec(packed) == sound
    for bad in (b"[" * 100_000, b"nothing", b'"' + b"x" * (1 << 28) + b'"'):
        with bounded(200):
            assert bundle.unpack_spec(base64.b64encode(zlib.compress(bad, 9)).decode()) is None


@pytest.mark.parametrize("special", ["/dev/zero", "long"])
def test_a_secret_and_a_certificate_are_read_with_a_limit(
    special: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if special == "long":
        special = str(tmp_path / "long")
        put(tmp_path / "long", "huge")
    with bounded(200):
        with pytest.raises(RequestError, match="longer than 128 KiB"):
            read_reference(f"file:{special}", "secrets.X")
        names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT")
        monkeypatch.setattr("stoke.delivery.network.SYSTEM_STORES", ())
        assert own_authorities(dict.fromkeys(names, special)) == []


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"dependencies": 5}'])
def test_warming_passes_over_a_damaged_request(text: str, config: Config) -> None:
    with History() as history:
        history.add(Job(JOB, "a", "local", "default", JobState.SUCCEEDED, 1.0), text, None)
        with pytest.raises(RequestError, match="no job has asked"):
            most_used(history, config, "local", "default", 3)


@pytest.fixture
def config() -> Config:
    return Config()
