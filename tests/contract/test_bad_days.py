"""Bad days, on every backend: a full disk, a volume that is not ours, many clients."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.docker.names import volume_labels, volume_name
from stoke.backend.api import Volume
from stoke.cache.volumes import Housekeeper
from stoke.errors import EngineError
from stoke.history.database import History
from tests.lab import Lab
from tests.package_index import PackageIndex
from tests.snapshots import run_project, snapshot


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
    if lab.backend.name == "argo":
        pytest.skip("a node's folder is no disk of its own")
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder = Path(os.environ["STOKE_CACHE_DIR"])
    shutil.rmtree(folder)
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m,mode=700", "none", str(folder)], check=True
    )
    yield
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.usefixtures("small_cache")
def test_a_full_disk_names_the_step_and_leaves_no_half_environment(
    lab: Lab, index: PackageIndex
) -> None:
    index.add("heavy", "1.0", size=8_000_000)
    full = lab.run("print('never')", dependencies=["heavy"], on_cache_trouble="fail")
    assert (full.job.exit_code, full.stdout) == (125, b"")
    assert full.error["phase"] == "python"
    assert "No space left" in full.error["text"]
    assert "stoke cache" in full.error["hint"]
    small = lab.run("import alpha; print('room again')", dependencies=["alpha"])
    assert small.stdout == b"room again\n"
    assert small.phase("python").hit is False


@pytest.mark.usefixtures("small_cache")
def test_a_job_runs_without_a_full_cache_unless_configured_otherwise(
    lab: Lab, index: PackageIndex
) -> None:
    index.add("heavy", "1.0", size=8_000_000)
    code = "import heavy, os; print(os.path.dirname(heavy.__file__))"
    done = lab.run(code, dependencies=["heavy"])
    assert done.job.exit_code == 0
    assert b"/.cache/venvs/" in done.stdout
    (note,) = [event["text"] for event in done.events if event["event"] == "note"]
    assert "without the cache" in note and "No space left" in note
    assert lab.run("import alpha", dependencies=["alpha"]).job.exit_code == 0


@pytest.mark.usefixtures("small_cache")
def test_a_project_runs_beside_a_full_cache_unless_configured_otherwise(lab: Lab) -> None:
    code = b"import os; print(os.path.getsize('data'))"
    made = snapshot({"main.py": code, "data": bytes(8_000_000)})
    done = run_project(lab, made)
    assert done.stdout == b"8000000\n", done
    (note,) = [event["text"] for event in done.events if event["event"] == "note"]
    assert "new files are not cached" in note and "No space left" in note
    full = run_project(lab, made, on_cache_trouble="fail")
    assert (full.job.exit_code, full.stdout, full.error["phase"]) == (125, b"", "project")
    assert "No space left" in full.error["text"]
    assert "stoke cache" in full.error["hint"]


def test_a_local_job_fills_its_temporary_folder(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker: tests/backends/docker/test_engine_restart.py. The next job runs while it is full."""
    if lab.backend.name != "local" or os.geteuid() != 0:
        pytest.skip("the temporary folder of a container is on the engine's disk")
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=1777", "none", str(small)]
    subprocess.run(mount, check=True)
    try:
        monkeypatch.setenv("TMPDIR", str(small))
        fills = "import tempfile\nopen(tempfile.mkstemp()[1], 'wb').write(bytes(2 << 20))"
        full = lab.run(fills)
        assert full.job.exit_code == 1 and b"No space left on device" in full.stderr
        assert lab.run("print('next')").stdout == b"next\n"
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


@pytest.fixture(params=["read-only", "another user's", "missing"])
def closed_cache(lab: Lab, request: pytest.FixtureRequest) -> Iterator[str]:
    """The scope's python cache, which jobs cannot write to."""
    name = volume_name(lab.scope, "python")
    labels = volume_labels(lab.scope, "python")
    if lab.backend.name == "docker":
        engine = request.getfixturevalue("docker_engine")
        if request.param == "missing":
            pytest.skip("the engine makes a volume that is gone again, with our labels")
        # Without capabilities root cannot write where only another user may.
        flags = {"read-only": "ro", "another user's": "uid=1234,mode=700"}[request.param]
        options = {"type": "tmpfs", "device": "tmpfs", "o": flags}
        engine.create_volume(name, labels=labels, driver_opts=options)
        yield request.param
        return
    if lab.backend.name == "argo":
        if request.param != "another user's":
            pytest.skip("the node makes a folder that is gone again, and mounts what is there")
        cluster = request.getfixturevalue("real_cluster")
        path = f"/var/lib/stoke/namespaces/{cluster.connect().namespace}/{lab.scope}/python"
        folder = cluster.on_node(path)
        folder.mkdir(parents=True)
        # Without capabilities root cannot write where only another user may.
        os.chown(folder, 1234, 1234)
        folder.chmod(0o700)
        yield request.param
        return
    folder = Path(os.environ["STOKE_CACHE_DIR"])
    shutil.rmtree(folder)
    if request.param == "missing":
        folder.write_text("a file where the folder should be")
        yield request.param
        return
    if os.geteuid() != 0 or request.param == "another user's":
        pytest.skip("mounting needs root, and root may write everywhere")
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,mode=700", "none", str(folder)], check=True)
    yield request.param
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_job_runs_without_an_unwritable_cache(
    lab: Lab, index: PackageIndex, closed_cache: str
) -> None:
    done = lab.run("import alpha; print(alpha.version)", dependencies=["alpha"])
    assert (done.stdout, done.phase("python").hit) == (b"2.0\n", False)
    notes = [event["text"] for event in done.events if event["event"] == "note"]
    assert any("without the cache" in note for note in notes)
    failed = lab.run("print('never')", dependencies=["alpha"], on_cache_trouble="fail")
    assert (failed.job.exit_code, failed.stdout) == (125, b"")


