"""The backend protocol: what a place that runs jobs has to do, and how one is found by name.

A backend is found through the entry points `stoke.backends`, one loaded by name, so a third party
adds one without a change here. Its methods block; callers put them on threads of their own.
Engine trouble is raised as `EngineError`, never as a driver's exception.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from stoke.errors import EngineError

if TYPE_CHECKING:
    from stoke.request.spec import JobSpec


SILENCE_SECONDS = 60.0
"""For how long a followed log may be silent before the transport ends the connection."""


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do. What it cannot is refused at the door, with the reason given here."""

    images: bool
    limits: bool
    system_packages: bool
    counts_bytes: bool
    isolation: str
    """One sentence for people: what stands between a job and the machine."""
    stop_forgets_log: bool = False
    """Whether a job's log goes away with its stopping: what it has printed is fetched before."""
    named_secrets: bool = False
    """Whether it keeps secrets of its own that a request can refer to: `secret:NAME/KEY`."""


@dataclass(frozen=True)
class Delivery:
    """A job on its way to an engine. Nothing here is user text that could be taken for a command:
    code, arguments, environment and secrets travel inside `payload`."""

    job_id: str
    spec: JobSpec
    runner: bytes
    """The source of `stoke.remote.runner`."""
    nonce: str
    """What marks the runner's events in the log; kept with the job so that it can be followed later."""
    payload: bytes
    """gzip of the JSON that the runner reads."""
    public_spec: bytes
    """The spec as JSON without secrets, stored beside the job for other stoke processes."""
    request_hash: str
    """The hash of what the job asks for (`stoke.cache.keys`), which labels the job."""
    renews: bool = False
    """Whether the job writes to its cache whatever that holds: it resolves anew, or compiles."""


@dataclass(frozen=True)
class EngineState:
    """What the engine says of a job: the truth that every event gives way to.

    `status` is "absent" (the engine knows nothing), "created" (made, and will not start by itself),
    "running" (also while it waits for its turn) or "exited". Times are epoch seconds.

    `exit_code` is None for a job that ended without one or whose code the engine has forgotten. A
    running job has a `reason` when something keeps it from starting, and `hint` what helps.
    """

    status: str
    exit_code: int | None = None
    reason: str | None = None
    started_at: float | None = None
    finished_at: float | None = None
    hint: str | None = None
    phases: tuple[tuple[str, float, float | None], ...] = ()
    """What came before the runner began, where only the engine knows: a phase's name, its start and
    its seconds (None while it goes on)."""
    log_gone: bool = False
    """Whether the engine has dropped the log of a job that it still knows."""
    notes: tuple[tuple[str, str | None], ...] = ()
    """What people have to know of how the engine ran it, such as that the code has run twice; each with
    a hint, or None."""


ENGINE = 0
"""The stream of a frame that is the engine's own word and not the job's."""


class Frame(NamedTuple):
    """A piece of a job's output as the engine stored it.

    `stream` is 1 (stdout), 2 (stderr), 3 (a note of the engine) or `ENGINE`; `time` is epoch
    nanoseconds by the engine's clock. A frame is not a line: it may hold several or a part of one.
    """

    stream: int
    time: int
    data: bytes


class LogDeniedError(EngineError):
    """The engine will not give this log, however often it is asked: no right to it, no such driver."""


class LogEndingError(EngineError):
    """A log cannot be read because the engine is taking the job away. It is asked for again, and people
    need not hear of it."""


class LogBehindError(EngineError):
    """A followed log came so late that the engine may leave out what it has dropped, or repeat what it
    has not, without a word: it is to be read without following, and then followed again."""


