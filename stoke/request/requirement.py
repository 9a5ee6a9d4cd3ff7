"""Check one dependency: a requirement as PEP 508 defines it, or an address.

Nothing here resolves or normalises: a requirement that passes travels exactly as it was written.
Importing `packaging` takes as long as importing click (67 ms of processor time each, measured side by
side), so plain requirements (`pandas[aws]>=2,<3`, with or without a simple marker) are recognised
without it. The tests compare that fast path with `packaging`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NoReturn

NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
# Plain requirements, in three expressions: one for all takes longer to compile than it saves.
_PLAIN_NAME = re.compile(rf"{NAME}[ \t]*(?:\[{NAME}(?:,{NAME})*\])?[ \t]*")
_PLAIN_BOUND = re.compile(
    r"[ \t]*(?:[=!]=|[<>]=?|~=(?=[ \t]*[0-9]+\.))[ \t]*[0-9]+(?:\.[0-9]+)*[ \t]*"
)
_PLAIN_TEST = re.compile(
    r"[ \t]*(?:python_version|python_full_version|sys_platform|platform_system|platform_machine)"
    r"[ \t]*(?:[=!]=|[<>]=?)[ \t]*(?:'[A-Za-z0-9._]+'|\"[A-Za-z0-9._]+\")[ \t]*"
)
_EXACT = re.compile(
    rf"{NAME}[ \t]*+(?:\[[^\]]*\])?[ \t]*+\(?[ \t]*+"
    r"={2,3}[ \t]*+[^\s,;()*]+[ \t]*+\)?[ \t]*+(?:;|\Z)"
)
NAMED_ADDRESS = re.compile(rf"{NAME}[ \t]*+(?:\[[^\]]*\])?[ \t]*+@")
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_ARCHIVE = re.compile(r"\.(?:whl|zip|tar(?:\.[a-z0-9]+)?|tgz|tbz|tlz|txz)\Z", re.IGNORECASE)
_PATH = re.compile(r"\.{1,2}(?:[/\\]|\Z)|[/\\]|~(?!=)|[A-Za-z]:[/\\]|file:", re.IGNORECASE)

_LONGEST = 8192  # Signed addresses reach 2000. `packaging` is not linear in a hostile text.
_DIRECT = ("https", "http", "git+https", "git+http", "git+ssh")
SHORT_OPTIONS = {
    "-c": "--constraint",
    "-e": "--editable",
    "-f": "--find-links",
    "-i": "--index-url",
    "-r": "--requirement",
}

STAYS = "does not travel to where the job runs"
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


def check_requirement(text: str, field: str) -> None:
    """Return if `text` is one PEP 508 requirement that means the same on another machine.

    `RequirementError` for anything else: bad syntax, local paths and `file:` addresses, `-e` and
    other options, addresses that hold a password or cannot be installed from, line breaks, control
    and invisible characters.
    """
    if is_address(text):
        check_syntax(text, f"unnamed @ {text}", field)
        raise RequirementError(field, text, "has no name; write NAME @ in front of the address")
    check_syntax(text, text, field)


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
    if ADDRESS.match(text):
        address, _, fragment = text.split()[0].partition("#")
        egg = re.match(rf"(?:.*&)?egg=({NAME})", fragment)
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
    match = re.match(NAME, name)
    return re.sub(r"[-_.]+", "-", match[0]).lower() if match else None


def check_syntax(text: str, requirement: str, field: str) -> None:
    """Check `requirement`, which may be `text` with a name in front. Errors show `text`."""
    if not text.strip():
        raise RequirementError(field, text, "is empty")
    if len(text) > _LONGEST:
        raise RequirementError(field, text, f"is longer than {_LONGEST} characters")
    check_characters(text, field)
    if text.startswith("-"):
        option = text.split()[0].partition("=")[0]
        refuse_option(
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
    if not re.fullmatch(NAME, parsed.name):
        raise RequirementError(field, text, "has a name that does not end in a letter or digit")
    if parsed.url is not None:
        if _PATH.match(parsed.url) or re.fullmatch(r"[^:@]*/[^:@]*", parsed.url):
            raise RequirementError(field, text, f"{STAYS}; {_PUBLISH}")
        check_address(parsed.url, _DIRECT, text, field)


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


def check_characters(text: str, field: str) -> None:
    if text.replace("\t", " ").isprintable():
        return
    for character in text:
        if character in "\r\n":
            raise RequirementError(field, text, "holds a line break; write it on one line")
        if not character.isprintable() and character != "\t":
            raise RequirementError(
                field, text, f"holds an invisible character, U+{ord(character):04X}; delete it"
            )


def is_address(text: str) -> bool:
    return ADDRESS.match(text) is not None and not _PATH.match(text)


def _check_path(text: str, field: str) -> None:
    word = re.split(r"[\s;\[(<>=!~,@]", text, maxsplit=1)[0]
    if not is_address(text) and (
        _PATH.match(text) or "/" in word or "\\" in word or _ARCHIVE.search(word)
    ):
        raise RequirementError(field, text, f"{STAYS}; {_PUBLISH}")


def check_web_address(url: str, text: str, field: str) -> None:
    """Return if `url`, a part of `text`, is an http or https address without a password."""
    check_address(url, ("https", "http"), text, field)


def check_address(url: str, schemes: tuple[str, ...], text: str, field: str) -> None:
    from stoke.text.urls import AddressFault, address_fault

    scheme, separator, rest = url.partition("://")
    if separator and scheme.lower() in ("file", "git+file"):
        raise RequirementError(field, text, f"{STAYS}; {_PUBLISH}")
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


def refuse_option(option: str, text: str, field: str, why: str) -> NoReturn:
    """Raise for an option, with `why` unless the option names something local."""
    option = option if option.startswith("--") else SHORT_OPTIONS.get(option[:2], option)
    if option == "--editable":
        why = f"{STAYS}; {_PUBLISH}"
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
        rf"{NAME}[ \t]*+(?:\[[^\]]*\])?[ \t]*+(?:[<>!~]=?|={{2,3}})", text
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
    if re.match(rf"{NAME}[ \t]*+=[ \t]*[0-9]", text):
        return f"{why}; write == for an exact version"
    if re.match(rf"{NAME}[ \t]*+\^", text):
        return f"{why}; write ~= or a pair of bounds for ^"
    if NAMED_ADDRESS.match(text) and ";" in text:
        return f"{why}; put a blank before the ;"
    return why
