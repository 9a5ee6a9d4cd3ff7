"""Convert a Jupyter notebook to a Python script."""

from __future__ import annotations

import ast
import re
import warnings
from typing import Any

from stoke.errors import RequestError
from stoke.files.untrusted import TooMuchError, parse_json
from stoke.request.source_code import is_notebook

# What IPython takes for a command of its own: %time f(), !ls, files = !ls, ?name, name?
_COMMAND = re.compile(r"\s*(?:[\w.,\[\] ]+=\s*)?[%!]|\s*\?|.*\w\?{1,2}\s*$")


def notebook_to_script(data: bytes, named: str) -> str:
    """Return the code cells of a notebook in their order, each below a line `# %%`.

    A script prints no value on its own and has no commands of IPython. `RequestError` names the cell
    and the line of what a script cannot have.
    """
    notebook = _parse(data, named)
    metadata = notebook.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    language = _language(metadata)
    if language.lower() not in ("python", "ipython"):
        raise RequestError(named, f"is a notebook in {language[:40]}; stoke runs Python code only")
    cells = [
        _source(cell, number, named)
        for number, cell in enumerate(notebook["cells"], 1)
        if isinstance(cell, dict) and cell.get("cell_type") == "code"
    ]
    for number, source in cells:
        _check_cell(source, number, named)
    written = [source for _, source in cells if source.strip()]
    if not written:
        raise RequestError(named, "is a notebook without code; there is nothing to run")
    return "\n".join(f"# %%\n{source.rstrip()}\n" for source in written)


def _parse(data: bytes, named: str) -> dict[str, Any]:
    try:
        notebook = parse_json(data.decode("utf-8-sig"))
    except TooMuchError as error:
        raise RequestError(named, str(error)) from None
    except ValueError as error:
        raise RequestError(named, f"is not a notebook: {error}") from None
    if not isinstance(notebook, dict) or not is_notebook(notebook):
        raise RequestError(named, "is not a notebook: it has no cells")
    if not isinstance(notebook.get("cells"), list):
        raise RequestError(
            named,
            "is a notebook in a format older than 4",
            "save it in the current format: jupyter nbconvert --to notebook --inplace NOTEBOOK.ipynb",
        )
    return notebook


def _language(metadata: dict[str, Any]) -> str:
    for table, key in (("language_info", "name"), ("kernelspec", "language")):
        found = metadata.get(table)
        if isinstance(found, dict) and isinstance(found.get(key), str):
            return str(found[key])
    return "python"


def _source(cell: dict[str, Any], number: int, named: str) -> tuple[int, str]:
    """Return the number and the code of a cell: one text, or a list of lines."""
    source = cell.get("source", "")
    lines = source if isinstance(source, list) else [source]
    if not all(isinstance(line, str) for line in lines):
        raise RequestError(named, f"is not a notebook: the source of cell {number} is not text")
    return number, "".join(lines).replace("\r\n", "\n")


def _check_cell(source: str, number: int, named: str) -> None:
    """Raise `RequestError` for what IPython runs and Python does not; other errors are the code's."""
    if source.lstrip().startswith("%%"):
        raise _refusal(source.lstrip().partition("\n")[0], number, 1, named)
    if _compiles(source):
        return
    if _compiles(source, ast.PyCF_ALLOW_TOP_LEVEL_AWAIT):
        raise RequestError(
            named,
            f"has await outside of a function in cell {number}, which a script cannot have",
            "put it into a function, and call asyncio.run(function())",
        )
    for at, line in enumerate(source.split("\n"), 1):
        if _COMMAND.match(line):
            raise _refusal(line, number, at, named)


def _refusal(line: str, number: int, at: int, named: str) -> RequestError:
    shown = line.strip()[:60]
    if "pip install" in shown or "conda install" in shown:
        hint = "remove it, and name the packages when you run the script: -w PACKAGE"
    else:
        hint = "remove it, or write it as Python"
    why = f"has a command of IPython in cell {number}, line {at}: {shown!r}"
    return RequestError(named, why, hint)


def _compiles(source: str, flags: int = 0) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            compile(source, "cell", "exec", flags, dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
    return True
