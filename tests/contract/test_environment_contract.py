"""Environments on every backend: resolved, built once, found again, and exactly as requested."""

from __future__ import annotations

import threading

import pytest

from stoke.history.database import History
from stoke.history.job import JobState
from stoke.jobs.control import stop
from tests.lab import Lab, Outcome, until
from tests.package_index import PackageIndex

pytestmark = pytest.mark.usefixtures("index")

SHOWS = "import alpha, beta; print(alpha.version, beta.version)"


def test_the_first_job_builds_and_the_second_finds(lab: Lab, index: PackageIndex) -> None:
    cold = lab.run(SHOWS, dependencies=["beta"])
    assert cold.stdout == b"2.0 2.0\n"
    assert (cold.phase("lock").hit, cold.phase("python").hit) == (False, False)
    assert (cold.phase("python").packages, cold.phase("python").cached) == (2, 0)
    asked = len(index.requests)

    warm = lab.run("import beta; print('warm')", dependencies=["beta"])
    assert (warm.phase("lock").hit, warm.phase("python").hit) == (True, True)
    assert (warm.phase("python").packages, warm.phase("python").cached) == (2, 2)
    assert len(index.requests) == asked
    assert warm.job.predicted.python == "hit"


def test_the_progress_of_an_installation_is_reported(lab: Lab, index: PackageIndex) -> None:
    digests = {name: index.add(name, "1.0", size=3_000_000) for name in ("heavy", "light")}
    held = index.held["heavy-1.0-py3-none-any.whl"] = threading.Event()
    lock = "".join(f"{name}==1.0 --hash=sha256:{digest}\n" for name, digest in digests.items())
    job = lab.submit("import heavy, light", requirements=lock, locked=True)
    lab.track(job)
    with History() as history:

        def activity() -> str:
            found = history.get(job.id)
            phases = found.phases if found else []
            return next((one.activity for one in phases if one.activity), "")

        until(lambda: activity().endswith(", heavy"), "what is left to fetch")
        assert activity().startswith("fetching 2 packages: ")
        held.set()
        until(lambda: bool((one := history.get(job.id)) and one.state.finished), "its end")
        found = history.get(job.id)
    assert found is not None and found.state is JobState.SUCCEEDED
    assert [one.name for one in found.phases if one.activity] == []


def test_received_bytes_are_counted_or_unknown(lab: Lab, index: PackageIndex) -> None:
    index.add("heavy", "1.0", size=300_000)
    cold = lab.run("import heavy", dependencies=["heavy"])
    warm = lab.run("import heavy", dependencies=["heavy"])
    if lab.backend.capabilities.counts_bytes:
        assert (cold.job.received_bytes or 0) > 300_000
        assert (warm.job.received_bytes or 0) < 2_000
    else:
        assert cold.job.received_bytes is None
        assert warm.job.received_bytes is None


def test_a_package_that_another_environment_brought_is_a_partial_hit(lab: Lab) -> None:
    lab.run("import alpha", dependencies=["alpha"])
    partly = lab.run(SHOWS, dependencies=["beta"])
    assert partly.phase("python").hit is False
    assert (partly.phase("python").packages, partly.phase("python").cached) == (2, 1)
    told = [event for event in partly.events if event["event"] == "packages"]
    assert [name for event in told for name in event["miss"]] == ["beta==2.0"]
    assert [name for event in told for name in event["hit"]] == ["alpha==2.0"]


def test_scopes_are_apart(lab: Lab) -> None:
    lab.run("import alpha", dependencies=["alpha"])
    other = lab.run("import alpha", dependencies=["alpha"], scope=lab.scope + "-b")
    assert other.phase("python").hit is False


def test_without_a_cache_every_job_builds_and_stores_nothing(lab: Lab) -> None:
    for _ in range(2):
        done = lab.run("import alpha; print(1)", dependencies=["alpha"], use_cache=False)
        assert done.job.exit_code == 0, done
        assert (done.stdout, done.phase("python").hit) == (b"1\n", False)
    assert [volume for volume in lab.backend.volumes() if volume.scope == lab.scope] == []


