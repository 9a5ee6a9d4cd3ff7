"""Optional capabilities of a backend: each is a protocol that `isinstance` checks."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from stoke.errors import EngineError

if TYPE_CHECKING:
    from stoke.backend.api import Delivery, FoundJob
    from stoke.request.spec import JobSpec


@runtime_checkable
class SharesNetwork(Protocol):
    """Jobs may run on this machine, where its proxies serve them."""

    def shares_network(self) -> bool:
        """Return whether the jobs run on this machine. Connects to nothing."""


@runtime_checkable
class MountsFiles(Protocol):
    """Jobs can see files from outside of them: of this machine, or claims of a cluster."""

    def check_mounts(self, spec: JobSpec) -> str | None:
        """Raise `RequestError` for a mount that a job cannot have; return a note for the user, if any.

        Connects to nothing.
        """


@runtime_checkable
class Interrupts(Protocol):
    """Ctrl+c reaches the code as SIGINT."""

    def interrupt(self, job_id: str) -> None:
        """Send SIGINT to the job's code and return without waiting; nothing kills it afterwards.

        Before the code has begun this ends the job. A job that has ended or was removed is no error.
        """


class Channel(Protocol):
    """The streams of `stoke.remote.session` in a job, for one thread. Nothing here waits.

    All methods raise `EngineError` for a lost connection.
    """

    def readers(self) -> Sequence[int]:
        """Return the descriptors to wait on until `read` has something to return."""

    def writer(self) -> int | None:
        """Return the descriptor to wait on before `write`; None while nothing is queued."""

    def queue(self, data: bytes) -> None:
        """Queue data for the program's stdin."""

    def queued(self) -> int:
        """Return the number of queued bytes."""

    def write(self) -> None:
        """Write queued data, as much as the connection takes."""

    def read(self) -> list[tuple[int, bytes]]:
        """Return what has arrived, each piece with its stream: 1 (stdout) or 2 (stderr)."""

    @property
    def ended(self) -> bool:
        """Whether all output has been read."""

    def exit_code(self) -> int | None:
        """Return the program's exit code once the channel has ended; None if it is unknown."""

    def close(self) -> None:
        """End the connection, and with it the program."""


class NotStartedError(EngineError):
    """The job has not started yet, so nothing can enter it, or stop it alone if it is a task."""


@runtime_checkable
class Interactive(Protocol):
    """Programs can be run inside a job, beside its code: `stoke shell` and `stoke exec`."""

    def enter(self, job_id: str) -> Channel:
        """Start `stoke.remote.session` inside a running job.

        Raises `NotStartedError` for a job that will start, and `EngineError` for one that has ended.
        """


@runtime_checkable
class RendersJobs(Protocol):
    """`stoke render` can print what is submitted."""

    def render(self, delivery: Delivery) -> str:
        """Return what would be sent to the engine, readable. Connects to nothing."""


@runtime_checkable
class KeepsFinishedJobs(Protocol):
    """Finished jobs stay at the engine, where its other users look for them."""

    def release(self, job_id: str) -> None:
        """Delete the secrets of a job whose log and end are saved on this machine.

        Called once, instead of `remove`; the engine's own rules remove the rest. A job that the engine
        does not know is no error.
        """


@runtime_checkable
class RemovesSoon(Protocol):
    """Removing a job may take long, and continues at the engine without this program."""

    def remove_soon(self, job_id: str) -> None:
        """Begin to remove a finished job, as `remove` does, and do not wait long for the end of it."""


@runtime_checkable
class ForgetsScopes(Protocol):
    """A scope can be deleted, so it can be used for one cold run."""

    def forget_scope(self, scope: str) -> None:
        """Delete a scope's cache volumes or folders. A scope without any is no error.

        Raises `EngineError` while a job uses them.
        """


@dataclass(frozen=True)
class SweepPlan:
    """The tasks of a sweep for an engine that starts them itself."""

    tasks: tuple[bytes, ...]
    """A line of JSON for each task: the fields of the payload (`stoke.remote.schema.Payload`) in which
    it differs from that of the sweep. Its `env` is added to the sweep's."""
    max_parallel: int | None = None
    fail_fast: bool = False


@dataclass(frozen=True)
class SweepProgress:
    """What an engine tells of a sweep that it runs."""

    is_over: bool
    """Whether no more tasks start and none runs; also if the engine no longer has the sweep."""
    started: int
    """The tasks with the numbers 1 to `started` have been started."""
    reason: str | None = None
    """Why no task starts, or why the sweep ended early."""


