"""The format and the size of a picture, read from its header without a library.

The layouts are those of the PNG specification (IHDR), GIF89a, BMP (BITMAPINFOHEADER), WebP (RFC 9649),
and the start of frame of JPEG (ITU-T T.81, B.2.2).
"""

from __future__ import annotations

from typing import NamedTuple


class ImageHeader(NamedTuple):
    """Pixels of a picture, as its header claims."""

    format: str
    width: int
    height: int


def read_header(data: bytes) -> ImageHeader | None:
    """Return the header of a picture from the beginning of its file; None if it is none."""
    if data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR" and len(data) >= 24:
        return ImageHeader("PNG", _big(data[16:20]), _big(data[20:24]))
    if data[:6] in (b"GIF87a", b"GIF89a") and len(data) >= 10:
        return ImageHeader("GIF", _little(data[6:8]), _little(data[8:10]))
    if data[:2] == b"BM" and len(data) >= 26 and _little(data[14:18]) >= 40:
        height = int.from_bytes(data[22:26], "little", signed=True)
        return ImageHeader("BMP", _little(data[18:22]), abs(height))
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP" and len(data) >= 30:
        return _webp(data)
    if data[:3] == b"\xff\xd8\xff":
        return _jpeg(data)
    return None


def _webp(data: bytes) -> ImageHeader | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return ImageHeader("WebP", 1 + _little(data[24:27]), 1 + _little(data[27:30]))
    if kind == b"VP8L" and data[20] == 0x2F:
        bits = _little(data[21:25])
        return ImageHeader("WebP", 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        return ImageHeader("WebP", _little(data[26:28]) & 0x3FFF, _little(data[28:30]) & 0x3FFF)
    return None


def _jpeg(data: bytes) -> ImageHeader | None:
    """Return the size in the first start of frame. Each turn moves on, so a hostile file ends it."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return ImageHeader("JPEG", _big(data[at + 7 : at + 9]), _big(data[at + 5 : at + 7]))
        elif marker == 0xDA:
            return None
        else:
            at += 2 + _big(data[at + 2 : at + 4])
    return None


def _big(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")
