"""`stoke cache`: what the cache volumes hold, and emptying them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from stoke.backend import Backend, Volume, backend_names
from stoke.caches import savings
from stoke.cli.options import BACKEND, apply
from stoke.cli.output import (
    UNKNOWN,
    Cell,
    human_age,
    human_bytes,
    human_seconds,
    narrate,
    print_json,
    print_table,
    rfc3339,
)
from stoke.errors import EngineError, RequestError
from stoke.history import History
from stoke.logs.sanitise import clean
from stoke.paths import history_file

if TYPE_CHECKING:
    from stoke.job import Job

KINDS = ["python", "system"]
HEADS = [
    "BACKEND", "SCOPE", "KIND", "SIZE", "MEASURED", "ENTRIES", "HITS", "SAVED", "NOT RECEIVED",
    "IN USE BY",
]  # fmt: skip
TO_THE_RIGHT = frozenset({3, 5, 6, 7, 8})


@click.group()
def command() -> None:
    """See and clear the cache volumes.

    \b
    stoke cache ls
    stoke cache clear --scope team-a --kind python
    """


@command.command("ls")
@apply(BACKEND)
@click.option("--json", "as_json", is_flag=True, help="As a JSON list.")
def list_volumes(backend: str | None, as_json: bool) -> None:
    """List the cache volumes: their size, what they saved, who uses them.

    Of every backend that can be asked, or of the one that is named. What a volume saved is told from
    the jobs of this machine's history.

    \b
    stoke cache ls
    stoke cache ls -b docker --json
    """
    from stoke.config import load_config
    from stoke.lifecycle import Backends

    backends = Backends(load_config())
    volumes: list[Volume] = []
    for name in [backend] if backend else backend_names():
        try:
            chosen = backends.get(name)
            volumes += [_measured(chosen, volume) for volume in chosen.volumes()]
        except EngineError as error:
            if backend:
                raise
            narrate(f"{name} is left out: {error.what}")
    jobs = _history()
    if as_json:
        print_json([_document(volume, jobs) for volume in volumes])
    elif volumes:
        print_table(HEADS, [_row(volume, jobs) for volume in volumes], TO_THE_RIGHT)
    else:
        narrate("no cache volumes yet; the first job with packages makes one")


@command.command("clear")
@click.option("--scope", metavar="SCOPE", help="Whose caches; without it, the configured scope's.")
@click.option("--kind", type=click.Choice(KINDS), help="Only this kind.")
@apply(BACKEND)
@click.option("--yes", is_flag=True, help="Do not ask.")
def clear(scope: str | None, kind: str | None, backend: str | None, yes: bool) -> None:
    """Empty a scope's caches.

    Says first what will go, how much it is and who holds it, and asks for the scope's name. Refuses
    while a running job uses it.

    \b
    stoke cache clear
    stoke cache clear --scope team-a --kind python -b docker --yes
    """
    from stoke.config import load_config
    from stoke.lifecycle import Backends

    config = load_config()
    scope = scope or config.scope
    chosen = Backends(config).get(backend or config.backend)
    volumes = [
        _measured(chosen, volume)
        for volume in chosen.volumes()
        if volume.scope == scope and kind in (None, volume.kind)
    ]
    if not volumes:
        what = f"{kind} cache" if kind else "caches"
        raise RequestError(
            "scope", f"{scope} has no {what} on the {chosen.name} backend", "see: stoke cache ls"
        )
    for volume in volumes:
        environments = "" if volume.entries is None else f", {volume.entries} environments"
        narrate(f"{volume.name}: {human_bytes(volume.bytes)}{environments}")
    holders = sorted({job for volume in volumes for job in volume.in_use_by})
    if holders:
        raise EngineError(
            f"in use by {', '.join(holders)}; nothing was cleared",
            f"wait for them, or stop them: stoke stop {' '.join(holders)}",
        )
    if not yes:
        _ask(scope)
    freed = sum(chosen.clear(volume, narrate) for volume in volumes)
    narrate(f"freed {human_bytes(freed)}")


def _ask(scope: str) -> None:
    if not sys.stdin.isatty():
        raise RequestError("scope", "nobody is here to confirm this", "say it was meant: --yes")
    typed = click.prompt(
        f"Everything above goes. Type the scope's name ({clean(scope)}) to clear it",
        default="", show_default=False, err=True,
    )  # fmt: skip
    if typed.strip() != scope:
        raise RequestError("scope", "that is not its name; nothing was cleared")


def _measured(backend: Backend, volume: Volume) -> Volume:
    """With its size, if that can be had; a volume that cannot be measured is listed all the same."""
    try:
        return backend.measure(volume)
    except EngineError as error:
        narrate(f"{volume.name} could not be measured: {error.what}")
        return volume


def _history() -> list[Job]:
    if not history_file().exists():
        return []
    with History() as history:
        return history.list()


def _document(volume: Volume, jobs: list[Job]) -> dict[str, object]:
    saved = savings(jobs, volume.backend, volume.scope, volume.kind)
    return {
        "backend": volume.backend,
        "node": volume.node,
        "scope": volume.scope,
        "kind": volume.kind,
        "name": volume.name,
        "bytes": volume.bytes,
        "measured_at": rfc3339(volume.measured_at),
        "entries": volume.entries,
        "hit_rate": saved.hit_rate,
        "saved_seconds": saved.seconds,
        "saved_bytes": saved.bytes,
        "in_use_by": list(volume.in_use_by),
    }


def _row(volume: Volume, jobs: list[Job]) -> list[Cell]:
    saved = savings(jobs, volume.backend, volume.scope, volume.kind)
    return [
        volume.backend,
        volume.scope,
        volume.kind,
        human_bytes(volume.bytes),
        human_age(volume.measured_at),
        UNKNOWN if volume.entries is None else str(volume.entries),
        UNKNOWN if saved.hit_rate is None else f"{saved.hit_rate:.0%}",
        human_seconds(saved.seconds),
        human_bytes(saved.bytes),
        ", ".join(volume.in_use_by),
    ]