class LogStream(Protocol):
    """An open log. Iterating gives batches of frames; it ends when the engine ends the stream, which
    is a hint and not the job's end. A cut connection raises `EngineError`. A batch without a frame says
    that the job has come further without printing anything: that it is worth asking for its state.

    What a transport promises, because the follower relies on it:

    - every frame not older than `since`, in the order in which the engine keeps them, which is the
      same for every request; a transport that can only ask in whole seconds leaves out the older ones
      itself, by their time alone (equal frames at one time are all given);
    - the same frame is cut in the same places every time it is given, time, stream and bytes;
    - times as the engine stores them, also where they go back; 0 for `since` means from the start;
    - a stream that is not followed ends cleanly only once it is whole: anything else is a cut;
    - a followed stream whose engine may lose its place when the reader is slow raises `LogBehindError`
      before that can have happened; one that is not followed never needs to;
    - a connection that may fall silent without ending (a network, a rotated file) is ended by the
      transport after `SILENCE_SECONDS` without a byte; the follower asks again from where it was.

    `close` may be called from another thread and unblocks the reader within a second.

    A stream of an engine that may start a job again has two more attributes, set before its first
    batch: `source`, which names the start that the log is of, and `preface`, a sentence for the log
    when this is not the first start. The follower reads a new start's log from its beginning.
    """

    def __iter__(self) -> Iterator[list[Frame]]: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class FoundJob:
    """A job of ours that the engine knows, whoever submitted it. `read_spec` asks the engine for the
    public spec, which may be missing."""

    job_id: str
    scope: str
    submitted_at: float
    nonce: str | None = None
    read_spec: Callable[[], bytes | None] = lambda: None


@dataclass(frozen=True)
class Volume:
    """A cache volume (a folder on local). Unknown figures are None, never 0.

    `bytes` counts a hard-linked file once; `measured_at` is epoch seconds.
    """

    backend: str
    scope: str
    kind: str
    """"python" or "system"."""
    name: str
    node: str | None = None
    bytes: int | None = None
    measured_at: float | None = None
    entries: int | None = None
    in_use_by: tuple[str, ...] = ()

    @property
    def whole_name(self) -> str:
        """With its node: on each, the folders have the same names."""
        return f"{self.name} on {self.node}" if self.node else self.name


@dataclass(frozen=True)
class Finding:
    """A line of `stoke doctor`: what was looked at, whether it works (None: that cannot be seen from
    here), and how to fix it."""

    what: str
    works: bool | None
    detail: str
    hint: str | None = None


PhaseReport = Callable[[str, float, float | None], None]
"""Called with a phase's name, its start (epoch seconds) and its seconds (None when it begins)."""


class Backend(Protocol):
    name: str
    capabilities: Capabilities

    def submit(self, delivery: Delivery, report: PhaseReport) -> None:
        """Starts the job. Safe to repeat: the same job id is the same job."""

    def inspect(self, job_id: str) -> EngineState:
        """The engine's word on one job; "absent" when it knows none."""

    def logs(self, job_id: str, since: int, follow: bool) -> LogStream:
        """The job's output from `since` (epoch nanoseconds, inclusive; 0: all) on.

        With `follow` the stream stays open until the job ends. `EngineError` if it has gone,
        `LogDeniedError` where asking again is no use.
        """

    def stop(self, job_id: str, grace: float) -> str | None:
        """SIGTERM, and SIGKILL after `grace` seconds (0: at once). Returns without waiting for it, with
        a sentence where people have to know more: that it takes longer, and why. A job that has ended
        or gone is no error."""

    def remove(self, job_id: str) -> None:
        """Takes a finished job's remains away from the engine. A job that has gone is no error."""

    def jobs(self) -> list[FoundJob]:
        """Every job of ours that the engine still holds, found by label."""

    def volumes(self) -> list[Volume]:
        """The cache volumes with what is known of them at no cost: not what they hold."""

    def housekeep(
        self, volume: Volume, operation: Mapping[str, object], progress: Callable[[str], None]
    ) -> dict[str, Any]:
        """Run `stoke.remote.housekeeping` where the volume is mounted and return its result.

        `stoke.cache.volumes` makes operations and reads results; `image` in an operation is the image
        that a job in this scope named last, for backends that need one. `progress` is called at least
        every second or so; an exception that it raises ends the operation and is raised here.
        `EngineError` if the operation is refused, or the volume is not ours.
        """

    def check(self) -> list[Finding]:
        """Looks at what this backend needs; raises nothing."""

    def close(self) -> None:
        """Lets connections go."""
