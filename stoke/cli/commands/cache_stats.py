"""`stoke cache stats`: hits, times and savings as a table, as JSON or for Prometheus."""

from __future__ import annotations

import time
from dataclasses import asdict

import click

from stoke.cache.metrics import CacheFigures, Metrics, Point, read_metrics
from stoke.cli.option_errors import read_option
from stoke.cli.options import BACKEND, apply
from stoke.cli.output import Cell, print_json, print_notice, print_table
from stoke.history.database import History
from stoke.text.times import rfc3339
from stoke.text.units import UNKNOWN, human_bytes, human_seconds

HEADS = [
    "BACKEND", "SCOPE", "KIND", "JOBS", "HITS", "COLD", "WARM", "SAVED", "NOT RECEIVED", "OVER TIME",
]  # fmt: skip
BARS = "▁▂▃▄▅▆▇█"
NO_JOB = "·"
MOST_PACKAGES = 10


@click.command("stats")
@apply(BACKEND)
@click.option("--scope", metavar="SCOPE", help="Only this scope.")
@click.option("--since", metavar="TIME", help="Only jobs submitted within this time: 30d, 12h.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--prometheus", is_flag=True, help="Print the Prometheus text format.")
def command(
    backend: str | None, scope: str | None, since: str | None, as_json: bool, prometheus: bool
) -> None:
    """Show what the caches saved: hits, cold and warm seconds, packages.

    Computed from the jobs in this machine's history. COLD and WARM are medians; SAVED compares with
    the measured cold run of the same request. OVER TIME shows the hit rate in 24 intervals of the
    period; a dot is an interval without jobs.

    \b
    stoke cache stats --since 30d
    stoke cache stats --scope team-a --json
    stoke cache stats --prometheus > stoke.prom
    """
    if prometheus and (since or as_json):
        raise click.UsageError("--prometheus cannot be combined with --since or --json.")
    with History() as history:
        metrics = read_metrics(history, since=_since(since), backend=backend, scope=scope)
    if prometheus:
        from stoke.cache.prometheus import exposition

        click.echo(exposition(metrics), nl=False)
    elif as_json:
        print_json(_document(metrics))
    elif not metrics.figures:
        print_notice("no job has used a cache yet")
    else:
        _show(metrics)


def _since(text: str | None) -> float | None:
    if text is None:
        return None
    from stoke.text.units import parse_duration

    return time.time() - read_option("--since", text, parse_duration)


def _show(metrics: Metrics) -> None:
    rows = [
        _row(one, metrics.over_time[one.backend, one.scope, one.kind]) for one in metrics.figures
    ]
    print_table(HEADS, rows, frozenset(range(3, 9)))
    prediction = metrics.prediction
    if prediction.rate is not None:
        share = f"{prediction.right} of {prediction.judged} right ({prediction.rate:.1%})"
        click.echo(f"\npredictions   {share}")
    if metrics.packages:
        click.echo()
        most: list[list[Cell]] = [
            [one.name, one.kind, str(one.uses)] for one in metrics.packages[:MOST_PACKAGES]
        ]
        print_table(["PACKAGE", "KIND", "JOBS"], most, frozenset({2}))


def _row(one: CacheFigures, points: tuple[Point, ...]) -> list[Cell]:
    return [
        one.backend,
        one.scope,
        one.kind,
        str(one.jobs),
        UNKNOWN if one.hit_rate is None else f"{one.hit_rate:.0%}",
        human_seconds(one.cold_seconds),
        human_seconds(one.warm_seconds),
        human_seconds(one.saved_seconds),
        human_bytes(one.saved_bytes),
        "".join(_bar(point) for point in points),
    ]


def _bar(point: Point) -> str:
    if not point.jobs:
        return NO_JOB
    return BARS[min(int(point.hits / point.jobs * len(BARS)), len(BARS) - 1)]


def _document(metrics: Metrics) -> dict[str, object]:
    """Return the JSON: times in RFC 3339, durations in seconds, sizes in bytes, null for unknown."""
    return {
        "since": rfc3339(metrics.since),
        "caches": [
            {
                **asdict(one),
                "over_time": [
                    {**asdict(point), "at": rfc3339(point.at)}
                    for point in metrics.over_time[one.backend, one.scope, one.kind]
                ],
            }
            for one in metrics.figures
        ],
        "sizes": [
            {**asdict(size), "measured_at": rfc3339(size.measured_at)} for size in metrics.sizes
        ],
        "packages": [asdict(one) for one in metrics.packages],
        "prediction": asdict(metrics.prediction),
    }
