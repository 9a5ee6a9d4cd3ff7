"""Decode a picture or a Parquet file that a job wrote, in a process of its own with little memory.

`python -m stoke.results.decode picture COLUMNS ROWS < FILE`, or `table ROWS COLUMNS`, prints one line
of JSON, and after that of a picture its pixels, three bytes each. The line has "error" if the file
cannot be decoded, or "missing" if the library is not installed. A file that needs more memory or time
ends the process. `stoke/results/decoded.py` starts it.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any, BinaryIO

MEMORY = 1024**3
"""Bytes of address space; pyarrow takes 200 MiB of it."""
CPU_SECONDS = 10
MAX_PIXELS = 64_000_000
LONGEST_CELL = 400
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP")
_PAPER = (255, 255, 255)
"""What is behind a transparent picture: most plots are drawn for paper."""


def main() -> None:
    kind, first, second = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pixels = b""
    try:
        if kind == "picture":
            head, pixels = picture(sys.stdin.buffer, first, second)
        else:
            head = table(sys.stdin.buffer, first, second)
    except ImportError as error:
        head = {"missing": error.name or "a library"}
    except MemoryError:
        head = {"error": f"it needs more than {MEMORY >> 20} MiB of memory"}
    except Exception as error:  # Libraries raise errors of many kinds for damaged files.
        head = {"error": str(error).partition("\n")[0][:300] or type(error).__name__}
    sys.stdout.buffer.write(json.dumps(head).encode() + b"\n" + pixels)


def picture(file: BinaryIO, columns: int, rows: int) -> tuple[dict[str, Any], bytes]:
    """Return a picture that fits into columns and rows of square pixels, and is not enlarged."""
    from PIL import Image

    with Image.open(file, formats=_FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"it has more than {MAX_PIXELS // 1_000_000} megapixels")
        scale = min(columns / image.width, rows / image.height, 1.0)
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        image.draft("RGB", size)
        image.load()
        # Before the resizing, which would otherwise take a palette's numbers for colours.
        whole = image.convert("RGBA" if image.has_transparency_data else "RGB")
    small = whole.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    if small.mode == "RGBA":
        paper = Image.new("RGBA", size, (*_PAPER, 255))
        small = Image.alpha_composite(paper, small).convert("RGB")
    return {"width": size[0], "height": size[1]}, small.tobytes()


def table(file: BinaryIO, rows: int, columns: int) -> dict[str, Any]:
    """Return the first rows and columns of a Parquet file as texts, and how many of each it has."""
    from pyarrow import parquet

    found = parquet.ParquetFile(
        file, buffer_size=1 << 20, pre_buffer=False,
        thrift_string_size_limit=16 << 20, thrift_container_size_limit=1_000_000,
    )  # fmt: skip
    names = list(found.schema_arrow.names)
    shown: list[list[str]] = []
    wanted = names[:columns]
    for batch in found.iter_batches(batch_size=rows, columns=wanted, use_threads=False):
        values = [batch.column(number).slice(0, rows - len(shown)) for number in range(len(wanted))]
        texts = [[_text(value.as_py()) for value in column] for column in values]
        shown += [list(row) for row in zip(*texts, strict=True)]
        if len(shown) >= rows:
            break
    return {
        "names": [_text(name) for name in wanted],
        "rows": shown,
        "all_columns": len(names),
        "all_rows": found.metadata.num_rows,
    }


def _text(value: object) -> str:
    """Return a value as short text; None as nothing, as in CSV."""
    if value is None:
        return ""
    text = str(value[:LONGEST_CELL] if isinstance(value, (str, bytes)) else value)
    return text[:LONGEST_CELL].encode("utf-8", "replace").decode()


if __name__ == "__main__":
    main()
