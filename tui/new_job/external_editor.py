"""Edit the code in the user's own editor."""

from __future__ import annotations

import tempfile
from pathlib import Path

from stoke.request.input_files import read_input
from stoke.request.source_code import decode_code
from stoke.request.spec import MAX_CODE
from tui.terminal.programs import editor


def edit(code: str) -> str:
    """Open the editor on `code`, wait for it to end, and return what it saved. Needs the terminal.

    `EngineError` without an editor or when it fails, `RequestError` when the saved file is not text.
    """
    program = editor()
    # In a folder that only its owner can read, because code may hold secrets.
    with tempfile.TemporaryDirectory(prefix="stoke-") as folder:
        path = Path(folder) / "main.py"
        path.write_bytes(code.encode(errors="surrogateescape"))
        program.open(path)
        return _saved(read_input(str(path), MAX_CODE), str(path))


def _saved(data: bytes, path: str) -> str:
    """Return the text of the saved file. The editor got it as UTF-8 whatever its coding declaration
    says, and may have saved it in either encoding."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return decode_code(data, path)
