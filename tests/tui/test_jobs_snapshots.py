"""Snapshots of the list of jobs. After an intended change:
pytest tests/tui/test_jobs_snapshots.py --snapshot-update"""

from __future__ import annotations

from io import BytesIO
from math import cos, sin
from typing import Any

import pyarrow
import pytest
from PIL import Image, ImageDraw
from pyarrow import parquet
from textual.pilot import Pilot

from stoke.history.job import Job, JobState, Phase, Usage
from stoke.history.sweeps import Sweeps
from stoke.history.usage import UsageCurves
from stoke.history.volume_index import ScopeCache, VolumeIndex
from stoke.request.sweep_values import Table
from tests.tui.conftest import NOW, Desk, screen_text, until
from tests.tui.test_hostile import ALL
from tests.tui.test_results_tab import give_results
from tests.tui.test_snapshots import Compare, still
from tui.app import StokeApp

SIZES = pytest.mark.parametrize(
    "size", [(80, 24), (120, 40), (200, 60)], ids=["80x24", "120x40", "200x60"]
)


def shows(what: str, *keys: str) -> Any:
    """Press keys once the current job is shown, and wait for `what`."""

    async def run(pilot: Pilot[Any]) -> None:
        app = pilot.app
        assert isinstance(app, StokeApp)
        first = "No jobs yet" if not what else "Spec"
        await until(pilot, lambda: first in screen_text(app))
        await still(pilot)
        for key in keys:
            await pilot.press(key)
            await pilot.pause()
        await until(pilot, lambda: what in screen_text(app), what)
        await still(pilot)

    return run


@pytest.fixture
def busy(desk: Desk) -> Desk:
    """Eighty jobs on two backends in every state."""
    states = [*JobState]
    for number in range(80):
        # Two are not over: each of them holds its log's lock.
        state = JobState.RUNNING if number in (3, 40) else states[3 + number % 4]
        failed = state == JobState.FAILED
        ended = state in (JobState.SUCCEEDED, JobState.FAILED)
        desk.job(
            f"job-{number:02}-7k2pqa",
            state,
            age=60 + 700 * number,
            backend=("local", "docker")[number % 2],
            hit=number % 3 > 0,
            exit_code=int(failed) if ended else None,
            reason="the job ran out of memory (limit 512 MiB)" if failed and number % 3 else None,
        )
    return desk


@pytest.fixture
def live(busy: Desk) -> Desk:
    """Ten more jobs that run, with the usage of their code."""
    for number in range(10):
        job_id = f"train-{number}-7k2pqa"
        busy.job(job_id, JobState.RUNNING, age=50 - number, hit=True, started_at=NOW - 40 + number)
        for step in range(20):
            cores = (0.98, 3.9, 0.02)[number % 3] * (0.4 + 0.6 * ((step * (number + 3)) % 7) / 6)
            memory = (210 + 40 * number) * 1024**2 + step * 9_000_000
            figure = Usage(NOW - 40 + 2 * step, cores, memory)
            UsageCurves(busy.history).add(job_id, figure)
    return busy


@SIZES
def test_live_usage(
    snap_compare: Compare, app: StokeApp, live: Desk, size: tuple[int, int]
) -> None:
    keys = ("g",)
    assert snap_compare(app, terminal_size=size, run_before=shows("train-9-7k2pqa", *keys))


@SIZES
def test_usage_in_phases(
    snap_compare: Compare, app: StokeApp, live: Desk, size: tuple[int, int]
) -> None:
    keys = ("g", "right_square_bracket")
    assert snap_compare(app, terminal_size=size, run_before=shows("environment", *keys))


@SIZES
def test_empty(snap_compare: Compare, app: StokeApp, size: tuple[int, int]) -> None:
    assert snap_compare(app, terminal_size=size, run_before=shows(""))


@SIZES
def test_busy_grouped_and_marked(
    snap_compare: Compare, app: StokeApp, busy: Desk, size: tuple[int, int]
) -> None:
    keys = ("b", "g", "j", "space", "space", "G", "space", "g")
    assert snap_compare(app, terminal_size=size, run_before=shows("3 marked", *keys))


@SIZES
def test_sorted_and_filtered(
    snap_compare: Compare, app: StokeApp, busy: Desk, size: tuple[int, int]
) -> None:
    keys = ("o", "O", "slash", *"docker", "enter")
    assert snap_compare(app, terminal_size=size, run_before=shows("40 of 80 jobs", *keys))


@SIZES
def test_hostile(snap_compare: Compare, app: StokeApp, desk: Desk, size: tuple[int, int]) -> None:
    desk.job("job-bbbbbb", JobState.FAILED, age=90, reason=ALL, spec={"args": [ALL]}, log=b"x\n")
    desk.raw(
        "job-bbbbbb", "UPDATE jobs SET name = ?, backend = ?, scope = ? WHERE id = ?", ALL, ALL, ALL
    )
    desk.job("job-aaaaaa", age=60, log=b"x\n")
    desk.raw("job-aaaaaa", "UPDATE jobs SET id = ? WHERE id = ?", f"[/nope]\t{ALL}界界界")
    assert snap_compare(app, terminal_size=size, run_before=shows("Spec", "b", "b"))


