"""The backend protocol: what a backend has to do to run jobs.

The methods of a backend block; callers run them on their own threads. A backend raises `EngineError`
for engine trouble, never an exception of its driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from stoke.errors import EngineError, StokeError

if TYPE_CHECKING:
    from stoke.project.pack import ProjectDelivery
    from stoke.request.spec import JobSpec


SILENCE_SECONDS = 60.0
"""Seconds that a followed log may be silent before the transport ends the connection."""


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do. Requests for anything else are refused before submission."""

    images: bool
    limits: bool
    system_packages: bool
    counts_bytes: bool
    isolation: str
    """One sentence for users: what isolates a job from the machine."""
    stop_forgets_log: bool = False
    """Whether the engine drops a job's log when the job is stopped; it is then fetched before."""
    results_by_pod: bool = False
    """Whether reading results takes seconds, so that jobs whose code never began are not asked for
    them."""
    named_secrets: bool = False
    """Whether the engine stores secrets that a request can refer to: `secret:NAME/KEY`."""
    labels: bool = False
    """Whether the engine shows a job with labels of the user's own."""
    pods: bool = False
    """Whether jobs are pods, which have profiles, annotations and requests."""
    workspaces: bool = False
    """Whether jobs can mount a workspace (`stoke.backend.capabilities.KeepsWorkspaces`)."""
    caches_here: bool = False
    """Whether the caches are folders of this machine, so that measuring them starts nothing."""


@dataclass(frozen=True)
class Delivery:
    """A job as it is handed to an engine.

    No field holds user text that could be taken for a command: code, arguments, environment and
    secrets travel inside `payload`.
    """

    job_id: str
    spec: JobSpec
    runner: bytes
    """The source of `stoke.remote.runner`."""
    nonce: str
    """Marks the runner's events in the log; stored with the job so that it can be followed later."""
    payload: bytes
    """The gzipped JSON that the runner reads."""
    public_spec: bytes
    """The spec as JSON without secrets, stored beside the job for other stoke processes."""
    request_hash: str
    """The hash of what the job asks for (`stoke.cache.keys`), which labels the job."""
    renews: bool = False
    """Whether the job writes to its cache even on a hit, because it resolves again or compiles."""
    project: ProjectDelivery | None = None
    is_task: bool = False
    """Whether it is one of many tasks of a sweep, which start one after another."""
    inputs: Path | None = None
    """A file with the results of the jobs that this one follows (`stoke.jobs.inputs`)."""
    environment: Mapping[str, str] | None = None
    """The user's environment, for a job that is started on this machine by another program; None for
    that of this program."""


class BusyError(EngineError):
    """A job cannot start now, because running jobs have what it needs."""


class ImagePullError(EngineError):
    """The image of a job could not be pulled, and perhaps can be later."""


class UnsettledSubmitError(EngineError):
    """A submit failed with `error`, and its engine does not tell what it has of the job.

    `may_have_begun` is whether the engine may have been asked to start it. The job's record stays
    unfinished until the engine answers.
    """

    def __init__(self, job_id: str, error: BaseException, *, may_have_begun: bool) -> None:
        what, hint = "interrupted while it was submitted", None
        if isinstance(error, StokeError):
            what, hint = error.what, error.hint
        fact = "the job did not begin"
        if may_have_begun:
            fact = "it is unknown whether the job began"
        show = f"see what became of it: stoke show {job_id}"
        super().__init__(f"{what}; {fact}", f"{hint}; then {show}" if hint else show)


class EngineStatus(StrEnum):
    """Whether an engine has a job, and how far the job is."""

    ABSENT = "absent"
    """The engine does not know the job."""
    CREATED = "created"
    """The job has not started, and nothing will start it."""
    RUNNING = "running"
    """The job runs or is queued."""
    EXITED = "exited"


class Cause(StrEnum):
    """Why a job ended, where that is not the fault of its code: what `--retries` runs again.

    A backend recognizes these in what its engine reports, and never in what the job prints. A job's own
    limits (memory, disk, timeout), its exit code, and a person who stops or deletes it are none.
    `stoke.backend.causes` has a sentence for each.
    """

    NODE_LOST = "node-lost"
    EVICTED = "evicted"
    PREEMPTED = "preempted"
    POD_DELETED = "pod-deleted"
    IMAGE_PULL = "image-pull"
    ENGINE_RESTART = "engine-restart"
    SUPERVISOR_LOST = "supervisor-lost"
    MACHINE_RESTART = "machine-restart"


@dataclass(frozen=True)
class EngineState:
    """The state of a job as the engine reports it; it wins over every event of the runner.

    Times are epoch seconds.

    `exit_code` is None for a job that ended without one or whose code the engine has forgotten. For a
    running job, `reason` is why it does not start, and `hint` how to fix that.
    """

    status: EngineStatus
    exit_code: int | None = None
    reason: str | None = None
    started_at: float | None = None
    finished_at: float | None = None
    hint: str | None = None
    phases: tuple[tuple[str, float, float | None], ...] = ()
    """The phases before the runner began, which only the engine knows: name, start, and seconds (None
    while the phase is active)."""
    log_gone: bool = False
    """Whether the engine has dropped the log of a job that it still knows."""
    began: bool = False
    """Whether the engine knows that the runner has begun, also without a log."""
    notes: tuple[tuple[str, str | None], ...] = ()
    """What users have to know about how the engine ran the job, such as that its code has run twice;
    each note with a hint, or None."""
    cause: Cause | None = None
    """Why the job ended, if that is not the fault of its code."""


ENGINE = 0
"""The stream of a frame that the engine wrote, not the job."""


