"""Measure volumes in the background where that starts nothing: folders of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from stoke.backend.api import Volume
from stoke.errors import StokeError
from stoke.history.job import Job
from tui.base_screen import StokeScreen
from tui.threads import Work, on_thread


class BackgroundMeasuring:
    """Measures one volume at a time, and reports each with `done`. A failure is tried again only once
    the volume has changed: its backend reports errors where it is used."""

    def __init__(
        self,
        screen: StokeScreen,
        measure: Callable[[Volume, Callable[[str], None]], Volume],
        done: Callable[[Volume], object],
    ) -> None:
        self._screen = screen
        self._measure = measure
        self._done = done
        self._waiting: dict[tuple[str, str], Volume] = {}
        self._tried: dict[tuple[str, str], float | None] = {}
        self._work: Work | None = None

    def add(self, volumes: Iterable[Volume], jobs: Iterable[Job]) -> None:
        """Measure those that were never measured, or that jobs have added to since."""
        built = built_at(jobs)
        for volume in volumes:
            key = volume.backend, volume.name
            at = built.get((volume.backend, volume.scope, volume.kind))
            if is_due(volume, at) and (key not in self._tried or self._tried[key] != at):
                self._tried[key] = at
                self._waiting[key] = volume
        self._next()

    def close(self) -> None:
        self._waiting.clear()
        if self._work is not None:
            self._work.cancel()

    def _next(self) -> None:
        if self._work is not None or not self._waiting:
            return
        volume = self._waiting.pop(next(iter(self._waiting)))
        work = self._work = Work("measuring", lambda: None)

        def ended(measured: Volume) -> None:
            self._work = None
            self._done(measured)
            self._next()

        def failed(_: StokeError) -> None:
            self._work = None
            self._next()

        on_thread(self._screen, lambda: self._measure(volume, work.progress), ended, failed)


def built_at(jobs: Iterable[Job]) -> dict[tuple[str, str, str], float]:
    """Return when jobs last added to the volume of each (backend, scope, kind), in epoch seconds."""
    found: dict[tuple[str, str, str], float] = {}
    for job in jobs:
        for phase in job.phases:
            if phase.hit is False and phase.seconds is not None:
                kind = "python" if phase.name in ("lock", "project", "build") else phase.name
                key = job.backend, job.scope, kind
                found[key] = max(found.get(key, 0.0), phase.started_at + phase.seconds)
    return found


def is_due(volume: Volume, built: float | None) -> bool:
    """Return whether the size of a volume is unknown or older than what jobs built there."""
    return volume.measured_at is None or (built is not None and built > volume.measured_at)
