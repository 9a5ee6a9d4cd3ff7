"""What a job's Pythons write: live, whole lines, and nothing changed for the code."""

from __future__ import annotations

import json
import os
import re
import selectors
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stoke.delivery.payload import live_output_source
from stoke.remote.runner.python_setup import (
    make_empty_environment,
    make_output_live,
    site_packages,
)
from tests.remote.programs import runner_file
from tests.remote.test_runner_pythons import pythons

PATIENCE = 60


def environment(python: str, folder: Path) -> str:
    """The interpreter of an empty environment, as jobs without packages get one."""
    found = subprocess.run(
        [python, "-I", "-S", runner_file(), "--fingerprint"], capture_output=True, check=True
    )
    make_empty_environment(str(folder), json.loads(found.stdout))
    return str(folder / "bin" / "python")


@pytest.fixture(params=pythons())
def plain(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return environment(request.param, tmp_path / "plain")


@pytest.fixture
def python(plain: str, tmp_path: Path) -> str:
    """The same interpreter, made live."""
    folder = tmp_path / "live"
    version = os.readlink(plain)
    live = environment(version, folder)
    make_output_live(site_packages(str(folder)), live_output_source())
    return live


Started = Callable[..., "subprocess.Popen[bytes]"]
# As in a job: nothing of the test's own settings, and no terminal.
ENV = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


@pytest.fixture
def start() -> Iterator[Started]:
    """Start code that runs until its stdin is closed."""
    started: list[subprocess.Popen[bytes]] = []

    def run(
        python: str, code: str, *flags: str, stderr: int = subprocess.PIPE
    ) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [python, *flags, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=ENV,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def read_until(pipe: object, wanted: bytes) -> bytes:
    """Return the output that arrives while the writer still runs, within the test's timeout."""
    got = b""
    while not got.endswith(wanted):
        data = os.read(pipe.fileno(), 1 << 16)  # type: ignore[attr-defined]
        assert data, f"ended with {got[-200:]!r}"
        got += data
    return got


def run(python: str, code: str, *flags: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [python, *flags, "-c", code], capture_output=True, timeout=PATIENCE, env=ENV
    )


WAITS = "\nsys.stdin.read()"


@pytest.mark.timeout(PATIENCE)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_lines_and_partial_lines_arrive_while_the_code_runs(
    python: str, start: Started, stream: str
) -> None:
    code = f"import sys\nprint('line', file=sys.{stream})\nsys.{stream}.write('par')\n"
    process = start(python, code + f"sys.{stream}.write('t')" + WAITS)
    read_until(getattr(process, stream), b"line\npart")


@pytest.mark.timeout(PATIENCE)
def test_a_partial_line_arrives_after_a_pause_and_after_a_flood(
    python: str, start: Started
) -> None:
    code = (
        "import sys\n"
        "for word in iter(sys.stdin.readline, ''):\n"
        "    for _ in range(int(word)): sys.stdout.write('x')\n"
    )
    process = start(python, code)
    assert process.stdin and process.stdout
    for count in (1, 200_000, 1, 3):
        process.stdin.write(b"%d\n" % count)
        process.stdin.flush()
        got = b""
        while len(got) < count:
            got += os.read(process.stdout.fileno(), 1 << 16)
        assert got == b"x" * count


@pytest.mark.timeout(PATIENCE)
def test_the_output_of_a_killed_worker_is_written(python: str, start: Started) -> None:
    worker = "import sys; print('epoch 1'); print('50%', end='\\r'); sys.stdin.read()"
    code = (
        "import subprocess, sys\n"
        # Not even an environment to inherit.
        f"worker = subprocess.Popen([sys.executable, '-c', {worker!r}], env={{}})\n"
        "sys.stdin.readline(); worker.kill(); worker.wait()\n"
    )
    process = start(python, code)
    assert process.stdin
    assert read_until(process.stdout, b"\r") == b"epoch 1\n50%\r"
    process.communicate(b"\n", timeout=PATIENCE)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_the_prints_of_a_pool_arrive(python: str, tmp_path: Path, method: str) -> None:
    script = tmp_path / "pool.py"
    script.write_text(
        "import multiprocessing as mp\n"
        "def work(n):\n"
        "    print('worker did', n)\n"
        "if __name__ == '__main__':\n"
        f"    with mp.get_context('{method}').Pool(2) as pool: pool.map(work, range(6))\n"
    )
    done = subprocess.run([python, script], capture_output=True, timeout=PATIENCE, env=ENV)
    assert sorted(done.stdout.splitlines()) == [b"worker did %d" % n for n in range(6)]
    assert (done.returncode, done.stderr) == (0, b"")


def test_lines_of_threads_and_processes_do_not_mix(python: str) -> None:
    code = (
        "import subprocess, sys, threading\n"
        "def work(n):\n"
        "    for i in range(500): print('writer', n, 'x' * 60, i)\n"
        "if sys.argv[1:]: work(sys.argv[1]); sys.exit()\n"
        "threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]\n"
        "others = [subprocess.Popen([sys.executable, __file__, str(n)]) for n in (8, 9)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "for other in others: other.wait()\n"
    )
    script = Path(python).parent / "writers.py"
    script.write_text(code)
    done = subprocess.run([python, script], capture_output=True, timeout=PATIENCE, env=ENV)
    lines = done.stdout.splitlines()
    assert len(lines) == 5000
    assert [line for line in lines if not re.fullmatch(rb"writer \d x{60} \d+", line)] == []


def test_a_fork_neither_warns_nor_doubles_text(python: str) -> None:
    code = (
        "import os\n"
        "print('once', end='')\n"
        "for _ in range(20):\n"
        "    print('.', end='')\n"
        "    if not os.fork(): print('c', end='', flush=True); os._exit(0)\n"
        "    os.wait()\n"
        "print('end')\n"
    )
    done = run(python, code, "-W", "always")
    assert (done.stdout, done.stderr) == (b"once" + b".c" * 20 + b"end\n", b"")


@pytest.mark.timeout(PATIENCE)
def test_the_end_waits_for_a_slow_reader(python: str, start: Started) -> None:
    """A thread that is at a stream when Python ends would be fatal."""
    size = 2_000_000
    code = f"import sys\nfor _ in range({size} // 100): sys.stdout.write('y' * 100)"
    process = start(python, code)
    assert process.stdout
    got = os.read(process.stdout.fileno(), 1)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, len(got + out), err) == (0, size, b"")


def test_signals_reach_the_code_and_not_the_flushing_thread(python: str) -> None:
    code = (
        "import os, signal, sys\n"
        "sys.stdout.write('x')\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\n"
        "print(signal.sigwait([signal.SIGUSR1]) == signal.SIGUSR1)\n"
    )
    assert run(python, code).stdout == b"xTrue\n"


def test_ctrl_c_while_the_thread_starts_or_ends_neither_hangs_nor_loses_text(python: str) -> None:
    code = (
        "import random, signal, time, _stoke_live_output as live\n"
        "def ctrl_c(*_): raise KeyboardInterrupt\n"
        "signal.signal(signal.SIGALRM, ctrl_c)\n"
        "for _ in range(60):\n"
        "    print('.', end='')\n"
        "    live.flusher.stop(); live.flusher.resume()\n"
        "    try:\n"
        "        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 3e-4))\n"
        "        for _ in range(50): live.flusher.start()\n"
        "        time.sleep(0.01)\n"  # pause() would miss a signal that came just before it
        "    except KeyboardInterrupt: pass\n"
        "print('end')\n"
    )
    done = run(python, code)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"." * 60 + b"end\n", b"")


