"""Formats and sizes of pictures, from their headers alone."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stoke.results.image_header import ImageHeader, read_header

BEGINNINGS = (
    b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF\0\0\0\0WEBPVP8 ", b"RIFF\0\0\0\0WEBPVP8L",
    b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xff",
)  # fmt: skip


def encoded(kind: str, size: tuple[int, int], **options: object) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (200, 30, 40)).save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    ("kind", "name", "options"),
    [
        ("PNG", "PNG", {}),
        ("GIF", "GIF", {}),
        ("BMP", "BMP", {}),
        ("JPEG", "JPEG", {"exif": b"Exif\0\0" + bytes(900)}),
        ("JPEG", "JPEG", {"progressive": True}),
        ("WEBP", "WebP", {}),
        ("WEBP", "WebP", {"lossless": True}),
        ("WEBP", "WebP", {"exif": b"Exif\0\0" + bytes(90)}),
    ],
)
def test_the_header_has_the_size(kind: str, name: str, options: dict[str, object]) -> None:
    data = encoded(kind, (321, 45), **options)
    assert read_header(data) == ImageHeader(name, 321, 45)
    for end in range(0, len(data) - 1, 7):
        read_header(data[:end])


@given(st.sampled_from(BEGINNINGS), st.binary(max_size=200))
def test_no_bytes_raise(beginning: bytes, rest: bytes) -> None:
    read_header(beginning + rest)


def test_other_files_have_none() -> None:
    for data in (b"", b"BMW drives", b"PAR1", b"%PDF-1.7", b"RIFF1234WAVEfmt "):
        assert read_header(data) is None
