"""Prune cache volumes: show what would be dropped, ask, drop it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stoke.cache.volumes import Housekeeper, Pruned, group_by_budget
from stoke.cli.confirm import confirm
from stoke.cli.output import counted, print_error, print_notice
from stoke.cli.progress import ProgressLine
from stoke.errors import EXIT_ENGINE, EngineError, RequestError
from stoke.text.units import human_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from stoke.backend.api import Backend, Volume
    from stoke.config.model import Config

    Run = Callable[[bool], list[Pruned | EngineError]]
    """Prune volumes that share a budget; with True, only compute what would be dropped."""

# The names of a volume's entries and of their parts.
WORDS = {"python": ("environment", "package"), "system": ("set", "store path")}


def prune_caches(
    housekeeper: Housekeeper,
    backend: Backend,
    volumes: list[Volume],
    config: Config,
    unused: float | None,
    max_bytes: int | None,
    *,
    dry_run: bool,
    yes: bool,
    quiet: bool,
) -> int:
    """Prune volumes, those of one scope together, and return the command's exit code.

    A volume that cannot be pruned is reported, and the others are pruned all the same.
    """
    by_budget = unused is None and max_bytes is None
    plans: list[tuple[list[Volume], Run]] = []
    for together in group_by_budget(volumes):
        size = config.budget(together[0].scope) if by_budget else max_bytes
        if unused is None and size is None:
            continue

        def run(
            dry: bool, together: list[Volume] = together, size: int | None = size
        ) -> list[Pruned | EngineError]:
            with ProgressLine() as progress:
                return housekeeper.prune_together(
                    backend, together, progress, unused=unused, max_bytes=size, dry_run=dry
                )

        plans.append((together, run))
    if not plans:
        raise RequestError(
            "max_size",
            "no limit was given and no budget is configured",
            "name a limit: stoke cache prune --unused 30d",
        )
    report = _Report(quiet and yes)
    if dry_run or not report.quiet:
        promised = [report.promise(volumes, run(True)) for volumes, run in plans]
        if dry_run or not any(promised):
            return report.exit_code
        if not yes:
            confirm("Drop them?", "prune", "nothing was dropped")
    freed = sum(report.done(volumes, run(False)) for volumes, run in plans)
    report.say(f"freed {human_bytes(freed)}")
    return report.exit_code


class _Report:
    """Print what happens to each volume; with `quiet`, only failures."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.exit_code = 0
        self._failed: set[str] = set()

    def say(self, text: str) -> None:
        if not self.quiet:
            print_notice(text)

    def promise(self, volumes: list[Volume], outcomes: list[Pruned | EngineError]) -> bool:
        """Print what would be dropped. Return whether there is anything."""
        any_to_drop = False
        for volume, pruned in self._pruned(volumes, outcomes):
            held = f"; {len(pruned.busy)} more in use" if pruned.busy else ""
            if not pruned.bytes:
                self.say(f"{volume.whole_name}: nothing to drop{held}")
                continue
            any_to_drop = True
            entry, part = WORDS[volume.kind]
            entries = counted(len(pruned.environments), entry)
            if pruned.snapshots:
                entries += f", {counted(pruned.snapshots, 'snapshot')} of projects"
            self.say(
                f"{volume.whole_name}: {entries} and "
                f"{counted(len(pruned.packages), part)} to drop, {human_bytes(pruned.bytes)}; "
                f"{human_bytes(pruned.left)} remain{held}"
            )
        return any_to_drop

    def done(self, volumes: list[Volume], outcomes: list[Pruned | EngineError]) -> int:
        """Print what could not be dropped. Return the bytes that were freed."""
        freed = 0
        for volume, pruned in self._pruned(volumes, outcomes):
            freed += pruned.bytes
            if pruned.trouble:
                self.say(f"{volume.whole_name}: {pruned.trouble}; a later prune frees the rest")
        return freed

    def _pruned(
        self, volumes: list[Volume], outcomes: list[Pruned | EngineError]
    ) -> list[tuple[Volume, Pruned]]:
        pruned = []
        for volume, outcome in zip(volumes, outcomes, strict=True):
            if isinstance(outcome, Pruned):
                pruned.append((volume, outcome))
            elif volume.whole_name not in self._failed:
                self._failed.add(volume.whole_name)
                self.exit_code = EXIT_ENGINE
                print_error(f"{volume.whole_name} was not pruned: {outcome.what}", outcome.hint)
        return pruned