VIEW = """
import os, sys, threading
print(sys.flags, sys.argv, len(sys.path), sorted(os.environ), threading.active_count())
print([(s.name, s.mode, s.encoding, s.errors, s.newlines, s.isatty(), s.fileno(), s.closed,
        s.buffer.name, s.buffer.mode, s.buffer.raw.name, s.buffer.raw.mode, s is t)
       for s, t in ((sys.stdout, sys.__stdout__), (sys.stderr, sys.__stderr__))])
"""


def test_the_code_sees_ordinary_streams(python: str, plain: str) -> None:
    seen, expected = run(python, VIEW), run(plain, VIEW)
    assert (seen.stdout, seen.stderr) == (expected.stdout, b"")


def test_unbuffered_streams_remain_unbuffered(python: str, start: Started) -> None:
    code = "import sys\nsys.stdout.write('a')\nsys.stdout.buffer.write(b'b')" + WAITS
    process = start(python, code, "-u")
    read_until(process.stdout, b"ab")


def test_output_to_files_is_written_as_by_plain_python(
    python: str, plain: str, tmp_path: Path
) -> None:
    code = "import sys; print(type(sys.stdout.buffer).__name__, sys.stdout.line_buffering)"
    seen = []
    for number, program in enumerate((python, plain)):
        path = tmp_path / str(number)
        with path.open("wb") as file:
            subprocess.run([program, "-c", code], stdout=file, check=True, env=ENV)
        seen.append(path.read_bytes())
    assert seen[0] == seen[1] != b""


