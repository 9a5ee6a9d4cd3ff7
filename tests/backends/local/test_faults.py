"""A local job whose disk is full, whose supervisor is killed, or whose processes hide."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.local import processes as local_processes
from backends.local.backend import LocalBackend
from backends.local.log import FrameFile
from backends.local.processes import MARK, Process, end_leftovers, leftovers
from backends.local.supervisor import HEADER, STATUS, FrameWriter, identity, publish, reserve
from stoke.backend.api import Delivery
from stoke.backend.pool import Backends
from stoke.config.loader import unknown_variables
from stoke.config.model import Config
from stoke.errors import EXIT_ENGINE, EXIT_TIMEOUT, EngineError
from stoke.files.paths import state_dir
from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.jobs.control import remove, stop
from stoke.jobs.refresh import refresh
from stoke.jobs.tracker import Tracker
from stoke.logs.fallback import UnsavedLogError
from stoke.logs.spool import NOTE, STDOUT
from stoke.remote.bundle import bundle
from stoke.request.spec import make_spec
from tests.hints import is_hint
from tests.lab import Lab, until
from tests.writes import replace_write

FOREVER = "import time\nwhile True: time.sleep(1)"


@pytest.fixture
def lab(own_home: Path) -> Lab:
    config = Config()
    return Lab(LocalBackend(config), config, "test", "127.0.0.1")


@pytest.fixture(params=["3m", "nr_inodes=60"])
def small_disk(own_home: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """State on a disk with room for little."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder = state_dir()
    folder.mkdir()
    size = f"size=3m,{request.param}" if "=" in request.param else f"size={request.param}"
    options = f"mode=700,{size}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def folder_of(job: Job) -> Path:
    return state_dir() / "local" / job.id


def mark_of(job: Job) -> str:
    mark: str = json.loads((folder_of(job) / "job.json").read_text())["mark"]
    return mark


def kill_supervisor(job: Job) -> None:
    """As the kernel does when memory runs out."""
    started = folder_of(job) / "started.json"
    until(started.exists, "the supervisor's record")
    supervisor = Process(json.loads(started.read_text()))
    assert supervisor.send(signal.SIGKILL)
    until(lambda: supervisor.is_dead or _is_defunct(supervisor.pid), "the supervisor's end")


def _is_defunct(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


# ------------------------------------------------------------------ a full disk


def test_a_full_disk_costs_output_and_never_the_job(small_disk: Path, lab: Lab) -> None:
    """Nothing but the job fills it: what is left for records and history suffices.

    Frames and spool share the disk, so how much of each fits depends on which grows first. A spool
    without room leaves the end provisional, and the next follower completes it.
    """
    code = (
        "import os, sys, time\n"
        f"for number in range(200): open('{small_disk}/inode-%d' % number, 'w').close()\n"
    )
    lines = "for i in range(60000): print('%099d' % i)\nsys.exit(3)"
    job = lab.submit(f"import sys\ntry:\n {code.splitlines()[1]}\nexcept OSError: pass\n{lines}")
    unsaved: list[UnsavedLogError] = []
    with History() as history:
        Tracker(
            lab.backend, history, job.id, on_unsaved=unsaved.append
        ).run()  # As `stoke run` does.
        done = history.get(job.id)
    assert done is not None
    assert (done.state, done.exit_code) == (JobState.FAILED, 3)
    assert done.seconds is not None and done.seconds > 0
    assert done.provisional == bool(unsaved)
    written = [
        frame
        for batch in FrameFile(folder_of(job) / "frames", 0, False, lambda: True)
        for frame in batch
    ]
    subprocess.run(["mount", "-o", "remount,size=64m,nr_inodes=10000", str(small_disk)], check=True)
    assert lab.finish(job).job.exit_code == 3
    printed = b"".join(frame.data for frame in written if frame.stream == STDOUT)
    assert printed.startswith(b"%099d\n" % 0)
    assert lab.output(job, STDOUT) == printed
    assert b"bytes of output were lost: the disk was full" in lab.output(job, NOTE)


def test_a_disk_that_others_fill_to_the_last_byte_keeps_the_exit_code(
    small_disk: Path, lab: Lab, tmp_path: Path
) -> None:
    """The supervisor alone: no process follows the job until there is room again."""
    gate = tmp_path / "gate"
    job = lab.submit(
        f"import os, time\nprint('began')\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)"
        "\nprint('x' * 100000)\nraise SystemExit(7)"
    )
    frames = folder_of(job) / "frames"
    until(lambda: b"began" in frames.read_bytes(), "the code's beginning")
    filling = os.open(small_disk / "filling", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OSError, match="No space left"):
        while True:
            os.write(filling, bytes(4096))
    gate.touch()
    until(lambda: lab.backend.inspect(job.id).status == "exited", "the job's end")
    assert lab.backend.inspect(job.id).exit_code == 7
    os.close(filling)
    (small_disk / "filling").unlink()
    assert lab.finish(job).job.exit_code == 7


def test_a_full_disk_refuses_the_job_at_once(small_disk: Path, lab: Lab) -> None:
    with History():
        pass
    filling = os.open(small_disk / "filling", os.O_WRONLY | os.O_CREAT)
    room = os.fstatvfs(filling)
    os.write(filling, bytes((room.f_bavail - 30) * room.f_frsize))
    with pytest.raises(EngineError, match="No space left"):
        lab.submit("print('never')")
    os.close(filling)


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EIO, errno.ENOSPC])
def test_a_write_that_fails_is_counted_and_leaves_no_half_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    frames = FrameWriter(str(tmp_path / "frames"))
    frames.add(1, b"before\n")
    real = os.write
    left = iter([5])

    def write(descriptor: int, data: bytes) -> int:
        some = next(left, None)
        if some is None:
            raise OSError(number, os.strerror(number))
        return real(descriptor, data[:some])

    replace_write(monkeypatch, tmp_path, write)
    frames.add(1, b"lost\n")
    monkeypatch.undo()
    frames.add(2, b"after\n")
    frames.close()
    (batch,) = FrameFile(tmp_path / "frames", 0, False, lambda: True)
    assert [(frame.stream, frame.data) for frame in batch if frame.stream != 3] == [
        (1, b"before\n"),
        (2, b"after\n"),
    ]
    (told,) = [frame.data.decode() for frame in batch if frame.stream == 3]
    why = "the disk was full" if number == errno.ENOSPC else os.strerror(number)
    assert told == f"5 bytes of output were lost: {why}"