def test_ten_jobs_at_once_build_an_environment_once(lab: Lab) -> None:
    jobs = [lab.submit(SHOWS, dependencies=["beta"]) for _ in range(10)]
    done: list[Outcome] = []
    threads = [
        threading.Thread(target=lambda job=job: done.append(lab.finish(job))) for job in jobs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcome.stdout for outcome in done] == [b"2.0 2.0\n"] * 10
    assert [outcome.phase("python").hit for outcome in done].count(False) == 1
    assert [outcome.phase("lock").hit for outcome in done].count(False) == 1


@pytest.mark.parametrize(
    ("dependencies", "expected"),
    [
        (["alpha>=1,<2"], b"1.5"),
        (["alpha[more]==1.0"], b"1.0"),
        (["alpha==1.0; python_version < '3'", "alpha==1.5; python_version >= '3'"], b"1.5"),
        (["alpha~=1.0"], b"1.5"),
    ],
)
def test_requirements_are_installed_as_written(
    lab: Lab, dependencies: list[str], expected: bytes
) -> None:
    code = "import alpha; print(alpha.version)"
    assert lab.run(code, dependencies=dependencies).stdout.strip() == expected
    as_file = lab.run(code, requirements="\n".join(["# a comment", *dependencies]) + "\n")
    assert as_file.stdout.strip() == expected


def test_a_direct_url_is_locked_with_its_hash(lab: Lab, index: PackageIndex) -> None:
    url = index.file_url("alpha", "1.0")
    done = lab.run("import alpha; print(alpha.version)", dependencies=[f"alpha @ {url}"])
    assert done.stdout == b"1.0\n"
    again = lab.run("import alpha", dependencies=[f"alpha @ {url}"])
    assert again.phase("python").hit is True


def test_a_hash_that_is_not_the_packages_is_refused(lab: Lab, index: PackageIndex) -> None:
    wrong = "0" * 64
    done = lab.run("import alpha", requirements=f"alpha>=1.0,<1.2 --hash=sha256:{wrong}\n")
    assert (done.job.state, done.job.exit_code) == (JobState.FAILED, 125)
    assert "alpha==1.0" in done.error["text"] and wrong in done.error["text"]
    assert done.stdout == b""


def test_a_locked_request_installs_without_resolving(lab: Lab, index: PackageIndex) -> None:
    digest = index.add("gamma", "3.0")
    lock = f"gamma==3.0 --hash=sha256:{digest}\n"
    done = lab.run("import gamma; print(gamma.version)", requirements=lock, locked=True)
    assert done.stdout == b"3.0\n"
    assert done.phase("lock").hit is True
    wrong = lab.run("import gamma", requirements=lock.replace(digest, "0" * 64), locked=True)
    assert wrong.job.exit_code == 125
    assert "hash" in wrong.error["text"].lower()


@pytest.mark.parametrize(
    ("dependencies", "named"),
    [(["nowhere-to-be-found"], "nowhere-to-be-found"), (["alpha<2", "beta>=2"], "alpha")],
    ids=["does not exist", "conflict"],
)
def test_an_unresolvable_request_is_explained(
    lab: Lab, dependencies: list[str], named: str
) -> None:
    done = lab.run("print('never')", dependencies=dependencies)
    assert (done.job.exit_code, done.stdout) == (125, b"")
    assert named in done.error["text"] and done.error["phase"] == "lock"
    assert "DEBUG" not in done.error["text"]
    assert named in (done.job.reason or "")


def test_without_a_network_a_warm_cache_works_and_a_cold_one_reports_why_not(
    lab: Lab, index: PackageIndex
) -> None:
    lab.run("import alpha", dependencies=["alpha"])
    index.stop()
    warm = lab.run("import alpha; print('works')", dependencies=["alpha"])
    assert warm.stdout == b"works\n"
    stale = lab.finish(
        lab.submit("import alpha; print('works')", dependencies=["alpha"], upgrade=True)
    )
    assert stale.stdout == b"works\n"
    assert any("no network" in event.get("text", "") for event in stale.events)
    cold = lab.run("import beta", dependencies=["beta"])
    assert cold.job.exit_code == 125
    assert "could not be reached" in cold.error["text"]
    assert cold.error["hint"]


def test_a_prerelease_is_installed_only_if_the_file_allows_it(
    lab: Lab, index: PackageIndex
) -> None:
    index.add("alpha", "3.0rc1")
    code = "import alpha; print(alpha.version)"
    assert lab.run(code, requirements="alpha\n").stdout == b"2.0\n"
    assert lab.run(code, requirements="--pre\nalpha\n").stdout == b"3.0rc1\n"