@pytest.mark.usefixtures("closed_cache")
def test_a_project_runs_without_an_unwritable_cache(lab: Lab) -> None:
    done = run_project(lab, snapshot({"main.py": b"print(open('data').read())", "data": b"d"}))
    assert (done.stdout, done.phase("project").hit) == (b"d\n", False), done


@pytest.mark.docker
def test_a_read_only_cache_serves_its_environments(
    lab: Lab, index: PackageIndex, request: pytest.FixtureRequest
) -> None:
    if lab.backend.name != "docker":
        pytest.skip(
            "one folder, once to write to and once to read: a volume of Docker's can be that"
        )
    lab.run("import alpha", dependencies=["alpha"])
    engine = request.getfixturevalue("docker_engine")
    folder = engine.inspect_volume(volume_name(lab.scope, "python"))["Mountpoint"]
    scope = f"{lab.scope}-b"
    engine.create_volume(
        volume_name(scope, "python"),
        labels=volume_labels(scope, "python"),
        driver_opts={"type": "none", "device": folder, "o": "bind,ro"},
    )
    held = lab.run("import alpha; print('here')", dependencies=["alpha"], scope=scope)
    assert (held.stdout, held.phase("python").hit) == (b"here\n", True)
    assert [event for event in held.events if event["event"] == "note"] == []
    built = lab.run("import beta; print('built')", dependencies=["beta"], scope=scope)
    assert (built.stdout, built.phase("python").hit) == (b"built\n", False)
    notes = [event["text"] for event in built.events if event["event"] == "note"]
    assert any("without the cache" in note and "Read-only" in note for note in notes)


def test_a_cache_that_is_cleared_is_built_again(lab: Lab, index: PackageIndex) -> None:
    lab.run("import beta", dependencies=["beta"])
    (volume,) = [v for v in lab.backend.volumes() if (v.scope, v.kind) == (lab.scope, "python")]
    with History() as history:
        housekeeper = Housekeeper(history, lock_ttl=3600)
        measured = housekeeper.measure(lab.backend, volume, lambda _: None)
        assert (measured.bytes or 0) > 0 and measured.in_use_by == ()
        assert housekeeper.clear(lab.backend, volume, lambda _: None).bytes > 0
    again = lab.run("import beta; print('again')", dependencies=["beta"])
    assert (again.stdout, again.phase("python").hit) == (b"again\n", False)


def test_a_cache_in_use_is_not_cleared(lab: Lab, index: PackageIndex) -> None:
    code = "import alpha, time; print('holding', flush=True); time.sleep(600)"
    job = lab.submit(code, dependencies=["alpha"])
    tracker = lab.track(job)
    lab.until_output(job, b"holding\n")
    (volume,) = [v for v in lab.backend.volumes() if (v.scope, v.kind) == (lab.scope, "python")]
    with History() as history, pytest.raises(EngineError) as refused:
        Housekeeper(history, lock_ttl=3600).clear(lab.backend, volume, lambda _: None)
    assert job.id in refused.value.what
    tracker.close()
    lab.backend.stop(job.id, 0)
    lab.finish(job)
    assert lab.run("import alpha", dependencies=["alpha"]).phase("python").hit is True


@pytest.mark.docker
@pytest.mark.parametrize("kind", ["python", "system"])
def test_a_volume_of_our_name_that_is_not_ours_is_refused(
    lab: Lab, request: pytest.FixtureRequest, kind: str
) -> None:
    if lab.backend.name != "docker":
        pytest.skip("only volumes have names that another program can take")
    engine = request.getfixturevalue("docker_engine")
    name = volume_name(lab.scope, kind)
    engine.create_volume(name)
    try:
        with pytest.raises(EngineError, match=name):
            lab.submit("print('never')", system=["leaf"] if kind == "system" else [])
        assert [v for v in lab.backend.volumes() if v.name == name] == []
        volume = Volume("docker", lab.scope, kind, name)
        with History() as history:
            housekeeper = Housekeeper(history, lock_ttl=3600)
            with pytest.raises(EngineError, match=name):
                housekeeper.usage(lab.backend, volume, lambda _: None)
            with pytest.raises(EngineError, match=name):
                housekeeper.prune(lab.backend, volume, lambda _: None, unused=0)
    finally:
        engine.remove_volume(name)
