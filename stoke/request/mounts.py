"""Mounts of a request: SRC:/path[:ro|:rw] for a file or folder, claim:NAME:/path[:ro|:rw] for a claim.

The form is that of `docker run --volume`, without names of volumes. This module checks only the text;
`stoke.delivery.bind_mounts` checks the source where the job is submitted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MOUNT_ROOT = "STOKE_MOUNT_ROOT"
"""The variable of a job with mounts: the folder that its targets are below. It is / in containers and
pods; on this machine it is a folder of links."""
FORM = "write SRC:/path, SRC:/path:rw or claim:NAME:/path"
RESERVED = (
    "/argo", "/cache", "/dev", "/mnt/results", "/nix", "/proc", "/run", "/stoke", "/sys", "/var/run",
)  # fmt: skip
"""Folders of the system or of stoke in a job, which no mount may hide or be in."""

_CLAIM = "claim:"
_CLAIM_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_TARGET = re.compile(r"(?:/[A-Za-z0-9._@+-]+)+")
_LONGEST = 4096


@dataclass(frozen=True)
class Mount:
    source: str
    """A whole path, or the name of a claim."""
    target: str
    writable: bool
    is_claim: bool


def parse_mount(text: str) -> Mount:
    """Return the mount that a text describes. `ValueError` says what is wrong with it."""
    if len(text) > _LONGEST:
        raise ValueError(f"{text[:60]!r}... is longer than {_LONGEST} characters")
    head, writable = text, False
    if text.endswith((":ro", ":rw")):
        head, writable = text[:-3], text.endswith(":rw")
    source, colon, target = head.rpartition(":")
    if not colon or not source:
        raise ValueError(f"{text!r} names no source and path; {FORM}")
    if not target.startswith("/"):
        what = "mode, which is ro or rw" if ":/" in source else "whole path in the job"
        raise ValueError(f"{text!r}: {target!r} is no {what}; {FORM}")
    target = _checked_target(target)
    if source.startswith(_CLAIM):
        name = source.removeprefix(_CLAIM)
        if not _CLAIM_NAME.fullmatch(name):
            raise ValueError(f"{text!r}: {name!r} is not the name of a claim")
        return Mount(name, target, writable, is_claim=True)
    if ":" in source:
        raise ValueError(
            f"{text!r}: the source has a colon, which ends a source; "
            "mount a folder above it, or rename it"
        )
    if not source.startswith("/"):
        raise ValueError(f"{text!r}: {source!r} is relative; write the whole path")
    return Mount(source, target, writable, is_claim=False)


def _checked_target(target: str) -> str:
    path = target.rstrip("/")
    if not path:
        raise ValueError("'/' cannot be a path for a mount: it would hide the whole system")
    if not _TARGET.fullmatch(path):
        raise ValueError(
            f"{target!r} is not a path for a mount; use letters, digits and . _ @ + - between single /"
        )
    if {".", ".."} & set(path.split("/")):
        raise ValueError(f"{target!r} has . or .. in it; write the path without")
    for reserved in RESERVED:
        if _is_within(path, reserved) or _is_within(reserved, path):
            raise ValueError(f"{target!r} cannot be mounted over: jobs need {reserved}")
    return path


def check_mounts(texts: Sequence[str]) -> None:
    """Raise `ValueError` for the first wrong mount, and for two whose paths are in each other."""
    targets: list[str] = []
    for text in texts:
        target = parse_mount(text).target
        for other in targets:
            if _is_within(target, other) or _is_within(other, target):
                raise ValueError(
                    f"{other!r} and {target!r} are the same path, or one is in the other"
                )
        targets.append(target)


def with_whole_source(text: str, folder: Path) -> str:
    """Return a mount as it was typed in `folder`, with the whole path of its source.

    As in `docker run --volume`, a relative path begins with a dot. `ValueError` for a bare name.
    """
    source, colon, rest = text.partition(":")
    if not colon or source == "claim" or source.startswith("/"):
        return text
    if source == "~" or source.startswith("~/"):
        return f"{os.path.expanduser(source)}:{rest}"
    if source in (".", "..") or source.startswith(("./", "../")):
        # With .. in it, only the file system can tell what it means: a folder may be a link.
        path = os.path.join(folder, source)
        return f"{path if '..' in source else os.path.normpath(path)}:{rest}"
    raise ValueError(f"{text!r}: {source!r} is no path; write ./{source} for one in this folder")


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")
