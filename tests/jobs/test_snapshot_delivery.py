"""What of a project is sent to jobs of one scope: each content once."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.local import LocalBackend
from stoke.backend.api import Delivery, PhaseReport
from stoke.cache.volumes import Housekeeper
from stoke.config.model import Config
from stoke.files.paths import cache_dir
from stoke.history.database import History
from stoke.history.job import JobState
from stoke.jobs.snapshot_delivery import known_contents
from stoke.project.pack import read_pack
from stoke.request.spec import JobSpec
from tests.lab import Lab, Outcome


class WatchedBackend(LocalBackend):
    """The local backend, with a record of the contents that each job brought."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.sent: list[set[bytes]] = []

    def project_store(self, scope: str) -> str | None:
        return str(cache_dir() / scope)

    def submit(self, delivery: Delivery, report: PhaseReport) -> None:
        assert delivery.project is not None
        contents = set()
        if delivery.project.pack is not None:
            with delivery.project.pack.open("rb") as file:
                contents = {data for _, data in read_pack(file)}
        self.sent.append(contents)
        super().submit(delivery, report)


@pytest.fixture
def backend() -> Iterator[WatchedBackend]:
    backend = WatchedBackend(Config())
    yield backend
    backend.close()


@pytest.fixture
def lab(backend: WatchedBackend) -> Lab:
    return Lab(backend, Config(), "default", "127.0.0.1")


CODE = "import helper\nprint(helper.value)\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "main.py").write_text(CODE)
    (root / "helper.py").write_text("value = 1\n")
    return root


def run(lab: Lab, root: Path, code: str = CODE, **fields: object) -> Outcome:
    done = lab.run(code, project={"root": str(root), "script": "main.py"}, **fields)
    assert done.job.state is JobState.SUCCEEDED, done
    return done


def files(sent: set[bytes]) -> set[bytes]:
    """What was sent without the manifest."""
    return {data for data in sent if not data.startswith(b'{"version"')}


def test_each_content_is_sent_once(lab: Lab, backend: WatchedBackend, root: Path) -> None:
    assert run(lab, root).stdout == b"1\n"
    again = run(lab, root)
    assert again.phase("project").hit is True and again.phase("project").bytes == 0
    (root / "helper.py").write_text("value = 2\n")
    assert run(lab, root).stdout == b"2\n"
    (root / "helper.py").rename(root / "moved.py")
    (root / "helper.py").write_text("value = 1\n")
    assert run(lab, root).stdout == b"1\n"
    assert [files(sent) for sent in backend.sent] == [
        {CODE.encode(), b"value = 1\n"}, set(), {b"value = 2\n"}, set(),
    ]  # fmt: skip
    assert backend.sent[1] == set() and backend.sent[3] != set()


def test_edited_code_replaces_that_of_the_script(
    lab: Lab, backend: WatchedBackend, root: Path
) -> None:
    run(lab, root)
    assert run(lab, root, "print('edited')\n").stdout == b"edited\n"
    assert files(backend.sent[1]) == {b"print('edited')\n"}
    assert (root / "main.py").read_text() == CODE


def test_without_the_cache_everything_travels(
    lab: Lab, backend: WatchedBackend, root: Path
) -> None:
    for use_cache in (True, False, False):
        run(lab, root, use_cache=use_cache)
    assert backend.sent[0] == backend.sent[1] == backend.sent[2] != set()


def test_what_another_user_pruned_fails_once_and_is_sent_again(
    lab: Lab, backend: WatchedBackend, root: Path
) -> None:
    run(lab, root)
    for folder in cache_dir().rglob("snapshots"):
        shutil.rmtree(folder)
    failed = lab.run(CODE, project={"root": str(root), "script": "main.py"})
    assert failed.job.state is JobState.FAILED and failed.stdout == b""
    assert "no longer in the cache" in failed.error["text"]
    assert run(lab, root).stdout == b"1\n"
    assert backend.sent[1] == set() and backend.sent[2] == backend.sent[0]


def test_a_cleared_cache_is_known_to_be_empty(
    lab: Lab, backend: WatchedBackend, root: Path
) -> None:
    run(lab, root)
    with History() as history:
        housekeeper = Housekeeper(history, 3600)
        for volume in backend.volumes():
            housekeeper.clear(backend, volume, lambda _: None)
    assert run(lab, root).stdout == b"1\n"
    assert backend.sent[1] == backend.sent[0]


@pytest.fixture
def small_cache() -> Iterator[None]:
    """A cache folder with room for 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    cache_dir().mkdir(mode=0o700, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "none", str(cache_dir())]
    subprocess.run(mount, check=True)
    yield
    subprocess.run(["umount", "--lazy", str(cache_dir())], check=True)


def test_a_job_that_could_not_store_its_files_is_not_believed(
    small_cache: None, lab: Lab, backend: WatchedBackend, root: Path
) -> None:
    (root / "data").write_bytes(os.urandom(2 * 1024**2))
    for _ in range(2):
        assert run(lab, root).stdout == b"1\n"
    assert known_contents(JobSpec(code=CODE), backend) == set()
    assert len(backend.sent[0]) == 4 and backend.sent[1] == backend.sent[0]


def test_a_rerun_takes_from_the_cache_what_the_folder_lost(
    lab: Lab, backend: WatchedBackend, root: Path
) -> None:
    first = run(lab, root)
    with History() as history:
        recorded = JobSpec.model_validate_json(history.spec(first.job.id) or "")
    shutil.rmtree(root)
    assert recorded.project is not None
    again = lab.run(CODE, project=recorded.project.model_dump())
    assert again.stdout == b"1\n" and backend.sent[1] == set()
