"""Conversions of a field's value: from and to options, form text, and lines for people.

`JobSpec` checks the values. Imports stay cheap, because `stoke --help` needs this module.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from stoke.errors import RequestError
from stoke.text.sanitize import MASK, looks_secret
from stoke.text.units import exact_number, exact_size, human_bytes, human_seconds


class Value:
    """One text. The base of the other kinds."""

    repeated: ClassVar[bool] = False
    """Whether its option can be given more than once."""

    def from_options(self, field: str, texts: Sequence[str]) -> Any:  # noqa: ARG002
        """Return the JSON value for the option's texts, of which there is at least one."""
        return texts[-1]

    def from_text(self, field: str, text: str) -> Any:  # noqa: ARG002
        """Return the JSON value for the text of a form field, which is not blank."""
        return text.strip()

    def is_set(self, value: Any) -> bool:
        """Whether the value is not empty."""
        return value not in (None, "", (), [], {})

    def to_options(self, value: Any) -> list[str]:
        """Return the texts that `from_options` turns into this value."""
        return [str(value)]

    def to_text(self, value: Any) -> str:
        """Return the text that `from_text` turns into this value."""
        return "\n".join(self.to_options(value))

    def to_lines(self, value: Any) -> list[str]:
        """Return the value for people, secrets masked."""
        return self.to_options(value)


class Number(Value):
    def to_options(self, value: Any) -> list[str]:
        return [exact_number(value)]


class Count(Number):
    """A number of which 0 is the default."""

    def is_set(self, value: Any) -> bool:
        return bool(value)


class Size(Value):
    """Bytes."""

    def to_options(self, value: Any) -> list[str]:
        return [exact_size(value)]

    def to_lines(self, value: Any) -> list[str]:
        return [human_bytes(value)]


class Duration(Value):
    """Seconds."""

    def to_options(self, value: Any) -> list[str]:
        return [f"{exact_number(value)}s"]

    def to_lines(self, value: Any) -> list[str]:
        return [human_seconds(value)]


class Texts(Value):
    """A list of texts, one per option and per line of a form field."""

    repeated = True

    def from_options(self, field: str, texts: Sequence[str]) -> Any:  # noqa: ARG002
        return list(texts)

    def from_text(self, field: str, text: str) -> Any:
        return self.from_options(field, text.splitlines())

    def to_options(self, value: Any) -> list[str]:
        return list(value)


class Mounts(Texts):
    """What a job sees of other file systems. Relative paths of options and forms become whole ones."""

    def from_options(self, field: str, texts: Sequence[str]) -> Any:
        from stoke.files.paths import current_folder
        from stoke.request.mounts import with_whole_source

        try:
            return [
                with_whole_source(text.strip(), current_folder()) for text in texts if text.strip()
            ]
        except ValueError as error:
            raise RequestError(field, str(error)) from None


class Requirements(Texts):
    """Python packages. One option may list several."""

    def from_options(self, field: str, texts: Sequence[str]) -> Any:
        return [one for text in texts for one in split_requirements(text, field)]

    def from_text(self, field: str, text: str) -> Any:
        return split_requirements(text, field)


class Names(Texts):
    """Names that hold no blanks and commas. One option may list several."""

    def from_options(self, field: str, texts: Sequence[str]) -> Any:  # noqa: ARG002
        return [name for text in texts for name in text.replace(",", " ").split()]

    def to_text(self, value: Any) -> str:
        return " ".join(value)


class Numbers(Names):
    """Whole numbers, one option with all of them."""

    def to_options(self, value: Any) -> list[str]:
        return [",".join(map(str, value))]

    def to_text(self, value: Any) -> str:
        return ",".join(map(str, value))


class Arguments(Texts):
    """The words behind FILE."""

    def from_text(self, field: str, text: str) -> Any:
        try:
            return shlex.split(text)
        except ValueError as error:
            raise RequestError(field, f"cannot be split into words: {error}") from None

    def to_text(self, value: Any) -> str:
        return shlex.join(value)


