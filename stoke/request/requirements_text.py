"""Parse the text of a requirements file or of a constraints file. Nothing is read from the disk."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from stoke.request.requirement import (
    ADDRESS,
    NAME,
    NAMED_ADDRESS,
    SHORT_OPTIONS,
    STAYS,
    RequirementError,
    check_address,
    check_characters,
    check_requirement,
    check_syntax,
    is_address,
    is_exact,
    refuse_option,
)

_DIGITS = {"sha256": 64, "sha384": 96, "sha512": 128}
_SHA256 = re.compile("sha256:[0-9a-f]{64}")
_SHA256_OPTIONS = re.compile(r"(?:--hash=sha256:[0-9a-f]{64}(?:\s+|\Z))+")
_COMMENT = re.compile(r"(?:^|(?<=[ \t]))#.*", re.DOTALL)
_FLAGS = ("--no-index", "--pre", "--require-hashes")
_WITH_VALUE = (
    "--extra-index-url",
    "--find-links",
    "--index-url",
    "--no-binary",
    "--only-binary",
)


@dataclass(frozen=True)
class Entry:
    """One requirement of a file: its first line's number, its text, hashes as `sha256:<hex>`."""

    line: int
    text: str
    hashes: tuple[str, ...]


@dataclass(frozen=True)
class ParsedRequirements:
    """A parsed requirements file. `options` are whole lines for another such file."""

    requirements: list[Entry]
    index: str | None
    extra_indexes: tuple[str, ...]
    require_hashes: bool
    options: tuple[str, ...]

    def is_lock(self) -> bool:
        """Whether it is a complete lockfile: every entry is exact or an address, and has a hash."""
        return bool(self.requirements) and self.first_unlocked() is None

    def first_unlocked(self) -> Entry | None:
        """Return the first entry that is neither exact nor an address, or has no hash."""
        for entry in self.requirements:
            if not entry.hashes or not (
                is_exact(entry.text)
                or ADDRESS.match(entry.text) is not None
                or NAMED_ADDRESS.match(entry.text) is not None
            ):
                return entry
        return None


def parse_requirements(text: str, named: str = "requirements") -> ParsedRequirements:
    """Read the text of a requirements file; `RequirementError` names it as `named`, and the line.

    As uv reads it: a `\\` at a line's end joins the next one, a comment ends with its own line.
    Addresses without a name pass. `-e` before an address of version control is removed: the build
    from it is the same. Nothing is read from the disk: `-r`, `-c`, paths and `--find-links` to a path
    are refused, and so is every unknown option.
    """
    entries: list[Entry] = []
    indexes: list[str] = []
    extra_indexes: list[str] = []
    options: list[str] = []
    for number, _, line in logical_lines(text):
        field = f"{named} line {number}"
        check_characters(line, field)
        if requirement := _without_editable(line):
            entries.append(_entry(number, requirement, field))
            continue
        for option, value in _line_options(line, field):
            if option == "--index-url":
                indexes += [value] if value not in indexes else []
            elif option == "--extra-index-url":
                extra_indexes.append(value)
            elif option in ("--no-binary", "--only-binary"):
                # uv takes one name each; pip takes several between commas.
                options += [f"{option} {name}" for name in value.split(",")]
            else:
                options.append(f"{option} {value}".rstrip())
            if len(indexes) > 1:
                raise RequirementError(
                    field, line, "names a second index; write --extra-index-url for further ones"
                )
    return ParsedRequirements(
        requirements=entries,
        index=indexes[0] if indexes else None,
        extra_indexes=tuple(extra_indexes),
        require_hashes="--require-hashes" in options,
        options=tuple(option for option in options if option != "--require-hashes"),
    )


def parse_constraints(text: str, named: str = "constraints") -> list[Entry]:
    """Read the text of a constraints file: requirements that have a name, and no options."""
    entries = []
    for number, _, line in logical_lines(text):
        field = f"{named} line {number}"
        check_characters(line, field)
        requirement = _without_editable(line)
        if requirement is None:
            option = line.split()[0].partition("=")[0]
            refuse_option(option, line, field, "is an option; options belong in the requirements")
        entry = _entry(number, requirement, field)
        if is_address(entry.text):
            raise RequirementError(field, line, "has no name; write NAME @ in front of the address")
        entries.append(entry)
    return entries


