"""Write files in one step, so that readers and later processes never meet half of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PRIVATE = 0o600


@contextmanager
def replacing(path: Path, mode: int = PRIVATE) -> Iterator[BinaryIO]:
    """Yield a new file that takes the place of `path` when the block ends without an error.

    `mode` is subject to the umask. Raises `OSError`; `path` then keeps what it had, and nothing is left
    beside it. If the process is killed, the temporary file stays: `.NAME.PID.new` in the same folder.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.new")
    aside.unlink(missing_ok=True)  # From a killed process of the same id.
    # O_EXCL follows no link that another user may have put there.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with open(os.open(aside, flags, mode), "wb") as file:
            yield file
        aside.replace(path)
    except BaseException as error:
        aside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # Errors of write() do not name their file.
        raise


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file that only its owner can read; text as UTF-8. Raises as `replacing` does."""
    data = content.encode() if isinstance(content, str) else content
    with replacing(path) as file:
        file.write(data)
