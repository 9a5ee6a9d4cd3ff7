"""An engine that means harm: memory and time are bounded, and the error is one of ours."""

from __future__ import annotations

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
from backends.docker.names import job_labels, volume_labels, volume_name
from stoke.backend.api import EngineState, FoundJob
from stoke.errors import EngineError, StokeError
from tests.backends.docker.fake_engine import JOB, RUNNING, FakeEngine, fake_engine, json_answer
from tests.malice import DRIPS, MALICE, bounded, spoiled

VERSION = {"ApiVersion": "1.41", "Arch": "amd64", "Components": [{"Name": "Engine"}]}
INFO = {
    "ServerVersion": "27.0",
    "DockerRootDir": "/var/lib/docker",
    "Driver": "overlay2",
    "Plugins": {"Log": ["local"]},
    "MemoryLimit": True,
}
EXITED = {
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
SOUND: dict[str, Any] = {
    "version": VERSION,
    "info": INFO,
    "json": EXITED,
    "volumes": VOLUMES,
}
CALLS: dict[str, Callable[[DockerBackend], object]] = {
    "inspect": lambda backend: backend.inspect(JOB),
    "jobs": lambda backend: backend.jobs(),
    "volumes": lambda backend: backend.volumes(),
    "check": lambda backend: backend.check(),
    "log": lambda backend: list(backend.logs(JOB, 0, follow=False)),
    "stop": lambda backend: backend.stop(JOB, 0),
    "remove": lambda backend: backend.remove(JOB),
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


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_wrong_value_anywhere_is_no_crash(engine: FakeEngine, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([*SOUND, "list"]))
    answers = {**SOUND, "list": LISTED}
    answers[name] = data.draw(spoiled(answers[name]))
    called = data.draw(st.sampled_from([*CALLS]))
    if called in ("jobs", "volumes"):
        answers["json"] = answers["list"]
    engine.version = answers["version"]
    engine.answers = {one: [json_answer(answer)] for one, answer in answers.items()}
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
