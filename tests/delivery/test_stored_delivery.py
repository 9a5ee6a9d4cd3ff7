"""The deliveries of waiting jobs: what is read is what was stored, and runners are stored once."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from stoke.backend.api import Delivery
from stoke.delivery.stored_delivery import drop_delivery, load_delivery, store_delivery
from stoke.errors import EngineError
from stoke.files.paths import job_dir, state_dir
from stoke.request.spec import JobSpec

RUNNER = b"print('runner')\n" * 5000


def delivery(job_id: str, runner: bytes = RUNNER) -> Delivery:
    spec = JobSpec(code="print(1)")
    public = spec.model_dump_json().encode()
    return Delivery(job_id, spec, runner, "ab", b"\x1f\x8b\x00", public, "hash")


def runners() -> list[Path]:
    folder = state_dir() / "runners"
    return list(folder.iterdir()) if folder.exists() else []


def test_waiting_jobs_share_their_runner(own_home: Path) -> None:
    first, second, third = delivery("a-1"), delivery("b-2"), delivery("c-3", b"another")
    for one in (first, second, third):
        store_delivery(one)
    assert len(runners()) == 2
    links = [job_dir(name) / "runner.py" for name in ("a-1", "b-2")]
    assert os.path.samefile(*links)
    assert stat.S_IMODE(links[0].stat().st_mode) == 0o600
    drop_delivery("a-1")
    assert load_delivery("b-2") == second and load_delivery("c-3") == third
    drop_delivery("b-2")
    drop_delivery("c-3")
    assert runners() == [] and list(job_dir("b-2").iterdir()) == []


def test_a_file_system_without_hard_links_holds_copies(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    for name in ("a-1", "b-2"):
        store_delivery(delivery(name))
    assert load_delivery("b-2") == delivery("b-2") and runners() == []
    drop_delivery("b-2")
    assert list(job_dir("b-2").iterdir()) == []


@pytest.mark.parametrize("damage", [b"", b"print('another')\n"])
def test_a_damaged_runner_is_not_run(own_home: Path, damage: bytes) -> None:
    store_delivery(delivery("a-1"))
    (job_dir("a-1") / "runner.py").write_bytes(damage)
    with pytest.raises(EngineError, match="runner is damaged"):
        load_delivery("a-1")
    drop_delivery("a-1")
    store_delivery(delivery("a-1"))
    assert load_delivery("a-1") == delivery("a-1")


def test_a_runner_that_is_gone_is_an_error(own_home: Path) -> None:
    store_delivery(delivery("a-1"))
    (job_dir("a-1") / "runner.py").unlink()
    with pytest.raises(EngineError, match="what was stored for a-1 cannot be read"):
        load_delivery("a-1")