def test_a_reader_does_not_keep_half_a_frame_that_was_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "frames"
    whole = HEADER.pack(1, 3, 10) + b"one"
    path.write_bytes(whole + HEADER.pack(1, 100, 11) + b"half")
    over = False
    stream = FrameFile(path, 0, True, lambda: over)
    batches = iter(stream)
    assert [frame.data for frame in next(batches)] == [b"one"]
    path.write_bytes(whole + HEADER.pack(2, 3, 12) + b"two")
    over = True
    assert [frame.data for frame in next(batches)] == [b"two"]
    assert list(batches) == []


def test_a_record_is_written_in_place_and_read_under_either_name(tmp_path: Path) -> None:
    from backends.local.backend import _record

    reserve(str(tmp_path))
    assert _record(tmp_path, STATUS) is None
    before = (tmp_path / "status.reserved").stat()
    assert before.st_blocks * 512 >= 4096
    publish(str(tmp_path), STATUS, {"exit_code": 4})
    assert (tmp_path / "status.json").stat().st_ino == before.st_ino
    assert _record(tmp_path, STATUS) == {"exit_code": 4}
    (tmp_path / "status.json").rename(tmp_path / "status.reserved")
    assert _record(tmp_path, STATUS) == {"exit_code": 4}
    half = (tmp_path / "status.reserved").read_bytes()[:8]
    (tmp_path / "status.reserved").write_bytes(half)
    assert _record(tmp_path, STATUS) is None


# ------------------------------------------------------------------ a killed supervisor


@pytest.fixture
def orphaned(lab: Lab) -> Iterator[Job]:
    """A job that prints nothing and has a child in another session, without its supervisor."""
    job = lab.submit(
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
        " start_new_session=True)\ntime.sleep(600)"
    )
    # Runner, code, and the code's child; the supervisor carries the mark too.
    until(lambda: len(leftovers(mark_of(job), None)) == 4, "all of its processes")
    mark = mark_of(job)
    kill_supervisor(job)
    yield job
    end_leftovers(mark, None)


