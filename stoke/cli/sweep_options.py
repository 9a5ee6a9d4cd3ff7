"""The options that make a sweep of a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from stoke.cli.option_errors import FILLED, FilledNumber

if TYPE_CHECKING:
    from stoke.jobs.sweeps import SweepRequest

MOST_PARALLEL = 100_000

SWEEP = (
    click.option(
        "--each", metavar="NAME=VALUES", type=FILLED, multiple=True,
        help="Run a task for each value: lr=0.1,0.01 or seed=1..10. Repeated, for each combination. "
        "The code gets --NAME VALUE, or the value in place of {NAME} in its arguments.",
    ),
    click.option(
        "--zip", "in_pairs", is_flag=True,
        help="Pair the first values of each --each, then the second ones, and so on.",
    ),
    click.option(
        "--each-line", metavar="FILE", type=FILLED,
        help="Run a task for each line of a file, or of standard input (-): the line becomes the last "
        "argument, or replaces {line}.",
    ),
    click.option(
        "--each-file", metavar="FILE", type=FILLED,
        help="Run a task for each row of a .csv file with a header, or each line of a .jsonl file.",
    ),
    click.option(
        "--max-parallel", metavar="N", type=FilledNumber(1, MOST_PARALLEL),
        help="Run at most N tasks of the sweep at once (default: as many as there are slots).",
    ),
    click.option(
        "--max-fails", metavar="N", type=FilledNumber(0, MOST_PARALLEL),
        help="End the sweep once more than N of its tasks have failed.",
    ),
    click.option(
        "--fail-fast", is_flag=True, help="End the sweep when a task fails, as --max-fails 0 does."
    ),
)  # fmt: skip


def sweep_from(options: dict[str, Any]) -> SweepRequest | None:
    """Take the options of SWEEP out of a command's options; return the sweep, or None for none.

    Raises `RequestError` for values that make no sweep.
    """
    each: tuple[str, ...] = options.pop("each")
    in_pairs: bool = options.pop("in_pairs")
    each_line: str | None = options.pop("each_line")
    each_file: str | None = options.pop("each_file")
    max_parallel: int | None = options.pop("max_parallel")
    max_fails: int | None = options.pop("max_fails")
    fail_fast: bool = options.pop("fail_fast")
    if not (each or each_line or each_file):
        if in_pairs or fail_fast or max_parallel is not None or max_fails is not None:
            raise click.UsageError(
                "--zip, --max-parallel, --max-fails and --fail-fast need a sweep: --each NAME=VALUES."
            )
        return None
    if fail_fast and max_fails:
        raise click.UsageError("--fail-fast is --max-fails 0; give one of the two.")
    from stoke.jobs.sweeps import SweepRequest
    from stoke.request.sweep_files import read_lines, read_table
    from stoke.request.sweep_values import make_table, parse_each

    axes = [parse_each(one) for one in each]
    if each_file is not None:
        axes.append(read_table(each_file))
    if each_line is not None:
        axes.append(read_lines(each_line))
    table = make_table(axes, in_pairs=in_pairs)
    return SweepRequest(table, max_parallel, 0 if fail_fast else max_fails)
