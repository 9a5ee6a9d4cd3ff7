"""hera is imported for the first job of a kind only, and its Workflows are the same from then on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backends.argo import skeletons
from backends.argo.workflow import make_job
from stoke.config.model import ArgoConfig, Config
from stoke.files.paths import cache_dir
from tests.backends.argo.deliveries import delivery

CODE = """
import sys
from backends.argo.workflow import make_job
from stoke.config.model import Config
from tests.backends.argo.deliveries import delivery
make_job(delivery("print(2)", env={"A": "b"}, labels={"team": "vision"}), Config())
print("hera" in sys.modules)
"""


def imports_hera() -> bool:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout == "True\n"


def test_only_the_first_job_imports_hera(own_home: Path) -> None:
    assert [imports_hera(), imports_hera()] == [True, False]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"secrets": {"TOKEN": "secret:api/token"}, "cpu": 2, "memory_request": "1g", "timeout": 60},
        {"system": ["gcc"], "labels": {"team": "a"}, "mounts": ["claim:data:/data"]},
    ],
)
@pytest.mark.parametrize("settings", [{}, {"at_most_once": True, "queue": "q"}])
def test_a_kept_skeleton_makes_the_same_workflow(
    own_home: Path, fields: dict[str, Any], settings: dict[str, Any]
) -> None:
    config = Config(argo=ArgoConfig.model_validate(settings))
    job = delivery("print(1)", **fields)
    first, second = (make_job(job, config, ("node-a",)) for _ in range(2))
    assert first == second
    assert len([*(cache_dir() / "workflows").iterdir()]) == 1


@pytest.mark.parametrize("damage", ["", "[]", "{", "\0" * 100])
def test_a_damaged_skeleton_is_built_anew(own_home: Path, damage: str) -> None:
    job = delivery("print(1)")
    made = make_job(job, Config())
    (file,) = (cache_dir() / "workflows").iterdir()
    file.write_text(damage)
    assert make_job(job, Config()) == made


def test_another_version_of_hera_builds_anew(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[int] = []

    def build() -> dict[str, Any]:
        built.append(1)
        return {"a": 1}

    def with_version(path: str) -> Callable[[str], Any]:
        return lambda _: type("Spec", (), {"origin": path})

    for path in (__file__, __file__, skeletons.__file__):
        monkeypatch.setattr(skeletons, "find_spec", with_version(path))
        assert skeletons.skeleton(["shape"], build) == {"a": 1}
    assert len(built) == 2


def test_only_so_many_are_kept(own_home: Path) -> None:
    for number in range(skeletons.MOST + 5):
        skeletons.skeleton([number], dict)
    assert len([*(cache_dir() / "workflows").iterdir()]) == skeletons.MOST


def test_a_folder_that_cannot_be_written_costs_only_time(
    own_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STOKE_CACHE_DIR", str(tmp_path / "file"))
    assert make_job(delivery("print(1)"), Config()).workflow["spec"]["templates"]