class Variables(Value):
    """Variables for the code, as NAME=VALUE. Lines for people mask the values that look secret."""

    repeated = True
    form: ClassVar[str] = "NAME=VALUE"

    def from_options(self, field: str, texts: Sequence[str]) -> Any:
        variables = {}
        for text in texts:
            name, equals, value = text.partition("=")
            if not equals:
                # The text is not repeated: it may be a secret whose name is missing.
                raise RequestError(field, f"one of the values has no '='; write {self.form}")
            variables[name] = value
        return variables

    def from_text(self, field: str, text: str) -> Any:
        variables = {}
        for number, line in enumerate(text.splitlines(), 1):
            name, equals, value = line.partition("=")
            if not line.strip():
                continue
            if not equals:
                raise RequestError(field, f"line {number} has no =; write {self.form}")
            variables[name.strip()] = value
        return variables

    def to_options(self, value: Any) -> list[str]:
        return [f"{name}={text}" for name, text in value.items()]

    def to_lines(self, value: Any) -> list[str]:
        return self.to_options(self.masked(value))

    def masked(self, value: Mapping[str, str]) -> dict[str, str]:
        return {name: MASK if looks_secret(name) else text for name, text in value.items()}


class References(Variables):
    """Variables whose values are references to secrets, which are no secrets themselves."""

    form = "NAME=env:OTHER or NAME=file:/path"

    def masked(self, value: Mapping[str, str]) -> dict[str, str]:
        return dict(value)


class Labels(Variables):
    """Labels or annotations. Every user who can see the job can read them."""

    form = "KEY=VALUE"

    def masked(self, value: Mapping[str, str]) -> dict[str, str]:
        return dict(value)


class FileText(Value):
    """The text of a file. Its option names the file, which `stoke.cli.options` reads."""

    repeated = True

    def from_text(self, field: str, text: str) -> Any:  # noqa: ARG002
        return text

    def to_lines(self, value: Any) -> list[str]:
        from stoke.request.requirements_text import logical_lines

        return [line.partition(" --hash=")[0].rstrip() for _, _, line in logical_lines(value)]


class Flag(Value):
    """True or false. Its option sets the value that is not the default."""

    def __init__(self, default: bool, shown: str) -> None:
        self.default = default
        self.shown = shown
        """What people read where the value is not the default."""

    def from_options(self, field: str, texts: Sequence[str]) -> Any:  # noqa: ARG002
        return not self.default

    def from_text(self, field: str, text: str) -> Any:  # noqa: ARG002
        return text.strip() == "yes"

    def is_set(self, value: Any) -> bool:
        return value is not None and value is not self.default

    def to_text(self, value: Any) -> str:
        return "yes" if value else "no"

    def to_lines(self, value: Any) -> list[str]:  # noqa: ARG002
        return [self.shown]


class Settings(Value):
    """A table of settings, each with a value of its own type."""

    def to_options(self, value: Any) -> list[str]:
        return [json.dumps(value, ensure_ascii=False, default=list)]

    def to_lines(self, value: Any) -> list[str]:
        return [f"{name} = {_as_json(one)}" for name, one in value.items() if one is not None]


class ProjectSnapshot(Settings):
    """The snapshot of a project."""

    def to_lines(self, value: Any) -> list[str]:
        """Return the root with the snapshot's figures, and what the request says about the files."""
        files = f"{value['files']:,} file" + ("" if value["files"] == 1 else "s")
        size, digest = human_bytes(value["bytes"]), value.get("digest")
        facts = f"{files}, {size}" if digest else "taken when it is submitted"
        snapshot = [f"snapshot {digest[:12]}"] if digest else []
        places = [f"{name} {value.get(name)}" for name in ("script", "directory")]
        patterns = [
            f"{name} {' '.join(value[name])}" for name in ("include", "exclude") if value.get(name)
        ]
        lines = [f"{value['root']} ({facts})", *snapshot, *places, *patterns]
        return [
            line for line in lines if line not in ("script None", "directory .", "directory None")
        ]


class UvSettings(Settings):
    """uv's settings, each with the place that it comes from."""

    def to_lines(self, value: Any) -> list[str]:
        return [
            f"{name} = {_as_json(one['value'])}  ({one['source']})" for name, one in value.items()
        ]


def _as_json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def split_requirements(text: str, field: str = "dependencies") -> list[str]:
    """Split a list between commas or blanks; `pandas>=2,<3` stays one requirement."""
    from stoke.request.requirement import RequirementError
    from stoke.request.requirement_list import parse_list

    try:
        return parse_list(text, field)
    except RequirementError as error:
        raise RequestError(error.field, f"{error.text!r} {error.why}") from None