@SIZES
def test_a_sweep(snap_compare: Compare, app: StokeApp, desk: Desk, size: tuple[int, int]) -> None:
    """Forty tasks: three have failed, so the rest never started. One value is hostile."""
    values: list[tuple[str, ...]] = [
        (rate, str(seed)) for rate in ("0.1", "0.01", "0.001", ALL) for seed in range(10)
    ]
    sweep = "fit-7k2pqa"
    history = desk.history
    with history.transaction():
        job = Job(sweep, "fit", "local", "default", JobState.QUEUED, NOW - 600)
        history.add(job, '{"code": "1"}', "n")
        Sweeps(history).add(sweep, Table(("lr", "seed"), values))
    for number in range(31):
        task = Sweeps(history).begin_next(sweep)
        assert task is not None
        state = JobState.FAILED if number in (7, 12, 30) else JobState.SUCCEEDED
        lines = {7: b"ValueError: the loss is not a number\n", 30: b""}
        desk.spool(task.job_id, lines.get(number, b"loss 0.%d\n" % number))
        times = {"submitted_at": NOW - 500 + number, "started_at": NOW - 499 + number}
        ended = {"finished_at": NOW - 490 + number, "exit_code": int(state is JobState.FAILED)}
        reason = ALL if number == 30 else None
        history.update(task.job_id, state=state, reason=reason, **times, **ended)
    Sweeps(history).close(sweep, "3 tasks have failed")
    history.update(sweep, state=JobState.FAILED, exit_code=1, finished_at=NOW - 440)
    before = shows("last line", "g")
    assert snap_compare(app, terminal_size=size, run_before=before)


@SIZES
def test_two_compared(
    snap_compare: Compare, app: StokeApp, desk: Desk, size: tuple[int, int]
) -> None:
    place = ScopeCache("local", "default", "python")
    for job_id, age, hit, packages in (
        ("fit-model-aaaaaa", 60, True, ["numpy==2.1.0", "pandas==2.3.1", "tzdata==2025.2"]),
        ("fit-model-bbbbbb", 4000, False, ["numpy==1.26.4", "pandas==2.3.1", "pytz==2024.1"]),
    ):
        code = f"import numpy\n\nprint({age})\n"
        spec = {"code": code, "env": {"MODE": str(hit)}, "dependencies": packages[:2]}
        desk.job(job_id, age=age, hit=hit, spec=spec, exit_code=0, cpu_seconds=age / 60,
                 peak_memory=180_000_000)  # fmt: skip
        desk.history.set_phase(
            job_id,
            Phase(
                "python",
                NOW - age,
                0.001 if hit else 5.2,
                hit,
                3,
                3,
                0 if hit else 48_300_000,
                job_id,
            ),
        )
        VolumeIndex(desk.history).record_use(place, job_id, NOW, None, packages)
    assert snap_compare(app, terminal_size=size, run_before=shows("1 added", "space", "space", "c"))


@SIZES
def test_two_compared_by_their_results(
    snap_compare: Compare, app: StokeApp, desk: Desk, size: tuple[int, int]
) -> None:
    for job_id, age, files in (
        ("fit-model-aaaaaa", 60, {"scores.csv": b"1,2,3\n", "plots/new.png": b"p" * 9_000}),
        ("fit-model-bbbbbb", 4000, {"scores.csv": b"1,2,4\n", "old.txt": b"o", "[/]\x1b[2J": b""}),
    ):
        desk.job(job_id, age=age, hit=True, exit_code=0)
        give_results(desk, job_id, {**files, "model.bin": bytes(5_000_000)})
    keys = ("space", "space", "c", "end")
    assert snap_compare(app, terminal_size=size, run_before=shows("1 the same", *keys))


def plot() -> bytes:
    """A picture with thin lines, colours and letters, as plots have."""
    image = Image.new("RGB", (640, 400), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((60, 30, 600, 350), outline="black", width=3)
    draw.line([(60 + 9 * x, 190 - round(140 * sin(x / 6))) for x in range(61)], "#c0392b", 5)
    draw.line([(60 + 9 * x, 190 - round(120 * cos(x / 8))) for x in range(61)], "#2471a3", 5)
    draw.text((250, 2), "loss", fill="black", font_size=26)
    out = BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


@SIZES
@pytest.mark.parametrize("kind", ["picture", "table"])
def test_a_result(
    snap_compare: Compare, app: StokeApp, desk: Desk, size: tuple[int, int], kind: str
) -> None:
    table = BytesIO()
    parquet.write_table(
        pyarrow.table({"epoch": range(90), "loss": [round(1 / (n + 1), 4) for n in range(90)]}),
        table,
    )
    desk.job("fit-model-aaaaaa", age=60, hit=True, exit_code=0)
    files = {"loss.png": plot()} if kind == "picture" else {"loss.parquet": table.getvalue()}
    give_results(desk, "fit-model-aaaaaa", files)
    shown = "\u2580" * 20 if kind == "picture" else "0.3333"
    keys = ("right_square_bracket",) * 3
    assert snap_compare(app, terminal_size=size, run_before=shows(shown, *keys))


def test_columns(snap_compare: Compare, app: StokeApp, busy: Desk) -> None:
    assert snap_compare(app, terminal_size=(80, 24), run_before=shows("[x] age", "C", "j"))
