"""An engine that means harm: memory and time are bounded, and the error is one of ours."""

from __future__ import annotations

import io
import itertools
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from requests import Session

from backends.common.answers import BoundedResponse
from backends.docker import DockerBackend
from backends.docker.client import Client
from backends.docker.engine import Engine
from backends.docker.image import pull
from backends.docker.names import (
    job_labels,
    volume_labels,
    volume_name,
    workspace_labels,
    workspace_volume,
)
from stoke.backend.api import EngineState, FoundJob, Volume
from stoke.backend.capabilities import Workspace
from stoke.config.model import ResultsConfig
from stoke.errors import EngineError, StokeError
from tests.backends.docker.deliveries import delivery
from tests.backends.docker.fake_engine import (
    HOLD,
    JOB,
    RUNNING,
    FakeEngine,
    fake_engine,
    json_answer,
)
from tests.malice import DRIPS, HEAD, MALICE, bounded, drip, spoiled, whole

VERSION = {"ApiVersion": "1.41", "Arch": "amd64", "Components": [{"Name": "Engine"}]}
INFO = {
    "ServerVersion": "27.0",
    "SystemTime": "2026-01-01T00:00:02Z",
    "DockerRootDir": "/var/lib/docker",
    "Driver": "overlay2",
    "Plugins": {"Log": ["local"]},
    "MemoryLimit": True,
}
EXITED: dict[str, Any] = {
    **RUNNING,
    "State": {
        "Status": "exited",
        "ExitCode": 1,
        "Error": "",
        "OOMKilled": False,
        "StartedAt": "2026-01-01T00:00:00Z",
        "FinishedAt": "2026-01-01T00:00:01Z",
    },
}
KILLED = {**EXITED, "State": {**EXITED["State"], "ExitCode": 137}}
LABELS = job_labels(JOB, "default", "0" * 16)
NAME = volume_name("default", "python")
LISTED = [
    {
        "Id": "c1",
        "Names": [f"/{JOB}"],
        "Labels": LABELS,
        "Created": 1.0,
        "State": "running",
        "Mounts": [{"Name": NAME}],
    }
]
VOLUMES = {"Volumes": [{"Name": NAME, "Labels": volume_labels("default", "python")}]}
WORKSPACES = {
    "Volumes": [
        {
            "Name": workspace_volume("w"),
            "Labels": workspace_labels("w", "default"),
            "CreatedAt": "2026-01-01T00:00:00Z",
        }
    ]
}
SOUND: dict[str, Any] = {
    NAME: VOLUMES["Volumes"][0],
    "create": {"Id": "c2", **VOLUMES["Volumes"][0]},
    "exec": {"Id": "e1"},
    "events": {"Action": "die", "Actor": {"ID": "c9"}},
    "version": VERSION,
    "info": INFO,
    "json": EXITED,
    "volumes": VOLUMES,
}
CACHE = Volume("docker", "default", "python", NAME)
WORKSPACE = Workspace("docker", "w", workspace_volume("w"), "default")
CALLS: dict[str, Callable[[DockerBackend], object]] = {
    "inspect": lambda backend: backend.inspect(JOB),
    "jobs": lambda backend: backend.jobs(),
    "volumes": lambda backend: backend.volumes(),
    "check": lambda backend: backend.check(),
    "log": lambda backend: list(backend.logs(JOB, 0, follow=False)),
    "stop": lambda backend: backend.stop(JOB, 0),
    "remove": lambda backend: backend.remove(JOB),
    "remove_soon": lambda backend: backend.remove_soon(JOB),
    "kill": lambda backend: backend.stop(JOB, 5),
    "interrupt": lambda backend: backend.interrupt(JOB),
    "enter": lambda backend: backend.enter(JOB),
    "results": lambda backend: [*(backend.results(JOB, print) or ())],
    "has_results": lambda backend: backend.has_results(JOB),
    "spec": lambda backend: backend._public_spec(JOB, "c1"),
    "submit": lambda backend: backend.submit(
        delivery("pass", memory="1g", workspace="w"), lambda *_: None
    ),
    "clear": lambda backend: backend.housekeep(CACHE, {"do": "clear"}, lambda _: None),
    "workspaces": lambda backend: backend.workspaces(),
    "measure": lambda backend: backend.tend_workspace(WORKSPACE, {"do": "usage"}, lambda _: None),
    "forget": lambda backend: backend.forget_scope("default"),
}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[FakeEngine]:
    with fake_engine(tmp_path) as made:
        yield made


