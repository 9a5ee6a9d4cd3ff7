"""Results and checkpoints on every backend: collected however a job ends, and once."""

from __future__ import annotations

import hashlib
import os
import stat

import pytest

from stoke.backend.capabilities import KeepsFinishedJobs
from stoke.errors import EngineError
from stoke.files.paths import job_dir
from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.jobs.control import remove, stop
from stoke.jobs.refresh import refresh
from stoke.jobs.results import collect_results
from stoke.results.collect import Collected, TooLargeError
from stoke.results.store import read_results, results_folder
from tests.lab import Lab, until
from tests.snapshots import run_project, snapshot

WRITES = """
import os
results = os.environ["STOKE_RESULTS"]
os.makedirs(results + "/deep/er")
open(results + "/a.txt", "w").write("first")
open(results + "/deep/er/b.bin", "wb").write(bytes(range(256)) * 1000)
"""
FIRST = ("a.txt", 5, hashlib.sha256(b"first").hexdigest())
SECOND = (
    "deep/er/b.bin", 256_000, hashlib.sha256(bytes(range(256)) * 1000).hexdigest(),
)  # fmt: skip


def results_of(job: Job) -> Collected:
    found = read_results(job.id)
    return Collected(()) if found is None else found


def record(job: Job) -> Job:
    with History() as history:
        found = history.get(job.id)
    assert found is not None
    return found


def is_gone(lab: Lab, job: Job) -> bool:
    """Whether nothing of the job's results is at its engine."""
    entries = lab.backend.results(job.id, lambda _: None)  # type: ignore[attr-defined]
    if isinstance(lab.backend, KeepsFinishedJobs):
        return entries is None or next(entries, None) is None
    return entries is None


@pytest.mark.parametrize(("end", "state"), [("", "succeeded"), ("raise SystemExit(3)", "failed")])
def test_what_the_code_wrote_is_collected(lab: Lab, end: str, state: str) -> None:
    done = lab.run(WRITES + end)
    assert done.job.state == state, done
    assert results_of(done.job).files == (FIRST, SECOND)
    folder = results_folder(done.job.id)
    assert (folder / "a.txt").read_bytes() == b"first"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    now = record(done.job)
    assert (now.results_files, now.results_bytes) == (2, 256_005)
    assert now.results_at is not None
    until(lambda: is_gone(lab, done.job), "their removal from the engine")


def test_a_job_without_results_has_none_and_no_phase(lab: Lab) -> None:
    done = lab.run("import os; print(os.listdir(os.environ['STOKE_RESULTS']))")
    assert done.stdout == b"[]\n", done
    assert read_results(done.job.id) is None
    assert record(done.job).results_at is not None
    assert not [phase for phase in done.job.phases if phase.name == "results"]


WAITS = """
import os, time
open(os.environ["STOKE_RESULTS"] + "/part", "w").write("so far")
open("made.csv", "w").write("1")
print("written", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("grace", [20.0, 0.0])
def test_a_stopped_job_leaves_what_it_wrote(lab: Lab, grace: float) -> None:
    """Killed at once, the runner has no time for patterns, except for a second on a cluster."""
    job = lab.submit(WAITS, results=["*.csv"])
    tracker = lab.track(job)
    lab.until_output(job, b"written\n")
    tracker.close()
    with History() as history:
        stop(record(job), lab.backend, history, grace)
    done = lab.finish(job)
    assert done.job.state is JobState.STOPPED, done
    found = {file.path for file in results_of(job).files}
    assert found == {"part", "made.csv"} if grace else found - {"made.csv"} == {"part"}


def test_a_job_at_its_timeout_leaves_what_it_wrote(lab: Lab) -> None:
    done = lab.run(WAITS, results=["*.csv"], timeout=3)
    assert done.job.reason == "timeout", done
    assert [file.path for file in results_of(done.job).files] == ["made.csv", "part"]


HOSTILE = """
import os, socket
top = os.fsencode(os.environ["STOKE_RESULTS"])
os.symlink("/etc/passwd", top + b"/link")
os.symlink("/etc", top + b"/folder-link")
os.mkfifo(top + b"/pipe")
os.mkdir(top + b"/sub")
os.symlink("../../../../..", top + b"/sub/up")
for name in (b"\\xff\\xfe", b"tab\\there", b"\\x1b[31mred", b"-rf", b"n" * 255, b"new\\nline", b"..."):
    open(top + b"/" + name, "wb").write(name)
open(top + b"/same", "wb").write(b"twice")
os.link(top + b"/same", top + b"/sub/same")
"""


def test_hostile_entries_are_refused_by_name_and_odd_names_kept(lab: Lab) -> None:
    done = lab.run(HOSTILE)
    assert done.job.state is JobState.SUCCEEDED, done
    names = [b"\xff\xfe", b"tab\there", b"\x1b[31mred", b"-rf", b"n" * 255, b"new\nline", b"..."]
    folder = os.fsencode(results_folder(done.job.id))
    assert sorted(os.listdir(folder)) == sorted([*names, b"same", b"sub"])
    for name in names:
        with open(folder + b"/" + name, "rb") as file:
            assert file.read() == name
    with open(folder + b"/sub/same", "rb") as file:
        assert file.read() == b"twice"
    found = results_of(done.job)
    refused = dict(found.refused)
    assert set(refused) == {"link", "folder-link", "pipe", "sub/up"}
    assert "symbolic link" in refused["link"] and "pipe" in refused["pipe"]
    with History() as history:
        (note,) = [one for one in history.notes(done.job.id) if "not among" in one.text]
    assert "'link'" in note.text


def test_a_results_folder_that_the_code_replaced_is_refused(lab: Lab) -> None:
    code = "import os; d = os.environ['STOKE_RESULTS']; os.rmdir(d); os.symlink('/etc', d)"
    if lab.backend.name == "argo":
        pytest.skip("the folder is a mount there, which cannot be replaced")
    done = lab.run(code)
    found = results_of(done.job)
    assert done.job.state is JobState.SUCCEEDED, done
    assert (found.files, found.refused_count) == ((), 1)


def test_new_and_changed_files_that_match_are_collected(lab: Lab) -> None:
    code = b"""