def logical_lines(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield (first line's number, last line's number, text) of each line that is not blank, without
    comments and with continuations joined."""
    first, joined = 0, ""
    lines = re.split(r"\r\n?|\n", text.removeprefix("\ufeff"))
    for number, line in enumerate(lines, 1):
        if "#" in line:
            line = _COMMENT.sub("", line, count=1)
        first = first or number
        if line.endswith("\\") and number < len(lines):
            joined += line[:-1]
            continue
        joined = (joined + line).strip()
        if joined:
            yield first, number, joined
        first, joined = 0, ""


def _without_editable(line: str) -> str | None:
    """Return the requirement of a line, without `-e` before version control; None for an option."""
    if not line.startswith("-"):
        return line
    editable = re.match(r"(?:-e[ \t]*+|--editable(?:[ \t]*+=|(?=[ \t])))[ \t]*+", line)
    if editable is None or not re.match(
        rf"(?:{NAME}[ \t]*+(?:\[[^\]]*\])?[ \t]*+@[ \t]*+)?git\+", line[editable.end() :]
    ):
        return None
    return line[editable.end() :]


def _with_extras(text: str) -> str:
    """Return an address with extras in its egg in a form in which uv keeps them."""
    address, blank, rest = text.partition(" ")
    url, _, fragment = address.partition("#")
    parts = fragment.split("&")
    named = [part for part in parts if re.fullmatch(rf"egg={NAME}\[[^\]]*\]", part)]
    if not named:
        return text
    others = "&".join(part for part in parts if not part.startswith("egg="))
    return f"{named[0][4:]} @ {url}{'#' if others else ''}{others}{blank}{rest}"


def _entry(number: int, line: str, field: str) -> Entry:
    option = re.search(r"(?<=[ \t])-", line)
    text = line[: option.start()].rstrip() if option else line
    if is_address(text):
        check_syntax(text, f"unnamed @ {text}", field)
        text = _with_extras(text)
    else:
        check_requirement(text, field)
    hashes = tuple(_hashes(line[option.start() :], line, field)) if option else ()
    if hashes and re.match(r"(?:[^\s@]+\s*@\s*)?git\+", text):
        raise RequirementError(
            field, line, "has a hash, which nothing can check for a repository; remove it"
        )
    return Entry(number, text, hashes)


def _hashes(options: str, line: str, field: str) -> Iterator[str]:
    if _SHA256_OPTIONS.fullmatch(options):  # A lockfile has thousands of these.
        yield from _SHA256.findall(options)
        return
    words = iter(options.split())
    for word in words:
        option, equals, value = word.partition("=")
        if option != "--hash":
            if option.startswith("-"):
                refuse_option(
                    option,
                    line,
                    field,
                    f"has {option} behind a requirement, where only --hash is allowed; write it on a "
                    "line of its own",
                )
            raise RequirementError(field, line, "has something other than --hash behind a hash")
        yield _hash(value if equals else next(words, ""), line, field)


def _hash(value: str, line: str, field: str) -> str:
    algorithm, _, digest = value.lower().partition(":")
    if algorithm in ("md5", "sha1", "sha224"):
        raise RequirementError(field, line, f"has a hash by {algorithm}, too weak; give sha256")
    if algorithm not in _DIGITS:
        raise RequirementError(field, line, "has a hash that is not sha256:, sha384: or sha512:")
    if not re.fullmatch(rf"[0-9a-f]{{{_DIGITS[algorithm]}}}", digest):
        raise RequirementError(
            field, line, f"has a {algorithm} hash that is not {_DIGITS[algorithm]} digits of 0-9a-f"
        )
    return f"{algorithm}:{digest}"


def _line_options(line: str, field: str) -> Iterator[tuple[str, str]]:
    """Yield (long name, value or "") of each option in a line that begins with one, checked."""
    words = iter(line.split())
    for word in words:
        option, equals, value = word.partition("=")
        if not word.startswith("--"):
            option, equals, value = word[:2], word[2:], word[2:].removeprefix("=")
            option = SHORT_OPTIONS.get(option, word)
        if option == "--hash":
            raise RequirementError(
                field, line, "has no requirement; the line before it must end in a backslash"
            )
        if option in _WITH_VALUE:
            value = value if equals else next(words, "")
            _check_value(option, value, line, field)
        elif option not in _FLAGS or equals:
            refuse_option(option, line, field, f"has an option that is not known here, {option}")
        yield option, value


def _check_value(option: str, value: str, line: str, field: str) -> None:
    if not value:
        raise RequirementError(field, line, f"has no value for {option}")
    if option in ("--no-binary", "--only-binary"):
        if not all(re.fullmatch(rf":all:|:none:|{NAME}", name) for name in value.split(",")):
            raise RequirementError(field, line, f"needs names, :all: or :none: for {option}")
        return
    if "://" not in value:
        raise RequirementError(field, line, f"{STAYS}; give the address of an index")
    check_address(value, ("https", "http"), line, field)