@pytest.mark.parametrize("kind", MALICE)
def test_an_answer_costs_no_more_than_an_error(engine: FakeEngine, kind: str) -> None:
    engine.any_answer = MALICE[kind]
    backend = DockerBackend(engine.config)
    with bounded():
        with pytest.raises(EngineError) as raised:
            backend.inspect(JOB)
        (finding,) = backend.check()
    assert not finding.works
    assert len(raised.value.what) < 5_000
    backend.close()


@pytest.mark.parametrize("kind", MALICE)
def test_a_later_malicious_response_costs_no_more_than_an_error(
    engine: FakeEngine, kind: str
) -> None:
    """Behind the first answer of all, which docker-py reads on its own."""
    backend = DockerBackend(engine.config)
    assert backend.inspect(JOB).status == "running"
    engine.any_answer = MALICE[kind]
    with bounded():
        for name in ("inspect", "jobs", "volumes", "log"):
            with pytest.raises(EngineError) as raised:
                CALLS[name](backend)
            assert len(raised.value.what) < 5_000, name
    backend.close()


@pytest.mark.parametrize("kind", DRIPS)
def test_an_answer_that_drips_ends(
    engine: FakeEngine, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backends.common.answers.HEADER_SECONDS", 0.3)
    monkeypatch.setattr("backends.docker.client.BODY_SECONDS", 0.3)
    backend = DockerBackend(engine.config)
    assert backend.inspect(JOB).status == "running"
    engine.any_answer = DRIPS[kind]
    with bounded(seconds=20):
        for name in ("inspect", "stop"):
            with pytest.raises(EngineError):
                CALLS[name](backend)
    backend.close()


@pytest.mark.parametrize("kind", ["endless chunks", "endless chunk", "deep", "no JSON", "a number"])
def test_events_without_end_do_not_hide_how_a_job_ended(engine: FakeEngine, kind: str) -> None:
    engine.answers = {"json": [json_answer(KILLED)], "info": [json_answer(INFO)]}
    engine.answers["events"] = MALICE[kind]()
    backend = DockerBackend(engine.config)
    with bounded():
        state = backend.inspect(JOB)
    backend.close()
    assert (state.exit_code, state.cause) == (137, None)


@pytest.mark.parametrize("piece", [b"x", b"{}\n"])
def test_events_that_drip_end(
    engine: FakeEngine, piece: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backends.docker.restarts.MOST_SECONDS", 0.3)
    engine.answers = {"json": [json_answer(KILLED)], "info": [json_answer(INFO)]}
    engine.answers["events"] = drip(HEAD + b"\r\n", piece)()
    backend = DockerBackend(engine.config)
    with bounded(seconds=20):
        assert backend.inspect(JOB).exit_code == 137
    backend.close()


def header(name: str, kind: bytes, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.type, entry.size = kind, size
    return entry.tobuf()


@pytest.mark.parametrize(
    ("begin", "again"),
    [
        (b"", header("top", tarfile.DIRTYPE, 0)),
        (b"", header("top", tarfile.XGLTYPE, 0)),
        (header("top/pipe", tarfile.FIFOTYPE, 1 << 62), bytes(1024)),
    ],
    ids=["folders", "global headers", "a long pipe"],
)
def test_an_archive_without_end_is_an_error(
    engine: FakeEngine, begin: bytes, again: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of it is an entry that could be counted."""
    monkeypatch.setattr("backends.docker.results.MOST_HEADERS", 1 << 20)
    endless = itertools.chain([HEAD + b"\r\n" + begin], itertools.repeat(again * 100))
    engine.answers["archive"] = endless
    config = engine.config.model_copy(update={"results": ResultsConfig(max_size=4 << 20)})
    backend = DockerBackend(config)
    with bounded(), pytest.raises(EngineError, match="more than 4"):
        list(backend.results(JOB, print) or ())
    backend.close()


def test_an_archive_that_drips_ends(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.common.answers.SLOWEST_SECONDS", 0.3)
    backend = DockerBackend(engine.config)
    for call in ("results", "spec"):
        engine.answers["archive"] = drip(HEAD + b"\r\n")()
        with bounded(seconds=20):
            if call == "spec":
                assert CALLS[call](backend) is None
                continue
            with pytest.raises(EngineError):
                CALLS[call](backend)
    backend.close()


def test_a_piece_of_a_session_is_bounded(engine: FakeEngine) -> None:
    engine.answers |= {
        "exec": [json_answer({"Id": "e1"})],
        "start": [b"HTTP/1.1 101 UPGRADED\r\n\r\n\x01\0\0\0\xff\xff\xff\xff", HOLD],
    }
    backend = DockerBackend(engine.config)
    session = backend.enter(JOB)
    with pytest.raises(EngineError, match="4294967295 bytes"), bounded(seconds=20):
        while not session.ended:
            session.read()
    session.close()
    backend.close()


def test_an_engine_behind_tls_has_the_same_limits() -> None:
    client = Client.__new__(Client)
    Session.__init__(client)
    adapter: Any = client.get_adapter("https://engine")
    pool = adapter.poolmanager.connection_from_url("https://engine")
    assert pool.ConnectionCls.response_class is BoundedResponse


def test_the_progress_of_a_pull_is_bounded(engine: FakeEngine) -> None:
    ours = Engine(engine.url)
    for kind in ("endless chunks", "endless chunk", "deep", "no JSON"):
        engine.answers["create"] = MALICE[kind]()
        with bounded(), pytest.raises(EngineError):
            pull(ours, "image")
    ours.close()


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """A tar archive with a byte that is another, or cut somewhere."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind in (("top", tarfile.DIRTYPE), ("top/é" + "x" * 150, tarfile.REGTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.size = kind, 3 if kind == tarfile.REGTYPE else 0
            archive.addfile(entry, io.BytesIO(b"abc"))
    data = bytearray(out.getvalue()[: out.tell()])
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, 3_000))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))])


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_wrong_value_anywhere_is_no_crash(engine: FakeEngine, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([*SOUND, "list"]))
    answers = {**SOUND, "list": LISTED}
    if data.draw(st.booleans()):
        answers["json"] = {
            **RUNNING,
            "Id": "c1",
            "Name": f"/{data.draw(st.sampled_from([JOB, 'x']))}",
        }
    answers[name] = data.draw(spoiled(answers[name]))
    called = data.draw(st.sampled_from([*CALLS]))
    if called in ("workspaces", "measure"):
        answers["volumes"] = WORKSPACES
    if called in ("jobs", "volumes"):
        answers["json"] = answers["list"]
    engine.version = answers["version"]
    engine.answers = {one: [json_answer(answer)] for one, answer in answers.items()}
    engine.answers["archive"] = [whole(data.draw(archives()))]
    engine.answers["kill"] = engine.answers["stop"] = [json_answer({"message": "no"}, 500)]
    backend = DockerBackend(engine.config)
    try:
        result = CALLS[called](backend)
    except StokeError:
        return
    finally:
        backend.close()
    if isinstance(result, EngineState):
        assert isinstance(result.exit_code, int | None) and isinstance(result.reason, str | None)
    if called == "jobs":
        for one in result:  # type: ignore[attr-defined]
            assert isinstance(one, FoundJob) and isinstance(one.nonce, str | None)
