"""Optional capabilities of a backend: each is a protocol that `isinstance` checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from stoke.backend.api import Delivery


@runtime_checkable
class SharesNetwork(Protocol):
    """What a backend may offer besides: jobs that this machine's proxies serve as well."""

    def shares_network(self) -> bool:
        """Whether its jobs run on this machine. Connects to nothing."""


@runtime_checkable
class Interrupts(Protocol):
    """What a backend may offer besides: ctrl+c that reaches the code as SIGINT."""

    def interrupt(self, job_id: str) -> None:
        """Send SIGINT to the job's code and return without waiting; nothing kills it afterwards.

        Before the code has begun this ends the job. A job that has ended or gone is no error.
        """


@runtime_checkable
class RendersJobs(Protocol):
    """What a backend may offer besides: `stoke render` for it."""

    def render(self, delivery: Delivery) -> str:
        """What the engine would be told of this job, for people to read. Connects to nothing."""


@runtime_checkable
class KeepsFinishedJobs(Protocol):
    """What a backend may offer besides: finished jobs that stay where others look for them."""

    def release(self, job_id: str) -> None:
        """Called once instead of `remove`, when a job's log and end are saved here: delete its secrets
        now, and leave the rest to the engine's own rules. A job that has gone is no error."""


@runtime_checkable
class ForgetsScopes(Protocol):
    """What a backend may offer besides: scopes that can be used once and thrown away."""

    def forget_scope(self, scope: str) -> None:
        """Takes a scope's caches away, volumes or folders and all. One that has none is no error.

        `EngineError` while a job uses them.
        """


@runtime_checkable
class MakesImage(Protocol):
    """What a backend may offer besides: `stoke setup image` for it."""

    def setup_image(
        self, base: str | None, tag: str | None, progress: Callable[[str], None]
    ) -> str:
        """Builds an image on `base` that is fit for jobs, and returns its name (`tag`, if given).

        `progress` gets a line at a time. `EngineError` names the step that failed.
        """


@dataclass(frozen=True)
class Preparation:
    """One thing that jobs need at a place, such as a role: what it is called and how it is written.

    `compare` asks the place and returns what would change there, as a unified diff (empty: nothing);
    `apply` changes it. Both raise `EngineError`.
    """

    name: str
    manifest: str
    compare: Callable[[], str]
    apply: Callable[[], None]


@runtime_checkable
class PreparesPlace(Protocol):
    """What a backend may offer besides: `stoke setup` for the place where its jobs run."""

    def preparations(
        self,
        scopes: Sequence[str],
        users: Sequence[str],
        groups: Sequence[str],
        prune: tuple[str, float] | None,
    ) -> list[Preparation]:
        """Everything that jobs in these scopes need, in the order in which it has to be made.

        `users` and `groups` are who gets the rights to submit; `prune` is when (as cron has it) to
        drop what has been unused for so many seconds.
        """

    def allow_plugin(self) -> str | None:
        """Lets the program run that the configuration names for getting credentials; returns it as
        text, or None where there is none."""


@dataclass(frozen=True)
class ClusterContext:
    """One of the clusters that the configuration of this machine names.

    `namespace` is the one jobs go to where no other is named. `plugin` is the program that is run here
    to get credentials, as text with the file that says so; `allowed` whether somebody has seen it and
    let it run. With `trouble` it cannot be used.
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
    """What a backend may offer besides: another cluster or namespace than the configured one."""

    def contexts(self) -> list[ClusterContext]:
        """All of them. Reads files and runs nothing; `EngineError` where they cannot be read."""

    def choose(self, context: str | None, namespace: str | None) -> None:
        """From now on jobs are submitted there (None: as configured). Those that are under way are
        followed where they are. Connects to nothing; the same choice again changes nothing."""

    def allow_plugin(self) -> str | None:
        """As in `PreparesPlace`, for the chosen context."""
