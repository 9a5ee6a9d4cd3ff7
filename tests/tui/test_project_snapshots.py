"""How jobs with projects look. After a wanted change: pytest tests/tui/test_project_snapshots.py
--snapshot-update"""

from __future__ import annotations

from typing import Any

import pytest

from stoke.history.job import Phase
from stoke.project.manifest import Manifest
from stoke.project.manifest_store import save_manifest
from tests.snapshots import File, Link, snapshot
from tests.tui.conftest import NOW, Desk
from tests.tui.test_hostile import ALL
from tests.tui.test_jobs_snapshots import shows
from tests.tui.test_snapshots import SIZES, Compare
from tui.app import StokeApp

BEFORE: dict[str, File] = {
    "pyproject.toml": b"[project]\nname = 'demo'\nversion = '1'\n",
    "src/train.py": b"import helper\n",
    "src/helper.py": b"NAME = 'here'\n",
    "src/removed.py": b"x = 1\n",
    "data/weights.bin": b"w" * 3_000_000,
    "run.sh": (b"#!/bin/sh\n", 0o644),
    "latest": Link("data/weights.bin"),
}


@pytest.fixture
def jobs(desk: Desk) -> Desk:
    """The same script with a project before and after an edit."""
    after: dict[str, File] = {
        **BEFORE,
        "src/helper.py": b"NAME = 'there'\n",
        "src/a folder with a long name/and a file in it whose name is long, too.txt": b"1",
        f"src/{ALL.replace('/', '-')}.py": b"2",
        "run.sh": (b"#!/bin/sh\n", 0o755),
        "latest": Link("data/other.bin"),
    }
    del after["src/removed.py"]
    _job(desk, "train-aaaaaa", BEFORE, age=900)
    _job(desk, "train-bbbbbb", after, age=90)
    return desk


def _job(desk: Desk, job_id: str, files: dict[str, File], age: float) -> None:
    manifest = snapshot(files).manifest
    assert isinstance(manifest, Manifest)
    sizes = [file.size for file in manifest.files]
    project: dict[str, Any] = {
        "digest": manifest.digest,
        "root": "/home/ada/demo",
        "script": "src/train.py",
        "directory": "src",
        "import_path": ["src"],
        "include": ["data/weights.bin"],
        "exclude": ["*.md", "/notes"],
        "files": len(sizes),
        "bytes": sum(sizes),
    }
    spec = {"code": "import helper\n", "dependencies": ["numpy"], "project": project}
    desk.job(job_id, age=age, hit=True, log=b"fits\n", spec=spec, exit_code=0)
    desk.history.set_phase(job_id, Phase("project", NOW - age, 0.02, False, bytes=1200))
    save_manifest(manifest, {}, job_id)


@SIZES
def test_spec_with_a_digest(
    snap_compare: Compare, app: StokeApp, jobs: Desk, size: tuple[int, int]
) -> None:
    run = shows("files, ", "left_square_bracket")
    assert snap_compare(app, terminal_size=size, run_before=run)


@SIZES
def test_compare_with_changed_files(
    snap_compare: Compare, app: StokeApp, jobs: Desk, size: tuple[int, int]
) -> None:
    keys = ("space", "j", "space", "c", *["j"] * 8)
    run = shows("files: ", *keys)
    assert snap_compare(app, terminal_size=size, run_before=run)
