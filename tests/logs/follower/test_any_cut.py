"""Any log, cut anywhere, and a process that dies at any moment: every byte once and in order.

The numbers in test names are those of docs/log-contract.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoke.backend.api import EngineState, Frame
from stoke.errors import EngineError
from stoke.logs.follower import Follower
from stoke.logs.spool import STDERR, STDOUT
from stoke.remote.events import Event
from stoke.remote.protocol import frame
from tests.logs.follower.recording import MS, NONCE, START, follow
from tests.scripted import RUNNING, Connection, ScriptedBackend, exited
from tests.spools import spooled


class Source:
    """A log with events in it, as an engine that splits at newlines stores it."""

    def __init__(self) -> None:
        self.log: list[Frame] = []
        self.user = {STDOUT: b"", STDERR: b""}
        self.events: list[Event] = []


@st.composite
def sources(draw: st.DrawFn) -> Source:
    """Lines with and without newlines on two streams, many equal, some at the same nanosecond;
    stderr lags behind stdout's clock by up to 3 ms; events between them, whole or split at lines."""
    source = Source()
    now = START
    for number in range(draw(st.integers(0, 14))):
        now += draw(st.sampled_from([0, 0, 1, 100, MS, 4 * MS, 40 * MS]))
        kind = draw(st.sampled_from(["out", "out", "err", "err", "event"]))
        late = draw(st.sampled_from([0, 0, MS, 3 * MS])) if kind != "out" else 0
        if kind == "event":
            event = {"event": "note", "text": f"{number}"}
            source.events.append(event)
            whole = frame(NONCE, event)
            parts = [whole[:1], whole[1:]] if draw(st.booleans()) else [whole]
            source.log += [Frame(STDERR, now - late, part) for part in parts]
            continue
        stream = STDOUT if kind == "out" else STDERR
        data = draw(
            st.sampled_from([b"same\n", b"same\n", b"\n", b"no end", b"%d\n" % number, b"\xff\x1e"])
        )
        source.user[stream] += data
        source.log.append(Frame(stream, now - late, data))
    return source


CONNECTIONS = st.lists(
    st.builds(
        Connection,
        frames=st.one_of(st.none(), st.integers(0, 14)),
        end=st.sampled_from(["eof", "cut", "cut", "refused"]),
        batch=st.integers(1, 5),
    ),
    max_size=8,
)
STATES = st.lists(
    st.sampled_from([RUNNING, RUNNING, EngineError("no answer"), exited()]), max_size=6
).map(lambda states: [*states, exited()])

FAST = settings(suppress_health_check=list(HealthCheck), max_examples=200)


@FAST
@given(source=sources(), connections=CONNECTIONS, states=STATES)
def test_c01_c06_every_byte_once_and_in_order(
    make_folder: Callable[[], Path],
    source: Source,
    connections: list[Connection],
    states: list[EngineState | EngineError],
) -> None:
    """Clean ends may come early; the very last pass is complete, as with real engines."""
    folder = make_folder()
    # A clean end that lacks the tail happens while the log is followed, not to a re-reading pass.
    backend = ScriptedBackend(source.log, connections, states)
    faithful(backend)

    state, following = follow(backend, folder)

    assert state == exited()
    assert spooled(folder, STDOUT) == source.user[STDOUT]
    assert spooled(folder, STDERR) == source.user[STDERR]
    assert following.events == source.events
    assert following.follower.spool.gaps == 0


def test_c05_c06_a_late_line_outlives_cuts_before_anything_new(tmp_path: Path) -> None:
    """After each of them the next connection begins closer to the new frames."""
    log = [Frame(STDOUT, START, b"same\n"), Frame(STDERR, START - 3 * MS, b"late\n")]
    log += [Frame(STDOUT, START + 40 * MS, b"last\n")]
    cuts = [Connection(frames=1, end="cut") for _ in range(6)]
    backend = ScriptedBackend(log, [Connection(frames=1), *cuts])
    faithful(backend)
    state, following = follow(backend, tmp_path / "spool")
    assert state == exited()
    assert spooled(tmp_path / "spool", STDERR) == b"late\n"
    assert spooled(tmp_path / "spool", STDOUT) == b"same\nlast\n"
    assert following.follower.spool.gaps == 0


def faithful(backend: ScriptedBackend) -> None:
    """Only a followed log ends early without an error; a re-reading pass is whole or cut."""
    scripted = backend.logs

    def logs(job_id: str, since: int, follow: bool) -> object:
        stream = scripted(job_id, since, follow)
        if not follow and stream.how.end == "eof":
            stream.how = Connection(batch=stream.how.batch)
        return stream

    backend.logs = logs  # type: ignore[method-assign, assignment]


@settings(FAST, max_examples=80)
@given(
    source=sources(),
    connections=CONNECTIONS,
    kills=st.lists(st.integers(1, 30), min_size=1, max_size=3),
)
def test_c01_kill_9_at_any_moment(
    make_folder: Callable[[], Path],
    source: Source,
    connections: list[Connection],
    kills: list[int],
) -> None:
    """Real processes that end in the middle of a write, before a rename, or between two batches."""
    folder = make_folder()
    for moment in kills:
        die_following(source.log, list(connections), folder, moment)

    state, _ = follow(ScriptedBackend(source.log), folder)

    assert state == exited()
    assert spooled(folder, STDOUT) == source.user[STDOUT]
    assert spooled(folder, STDERR) == source.user[STDERR]
    assert (folder / "log").stat().st_size == sum(map(len, source.user.values()))


def die_following(
    log: list[Frame], connections: list[Connection], folder: Path, moment: int
) -> None:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        left = moment

        def step() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os._exit(137)

        real_write, real_replace = os.write, os.replace

        def write(descriptor: int, data: bytes) -> int:
            if left == 1:
                real_write(descriptor, bytes(data[: len(data) // 2]))
            step()
            return real_write(descriptor, data)

        def replace(source: str, target: str) -> None:
            step()
            real_replace(source, target)

        os.write, os.replace = write, replace  # type: ignore[assignment]
        # These logs lack the runner's end, as those of killed runners do.
        backend = ScriptedBackend(log, connections, [RUNNING] * len(connections) + [exited(137)])
        faithful(backend)
        Follower(backend, "job-aaaaaa", NONCE, folder, lambda e: step(), step, lambda e: None).run()
    finally:
        os._exit(0)
