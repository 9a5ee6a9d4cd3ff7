"""The command that asks for a request again, for people to copy."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any

from stoke.request import fields, values
from stoke.request.spec import JobSpec

REQUIREMENTS = "requirements.txt"
CONSTRAINTS = "constraints.txt"
REQUEST = "request.json"


@dataclass(frozen=True)
class CommandLine:
    text: str
    """One line for a POSIX shell. Values that look secret are masked."""
    inputs: dict[str, str]
    """The text of each file that it reads, by name; `-` is standard input."""


def command_line(spec: JobSpec, backend: str, name: str) -> CommandLine:
    """Return the command for a request.

    It is `stoke run` with the code on standard input, or with the module or program that takes its
    place, or `stoke shell`. Settings that have no option are variables in front of it. uv's settings
    have neither, so a request that records some is submitted as JSON.
    """
    place = ["-b", backend, "--name", name]
    variables: list[str] = []
    options: list[str] = []
    inputs: dict[str, str] = {}
    for field, value in fields.set_fields(spec):
        if field.name in ("code", "module", "exec", "shell", "args", "locked"):
            continue  # The last words, and --lock in place of -r.
        if isinstance(field.value, values.FileText):
            file = REQUIREMENTS if field.name == "requirements" else CONSTRAINTS
            if value.strip():
                flag = "--lock" if spec.locked else _flag(field)
                options += [flag, file]
                inputs[file] = value
        elif field.option is not None:
            options += _words(field, value)
        elif field.setting:
            variable = f"STOKE_{field.setting.upper().replace('.', '__')}"
            text = field.value.to_options(_as_json(value))[0]
            variables.append(f"{variable}={shlex.quote(text)}")
        else:
            masked = fields.masked_fields(spec.model_dump(mode="json"))
            words = ["stoke", "submit", *place, REQUEST]
            return CommandLine(shlex.join(words), {REQUEST: json.dumps(masked, indent=2) + "\n"})
    if spec.shell:
        start = []
    elif spec.module is not None:
        start = ["-m", spec.module]
    elif spec.exec is not None:
        start = ["--exec", spec.exec]
    else:
        start = ["-"]
        inputs["-"] = spec.code
    words = ["stoke", "shell" if spec.shell else "run", *place, *options, *start]
    if spec.args:
        words += ["--", *spec.args]
    return CommandLine(" ".join([*variables, shlex.join(words)]), inputs)


def _flag(field: fields.Field) -> str:
    """Return the option as it is commonly typed: short where it has a short form."""
    assert field.option is not None
    return field.option.flags[0]


def _words(field: fields.Field, value: Any) -> list[str]:
    assert field.option is not None
    if not field.option.metavar:
        return [_flag(field)]
    if isinstance(field.value, values.Variables):
        value = field.value.masked(value)
    texts = field.value.to_options(value)
    if field.option.alone:
        return [f"{_flag(field)}={text}" for text in texts]
    return [word for text in texts for word in (_flag(field), text)]


def _as_json(value: Any) -> Any:
    """Return a value of a spec as JSON has it, without what was not set."""
    return (
        value.model_dump(mode="json", exclude_unset=True) if hasattr(value, "model_dump") else value
    )
