"""`stoke cache`: list, measure, prune, warm and clear cache volumes."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from stoke.backend.api import CACHE_KINDS, Backend, Volume
from stoke.backend.registry import backend_names
from stoke.cache.document import figures_by_cache, volume_document
from stoke.cache.metrics import read_metrics
from stoke.cache.volumes import Housekeeper
from stoke.cli.commands.cache_stats import command as stats
from stoke.cli.confirm import confirm_by_name
from stoke.cli.option_errors import RequestCommand, read_option
from stoke.cli.options import BACKEND, UPGRADE, apply, option_for
from stoke.cli.output import (
    Cell,
    counted,
    print_error,
    print_json,
    print_notice,
    print_table,
    time_ago,
)
from stoke.cli.progress import ProgressLine
from stoke.errors import EXIT_ENGINE, EngineError, RequestError
from stoke.history.database import History
from stoke.text.times import rfc3339
from stoke.text.units import UNKNOWN, human_bytes, human_seconds, parse_duration, parse_size

if TYPE_CHECKING:
    from stoke.backend.pool import Backends
    from stoke.cache.document import Figures
    from stoke.cache.volumes import CachedEnvironment
    from stoke.config.model import Config

KIND = click.option("--kind", type=click.Choice(CACHE_KINDS), help="Only this kind.")
HEADS = [
    "BACKEND", "SCOPE", "KIND", "SIZE", "MEASURED", "ENTRIES", "HITS", "SAVED", "NOT RECEIVED",
    "IN USE BY",
]  # fmt: skip
RIGHT_ALIGNED = frozenset({3, 5, 6, 7, 8})


ENVIRONMENT_HEADS = ["SIZE", "WOULD FREE", "USES", "LAST USED", "BUILT", "PACKAGES"]


@click.group()
def command() -> None:
    """List, prune, warm and clear the cache volumes.

    \b
    stoke cache ls
    stoke cache stats --since 30d
    stoke cache prune --unused 30d
    stoke cache clear --scope team-a --kind python
    """


@command.command("ls")
@apply(BACKEND)
@click.option("--scope", metavar="SCOPE", help="Only this scope.")
@KIND
@click.option("--measure", is_flag=True, help="Measure now instead of showing the last figures.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def list_volumes(
    backend: str | None, scope: str | None, kind: str | None, measure: bool, as_json: bool
) -> None:
    """List the cache volumes: their size, what they saved, which jobs use them.

    Lists the volumes of every backend that answers, or of the one named by --backend. Sizes are from
    the last measurement; MEASURED is its age. What a volume saved is computed from the jobs in this
    machine's history.

    \b
    stoke cache ls
    stoke cache ls -b docker --scope team-a --measure --json
    """
    with History() as history, closing(_backends()) as backends:
        housekeeper = Housekeeper(history, backends.config.lock_ttl)
        volumes: list[Volume] = []
        for name in [backend] if backend else backend_names():
            try:
                chosen = backends.get(name)
                found = housekeeper.volumes(chosen)
            except EngineError as error:
                if backend:
                    raise
                print_notice(f"{name} is not listed: {error.what}")
                continue
            found = [
                volume
                for volume in found
                if scope in (None, volume.scope) and kind in (None, volume.kind)
            ]
            if measure:
                found = [_measured(housekeeper, chosen, volume) for volume in found]
            volumes += found
        figures = figures_by_cache(read_metrics(history))
    if as_json:
        print_json([volume_document(volume, figures) for volume in volumes])
        return
    if not volumes:
        which = "such cache" if scope or kind else "cache"
        print_notice(f"no {which} volumes yet; the first job with packages creates one")
        return
    rows = [_row(volume, figures) for volume in volumes]
    _print_with_nodes(HEADS, rows, [volume.node for volume in volumes], RIGHT_ALIGNED)
    if any(volume.bytes is None for volume in volumes):
        print_notice("some volumes were never measured: stoke cache ls --measure")


@command.command("show")
@click.argument("scope", required=False)
@click.option(
    "--kind", type=click.Choice(CACHE_KINDS), default="python", show_default=True,
    help="Environments, or sets of system packages.",
)  # fmt: skip
@apply(BACKEND)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def show(scope: str | None, kind: str, backend: str | None, as_json: bool) -> None:
    """List what is in a scope's cache, most recently used first.

    SIZE counts all files of an entry, many of which other entries share. WOULD FREE is what removing
    the entry alone frees.

    \b
    stoke cache show
    stoke cache show team-a -b docker --kind system
    """
    with History() as history, closing(_backends()) as backends:
        config = backends.config
        chosen = backends.get(backend or config.backend)
        housekeeper = Housekeeper(history, config.lock_ttl)
        volumes = _volumes(housekeeper, chosen, scope or config.scope, kind)
        with ProgressLine() as progress:
            usages = [housekeeper.usage(chosen, volume, progress) for volume in volumes]
    found = [
        (volume.node, one)
        for volume, usage in zip(volumes, usages, strict=True)
        for one in usage.environments
    ]
    found.sort(key=lambda pair: -pair[1].last_used)
    if as_json:
        print_json([{"node": node, **_environment_document(one)} for node, one in found])
        return
    for volume, usage in zip(volumes, usages, strict=True):
        downloads = (
            f"{human_bytes(usage.uv_bytes)} are downloaded packages, "
            f"{human_bytes(usage.snapshot_bytes)} files of projects and "
        )
        print_notice(
            f"{volume.whole_name}: {human_bytes(usage.bytes)}, of which "
            f"{downloads if kind == 'python' else ''}{human_bytes(usage.garbage)} are unused"
        )
    heads = ["ENVIRONMENT" if kind == "python" else "SET", *ENVIRONMENT_HEADS]
    rows = [_environment_row(one) for _, one in found]
    _print_with_nodes(heads, rows, [node for node, _ in found], frozenset({1, 2, 3}))


@command.command("prune")
@click.option(
    "--scope", metavar="SCOPE", help="Only this scope's caches; without it, every scope's."
)
@KIND
@click.option("--unused", metavar="TIME", help="Drop entries not used for this long: 30d, 12h.")
@click.option(
    "--max-size", metavar="SIZE",
    help="Drop the least recently used entries until the scope is no larger than this: 10g.",
)  # fmt: skip
@apply(BACKEND)
@click.option("--dry-run", is_flag=True, help="Show what would be dropped, and keep it.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("-q", "--quiet", is_flag=True, help="With --yes, print only errors.")
def prune(
    scope: str | None,
    kind: str | None,
    unused: str | None,
    max_size: str | None,
    backend: str | None,
    dry_run: bool,
    yes: bool,
    quiet: bool,
) -> int:
    """Drop environments and sets of system packages that are no longer needed.

    Entries that a job uses are kept. Without --unused and --max-size, the budgets in the
    configuration (max_size) apply. Shows what will be dropped and how much that frees before it
    asks. A size counts both caches of a scope together; --kind selects one of them.

    \b
    stoke cache prune --unused 30d
    stoke cache prune --scope team-a --max-size 10g --dry-run
    """
    from stoke.cli.commands.cache_prune import prune_caches

    seconds = None if unused is None else read_option("--unused", unused, parse_duration)
    limit = None if max_size is None else int(read_option("--max-size", max_size, parse_size))
    with History() as history, closing(_backends()) as backends:
        chosen = backends.get(backend or backends.config.backend)
        housekeeper = Housekeeper(history, backends.config.lock_ttl)
        volumes = [
            volume
            for volume in housekeeper.volumes(chosen)
            if scope in (None, volume.scope) and kind in (None, volume.kind)
        ]
        if not volumes and scope is not None:
            raise _no_such_cache(chosen, scope, kind)
        if not volumes:
            if not quiet:
                what = f"{kind} cache" if kind else "caches"
                print_notice(f"no {what} on the {chosen.name} backend; nothing to drop")
            return 0
        return prune_caches(
            housekeeper, chosen, volumes, backends.config, seconds, limit,
            dry_run=dry_run, yes=yes, quiet=quiet,
        )  # fmt: skip


@command.command("warm", cls=RequestCommand)
@option_for("dependencies")
@option_for("requirements")
@option_for("constraints")
@option_for("locked")
@option_for("system")
@option_for("python")
@click.option(
    "--top", type=click.IntRange(1), metavar="N", help="The N requests that jobs made most often."
)
@option_for("image")
@option_for("scope")
@UPGRADE
@apply(BACKEND)
def warm(top: int | None, backend: str | None, **options: Any) -> int:
    """Build environments before they are needed, with their bytecode, and fetch system packages.

    Submits an ordinary job whose code does nothing; it appears in the list of jobs. --top takes the
    requests that jobs of this backend and scope made most often.

    \b
    stoke cache warm -w 'numpy, pandas'
    stoke cache warm -r requirements.txt --scope team-a -b docker
    stoke cache warm -s 'gcc ffmpeg' -b docker
    stoke cache warm --top 5
    """
    from stoke.cli.commands.cache_warm import environment_request, most_used, warm_up

    config = _config()
    place = backend or config.backend
    if any(options[name] for name in ("packages", "requirements", "lock", "system")):
        if top is not None:
            raise click.UsageError("--top cannot be combined with packages.")
        requests = [environment_request(config, **options)]
    elif top is None:
        raise click.UsageError("Nothing to warm: name packages, or pass --top N.")
    else:
        scope = options["scope"] or config.scope
        requests = most_used(config, place, scope, top, options["upgrade"])
    return warm_up(requests, place, config)


@command.command("clear")
@click.option("--scope", metavar="SCOPE", help="The scope to clear; default: the configured one.")
@KIND
@apply(BACKEND)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def clear(scope: str | None, kind: str | None, backend: str | None, yes: bool) -> int:
    """Empty a scope's caches.

    Shows what will be removed, its size and the jobs that use it, then asks for the scope's name.
    Refuses while a running job uses the caches.

    \b
    stoke cache clear
    stoke cache clear --scope team-a --kind python -b docker --yes
    """
    with History() as history, closing(_backends()) as backends:
        config = backends.config
        scope = scope or config.scope
        chosen = backends.get(backend or config.backend)
        housekeeper = Housekeeper(history, config.lock_ttl)
        volumes = [
            _measured(housekeeper, chosen, volume)
            for volume in _volumes(housekeeper, chosen, scope, kind)
        ]
        for volume in volumes:
            what = "environment" if volume.kind == "python" else "package set"
            entries = "" if volume.entries is None else f", {counted(volume.entries, what)}"
            print_notice(f"{volume.whole_name}: {human_bytes(volume.bytes)}{entries}")
        holders = sorted({job for volume in volumes for job in volume.in_use_by})
        if holders:
            raise EngineError(
                f"in use by {', '.join(holders)}; nothing was cleared",
                f"wait for them, or stop them: stoke stop {' '.join(holders)}",
            )
        if not yes:
            confirm_by_name("above", "scope", scope, "nothing was cleared")
        freed, failed = 0, []
        for volume in volumes:
            try:
                with ProgressLine() as progress:
                    freed += housekeeper.clear(chosen, volume, progress).bytes
            except EngineError as error:
                failed.append((volume, error))
    if freed or not failed:
        print_notice(f"freed {human_bytes(freed)}")
    for volume, why in failed:
        print_error(f"{volume.whole_name} was not cleared: {why.what}", why.hint)
    return EXIT_ENGINE if failed else 0


command.add_command(stats)


# ---------------------------------------------------------------------------- helpers


def _print_with_nodes(
    heads: list[str], rows: list[list[Cell]], nodes: list[str | None], right: frozenset[int]
) -> None:
    """Print a table, with a first column for nodes if there are any."""
    if not any(nodes):
        print_table(heads, rows, right)
        return
    named: list[list[Cell]] = [
        [node or UNKNOWN, *row] for node, row in zip(nodes, rows, strict=True)
    ]
    print_table(["NODE", *heads], named, frozenset(column + 1 for column in right))


def _config() -> Config:
    from stoke.config.loader import load_config

    return load_config()


def _backends() -> Backends:
    from stoke.backend.pool import Backends

    return Backends(_config())


def _volumes(
    housekeeper: Housekeeper, backend: Backend, scope: str, kind: str | None
) -> list[Volume]:
    """Return the volumes of a scope, of one kind or all. Raise `RequestError` if there is none."""
    found = [
        volume
        for volume in housekeeper.volumes(backend)
        if volume.scope == scope and kind in (None, volume.kind)
    ]
    if not found:
        raise _no_such_cache(backend, scope, kind)
    return found


def _no_such_cache(backend: Backend, scope: str, kind: str | None) -> RequestError:
    what = f"{kind} cache" if kind else "caches"
    return RequestError(
        "scope", f"{scope} has no {what} on the {backend.name} backend", "see: stoke cache ls"
    )


def _measured(housekeeper: Housekeeper, backend: Backend, volume: Volume) -> Volume:
    """Return the volume with its size; unchanged, with a notice, if it cannot be measured."""
    try:
        with ProgressLine() as progress:
            return housekeeper.measure(backend, volume, progress)
    except EngineError as error:
        print_notice(f"{volume.whole_name} could not be measured: {error.what}")
        return volume


def _environment_document(one: CachedEnvironment) -> dict[str, object]:
    return {
        "key": one.key,
        "bytes": one.bytes,
        "would_free": one.reclaimable,
        "built_at": rfc3339(one.built_at),
        "last_used": rfc3339(one.last_used),
        "uses": one.uses,
        "in_use": one.busy,
        "in_use_by": list(one.in_use_by),
        "packages": list(one.packages),
    }


def _environment_row(one: CachedEnvironment) -> list[Cell]:
    now = time.time()
    return [
        one.key[:12],
        human_bytes(one.bytes),
        human_bytes(one.reclaimable),
        str(one.uses),
        (", ".join(one.in_use_by) or "in use", "yellow")
        if one.busy
        else time_ago(one.last_used, now),
        time_ago(one.built_at, now),
        ", ".join(one.packages),
    ]


def _row(volume: Volume, figures: Figures) -> list[Cell]:
    saved = figures.get((volume.backend, volume.scope, volume.kind))
    return [
        volume.backend,
        volume.scope,
        volume.kind,
        human_bytes(volume.bytes),
        time_ago(volume.measured_at),
        UNKNOWN if volume.entries is None else str(volume.entries),
        UNKNOWN if saved is None or saved.hit_rate is None else f"{saved.hit_rate:.0%}",
        human_seconds(saved.saved_seconds if saved else None),
        human_bytes(saved.saved_bytes if saved else None),
        ", ".join(volume.in_use_by),
    ]
