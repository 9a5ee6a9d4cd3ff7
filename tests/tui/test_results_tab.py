"""The Results tab: a list with sizes, previews by kind, and hostile files that do no harm."""

from __future__ import annotations

import io
import json
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet
from textual.pilot import Pilot
from textual.widgets import DataTable, Markdown, Tree

from stoke.backend.capabilities import EntryKind, ResultEntry
from stoke.errors import StokeError
from stoke.results.store import store_results
from tests.results.test_decoded import png_that_claims
from tests.tui.conftest import NOW, Desk, screen_text, shows, until
from tui.app import StokeApp
from tui.jobs.result_preview import MAX_BYTES, MOST_NODES, MOST_ROWS, Node, Preview, read_preview
from tui.jobs.results_view import ResultsTable
from tui.widgets.picture import PictureView

SIZES = [(80, 24), (120, 40), (200, 60)]
FILES = {
    "a.csv": b"name,score\nada,1\n\x1b[31mbob\x1b[2J,2\n",
    "b.json": b'{"loss": [0.5, 0.25], "name": "[red]x[/]"}',
    "c.md": b"# Report\n\nAll **good**, see [this](file:///etc/passwd).\n",
    "d.txt": b"plain \x1b]0;title\x07words\n",
    "e.bin": bytes(range(256)),
    "\udcff\x1b[2J.txt": b"odd name",
}


def give_results(desk: Desk, job_id: str, files: dict[str, bytes]) -> None:
    entries = [
        ResultEntry(
            name.encode("utf-8", "surrogateescape"), EntryKind.FILE, len(data), 0o644, 1e9,
            read=partial(iter, [data]),
        )
        for name, data in files.items()
    ]  # fmt: skip
    found = store_results(job_id, entries, 1 << 30, lambda *_: None)
    desk.history.set_results(job_id, files=len(files), size=found.bytes, at=NOW)


async def open_tab(pilot: Pilot[Any], app: StokeApp) -> None:
    await until(pilot, lambda: " Results " in screen_text(app))
    await until(pilot, lambda: bool(app.screen.query("#job-tabs")))
    for _ in range(3):
        await pilot.press("right_square_bracket")
        await pilot.pause()
    await until(pilot, lambda: "6 files" in screen_text(app))
    app.screen.query_one(ResultsTable).focus()


@pytest.mark.parametrize("size", SIZES)
async def test_results_are_listed_and_each_kind_is_previewed(
    app: StokeApp, desk: Desk, size: tuple[int, int]
) -> None:
    desk.job("train-aaaaaa", age=60, log=b"done\n")
    give_results(desk, "train-aaaaaa", FILES)
    async with app.run_test(size=size, notifications=True) as pilot:
        await open_tab(pilot, app)
        await until(pilot, lambda: "score" in screen_text(app), "the table")
        frame = app.screen.query_one("#results-preview")
        await until(pilot, lambda: bool(frame.query(DataTable)))
        assert "bob" in screen_text(app) and "\x1b" not in screen_text(app)
        await pilot.press("down")
        await until(pilot, lambda: "loss" in screen_text(app) and bool(frame.query(Tree)))
        assert "[red]x[/]" in screen_text(app)
        await pilot.press("down")
        await until(pilot, lambda: bool(frame.query(Markdown)) and "Report" in screen_text(app))
        await pilot.press("down")
        await until(pilot, lambda: "plain words" in screen_text(app))
        await pilot.press("down")
        await until(pilot, lambda: "binary, 256 B" in screen_text(app))


def png(size: tuple[int, int]) -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize(size).save(out, "PNG")
    return out.getvalue()


def parquet_of(rows: int) -> bytes:
    out = io.BytesIO()
    names = [f"\x1b[2J[red]run {number}" for number in range(rows)]
    table = pyarrow.table({"name": names, "score": [number / 4 for number in range(rows)]})
    parquet.write_table(table, out)
    return out.getvalue()


