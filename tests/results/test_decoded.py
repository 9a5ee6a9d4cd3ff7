"""Pictures and Parquet files, decoded in a process of its own: bounded, whatever the file is."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from stoke.errors import StokeError
from stoke.results import decoded
from stoke.results.decoded import decode_picture, decode_table


def of(path: Path, decode: Callable[..., Any], *limits: int) -> Any:
    file = os.open(path, os.O_RDONLY)
    try:
        return decode(file, *limits)
    finally:
        os.close(file)


def png_that_claims(width: int, height: int, data: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_a_picture_is_made_to_fit_and_never_enlarged(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    Image.new("RGB", (400, 100), (250, 20, 30)).save(path)
    found = of(path, decode_picture, 40, 40)
    assert (found.width, found.height) == (40, 10)
    assert found.pixels[:3] == bytes((250, 20, 30))
    found = of(path, decode_picture, 4_000, 4_000)
    assert (found.width, found.height) == (400, 100)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_pictures_of_every_mode(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "p.png"
    Image.new(mode, (30, 20)).save(path)
    found = of(path, decode_picture, 10, 10)
    assert (found.width, found.height) == (10, 7)
    if mode in ("LA", "RGBA"):
        assert set(found.pixels) == {255}, "transparent: the paper shows"


def test_bombs_and_damaged_pictures_are_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jpg"
    Image.effect_noise((300, 300), 90).save(whole)
    hostile = {
        "claims": png_that_claims(60_000, 60_000, zlib.compress(bytes(1000))),
        "wide": png_that_claims(2**31 - 1, 1, zlib.compress(b"\0")),
        "none": png_that_claims(0, 0, b""),
        "truncated": whole.read_bytes()[:2_000],
        "header only": whole.read_bytes()[:30],
        "text": b"\x89PNG\r\n\x1a\n" + b"[red]\x1b[2J" * 50,
    }
    for name, data in hostile.items():
        (tmp_path / "h").write_bytes(data)
        with pytest.raises(StokeError, match="cannot be shown"):
            of(tmp_path / "h", decode_picture, 80, 48)
            pytest.fail(name)


def test_a_table_is_bounded_and_keeps_its_types_as_text(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    columns: dict[str, Any] = {
        "name": ["ada", None, "x" * 10_000], "n": [1, 2, 3], "raw": [b"\0\xff", b"", None],
        "nested": [{"a": [1, 2]}, None, {"a": []}],
    }  # fmt: skip
    parquet.write_table(pyarrow.table(columns | {f"c{n}": [0, 0, 0] for n in range(60)}), path)
    found = of(path, decode_table, 2, 5)
    assert found.rows[0] == ["name", "n", "raw", "nested", "c0"]
    assert found.rows[1:] == [
        ["ada", "1", "b'\\x00\\xff'", "{'a': [1, 2]}", "0"],
        ["", "2", "b''", "", "0"],
    ]
    assert (found.all_rows, found.all_columns) == (3, 64)
    assert max(map(len, of(path, decode_table, 10, 1).rows[3])) == 400


def test_an_empty_table_has_its_names(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"a": pyarrow.array([], pyarrow.int8())}), tmp_path / "t")
    assert of(tmp_path / "t", decode_table, 5, 5).rows == [["a"]]


def test_many_rows_in_a_small_file_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "t"
    parquet.write_table(pyarrow.table({"a": pyarrow.nulls(20_000_000, pyarrow.int8())}), path)
    assert path.stat().st_size < 100_000
    found = of(path, decode_table, 500, 5)
    assert (len(found.rows), found.all_rows) == (501, 20_000_000)


def test_a_parquet_bomb_ends_only_its_process(tmp_path: Path) -> None:
    path = tmp_path / "t"
    one = pyarrow.array([bytes(700_000_000)], pyarrow.binary())
    parquet.write_table(
        pyarrow.table({"a": one}), path, compression="zstd", use_dictionary=False,
        write_statistics=False,
    )  # fmt: skip
    assert path.stat().st_size < 200_000
    with pytest.raises(StokeError, match="memory"):
        of(path, decode_table, 500, 5)


def test_damaged_tables_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t"
    parquet.write_table(pyarrow.table({"a": list(range(1_000))}), path)
    data = path.read_bytes()
    for cut in (data[:-8], data[:200], b"PAR1", b"PAR1" + bytes(100) + b"\xff\xff\xff\x7fPAR1"):
        path.write_bytes(cut)
        with pytest.raises(StokeError, match="cannot be shown"):
            of(path, decode_table, 5, 5)
    for at in range(4, len(data), len(data) // 12):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        try:
            of(path, decode_table, 5, 5)
        except StokeError:
            pass


def test_a_file_that_takes_too_long_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "p.png")
    monkeypatch.setattr(decoded, "TIMEOUT", 0.0)
    with pytest.raises(StokeError, match="too much memory or time"):
        of(tmp_path / "p.png", decode_picture, 4, 4)