TURNS = """
import sys, time
for number in range(0, 300, 3):
    time.sleep(0.02)  # its work
    sys.stderr.write("%d clear\\r" % number); sys.stderr.flush()
    print("%d" % (number + 1))
    sys.stderr.write("%d bar\\r" % (number + 2)); sys.stderr.flush()
"""


@pytest.mark.parametrize("flags", [["-u"], []])
def test_a_reader_of_both_streams_gets_them_in_order(python: str, flags: list[str]) -> None:
    """As with a progress bar that makes room for a line and is drawn again below it."""
    got = b""
    with (
        subprocess.Popen(
            [python, *flags, "-c", TURNS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENV
        ) as process,
        selectors.DefaultSelector() as pipes,
    ):
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipes.register(pipe, selectors.EVENT_READ)
        while pipes.get_map():
            for key, _ in pipes.select():
                data = os.read(key.fd, 1 << 16)
                got += data
                if not data:
                    pipes.unregister(key.fileobj)
    assert process.returncode == 0
    assert [int(number) for number in re.findall(rb"\d+", got)] == list(range(300))


@pytest.mark.timeout(PATIENCE)
@pytest.mark.parametrize("flags", [["-u"], []])
def test_unread_streams_and_a_shared_pipe_do_not_block(
    python: str, start: Started, flags: list[str]
) -> None:
    code = (
        "import sys\n"
        "for _ in range(5000):\n"
        "    print('out')\n"
        "    print('err', file=sys.stderr)\n"
        "print('done')"
    )
    # Nothing is read before all is written, and both fit into their pipes.
    process = start(python, code, *flags)
    assert process.wait() == 0
    assert process.stdout and process.stdout.read() == b"out\n" * 5000 + b"done\n"
    both = start(python, code, *flags, stderr=subprocess.STDOUT)
    assert both.wait() == 0
    assert both.stdout and both.stdout.read() == b"out\nerr\n" * 5000 + b"done\n"


@pytest.mark.parametrize(
    "code",
    [
        "sys.stdout.detach(); sys.stdout = None",
        "sys.stdout.close()",
        "os.close(1)",
        "sys.stdout = io.TextIOWrapper(sys.stdout.buffer, 'utf-16')",
        "sys.stdout.reconfigure(line_buffering=False, encoding='latin-1')",
        "os.execv(sys.executable, [sys.executable, '-c', 'print(1)'])",
        "os._exit(0)",
        "sys.exit('no')",
        "os.kill(os.getpid(), 15)",
    ],
)
def test_code_that_changes_its_streams_behaves_as_in_plain_python(
    python: str, plain: str, code: str
) -> None:
    text = "import io, os, sys\nprint('first', flush=True)\n" + code
    with_it, without = run(python, text), run(plain, text)
    assert (with_it.returncode, with_it.stdout, with_it.stderr) == (
        without.returncode,
        without.stdout,
        without.stderr,
    )