def test_upgrade_asks_the_index_again(lab: Lab, index: PackageIndex) -> None:
    code = "import alpha; print(alpha.version)"
    assert lab.run(code, dependencies=["alpha"]).stdout == b"2.0\n"
    index.add("alpha", "2.1")
    assert lab.run(code, dependencies=["alpha"]).stdout == b"2.0\n"
    newer = lab.finish(lab.submit(code, dependencies=["alpha"], upgrade=True))
    assert newer.stdout == b"2.1\n"
    assert newer.phase("lock").hit is False


def test_a_private_index_works_and_its_password_is_not_stored(
    lab: Lab, private_index: PackageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INDEX_LOGIN", "ada:correct horse/battery")
    settings = {"url": private_index.url, "credentials": "env:INDEX_LOGIN"}
    code = "import os, secretive; print(secretive.version, 'horse' in str(os.environ))"
    done = lab.run(code, dependencies=["secretive"], index=settings)
    assert done.stdout == b"1.0 False\n"
    failed = lab.run("pass", dependencies=["not-there-either"], index=settings)
    assert failed.job.exit_code == 125
    told = str(done) + str(failed)
    for word in ("correct horse", "correct%20horse", "battery"):
        assert word not in told
    monkeypatch.setenv("INDEX_LOGIN", "ada:wrong")
    denied = lab.run("pass", dependencies=["secretive"], index=settings, upgrade=True)
    assert denied.job.exit_code == 125
    assert "wrong" not in str(denied.error)


# What an installer does in a job: it takes one version away and puts another in its place.
INSTALLS = """
import glob, io, shutil, sys, sysconfig, urllib.request, zipfile
packages = sysconfig.get_path("purelib")
for path in glob.glob(packages + "/alpha*"):
    shutil.rmtree(path)
wheel = urllib.request.urlopen(sys.argv[1]).read()
zipfile.ZipFile(io.BytesIO(wheel)).extractall(packages)
import alpha
print(alpha.version)
"""


def test_packages_that_a_job_installs_do_not_reach_the_next_job(
    lab: Lab, index: PackageIndex
) -> None:
    url = f"http://{index.host}/files/alpha-2.0-py3-none-any.whl"
    assert lab.run(INSTALLS, dependencies=["alpha==1.0"], args=[url]).stdout == b"2.0\n"
    shows = "import alpha; print(alpha.version)"
    again = lab.run(shows, dependencies=["alpha==1.0"])
    assert (again.stdout, again.phase("python").hit) == (b"1.0\n", False)
    assert any("changed by a job" in event.get("text", "") for event in again.events)
    warm = lab.run(shows, dependencies=["alpha==1.0"])
    assert (warm.stdout, warm.phase("python").hit) == (b"1.0\n", True)


def test_an_environment_that_a_running_job_changed_is_not_waited_for(
    lab: Lab, index: PackageIndex
) -> None:
    url = f"http://{index.host}/files/alpha-2.0-py3-none-any.whl"
    goes_on = INSTALLS + "import time\nwhile True: time.sleep(0.05)\n"
    running = lab.submit(goes_on, dependencies=["alpha==1.0"], args=[url])
    tracker = lab.track(running)
    lab.until_output(running, b"2.0\n")
    shows = "import alpha; print(alpha.version)"
    for hit in (False, True):
        other = lab.run(shows, dependencies=["alpha==1.0"])
        assert (other.stdout, other.phase("python").hit) == (b"1.0\n", hit)
    tracker.close()
    with History() as history:
        stop(running, lab.backend, history, 0)
    assert lab.finish(running).stdout == b"2.0\n"


def test_reading_writing_and_compiling_inside_an_environment_changes_nothing(lab: Lab) -> None:
    """What packages do to themselves: caches of bytecode, and files beside their own."""
    code = (
        "import alpha, compileall, os, sysconfig\n"
        "compileall.compile_dir(sysconfig.get_path('purelib'), quiet=2)\n"
        "open(os.path.dirname(alpha.__file__) + '/fonts.cache', 'w').close()\n"
    )
    lab.run(code, dependencies=["alpha"])
    assert lab.run(code, dependencies=["alpha"]).phase("python").hit
