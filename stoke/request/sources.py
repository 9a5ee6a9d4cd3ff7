"""Make a JobSpec from options and code, from JSON, or from the JSON of the earlier web service.

PEP 723 metadata in the code is added to each of them: its dependencies to the other dependencies, and
its requires-python if the request names no version.
"""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

from stoke.errors import RequestError
from stoke.files.untrusted import TooMuchError, parse_json
from stoke.request.foreign_files import check_code_file
from stoke.request.input_files import STANDARD_INPUT, read_input
from stoke.request.pep723 import read_script_metadata
from stoke.request.requirement import RequirementError
from stoke.request.source_code import convert_notebook, decode_code, is_notebook, json_object
from stoke.request.spec import MAX_CODE, JobSpec, make_spec
from stoke.request.values import split_requirements

MAX_REQUEST = 32 * 1024**2
MAX_NOTEBOOK = 128 * 1024**2
"""Bytes. The outputs of the cells are part of the file, so a notebook may be longer than code."""
EARLIER_FIELDS = {
    "pythonCode": "code",
    "dependencies": "dependencies",
    "requirementsFile": "requirements",
    "systemDependencies": "system",
    "useCache": "use_cache",
}
"""The fields of the earlier service, and ours."""


def request_from_options(**fields: Any) -> JobSpec:
    """Return the spec for a form or a command line. Fields that are None were not given."""
    given = {name: value for name, value in fields.items() if value is not None}
    return request_from_fields(given)


def request_from_json(data: bytes, where: str) -> JobSpec:
    """Return the spec for JSON: fields of JobSpec, or those of the earlier service (`pythonCode` ...).

    `where` names the source in errors ("standard input", a file's name).
    """
    fields = read_fields(data, where)
    if "pythonCode" in fields:
        fields = from_earlier_service(fields)
    return request_from_fields(_with_code_of_script(fields))


def read_fields(data: bytes, where: str) -> dict[str, Any]:
    """Return the JSON object of a request, unchecked. `RequestError` for anything else."""
    if len(data) > MAX_REQUEST:
        raise RequestError(where, f"is longer than {MAX_REQUEST // 1024**2} MiB")
    try:
        # UTF-8, or UTF-16 and UTF-32 as some shells write what they redirect.
        encoding = json.detect_encoding(data)
        fields = parse_json(data.decode(encoding))
    except UnicodeDecodeError as error:
        raise RequestError(
            where, f"is not {encoding.removesuffix('-sig').upper()} (byte {error.start})"
        ) from None
    except json.JSONDecodeError as error:
        raise RequestError(
            where,
            f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}",
            f"run code: stoke run {shlex.quote(where)}" if where.endswith(".py") else None,
        ) from None
    except TooMuchError as error:
        raise RequestError(where, str(error)) from None
    except ValueError as error:  # A number of thousands of digits.
        raise RequestError(where, f"is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise RequestError(where, 'holds no JSON object; a request is {"code": ..., ...}')
    if is_notebook(fields):
        raise RequestError(
            where,
            "is a Jupyter notebook, not a request",
            convert_notebook("NOTEBOOK.ipynb" if where == STANDARD_INPUT else where),
        )
    return fields


def _with_code_of_script(fields: dict[str, Any]) -> dict[str, Any]:
    """Add the code that the project's script has, if the request names nothing to run."""
    project = fields.get("project")
    if not isinstance(project, dict) or any(
        fields.get(name) for name in ("code", "module", "exec", "shell")
    ):
        return fields
    match project:
        case {"root": str(root), "script": str(script)} if os.path.isabs(root):
            return {**fields, "code": read_code(os.path.join(root, script))}
    return fields


def from_earlier_service(fields: dict[str, Any]) -> dict[str, Any]:
    """Convert the fields of the earlier service. `dependencies` and `systemDependencies` are texts:
    lists between commas."""
    for name in fields:
        if name not in EARLIER_FIELDS:
            raise RequestError(
                name, f"is not a field of such a request ({', '.join(EARLIER_FIELDS)})"
            )
    out: dict[str, Any] = {}
    for name, value in fields.items():
        if value is None:
            continue
        ours = EARLIER_FIELDS[name]
        if ours in ("dependencies", "system", "requirements") and not isinstance(value, str):
            raise RequestError(name, "must be text")
        if ours == "dependencies":
            out[ours] = split_requirements(value, name)
        elif ours == "system":
            out[ours] = value.replace(",", " ").split()
        else:
            out[ours] = value
    return out


def read_code(where: str | Path) -> str:
    """Return the code in a file or, for `-`, on standard input, as Python would read it.

    `RequestError` for what cannot be read and for files that are no Python code.
    """
    where = str(where)
    named = STANDARD_INPUT if where == "-" else where
    # A notebook is refused below, and its outputs can make it long.
    limit = MAX_NOTEBOOK if _is_named_notebook(where) else MAX_CODE
    text = decode_code(read_input(where, limit), named)
    check_code_file(named, text)
    return text


def read_code_or_notebook(where: str | Path) -> str:
    """Return code as `read_code` does, and for a notebook its code cells as a script."""
    where = str(where)
    named = STANDARD_INPUT if where == "-" else where
    data = read_input(where, MAX_NOTEBOOK)
    if _is_named_notebook(where) or is_notebook(json_object(data.decode("utf-8", "replace"))):
        from stoke.request.notebook import notebook_to_script

        return notebook_to_script(data, named)
    if len(data) > MAX_CODE:
        raise RequestError(named, f"is longer than {MAX_CODE // 1024**2} MiB")
    text = decode_code(data, named)
    check_code_file(named, text)
    return text


def _is_named_notebook(where: str) -> bool:
    return where.lower().endswith(".ipynb")


def request_from_fields(fields: dict[str, Any]) -> JobSpec:
    """Return the spec for fields of JobSpec. Reads no file, so a project's script gives no code."""
    code = fields.get("code")
    try:
        metadata = read_script_metadata(code) if isinstance(code, str) else None
    except RequirementError as error:
        raise RequestError(error.field, f"{error.text!r} {error.why}") from None
    if metadata is None:
        return make_spec(fields)
    named = fields.get("dependencies") or ()
    if isinstance(named, list | tuple):  # Anything else is refused below, as it was given.
        added = [text for text in metadata.dependencies if text not in named]
        fields = {**fields, "dependencies": [*named, *added]}
    if metadata.requires_python and not fields.get("python"):
        fields["python"] = metadata.requires_python
    return make_spec(fields)