@runtime_checkable
class RunsSweeps(Protocol):
    """The engine starts the tasks of a sweep itself, also while no program of ours runs.

    A task is a job with an id of its own (`stoke.history.sweeps.task_id`). `stop`, `remove` and
    `release` with the id of the sweep act on all of its tasks.
    """

    def check_sweep(
        self, spec: JobSpec, rows: Sequence[Sequence[str]], max_fails: int | None
    ) -> None:
        """Raise `RequestError` for a sweep that the engine cannot run. Connects to nothing."""

    def submit_sweep(self, delivery: Delivery, plan: SweepPlan) -> None:
        """Start a sweep. Repeating a call is safe, as for `Backend.submit`."""

    def sweep_progress(self, sweep_id: str) -> SweepProgress:
        """Return how far a sweep is. From then on its tasks are asked for all at once, until `release`
        or `remove`."""


@dataclass(frozen=True)
class SchedulePlan:
    """When an engine begins the runs of a schedule."""

    cron: str
    """The five fields of a cron expression in digits, Sunday as 0. A field of days that is `*` allows
    every day. If neither is, a day that is in one of them is enough."""
    timezone: str
    """A name of the tz database."""


@dataclass(frozen=True)
class EngineSchedule:
    """What an engine tells of a schedule."""

    paused: bool
    problem: str | None = None
    """Why it can begin no run."""


@runtime_checkable
class RunsSchedules(Protocol):
    """The engine begins the runs of a schedule itself, also while no program of ours runs.

    A schedule has an id as jobs have; the id of each of its runs begins with it. Runs are jobs like any
    other. The engine begins none while an earlier one has not ended.
    """

    def check_schedule(self, spec: JobSpec) -> None:
        """Raise `RequestError` for a request that cannot be a schedule's. Connects to nothing."""

    def create_schedule(self, delivery: Delivery, plan: SchedulePlan) -> None:
        """Begin runs of this delivery from now on. Its `job_id` is the id of the schedule, and its pack
        is left where it is.

        Also replaces what the engine has of this schedule, if that is incomplete. Nothing is left after
        an error.
        """

    def schedule(self, schedule_id: str) -> EngineSchedule | None:
        """Return the state of a schedule; None if the engine does not have it, or not all of it."""

    def pause_schedule(self, schedule_id: str, paused: bool) -> bool:
        """Begin no runs, or begin them again; return whether the engine has the schedule."""

    def begin_run(self, schedule_id: str) -> FoundJob:
        """Begin a run now. `EngineError` if the engine does not have the schedule."""

    def schedule_runs(self, schedule_ids: Sequence[str]) -> list[FoundJob]:
        """Return the runs that the engine has of these schedules, also of removed ones, apart from
        those that were released."""

    def remove_schedule(self, schedule_id: str) -> None:
        """Remove a schedule, and leave its runs. One that the engine does not have is no error."""


class EntryKind(StrEnum):
    FILE = "file"
    FOLDER = "folder"
    HARD_LINK = "hard link"
    """A second name of a file that came before it."""
    LINK = "symbolic link"
    OTHER = "device, pipe or socket"


class ResultEntry(NamedTuple):
    """One entry of a job's results folder, as the engine gives it: nothing in it is trusted."""

    path: bytes
    """Relative to the folder, with / between names."""
    kind: EntryKind
    size: int = 0
    mode: int = 0
    modified_at: float = 0.0
    target: bytes = b""
    """For a hard link, the path of the file that came before it."""
    read: Callable[[], Iterator[bytes]] = lambda: iter(())
    """Gives the content of a file, in pieces, before the next entry is asked for."""


@runtime_checkable
class KeepsResults(Protocol):
    """What a job writes to `$STOKE_RESULTS` can be read once it has ended."""

    def results(
        self, job_id: str, progress: Callable[[str], None]
    ) -> Generator[ResultEntry] | None:
        """Give the entries of the results folder of an ended job, each folder before its contents.

        None if the engine no longer has the job. `progress` reports a download. Entries that
        cannot be read are of the kind `OTHER`. The caller closes the generator, which ends the
        connection. `EngineError` if it breaks; it then begins anew.
        """

    def has_results(self, job_id: str) -> bool:
        """Return quickly whether there may be any entry."""

    def forget_results(self, job_id: str) -> None:
        """Remove the results that were collected, where they do not go with the job. Never raises."""


@runtime_checkable
class MakesImage(Protocol):
    """`stoke setup image` can build an image."""

    def setup_image(
        self, base: str | None, tag: str | None, progress: Callable[[str], None]
    ) -> str:
        """Build an image for jobs on top of `base` and return its name (`tag`, if given).

        `progress` gets one line at a time. `EngineError` names the step that failed.
        """


