"""Read the requirements files that a request names, with the files that they name in turn."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urljoin, urlsplit

from stoke.errors import RequestError
from stoke.request import foreign_files, pylock
from stoke.request.input_files import (
    MIB,
    STANDARD_INPUT,
    decode_requirements,
    is_web_address,
    read_input,
    read_web,
)
from stoke.request.requirement import RequirementError, check_web_address
from stoke.request.requirements_text import logical_lines, parse_constraints, parse_requirements
from stoke.request.variables import expanded

LONGEST_FILE = 8 * MIB
MOST_FILES = 200
DEEPEST = 20

_INCLUDE = re.compile(
    r"(?P<option>-[rc]|--requirements?|--constraints?)(?:(?<=-[rc])|(?=[ \t=]))"
    r"[ \t]*=?[ \t]*(?P<value>.*)"
)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class RequirementsTexts:
    """The text of one requirements file and of one constraints file."""

    requirements: str
    constraints: str


def read_requirements(
    sources: Iterable[str],
    constraints: Iterable[str] = (),
    environ: Mapping[str, str] = os.environ,
) -> RequirementsTexts:
    """Return the texts of files, addresses or standard input (`-`), with the files that they name.

    `-r` and `-c` inside a file are relative to it, as in pip and uv, and their `${NAME}` are variables
    of this process. A file that is named by `-c` is a constraints file, and so is each file that it
    names; its options are added to those of the requirements. `RequestError` names file, line and
    reason.
    """
    reader = _Reader(environ)
    sources, constraints = map(_normalized, sources), map(_normalized, constraints)
    texts = reader.read_all(list(sources), constrains=False)
    bounds = reader.read_all(list(constraints), constrains=True)
    return RequirementsTexts(_joined(texts + reader.options), _joined(reader.constraints + bounds))


def _normalized(source: str) -> str:
    return source if is_web_address(source) else os.path.normpath(source)


def check_lockfile(source: str, text: str) -> None:
    """Raise `RequestError` unless the text of the file pins and hashes every package."""
    parsed = parse_requirements(text)
    if parsed.is_lock():
        return
    entry = parsed.first_unlocked()
    if entry is None:
        raise RequestError("requirements", f"{shown(source)} names no packages")
    file = "requirements.in" if source == "-" else shlex.quote(shown(source))
    raise RequestError(
        "requirements",
        f"{shown(source)} is not a complete lockfile: every requirement must be pinned with == and "
        f"have a --hash (line {entry.line}: {entry.text[:200]!r})",
        f"make one: uv pip compile --generate-hashes {file} -o requirements.lock; or have it "
        f"resolved: -r {file}",
    )


class _Reader:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.constraints: list[str] = []
        self.options: list[str] = []
        """Lines of options from files of constraints."""
        self._files = 0
        self._bytes = 0
        self._standard_input_read = False

    def read_all(self, sources: list[str], constrains: bool) -> list[str]:
        """Return the texts of these files, each with its name in front where there are several."""
        texts = []
        for source in sources:
            try:
                text = self.read(source, constrains, ())
            except RequirementError as error:
                raise RequestError(error.field, f"{error.text!r} {error.why}") from None
            texts.append(text if len(sources) == 1 else f"# {shown(source)}\n{text}")
        return texts

    def read(self, where: str, constrains: bool, within: tuple[str, ...]) -> str:
        """Return the text of a file, with the included files in the places where it names them."""
        named = shown(where)
        text = self._load(where, named)
        lines = re.split(r"\r\n?|\n", text)
        alone = list(lines)
        replaced: dict[int, str] = {}
        options: list[str] = []
        for first, last, line in logical_lines(text):
            field = f"{named} line {first}"
            # The values come later; an unset variable is reported here, where its file is known.
            expanded(line, field, self._environ)
            include = _INCLUDE.match(line)
            if include is None and not (constrains and _is_option(line)):
                continue
            for number in range(first, last + 1):
                alone[number - 1] = replaced[number] = ""
            if include is None:
                options.append(line)
                continue
            other = self._resolved(include["value"], where, field, line)
            if other in (*within, where):
                raise RequirementError(field, line, "names a file that includes it: a cycle")
            if len(within) >= DEEPEST:
                raise RequirementError(field, line, f"is nested deeper than {DEEPEST} files")
            only_constrains = constrains or include["option"].lstrip("-").startswith("c")
            try:
                inner = self.read(other, only_constrains, (*within, where))
            except RequestError as error:
                if error.field != shown(other):
                    raise
                raise RequestError(field, f"{error.field} {error.why}", error.hint) from None
            replaced[first] = f"# {line}"
            if only_constrains and not constrains:
                self.constraints.append(f"# {line}\n{inner}")
            else:
                replaced[first] += f"\n{inner}"
        if constrains:
            parse_constraints("\n".join(alone), named)
            parse_requirements("\n".join(options), named)
        else:
            parse_requirements("\n".join(alone), named)
        if options:
            self.options.append(f"# {named}\n" + "\n".join(options))
        if not replaced:
            return text
        return "\n".join(
            replaced.get(number, line)
            for number, line in enumerate(lines, 1)
            if replaced.get(number) != ""
        )

    def _load(self, where: str, named: str) -> str:
        self._files += 1
        if self._files > MOST_FILES:
            raise RequestError(named, f"is one of more than {MOST_FILES} files")
        if where == "-":
            if self._standard_input_read:
                raise RequestError(named, "can be read once only")
            self._standard_input_read = True
        if is_web_address(where):
            data = read_web(expanded(where, named, self._environ), LONGEST_FILE, named)
        else:
            data = read_input(where, LONGEST_FILE)
        self._bytes += len(data)
        if self._bytes > LONGEST_FILE:
            raise RequestError(
                named, f"and the files before it are longer than {LONGEST_FILE // MIB} MiB"
            )
        text = decode_requirements(data, named)
        if foreign_files.is_pylock(where, text):
            return pylock.requirements_of(text, named)
        foreign_files.check_requirements_file(where, text)
        return text

    def _resolved(self, value: str, parent: str, field: str, line: str) -> str:
        """Return the file or address that `value` names inside `parent`."""
        try:
            words = shlex.split(value)
        except ValueError as error:
            raise RequirementError(field, line, f"cannot be read: {error}") from None
        if not words:
            raise RequirementError(field, line, "names no file")
        if any(word.startswith("-") for word in words[1:]):
            raise RequirementError(field, line, "has a second option; give it a line of its own")
        value = words[0] if len(words) == 1 else value
        if not _SCHEME.match(value):
            value = expanded(value, field, self._environ)
        scheme = _SCHEME.match(value)
        if scheme is None and not is_web_address(parent):
            folder = "" if parent == "-" else os.path.dirname(parent)
            return os.path.normpath(os.path.join(folder, value))
        if scheme is None:
            return urljoin(parent, value)
        if scheme[0].lower() == "file://":
            if is_web_address(parent):
                raise RequirementError(field, line, "names a file of this machine from an address")
            return unquote(urlsplit(value).path)
        check_web_address(value, line, field)
        return value


def _joined(texts: list[str]) -> str:
    """Return the texts, each with a line end; one text alone is left as it is."""
    if len(texts) == 1:
        return texts[0]
    return "".join(text if text.endswith("\n") or not text else text + "\n" for text in texts)


def _is_option(line: str) -> bool:
    return re.match(r"-(?!e\b|-editable\b)", line) is not None


def shown(where: str) -> str:
    """Return a source as errors name it, without what may be a password."""
    if where == "-":
        return STANDARD_INPUT
    return re.sub(r"(?<=://)[^/?#\s]*@(?=[^@]*\Z)", "***@", where)