PICTURES = {
    "a.png": png((300, 200)),
    "b-cut.png": png((300, 200))[:200],
    "c-bomb.png": png_that_claims(60_000, 60_000, zlib.compress(bytes(1_000))),
    "d.parquet": parquet_of(2_000),
    "e-cut.parquet": parquet_of(10)[:100],
    "f.txt": b"the last",
}


async def test_pictures_and_tables_are_shown_and_hostile_ones_named(
    app: StokeApp, desk: Desk
) -> None:
    desk.job("train-aaaaaa", age=60, log=b"done\n")
    give_results(desk, "train-aaaaaa", PICTURES)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await open_tab(pilot, app)
        frame = app.screen.query_one("#results-preview")
        await until(pilot, lambda: bool(frame.query(PictureView)), "the picture")
        assert "PNG, 300 x 200, " in screen_text(app) and "\u2580" * 40 in screen_text(app)
        before = frame.query_one(PictureView).size.width
        await pilot.resize_terminal(120, 20)

        def is_narrower() -> bool:
            return any(one.size.width < before for one in frame.query(PictureView))

        await until(pilot, is_narrower, "the picture fits again")
        await pilot.resize_terminal(120, 40)
        for expected in (
            "PNG, 300 x 200, 200 B; it cannot be shown",
            "PNG, 60,000 x 60,000, ",
            "Parquet, 2,000 rows, 2 columns, ",
            "it cannot be shown",
            "the last",
        ):
            await pilot.press("down")
            await until(pilot, lambda: expected in screen_text(app), expected)  # noqa: B023
            if "2,000" in expected:
                await until(pilot, lambda: "[red]run 0" in screen_text(app))
                assert "0.25" in screen_text(app) and "\x1b" not in screen_text(app)


async def test_a_file_that_was_passed_by_is_not_decoded(tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(png((30, 20)))
    assert read_preview(tmp_path / "p.png", wanted=lambda: False) == Preview()
    assert read_preview(tmp_path / "p.png", wanted=lambda: True).picture is not None


async def test_a_job_without_results_has_no_such_tab(app: StokeApp, desk: Desk) -> None:
    desk.job("none-aaaaaa", age=60, log=b"done\n")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: shows(app, " Spec ", without=" Results "))


async def test_results_are_saved_into_a_folder_of_their_own(
    app: StokeApp, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    desk.job("train-aaaaaa", age=60)
    give_results(desk, "train-aaaaaa", FILES)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await open_tab(pilot, app)
        await pilot.press("S")
        await until(pilot, lambda: "Copied 6 files" in screen_text(app))
    assert (tmp_path / "train-aaaaaa-results/d.txt").read_bytes() == FILES["d.txt"]


def preview_of(tmp_path: Path, name: str, data: bytes) -> Any:
    (tmp_path / name).write_bytes(data)
    return read_preview(tmp_path / name)


def test_a_preview_is_bounded(tmp_path: Path) -> None:
    rows = preview_of(tmp_path, "x.csv", b"a,b\n" * 1_000_000)
    assert len(rows.table) == MOST_ROWS and "of 3.8 MiB" in rows.note
    wide = preview_of(tmp_path, "w.csv", b",".join([b"x" * 10_000] * 20))
    assert max(map(len, wide.table[0])) <= 81
    text = preview_of(tmp_path, "x.txt", b"y" * (2 * MAX_BYTES))
    assert len(text.text) <= 2_001


def test_a_json_bomb_is_text_or_a_small_tree(tmp_path: Path) -> None:
    deep = preview_of(tmp_path, "d.json", b"[" * 50_000 + b"]" * 50_000)
    assert deep.tree is None and deep.text is not None
    many = preview_of(tmp_path, "m.json", json.dumps([[0] * 40] * 500).encode())

    def count(node: Node) -> int:
        return 1 + sum(map(count, node.inner))

    assert count(many.tree) <= 2 * MOST_NODES


def test_a_link_and_a_pipe_are_not_followed(tmp_path: Path) -> None:
    import os

    (tmp_path / "l").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "p")
    for name in ("l", "p"):
        with pytest.raises(StokeError):
            read_preview(tmp_path / name)