import os
for path in ("out/new.csv", "out/deep/er.csv", "out/note.txt", "other.csv", "log/x/y"):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    open(path, "w").write(path)
open("out/changed.csv", "w").write("after!")
os.symlink("/etc/passwd", "out/link.csv")
"""
    made = snapshot(
        {"main.py": code, "out/changed.csv": b"before", "out/same.csv": b"same", "x.csv": b"x"}
    )
    done = run_project(lab, made, results=["out/**/*.csv", "./log"])
    assert done.job.state is JobState.SUCCEEDED, done
    assert [file.path for file in results_of(done.job).files] == [
        "log/x/y", "out/changed.csv", "out/deep/er.csv", "out/new.csv",
    ]  # fmt: skip
    assert done.phase("results").seconds is not None


def test_patterns_work_without_a_project_and_leave_the_code_out(lab: Lab) -> None:
    done = lab.run("open('made.py', 'w').write('1')", results=["*.py"])
    assert [file.path for file in results_of(done.job).files] == ["made.py"]


def test_results_beyond_the_limit_stay_at_the_engine(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOKE_RESULTS__MAX_SIZE", "4m")
    code = "import os; open(os.environ['STOKE_RESULTS'] + '/big', 'wb').write(bytes(5_000_000))"
    job = lab.submit(code)
    done = lab.finish(job)
    assert done.job.state is JobState.SUCCEEDED
    now = record(job)
    assert now.results_at is None and "more than 4.0 MiB" in (now.results_problem or "")
    assert not (job_dir(job.id) / "results").exists()
    with History() as history:
        with pytest.raises(TooLargeError):
            collect_results(job.id, lab.backend, history)
        monkeypatch.setenv("STOKE_RESULTS__MAX_SIZE", "1g")
        assert collect_results(job.id, lab.backend, history)
    assert results_of(job).files[0][:2] == ("big", 5_000_000)
    assert record(job).results_problem is None


def test_an_interrupted_collection_leaves_nothing_whole_and_is_repeated(lab: Lab) -> None:
    code = WRITES + "open(results + '/z', 'wb').write(bytes(30_000_000))"
    job = lab.submit(code)
    lab.follow_only(job)

    def interrupt(_text: str) -> None:
        raise KeyboardInterrupt

    with History() as history:
        with pytest.raises(KeyboardInterrupt):
            collect_results(job.id, lab.backend, history, interrupt)
        assert read_results(job.id) is None and not results_folder(job.id).exists()
        assert record(job).results_at is None
        assert collect_results(job.id, lab.backend, history)
        at = record(job).results_at
        assert collect_results(job.id, lab.backend, history)
    assert record(job).results_at == at  # Not collected twice.
    assert [file.size for file in results_of(job).files] == [5, 256_000, 30_000_000]
    with History() as history:
        remove(record(job), lab.backend, history)
    assert not job_dir(job.id).exists()


def test_a_listing_collects_in_a_process_of_its_own(lab: Lab) -> None:
    job = lab.submit(WRITES)
    until(lambda: lab.backend.inspect(job.id).status == "exited", "the end of the job")
    with History() as history:
        refresh([job], _Pool(lab), history, 30)  # type: ignore[arg-type]
    until(lambda: record(job).results_at is not None, "its results", 90)
    assert results_of(job).files == (FIRST, SECOND)
    until(lambda: is_gone(lab, job), "the removal of the job from its engine")


class _Pool:
    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def get(self, _name: str) -> object:
        return self._lab.backend


COUNTS = """
import os
path = os.environ["STOKE_CHECKPOINT"] + "/count"
count = int(open(path).read()) if os.path.exists(path) else 0
open(path, "w").write(str(count + 1))
print(count)
raise SystemExit(count == 0)
"""


def test_a_job_of_the_same_name_finds_the_checkpoint_again(lab: Lab) -> None:
    assert [lab.run(COUNTS, name="train").stdout for _ in range(2)] == [b"0\n", b"1\n"]
    assert lab.run(COUNTS, name="other").stdout == b"0\n"


def test_a_job_without_a_name_has_a_checkpoint_of_its_own(lab: Lab) -> None:
    first = lab.run(COUNTS)
    assert (first.stdout, lab.run(COUNTS).stdout) == (b"0\n", b"0\n")
    again = lab.run(COUNTS, checkpoint=record(first.job).checkpoint)
    assert again.stdout == b"1\n", again


def test_results_of_a_job_that_its_engine_has_forgotten_are_none(lab: Lab) -> None:
    job = lab.submit(WRITES)
    lab.follow_only(job)
    lab.backend.remove(job.id)
    with History() as history:
        try:
            assert collect_results(job.id, lab.backend, history)
        except EngineError:
            pytest.fail("a forgotten job has nothing to collect, which is no error")
