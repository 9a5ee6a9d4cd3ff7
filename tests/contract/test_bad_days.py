"""Bad days, on every backend: a full disk, a volume that is not ours, many clients."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.docker.names import volume_labels, volume_name
from stoke.errors import EngineError
from tests.lab import Lab
from tests.package_index import PackageIndex


@pytest.fixture
def small_cache(lab: Lab, request: pytest.FixtureRequest) -> Iterator[None]:
    """The scope's python cache on a disk of 3 MiB."""
    if lab.backend.name == "docker":
        engine = request.getfixturevalue("docker_engine")
        engine.create_volume(
            volume_name(lab.scope, "python"),
            labels=volume_labels(lab.scope, "python"),
            driver_opts={"type": "tmpfs", "device": "tmpfs", "o": "size=3m"},
        )
        yield
        return
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder = Path(os.environ["STOKE_CACHE_DIR"])
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(folder)], check=True)
    yield
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.usefixtures("small_cache")
def test_a_full_disk_names_the_step_and_leaves_no_half_environment(
    lab: Lab, index: PackageIndex
) -> None:
    index.add("heavy", "1.0", size=8_000_000)
    full = lab.run("print('never')", dependencies=["heavy"])
    assert (full.job.exit_code, full.stdout) == (125, b"")
    assert full.error["phase"] == "python"
    assert "No space left" in full.error["text"]
    assert "stoke cache" in full.error["mend"]
    small = lab.run("import alpha; print('room again')", dependencies=["alpha"])
    assert small.stdout == b"room again\n"
    assert small.phase("python").hit is False


def test_a_cache_that_is_cleared_is_built_again(lab: Lab, index: PackageIndex) -> None:
    lab.run("import beta", dependencies=["beta"])
    (volume,) = [v for v in lab.backend.volumes() if (v.scope, v.kind) == (lab.scope, "python")]
    measured = lab.backend.measure(volume)
    assert (measured.bytes or 0) > 0 and measured.in_use_by == ()
    freed = lab.backend.clear(volume, lambda _: None)
    assert freed > 0
    again = lab.run("import beta; print('again')", dependencies=["beta"])
    assert (again.stdout, again.phase("python").hit) == (b"again\n", False)


def test_a_cache_in_use_is_not_cleared(lab: Lab, index: PackageIndex) -> None:
    code = "import alpha, time; print('holding', flush=True); time.sleep(600)"
    job = lab.submit(code, dependencies=["alpha"])
    tracker = lab.track(job)
    lab.until_output(job, b"holding\n")
    (volume,) = [v for v in lab.backend.volumes() if (v.scope, v.kind) == (lab.scope, "python")]
    with pytest.raises(EngineError) as refused:
        lab.backend.clear(volume, lambda _: None)
    assert job.id in refused.value.what
    tracker.close()
    lab.backend.stop(job.id, 0)
    lab.finish(job)
    assert lab.run("import alpha", dependencies=["alpha"]).phase("python").hit is True


@pytest.mark.docker
def test_a_volume_of_our_name_that_is_not_ours_is_refused(
    lab: Lab, request: pytest.FixtureRequest
) -> None:
    if lab.backend.name != "docker":
        pytest.skip("only volumes have names that somebody else can take")
    engine = request.getfixturevalue("docker_engine")
    name = volume_name(lab.scope, "python")
    engine.create_volume(name)
    try:
        with pytest.raises(EngineError, match=name):
            lab.submit("print('never')")
        assert [v for v in lab.backend.volumes() if v.name == name] == []
    finally:
        engine.remove_volume(name)
