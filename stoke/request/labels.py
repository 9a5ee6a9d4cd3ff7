"""Labels and annotations of a job, checked by the rules of Kubernetes.

https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
"""

from __future__ import annotations

import re

_PREFIX = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
MAX_PREFIX = 253
MAX_ANNOTATIONS = 256 * 1024
"""Bytes of all annotations of an object together."""
# Keys that stoke and Argo decide by.
_OWN = re.compile(r"stoke\..*|workflows\.argoproj\.io/.*")


def check_labels(labels: dict[str, str]) -> dict[str, str]:
    """Return the labels. Raise `ValueError` for the first one that Kubernetes would refuse or that is
    not the user's."""
    for key, value in labels.items():
        _check_key(key)
        if value and not _NAME.fullmatch(value):
            raise ValueError(
                f"{value[:80]!r} is not a valid value of the label {key}; use at most 63 letters, "
                "digits, '-', '_' and '.', with a letter or digit at both ends"
            )
    return labels


def check_annotations(annotations: dict[str, str]) -> dict[str, str]:
    """Return the annotations. Raise `ValueError` for the first one that Kubernetes would refuse or
    that is not the user's."""
    for key in annotations:
        _check_key(key)
    size = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
    if size > MAX_ANNOTATIONS:
        raise ValueError(f"have {size:,} bytes together; {MAX_ANNOTATIONS:,} is the most")
    return annotations


def _check_key(key: str) -> None:
    prefix, slash, name = key.rpartition("/")
    well_formed = _NAME.fullmatch(name) and (
        not slash or (len(prefix) <= MAX_PREFIX and _PREFIX.fullmatch(prefix))
    )
    if not well_formed:
        raise ValueError(
            f"{key[:80]!r} is not a valid key; write name or example.com/name, with at most 63 "
            "letters, digits, '-', '_' and '.' in the name"
        )
    if _OWN.fullmatch(key):
        raise ValueError(f"{key[:80]!r} is set by stoke or Argo themselves; choose another key")
