"""The text of lockfiles: requirements with hashes, as `uv pip compile` writes them."""

from __future__ import annotations

import re

from stoke.remote.common.names import canonical
from stoke.remote.protocol import HintCode
from stoke.remote.runner.errors import PhaseError

_ENTRY = re.compile(r"(?m)^[^\s#-](?:.*\\\n)*.*\n?")


def header_text(lines: list[str]) -> str:
    """Return the beginning of a lockfile with these option lines."""
    return "".join(line + "\n" for line in lines) + ("\n" if lines else "")


def entry_text(requirement: str, hashes: list[str], index: str | None = None) -> str:
    """Return an entry; `index` is where its file comes from."""
    entry = requirement + "".join(" \\\n    --hash=" + value for value in hashes) + "\n"
    return entry + ("    # from %s\n" % index if index else "")


def entries_of(lockfile: str) -> list[str]:
    """Return the entries, each with its hashes and a newline, without options and comments."""
    entries: list[str] = _ENTRY.findall(lockfile)
    return [entry if entry.endswith("\n") else entry + "\n" for entry in entries]


def packages_of(lockfile: str) -> list[str]:
    """Return `name==version`, or `name @ url`, for each entry."""
    entries = entries_of(lockfile)
    return [re.split(r"\s*\\\n|\s+--hash|\s*;", entry, maxsplit=1)[0].strip() for entry in entries]


def requirement_of(entry: str) -> str:
    """Return an entry without its hashes."""
    return re.split(r"\s*\\\n|\s+--hash", entry, maxsplit=1)[0].strip()


def indexes_of(lockfile: str) -> dict[str, str]:
    """Return canonical name to index, for the entries after which uv noted their index."""
    found = re.findall(r"(?m)^([^\s#-](?:.*\\\n)*.*)\n[ \t]+# from (\S+)$", lockfile)
    return {canonical(entry): url for entry, url in found}


def keep_allowed_hashes(
    lockfile: str, allowed_hashes: dict[str, list[str]], require: bool = False
) -> str:
    """Return the lockfile with only the hashes that the user allows; uv puts in all of the index.

    Raises `PhaseError` if none is left for a package and, with `require`, if the user gave none.
    """
    if not allowed_hashes:
        return lockfile

    def with_allowed_hashes(match: re.Match[str]) -> str:
        entry = match.group()
        allowed = allowed_hashes.get(canonical(entry))
        found = re.findall(r"--hash=(\S+)", entry)
        if require and not allowed:
            raise PhaseError(
                "%s is needed too and has no --hash, and the requirements say --require-hashes"
                % packages_of(entry)[0],
                (HintCode.ADD_HASHES,),
            )
        if not allowed or not found:
            return entry
        both = [value for value in found if value in allowed]
        if not both:
            raise PhaseError(
                "none of the hashes given for %s is in the index; given: %s"
                % (packages_of(entry)[0], ", ".join(allowed)),
                (HintCode.CHECK_HASHES,),
            )
        return entry_text(requirement_of(entry), both)

    return _ENTRY.sub(with_allowed_hashes, lockfile)