@pytest.mark.parametrize("how", ["look", "stop", "stop at once", "remove"])
def test_a_job_without_its_supervisor_is_lost_and_its_processes_are_ended(
    lab: Lab, orphaned: Job, how: str
) -> None:
    mark = mark_of(orphaned)
    backends = Backends(lab.config)
    with History() as history:
        if how.startswith("stop"):
            stop(orphaned, lab.backend, history, 10 if how == "stop" else 0)
            assert leftovers(mark, None) == []
        (seen,) = refresh([orphaned], backends, history, 30)
        assert seen.state is JobState.LOST
        assert seen.reason is not None and "supervisor" in seen.reason
        assert leftovers(mark, None) == []
        assert not folder_of(orphaned).exists()
        if how == "remove":
            remove(seen, lab.backend, history)
            assert history.get(seen.id) is None


def test_the_cause_of_a_lost_job(lab: Lab, orphaned: Job) -> None:
    until(lambda: lab.backend.inspect(orphaned.id).status == "absent", "its loss")
    assert lab.backend.inspect(orphaned.id).cause == "supervisor-lost"
    started = folder_of(orphaned) / "started.json"
    record = json.loads(started.read_text())
    started.write_text(json.dumps({**record, "place": "another boot"}))
    state = lab.backend.inspect(orphaned.id)
    assert (state.cause, "rebooted" in (state.reason or "")) == ("machine-restart", True)
    started.write_text(json.dumps(record))


