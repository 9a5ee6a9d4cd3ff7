"""Parse and check dependencies: lists in one text, single requirements, requirements files.

Nothing here resolves or normalises: a requirement that passes travels exactly as it was written.
Importing `packaging` takes as long as importing click (67 ms of processor time each, measured side by
side), so plain requirements (`pandas[aws]>=2,<3`, with or without a simple marker) are recognised
without it. The tests compare that fast path with `packaging`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NoReturn

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
# Plain requirements, in three expressions: one for all takes longer to compile than it saves.
_PLAIN_NAME = re.compile(rf"{_NAME}[ \t]*(?:\[{_NAME}(?:,{_NAME})*\])?[ \t]*")
_PLAIN_BOUND = re.compile(
    r"[ \t]*(?:[=!]=|[<>]=?|~=(?=[ \t]*[0-9]+\.))[ \t]*[0-9]+(?:\.[0-9]+)*[ \t]*"
)
_PLAIN_TEST = re.compile(
    r"[ \t]*(?:python_version|python_full_version|sys_platform|platform_system|platform_machine)"
    r"[ \t]*(?:[=!]=|[<>]=?)[ \t]*(?:'[A-Za-z0-9._]+'|\"[A-Za-z0-9._]+\")[ \t]*"
)
_EXACT = re.compile(
    rf"{_NAME}[ \t]*+(?:\[[^\]]*\])?[ \t]*+\(?[ \t]*+"
    r"={2,3}[ \t]*+[^\s,;()*]+[ \t]*+\)?[ \t]*+(?:;|\Z)"
)
_NAMED_ADDRESS = re.compile(rf"{_NAME}[ \t]*+(?:\[[^\]]*\])?[ \t]*+@")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_ARCHIVE = re.compile(r"\.(?:whl|zip|tar(?:\.[a-z0-9]+)?|tgz|tbz|tlz|txz)\Z", re.IGNORECASE)
_PATH = re.compile(r"\.{1,2}(?:[/\\]|\Z)|[/\\]|~(?!=)|[A-Za-z]:[/\\]|file:", re.IGNORECASE)

_LONGEST = 8192  # Signed addresses reach 2000. `packaging` is not linear in a hostile text.
_DIRECT = ("https", "http", "git+https", "git+http", "git+ssh")
_DIGITS = {"sha256": 64, "sha384": 96, "sha512": 128}
_SHORT = {
    "-c": "--constraint",
    "-e": "--editable",
    "-f": "--find-links",
    "-i": "--index-url",
    "-r": "--requirement",
}
_FLAGS = ("--no-index", "--pre", "--require-hashes")
_WITH_VALUE = (
    "--extra-index-url",
    "--find-links",
    "--index-url",
    "--no-binary",
    "--only-binary",
)

_STAYS = "does not travel to where the job runs"
_PUBLISH = "publish it to an index, or write NAME @ git+https://... or NAME @ https://..."
_INCLUDED = "names another file, which is read only on a line of its own in a file given by -r; "

_SECRET_IN_ADDRESS = re.compile(
    # The second form is a password with a slash in it, which ends the host part early.
    r"://(?:[^/?#\s]*@|[^/?#\s:@\[]*:(?!\d+(?:[/?#\s]|\Z))\S*@)|(?<![^\s/:@])[^\s/:@]+:[^\s/:@]+@"
)


class RequirementError(ValueError):
    """A dependency that cannot be used.

    `field` names its place ("dependencies[2]", "requirements line 3"), `text` is what was written
    (shortened, passwords hidden), and `why` completes the sentence with the fix: "does not travel to
    where the job runs; publish it ...".
    """

    def __init__(self, field: str, text: str, why: str) -> None:
        text = _SECRET_IN_ADDRESS.sub(_hide, text[:2000])
        self.field = field
        self.text = text if len(text) <= 200 else text[:199] + "\u2026"
        self.why = why
        super().__init__(field, self.text, why)

    def __str__(self) -> str:
        return f"{self.field}: {self.text!r} {self.why}"


def _hide(found: re.Match[str]) -> str:
    return "://***@" if found[0].startswith("://") else "***@"


# --- lists in one text ---------------------------------------------------------------------------

_SEPARATORS = re.compile(r"[\s,]*")
_RUN = re.compile(r"[^\s,]*")
_WORD = re.compile(r"\S*")
_BLANKS = re.compile(r"[ \t]*")
_TO_COMMA = re.compile(r"[^,\r\n]*")
_LINE = re.compile(r"[^\r\n]*")
_NAME_LIKE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Version clauses as written, right or wrong. A comma or a blank belongs to them only if an operator
# follows it, because no requirement begins with an operator.
_CLAUSES_LIKE = re.compile(
    r"[<>=!~]++[ \t]*+[^\s,;()]*+(?:[ \t]*+(?:,[ \t]*+)?[<>=!~]++[ \t]*+[^\s,;()]*+)*+"
)
_MARKER_TOKEN = re.compile(
    r"""[ \t]*+(?:
        (?P<value>'[^'\r\n]*' | "[^"\r\n]*")
      | (?P<operator>[<>=!~]+ | not[ \t]+in\b | in\b)
      | (?P<joint>(?:and|or)(?=[ \t('"]))
      | (?P<variable>[A-Za-z_][A-Za-z0-9_.]*)
      | (?P<opening>\()
      | (?P<closing>\))
    )""",
    re.VERBOSE,
)


def parse_list(text: str, field: str = "dependencies") -> list[str]:
    """Split a list between commas, blanks or line ends: `pandas>=2,<3 numpy` is two requirements.

    Each is exactly what was written, stripped, and unchecked: text that is no requirement is one item,
    for `check_requirement` to refuse. `RequirementError` only for a bracket or quote that is never
    closed, where no end can be told. A requirement ends with its line. An address ends at a blank, and
    commas right at its end separate.
    """
    found: list[str] = []
    at = _skip(_SEPARATORS, text, 0)
    while at < len(text):
        end = _requirement_end(text, at, f"{field}[{len(found)}]")
        found.append(text[at:end].rstrip())
        at = _skip(_SEPARATORS, text, end)
    return found


def _skip(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _requirement_end(text: str, start: int, field: str) -> int:
    """Return where the requirement that begins at `start` ends; always behind `start`."""
    if text[start] in "'\"":
        return _skip(_RUN, text, _closed(text, start, start, text[start], field))
    if _ADDRESS.match(text, start):
        return _marker_end(text, start, _address_end(text, start), field)
    end = _skip(_NAME_LIKE, text, start)
    if end == start:
        return _skip(_RUN, text, start)
    here = _skip(_BLANKS, text, end)
    if text.startswith("[", here):
        end = _closed(text, start, here, "]", field)
        here = _skip(_BLANKS, text, end)
    if text.startswith("@", here):
        end = _address_end(text, _skip(_BLANKS, text, here + 1))
    elif text.startswith("(", here):
        end = _closed(text, start, here, ")", field)
    elif clauses := _CLAUSES_LIKE.match(text, here):
        end = clauses.end()
    return _marker_end(text, start, end, field)


def _address_end(text: str, start: int) -> int:
    end = _skip(_WORD, text, start)
    return start + len(text[start:end].rstrip(","))


def _closed(text: str, start: int, at: int, closing: str, field: str) -> int:
    """Return the position behind the `closing` for the character at `at`, on the same line."""
    line_end = _skip(_LINE, text, at)
    found = text.find(closing, at + 1, line_end)
    if found < 0:
        raise RequirementError(
            field, text[start:line_end], f"has a {text[at]} that is never closed"
        )
    return found + 1


def _marker_end(text: str, start: int, end: int, field: str) -> int:
    """Return the end including a marker that follows, and text right behind it."""
    here = _skip(_BLANKS, text, end)
    if text.startswith(";", here):
        end = _marker(text, start, here + 1, field)
    elif end > start and text[end - 1] == ";":  # `name @ https://h/x; marker` lacks a blank
        end = _marker(text, start, end, field)
    return _skip(_RUN, text, end)


def _marker(text: str, start: int, at: int, field: str) -> int:
    """Return the position behind the marker at `at`. A broken one ends at a comma or with its line."""
    wanted, depth = "left", 0
    while token := _MARKER_TOKEN.match(text, at):
        kind = token.lastgroup
        if wanted == "left" and kind == "opening":
            depth += 1
        elif wanted in ("left", "right") and kind in ("value", "variable"):
            wanted = "operator" if wanted == "left" else "joint"
        elif wanted == "operator" and kind == "operator":
            wanted = "right"
        elif wanted == "joint" and kind == "closing" and depth:
            depth -= 1
        elif wanted == "joint" and kind == "joint":
            wanted = "left"
        else:
            break
        at = token.end()
    if wanted == "joint" and not depth:
        return at
    here = _skip(_BLANKS, text, at)
    if wanted != "joint" and text[here : here + 1] in ("'", '"'):
        at = _closed(text, start, here, text[here], field)
    return _skip(_TO_COMMA, text, at)


# --- one requirement -----------------------------------------------------------------------------


def check_requirement(text: str, field: str) -> None:
    """Return if `text` is one PEP 508 requirement that means the same on another machine.

    `RequirementError` for anything else: bad syntax, local paths and `file:` addresses, `-e` and
    other options, addresses that hold a password or cannot be installed from, line breaks, control
    and invisible characters.
    """
    if _is_address(text):
        _check(text, f"unnamed @ {text}", field)
        raise RequirementError(field, text, "has no name; write NAME @ in front of the address")
    _check(text, text, field)


def check_bounds(text: str, field: str) -> None:
    """Return if `text` is a list of version bounds (`>=3.11,<4`), else raise `RequirementError`."""
    if _are_plain_bounds(text):
        return
    from packaging.specifiers import SpecifierSet

    try:
        SpecifierSet(text)
    except ValueError:
        raise RequirementError(
            field, text, "is not a list of version bounds; write >=3.11,<4"
        ) from None


def is_exact(text: str) -> bool:
    """Whether a valid requirement allows one version only: `==` or `===` without a wildcard."""
    return _EXACT.match(text) is not None


def canonical_name(text: str) -> str:
    """Return the canonical name that a requirement installs: `foo-bar` for `Foo_Bar[x]>=1`.

    For an address without a name it is the file's, or else the text itself.
    """
    return _canonical_name(text) or text


def names(requirements: Iterable[str]) -> list[str]:
    """Return the canonical names of `requirements`, each once and in order; some have none."""
    found = (_canonical_name(text) for text in requirements)
    return list(dict.fromkeys(name for name in found if name))


def _canonical_name(text: str) -> str | None:
    text = text.strip()
    if _ADDRESS.match(text):
        address, _, fragment = text.split()[0].partition("#")
        egg = re.match(rf"(?:.*&)?egg=({_NAME})", fragment)
        file = address.partition("?")[0].rpartition("/")[2]
        if egg:
            name = egg[1]
        elif file.endswith(".whl"):
            name = file.partition("-")[0]
        elif _ARCHIVE.search(file):
            name = file.rpartition("-")[0]
        else:
            return None
    else:
        name = text
    match = re.match(_NAME, name)
    return re.sub(r"[-_.]+", "-", match[0]).lower() if match else None


def _check(text: str, requirement: str, field: str) -> None:
    """Check `requirement`, which may be `text` with a name in front. Errors show `text`."""
    if not text.strip():
        raise RequirementError(field, text, "is empty")
    if len(text) > _LONGEST:
        raise RequirementError(field, text, f"is longer than {_LONGEST} characters")
    _check_characters(text, field)
    if text.startswith("-"):
        option = text.split()[0].partition("=")[0]
        _refuse_option(
            option, text, field, "is an option; options belong in the text of a requirements file"
        )
    _check_path(text, field)
    if _is_plain(requirement):
        return
    from packaging.requirements import Requirement

    try:
        parsed = Requirement(requirement)
    except RecursionError:
        raise RequirementError(field, text, "is nested too deeply") from None
    except ValueError as error:
        why = str(error).partition("\n")[0]
        raise RequirementError(field, text, _explained(text, why)) from None
    if not re.fullmatch(_NAME, parsed.name):
        raise RequirementError(field, text, "has a name that does not end in a letter or digit")
    if parsed.url is not None:
        if _PATH.match(parsed.url) or re.fullmatch(r"[^:@]*/[^:@]*", parsed.url):
            raise RequirementError(field, text, f"{_STAYS}; {_PUBLISH}")
        _check_address(parsed.url, _DIRECT, text, field)


def _is_plain(text: str) -> bool:
    """Whether the text is a plain requirement without an address. False: `packaging` has to decide."""
    name = _PLAIN_NAME.match(text)
    if name is None:
        return False
    bounds, semicolon, marker = text[name.end() :].partition(";")
    return (not bounds or _are_plain_bounds(bounds)) and (
        not semicolon
        or all(_PLAIN_TEST.fullmatch(test) for test in re.split(r"[ \t](?:and|or)[ \t]", marker))
    )


def _are_plain_bounds(text: str) -> bool:
    return all(_PLAIN_BOUND.fullmatch(bound) for bound in text.split(","))


def _check_characters(text: str, field: str) -> None:
    if text.replace("\t", " ").isprintable():
        return
    for character in text:
        if character in "\r\n":
            raise RequirementError(field, text, "holds a line break; write it on one line")
        if not character.isprintable() and character != "\t":
            raise RequirementError(
                field, text, f"holds an invisible character, U+{ord(character):04X}; delete it"
            )


def _is_address(text: str) -> bool:
    return _ADDRESS.match(text) is not None and not _PATH.match(text)


def _check_path(text: str, field: str) -> None:
    word = re.split(r"[\s;\[(<>=!~,@]", text, maxsplit=1)[0]
    if not _is_address(text) and (
        _PATH.match(text) or "/" in word or "\\" in word or _ARCHIVE.search(word)
    ):
        raise RequirementError(field, text, f"{_STAYS}; {_PUBLISH}")


def check_web_address(url: str, text: str, field: str) -> None:
    """Return if `url`, a part of `text`, is an http or https address without a password."""
    _check_address(url, ("https", "http"), text, field)


def _check_address(url: str, schemes: tuple[str, ...], text: str, field: str) -> None:
    from stoke.text.urls import AddressFault, address_fault

    scheme, separator, rest = url.partition("://")
    if separator and scheme.lower() in ("file", "git+file"):
        raise RequirementError(field, text, f"{_STAYS}; {_PUBLISH}")
    fault = address_fault(f"{scheme.lower()}{separator}{rest}", schemes)
    if fault is AddressFault.SCHEME:
        raise RequirementError(
            field, text, f"needs an address that begins with {', '.join(schemes)} and ://"
        )
    if fault is AddressFault.PASSWORD:
        raise RequirementError(
            field,
            text,
            "has a password in its address, which would be stored with the job; put a variable in "
            "its place, https://${USER}:${PASSWORD}@host, or name it by --index-credentials env:NAME",
        )
    if fault is not None:
        raise RequirementError(field, text, "has a broken address: its host, port or a backslash")


def _refuse_option(option: str, text: str, field: str, why: str) -> NoReturn:
    """Raise for an option, with `why` unless the option names something local."""
    option = option if option.startswith("--") else _SHORT.get(option[:2], option)
    if option == "--editable":
        why = f"{_STAYS}; {_PUBLISH}"
    elif option == "--requirement":
        why = f"{_INCLUDED}paste its lines here"
    elif option == "--constraint":
        why = f"{_INCLUDED}put its lines into the field constraints"
    raise RequirementError(field, text, why)


def _explained(text: str, why: str) -> str:
    """Return what is wrong and, for common mistakes, the fix."""
    why = f"is not a requirement: {why[:1].lower()}{why[1:]}"
    if text[:1] in ("'", '"'):
        return f"{why}; remove the quotes"
    if re.fullmatch(r"[\w.-]+=[^=\s]+=[^=\s]+", text):
        return (
            "is written as conda writes it; write NAME==VERSION, with the name it has on the index"
        )
    if "no version specifier" in why and re.match(
        rf"{_NAME}[ \t]*+(?:\[[^\]]*\])?[ \t]*+(?:[<>!~]=?|={{2,3}})", text
    ):
        return "has bounds that are not versions"
    if "expected comma" in why and re.search(r"[0-9*][ \t]*[<>=!~]=?[ \t]*[0-9]", text):
        return f"{why}; put a comma between two bounds"
    if text.startswith("["):
        return f"{why}; a requirements file has no sections"
    if text.startswith(";"):
        return f"{why}; write a marker on the line of its requirement"
    if re.match(r"[<>=!~]", text):
        return f"{why}; write a requirement on one line, its name first"
    if re.match(rf"{_NAME}[ \t]*+=[ \t]*[0-9]", text):
        return f"{why}; write == for an exact version"
    if re.match(rf"{_NAME}[ \t]*+\^", text):
        return f"{why}; write ~= or a pair of bounds for ^"
    if _NAMED_ADDRESS.match(text) and ";" in text:
        return f"{why}; put a blank before the ;"
    return why


# --- requirements files --------------------------------------------------------------------------


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
                or _ADDRESS.match(entry.text) is not None
                or _NAMED_ADDRESS.match(entry.text) is not None
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
        _check_characters(line, field)
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
        _check_characters(line, field)
        requirement = _without_editable(line)
        if requirement is None:
            option = line.split()[0].partition("=")[0]
            _refuse_option(option, line, field, "is an option; options belong in the requirements")
        entry = _entry(number, requirement, field)
        if _is_address(entry.text):
            raise RequirementError(field, line, "has no name; write NAME @ in front of the address")
        entries.append(entry)
    return entries


def logical_lines(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield (first line's number, last line's number, text) of each line that is not blank, without
    comments and with continuations joined."""
    first, joined = 0, ""
    lines = re.split(r"\r\n?|\n", text.removeprefix("\ufeff"))
    for number, line in enumerate(lines, 1):
        line = re.sub(r"(?:^|(?<=[ \t]))#.*", "", line, count=1, flags=re.DOTALL)
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
        rf"(?:{_NAME}[ \t]*+(?:\[[^\]]*\])?[ \t]*+@[ \t]*+)?git\+", line[editable.end() :]
    ):
        return None
    return line[editable.end() :]


def _with_extras(text: str) -> str:
    """Return an address with extras in its egg in a form in which uv keeps them."""
    address, blank, rest = text.partition(" ")
    url, _, fragment = address.partition("#")
    parts = fragment.split("&")
    named = [part for part in parts if re.fullmatch(rf"egg={_NAME}\[[^\]]*\]", part)]
    if not named:
        return text
    others = "&".join(part for part in parts if not part.startswith("egg="))
    return f"{named[0][4:]} @ {url}{'#' if others else ''}{others}{blank}{rest}"


def _entry(number: int, line: str, field: str) -> Entry:
    option = re.search(r"(?<=[ \t])-", line)
    text = line[: option.start()].rstrip() if option else line
    if _is_address(text):
        _check(text, f"unnamed @ {text}", field)
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
    words = iter(options.split())
    for word in words:
        option, equals, value = word.partition("=")
        if option != "--hash":
            if option.startswith("-"):
                _refuse_option(
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
            option = _SHORT.get(option, word)
        if option == "--hash":
            raise RequirementError(
                field, line, "has no requirement; the line before it must end in a backslash"
            )
        if option in _WITH_VALUE:
            value = value if equals else next(words, "")
            _check_value(option, value, line, field)
        elif option not in _FLAGS or equals:
            _refuse_option(option, line, field, f"has an option that is not known here, {option}")
        yield option, value


def _check_value(option: str, value: str, line: str, field: str) -> None:
    if not value:
        raise RequirementError(field, line, f"has no value for {option}")
    if option in ("--no-binary", "--only-binary"):
        if not all(re.fullmatch(rf":all:|:none:|{_NAME}", name) for name in value.split(",")):
            raise RequirementError(field, line, f"needs names, :all: or :none: for {option}")
        return
    if "://" not in value:
        raise RequirementError(field, line, f"{_STAYS}; give the address of an index")
    _check_address(value, ("https", "http"), line, field)
