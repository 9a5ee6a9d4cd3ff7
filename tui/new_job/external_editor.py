"""The person's own editor, for the code."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from stoke.errors import EngineError
from stoke.request.input_files import read_input
from stoke.request.source_code import decode_code
from stoke.request.spec import MAX_CODE


def edit(code: str) -> str:
    """Opens the editor on `code` and returns what was saved. Needs the terminal; blocks.

    `EngineError` when there is no editor or it fails, `RequestError` when what it saved is not text.
    """
    variable = "VISUAL" if os.environ.get("VISUAL") else "EDITOR"
    wanted = os.environ.get(variable)
    command = shlex.split(wanted) if wanted else _first_there("nano", "vi")
    # A folder of its own that only its owner can read: code may hold what others should not see.
    with tempfile.TemporaryDirectory(prefix="stoke-") as folder:
        path = Path(folder) / "main.py"
        path.write_bytes(code.encode(errors="surrogateescape"))
        try:
            subprocess.run([*command, str(path)], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise EngineError(
                f"the editor {shlex.join(command)} failed: {error}",
                f"name another: export {variable}=...",
            ) from error
        return _saved(read_input(str(path), MAX_CODE), str(path))


def _saved(data: bytes, path: str) -> str:
    """The text of what was saved. It was handed over as UTF-8, whatever its coding declaration says,
    and an editor may have kept that or not."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return decode_code(data, path)


def _first_there(*names: str) -> list[str]:
    for name in names:
        if shutil.which(name):
            return [name]
    raise EngineError("no editor is set, and neither nano nor vi is here", "export EDITOR=...")