@runtime_checkable
class StoresProjects(Protocol):
    """The contents of projects stay on a cache volume, so that a later job needs only new ones."""

    def project_store(self, scope: str) -> str | None:
        """Name the volume that every job of a scope uses, for example by the engine's address.

        None if the next job may use another volume. Connects to nothing.
        """


@dataclass(frozen=True)
class Workspace:
    """A named volume (a folder on local) that outlives the jobs that mount it.

    Unknown figures are None, never 0; times are epoch seconds.
    """

    backend: str
    name: str
    place: str
    """The engine's name of the volume or claim, or the folder."""
    scope: str = ""
    """The scope of the job that made it."""
    node: str | None = None
    created_at: float | None = None
    in_use_by: tuple[str, ...] = ()
    bytes: int | None = None
    files: int | None = None
    measured_at: float | None = None
    last_used: float | None = None


@runtime_checkable
class KeepsWorkspaces(Protocol):
    """Jobs can share named folders that outlive them. `JobSpec.workspace` names one for a job."""

    def workspaces(self) -> list[Workspace]:
        """Return all workspaces, sorted by name, with what is known without measuring them."""

    def check_workspace(self, spec: JobSpec) -> None:
        """Raise `RequestError` for a job that cannot have its workspace. Connects to nothing."""

    def tend_workspace(
        self, workspace: Workspace, operation: Mapping[str, object], progress: Callable[[str], None]
    ) -> dict[str, Any]:
        """Run an operation of `stoke.remote.housekeeping.workspace_volume` where it is mounted."""

    def read_workspace(self, workspace: Workspace, path: str, name: str) -> Generator[bytes]:
        """Yield the archive of a path in it, as `stoke.remote.common.archives` packs it.

        The iterator's `close` ends the reading early.
        """

    def write_workspace(
        self, workspace: Workspace, folder: str, archive: Iterator[bytes]
    ) -> list[str]:
        """Unpack an archive without its end into a folder of it; return what could not be written."""

    def clone_workspace(
        self, workspace: Workspace, new: str, progress: Callable[[str], None]
    ) -> dict[str, Any]:
        """Copy it into the workspace `new`, which must not exist; return what was copied.

        Nothing of `new` is left if that fails.
        """

    def remove_workspace(self, workspace: Workspace) -> None:
        """Remove it with everything in it. `EngineError` names the jobs that use it."""


@runtime_checkable
class RenamesWorkspaces(Protocol):
    """A workspace can get another name without being copied."""

    def rename_workspace(self, workspace: Workspace, new: str) -> None:
        """Give it the name `new`, which no other has. `EngineError` names the jobs that use it."""


@dataclass(frozen=True)
class Preparation:
    """One object that jobs need in their namespace, such as a role: its name and its manifest.

    `compare` returns what would change there, as a unified diff (empty: nothing); `apply` changes it.
    Both raise `EngineError`.
    """

    name: str
    manifest: str
    compare: Callable[[], str]
    apply: Callable[[], None]


@runtime_checkable
class PreparesNamespace(Protocol):
    """`stoke setup` can prepare the namespace where jobs run."""

    def preparations(
        self,
        scopes: Sequence[str],
        users: Sequence[str],
        groups: Sequence[str],
        prune: tuple[str, float] | None,
    ) -> tuple[list[Preparation], dict[str, Any]]:
        """Return everything that jobs in these scopes need, in the order of its creation, and the
        settings that its policies ask of jobs, as far as the configuration has others.

        `users` and `groups` get the rights to submit; `prune` is a cron schedule and the seconds after
        which unused environments are removed at those times. It is prepared for jobs with these
        settings.
        """

    def allow_plugin(self) -> str | None:
        """Allow the credential program that the configuration names; return it as text.

        Returns None if the configuration names none.
        """


@dataclass(frozen=True)
class ClusterContext:
    """One of the clusters in this machine's configuration.

    `namespace` is the default for jobs. `plugin` is the credential program that would run on this
    machine, as text with the file that names it; `allowed` is whether the user has allowed it. With
    `trouble` the context cannot be used.
    """

    name: str
    server: str = ""
    namespace: str = ""
    current: bool = False
    plugin: str | None = None
    allowed: bool = True
    trouble: str | None = None


@runtime_checkable
class ChoosesCluster(Protocol):
    """The user can choose another cluster or namespace than the configured one."""

    def contexts(self) -> list[ClusterContext]:
        """Return all contexts. Reads files and runs nothing. `EngineError` if a file is unreadable."""

    def choose(self, context: str | None, namespace: str | None) -> None:
        """Submit jobs there from now on (None: as configured); jobs that run stay where they are.

        Connects to nothing. Repeating the same choice changes nothing.
        """

    def allow_plugin(self) -> str | None:
        """As `PreparesNamespace.allow_plugin`, for the chosen context."""