class Frame(NamedTuple):
    """A piece of a job's output as the engine stored it.

    `stream` is 1 (stdout), 2 (stderr), 3 (a note of the engine) or `ENGINE`; `time` is in epoch
    nanoseconds by the engine's clock. A frame can hold several lines or a part of one.
    """

    stream: int
    time: int
    data: bytes


class LogDeniedError(EngineError):
    """The engine refuses this log for good: a missing right, or a log driver that cannot be read."""


class LogEndingError(EngineError):
    """A log cannot be read because the engine is removing the job.

    The follower asks again without telling the user.
    """


class LogBehindError(EngineError):
    """A followed log is so far behind that the engine may silently skip or repeat a part of it.

    The follower reads the log without following, and then follows it again.
    """


class LogStream(Protocol):
    """An open log, iterated in batches of frames.

    Iteration ends when the engine ends the stream, which is only a hint that the job has ended. A cut
    connection raises `EngineError`. An empty batch means that the job has advanced without printing,
    so its state is worth asking for.

    The follower relies on these promises of a transport:

    - It gives every frame that is not older than `since`, in the order in which the engine stores
      them, which is the same for every request. A transport that can only ask in whole seconds drops
      the older frames itself, by their time alone; frames with equal times are all given.
    - It cuts a frame in the same places every time, with the same time, stream and bytes.
    - It gives times as the engine stores them, even if they go backwards. `since` 0 means the start.
    - A stream that is not followed ends cleanly only if it is complete; otherwise it raises.
    - If an engine may lose its place in a followed stream when the reader is slow, the transport
      raises `LogBehindError` before that can have happened.
    - The transport ends a connection after `SILENCE_SECONDS` without a byte if it can fall silent
      without ending (a network, a rotated file); the follower asks again from its last position.

    `close` may be called from another thread and unblocks the reader within a second.

    A stream of an engine that may start a job again has two more attributes, set before its first
    batch: `source`, which identifies the start that the log belongs to, and `preface`, a sentence for
    the log if this is not the first start. The follower reads the log of a new start from its begin.
    """

    def __iter__(self) -> Iterator[list[Frame]]: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class FoundJob:
    """A stoke job that the engine knows, submitted by any user of the engine.

    `read_spec` asks the engine for the public spec, which may be missing.
    """

    job_id: str
    scope: str
    submitted_at: float
    nonce: str | None = None
    read_spec: Callable[[], bytes | None] = lambda: None
    schedule_id: str | None = None
    """The schedule that it is a run of (`stoke.backend.capabilities.RunsSchedules`)."""


CACHE_KINDS = ("python", "system")
"""The kinds of cache volumes. A backend passes over a volume of another kind.

No enum: volumes of earlier and later versions have kinds of their own in labels, JSON and the history.
"""


@dataclass(frozen=True)
class Volume:
    """A cache volume (a folder on local). Unknown figures are None, never 0.

    `bytes` counts a hard-linked file once; `measured_at` is epoch seconds.
    """

    backend: str
    scope: str
    kind: str
    """One of `CACHE_KINDS`."""
    name: str
    node: str | None = None
    bytes: int | None = None
    measured_at: float | None = None
    entries: int | None = None
    in_use_by: tuple[str, ...] = ()

    @property
    def whole_name(self) -> str:
        """The name with its node, because the folders have the same names on every node."""
        return f"{self.name} on {self.node}" if self.node else self.name


@dataclass(frozen=True)
class CheckResult:
    """One line of `stoke doctor`: what was checked, whether it works (None if that cannot be checked
    from here), and how to fix it."""

    what: str
    works: bool | None
    detail: str
    hint: str | None = None


PhaseReport = Callable[[str, float, float | None], None]
"""Called with a phase's name, its start (epoch seconds) and its seconds (None at its begin)."""


class Backend(Protocol):
    name: str
    capabilities: Capabilities

    def submit(self, delivery: Delivery, report: PhaseReport) -> None:
        """Start the job. Repeating a call is safe: the same job id is the same job."""

    def inspect(self, job_id: str) -> EngineState:
        """Return the engine's state of one job, `ABSENT` if the engine does not know it."""

    def logs(self, job_id: str, since: int, follow: bool) -> LogStream:
        """Open the job's output from `since` (epoch nanoseconds, inclusive; 0: all) on.

        With `follow` the stream stays open until the job ends. Raises `EngineError` if the engine no
        longer has the log, and `LogDeniedError` if asking again is useless.
        """

    def stop(self, job_id: str, grace: float) -> str | None:
        """Send SIGTERM, and SIGKILL after `grace` seconds (0: at once), and return without waiting.

        Returns a sentence if the user has to know more, for example that it takes longer, and why. A
        job that has ended or was removed is no error.
        """

    def remove(self, job_id: str) -> None:
        """Remove a finished job from the engine. A job that the engine does not know is no error."""

    def jobs(self) -> list[FoundJob]:
        """Return every stoke job that the engine still has, found by its label."""

    def volumes(self) -> list[Volume]:
        """Return the cache volumes with what is known without measuring them."""

    def housekeep(
        self, volume: Volume, operation: Mapping[str, object], progress: Callable[[str], None]
    ) -> dict[str, Any]:
        """Run `stoke.remote.housekeeping` where the volume is mounted and return its result.

        `stoke.cache.volumes` makes operations and reads results; `image` in an operation is the image
        that a job in this scope named last, for backends that need one. `progress` is called at least
        every second or so; an exception that it raises ends the operation and is raised here.
        `EngineError` if the operation is refused, or the volume is not ours.
        """

    def check(self) -> list[CheckResult]:
        """Check everything that this backend needs. Raises nothing."""

    def close(self) -> None:
        """Close all connections."""
