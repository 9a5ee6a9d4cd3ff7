"""What `stoke cache prune` does: says what would go, asks, and lets it go."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from stoke.cache.volumes import Housekeeper, Pruned, group_by_budget
from stoke.cli.output import print_error, print_notice
from stoke.cli.progress import ProgressLine
from stoke.errors import EXIT_ENGINE, EngineError, RequestError
from stoke.text.units import human_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from stoke.backend.api import Backend, Volume
    from stoke.config.model import Config

    Run = Callable[[bool], list[Pruned | EngineError]]
    """Prunes volumes that share a budget, or with True tells what would go."""

# What a volume's entries and what they are made of are called.
WORDS = {"python": ("environments", "packages"), "system": ("sets", "store paths")}


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
    """Prunes them, those of one scope together; the command's exit code. A volume that cannot be
    pruned is named, and the others are."""
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
            "nothing says what may go: no budget is configured",
            "name a limit: stoke cache prune --unused 30d",
        )
    report = _Report(quiet and yes)
    if dry_run or not report.quiet:
        promised = [report.promise(volumes, run(True)) for volumes, run in plans]
        if dry_run or not any(promised):
            return report.exit_code
        if not yes:
            _confirm()
    freed = sum(report.done(volumes, run(False)) for volumes, run in plans)
    report.say(f"freed {human_bytes(freed)}")
    return report.exit_code


class _Report:
    """Tells what becomes of each volume; with `quiet` only what went wrong."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.exit_code = 0
        self._failed: set[str] = set()

    def say(self, text: str) -> None:
        if not self.quiet:
            print_notice(text)

    def promise(self, volumes: list[Volume], outcomes: list[Pruned | EngineError]) -> bool:
        """Says what would go; whether that is anything."""
        goes = False
        for volume, pruned in self._pruned(volumes, outcomes):
            held = f"; {len(pruned.busy)} more in use" if pruned.busy else ""
            if not pruned.bytes:
                self.say(f"{volume.whole_name}: nothing to drop{held}")
                continue
            goes = True
            entries, parts = WORDS[volume.kind]
            self.say(
                f"{volume.whole_name}: {len(pruned.environments)} {entries} and {len(pruned.packages)} "
                f"{parts} go, {human_bytes(pruned.bytes)}; {human_bytes(pruned.left)} stay{held}"
            )
        return goes

    def done(self, volumes: list[Volume], outcomes: list[Pruned | EngineError]) -> int:
        """Bytes that went."""
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


def _confirm() -> None:
    if not sys.stdin.isatty():
        raise RequestError("prune", "nobody is here to confirm this", "say it was meant: --yes")
    if not click.confirm("Drop them?", default=False, err=True):
        raise RequestError("prune", "nothing was dropped")