def test_a_lock_that_a_job_inherited_does_not_keep_it_running(lab: Lab, orphaned: Job) -> None:
    """Earlier versions passed it on, and recorded no start time."""
    started = folder_of(orphaned) / "started.json"
    record = json.loads(started.read_text())
    lock = os.open(folder_of(orphaned) / "alive.lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    # The killed supervisor is this program's child: reaped, its id is free.
    until(lambda: lab.backend.inspect(orphaned.id).status == "absent", "its loss")
    started.write_text(json.dumps({"pid": record["pid"], "started_at": record["started_at"]}))
    until(lambda: lab.backend.inspect(orphaned.id).status == "absent", "its loss")
    os.close(lock)


def test_the_processes_of_a_job_do_not_inherit_its_lock(lab: Lab) -> None:
    job = lab.submit(FOREVER)
    until(lambda: len(leftovers(mark_of(job), None)) == 3, "all of its processes")
    lock = str(folder_of(job) / "alive.lock")
    holders = [
        process.pid
        for process in leftovers(mark_of(job), None)
        if any(os.readlink(entry) == lock for entry in Path(f"/proc/{process.pid}/fd").iterdir())
    ]
    record = json.loads((folder_of(job) / "started.json").read_text())
    runner = Path(f"/proc/{record['runner']['pid']}/fd")
    opened = {entry.name: os.readlink(entry) for entry in runner.iterdir()}
    lab.backend.stop(job.id, 0)
    assert holders == [record["pid"]]
    # The runner is a fork of the supervisor, and has only the ends of the pipes that it writes to.
    links = list(opened.values())
    assert [links.count(opened[stream]) for stream in ("1", "2")] == [1, 1]
    assert str(folder_of(job) / "frames") not in links
    lab.finish(job)


@pytest.mark.parametrize(
    ("program", "code", "output"),
    [
        ("import sys; print('out', sys.argv[1:3] != []); sys.exit(7)", 7, b"out True\n"),
        ("print('no code')", 0, b"no code\n"),
        ("print('before'); 1 / 0", 1, b"ZeroDivisionError"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGINT)", 130, b""),
    ],
)
def test_a_runner_runs_as_in_an_interpreter_of_its_own(
    lab: Lab, program: str, code: int, output: bytes
) -> None:
    spec = make_spec({"code": "pass"})
    lab.backend.submit(
        Delivery("a-aaaaaa", spec, program.encode(), "n", b"", b"{}", ""), lambda *_: None
    )
    until(lambda: lab.backend.inspect("a-aaaaaa").status == "exited", "the runner's end")
    assert lab.backend.inspect("a-aaaaaa").exit_code == code
    assert output in (state_dir() / "local" / "a-aaaaaa" / "frames").read_bytes()


def test_a_job_compiles_no_module_that_every_runner_has(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiling them takes 12 ms of a job. Python keeps the bytecode of those of the installation."""
    is_compiled = "getattr(module.__spec__, 'loader', None) is Bundle"
    compiled = f"(name for name, module in sys.modules.items() if {is_compiled})"
    parts = ("runner.lockfile", "runner.environment", "runner.other_python")
    call = f"[main(sys.argv[1:]), print('compiled:', *{compiled})][0]"
    monkeypatch.setattr(
        "stoke.jobs.submit.runner_source", lambda *_, **__: bundle("runner.main", parts, call=call)
    )
    assert lab.run("pass").stdout == b"compiled:\n"
    # Few jobs want another Python, so that module comes with them.
    other = lab.run("pass", python="3.4")
    assert b"stoke.remote.runner.other_python" in other.stdout


def test_a_job_that_kills_its_runner_says_so(lab: Lab) -> None:
    done = lab.run("import os, signal; os.kill(os.getppid(), signal.SIGKILL)").job
    assert (done.state, done.exit_code) == (JobState.FAILED, 137)
    assert done.reason == "its runner was killed by signal 9"


def test_the_longest_timeout_is_accepted(lab: Lab) -> None:
    done = lab.run("print('done')", timeout=365 * 24 * 3600)
    assert (done.job.state, done.stdout) == (JobState.SUCCEEDED, b"done\n")


# The runner kills code that ignores SIGTERM only after five seconds.
STOP_THE_RUNNER = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True: os.kill(os.getppid(), signal.SIGSTOP)
"""


def test_a_job_that_stops_its_runner_once_ends_at_its_timeout(lab: Lab) -> None:
    code = f"import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)\n{FOREVER}"
    done = lab.run(code, timeout=1).job
    assert (done.state, done.exit_code, done.reason) == (JobState.FAILED, EXIT_TIMEOUT, "timeout")


def test_a_job_that_stops_its_runner_all_the_time_is_killed_after_its_timeout(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The supervisor is another process, so its constant is set where that one starts.
    shorter = local_processes._START.replace(
        "import supervisor; ", "import supervisor; supervisor.OVERTIME_SECONDS = 2.0; "
    )
    monkeypatch.setattr(local_processes, "_START", shorter)
    done = lab.run(STOP_THE_RUNNER, timeout=1).job
    assert (done.state, done.exit_code) == (JobState.FAILED, 137)


# ------------------------------------------------------------------ a supervisor that never begins

CHECK_PYTHON = "repair this Python if it prints an error: {} -I -S -c 'import ctypes, json'"


@pytest.fixture
def broken_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An interpreter without its standard library, in a folder with a space in its name."""
    root = tmp_path / "some python"
    library = root / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}"
    library.mkdir(parents=True)
    (library / "os.py").touch()  # Python takes the folder that has this file for its library.
    python = root / "bin" / "python3"
    python.parent.mkdir()
    shutil.copy(Path(sys.executable).resolve(), python)
    monkeypatch.setattr(sys, "_base_executable", str(python))
    return python


def test_a_broken_interpreter_ends_the_job_with_its_error(
    own_home: Path, broken_python: Path
) -> None:
    """`stoke run` follows the job from its start."""
    program = (
        f"import sys; sys._base_executable = {str(broken_python)!r}; "
        "from stoke.cli.main import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", program, "run", "-c", "print('never')"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == EXIT_ENGINE
    printed = done.stderr
    assert (
        "its supervisor process ended before the job began: "
        "ModuleNotFoundError: No module named 'encodings'"
    ) in printed
    with History() as history:
        (job,) = history.list()
        assert job.state is JobState.LOST
        (hint,) = [note.hint for note in history.notes(job.id) if note.text == job.reason]
    checked = is_hint(hint, CHECK_PYTHON).partition(": ")[2]
    assert checked in printed
    assert shlex.split(checked)[0] == str(broken_python)
    assert subprocess.run(shlex.split(checked), capture_output=True).returncode != 0
    assert not folder_of(job).exists()


def test_a_listing_finalizes_a_job_whose_supervisor_never_began(
    lab: Lab, broken_python: Path
) -> None:
    job = lab.submit("print('never')")
    with History() as history:
        until(lambda: lab.backend.inspect(job.id).status == "absent", "the supervisor's end")
        (seen,) = refresh([job], Backends(lab.config), history, 30)
    assert seen.state is JobState.LOST
    assert seen.reason is not None and "No module named 'encodings'" in seen.reason


def test_a_supervisor_killed_at_its_start_is_no_fault_of_python(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = tmp_path / "python"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(sys, "_base_executable", str(killed))
    job = lab.submit("print('never')")
    with History() as history:
        until(lambda: lab.backend.inspect(job.id).status == "absent", "the supervisor's end")
        (seen,) = refresh([job], Backends(lab.config), history, 30)
        assert seen.state is JobState.LOST
        assert seen.reason == "its supervisor process ended before the job began"
        assert history.notes(job.id) == []


def test_an_interpreter_that_is_missing_is_named(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "_base_executable", str(tmp_path / "no python"))
    with pytest.raises(EngineError, match="no python") as caught:
        lab.submit("print('never')")
    is_hint(
        caught.value.hint,
        "reinstall stoke: the Python that it was installed with is gone or not executable",
    )


# ------------------------------------------------------------------ reused process ids


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("field", ["start", "place"])
@pytest.mark.parametrize("grace", [0, 10])
def test_a_reused_process_id_is_never_signalled(
    lab: Lab, orphaned: Job, bystander: subprocess.Popen[bytes], field: str, grace: float
) -> None:
    """Another program has the ids of supervisor and runner; the records tell it apart."""
    started = folder_of(orphaned) / "started.json"
    other = identity(bystander.pid)
    other[field] = 1 if field == "start" else "another boot"
    record = {**json.loads(started.read_text()), **other, "runner": other}
    started.write_text(json.dumps(record))
    with History() as history:
        stop(orphaned, lab.backend, history, grace)
        refresh([orphaned], Backends(lab.config), history, 30)
    assert bystander.poll() is None
    assert not Process(other).send(signal.SIGTERM)
    assert Process(identity(bystander.pid)).send(0)


def test_a_mark_identifies_one_job(bystander: subprocess.Popen[bytes]) -> None:
    marked = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"],
        env={**os.environ, MARK: "job-aaaaaa.1234"},
    )
    until(lambda: len(leftovers("job-aaaaaa.1234", None)) == 1, "the marked process")
    assert leftovers("job-aaaaaa.123", None) == []
    assert end_leftovers("job-aaaaaa.1234", None) == []
    assert marked.wait(10) == -signal.SIGKILL
    assert bystander.poll() is None


def test_the_mark_is_no_setting_for_a_job_that_runs_stoke(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MARK, "job-aaaaaa.1234")
    assert unknown_variables() == []


# ------------------------------------------------------------------ processes that hide


def test_a_chain_of_short_lived_sessions_does_not_outlive_the_job(lab: Lab, tmp_path: Path) -> None:
    held = tmp_path / "held"
    code = (
        "import fcntl, os, time\n"
        f"lock = os.open({str(held)!r}, os.O_RDWR | os.O_CREAT)\n"
        "if os.fork() == 0:\n"
        "    fcntl.flock(lock, fcntl.LOCK_EX)\n"
        "    while True:\n"
        "        os.setsid() if os.getpid() != os.getsid(0) else None\n"
        "        if os.fork(): os._exit(0)\n"
        "time.sleep(600)"
    )
    job = lab.submit(code)

    def free() -> bool:
        lock = os.open(held, os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(lock)
        return True

    until(lambda: held.exists() and not free(), "the chain's beginning")
    with History() as history:
        stop(job, lab.backend, history, 0)
    assert lab.finish(job).job.state is JobState.STOPPED
    assert free()


# ------------------------------------------------------------------ the files of an ended job


def set_aside(home: Path) -> list[str]:
    folder = home / "state" / "local-removed"
    return os.listdir(folder) if folder.exists() else []


def test_the_supervisor_removes_the_files_of_an_ended_job(lab: Lab, own_home: Path) -> None:
    """And those that a supervisor left which was killed before it had removed them."""
    left = own_home / "state/local-removed/left/a"
    left.mkdir(parents=True)
    (left / "b").write_text("")
    left.chmod(0o000)
    code = "import os; os.mkdir('x'); open('x/y', 'w'); os.chmod('x', 0); print(os.getcwd())"
    job = lab.submit(code)
    until(lambda: lab.backend.inspect(job.id).status == "exited", "the end of the job")
    assert not (own_home / "state/local" / job.id / "work").exists()
    until(lambda: set_aside(own_home) == [], "the removal of the files")
    assert lab.finish(job).job.exit_code == 0
    assert not (own_home / "state/local" / job.id).exists()


def test_files_that_cannot_be_set_aside_are_removed_with_the_job(lab: Lab, own_home: Path) -> None:
    (own_home / "state").mkdir(exist_ok=True)
    (own_home / "state/local-removed").write_text("in the way")
    job = lab.submit("open('x', 'w'); print(1)")
    until(lambda: lab.backend.inspect(job.id).status == "exited", "the end of the job")
    assert (own_home / "state/local" / job.id / "work").exists()
    assert lab.finish(job).stdout == b"1\n"
    assert not (own_home / "state/local" / job.id).exists()
