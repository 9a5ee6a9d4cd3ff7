"""Kubernetes objects as YAML, and the difference between two of them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

Object = dict[str, Any]


def as_yaml(*objects: Mapping[str, Any]) -> str:
    """Return one YAML document for each object. Ambiguous strings are quoted."""
    import yaml  # type: ignore[import-untyped]

    text: str = yaml.safe_dump_all(
        objects, sort_keys=False, default_flow_style=False, width=100, allow_unicode=True
    )
    return text


def difference(there: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> str:
    """Return a unified diff of what would change, empty if nothing would.

    Only the fields in `wanted` are compared, because the cluster adds fields of its own.
    """
    before = [] if there is None else as_yaml(_only_wanted_fields(there, wanted)).splitlines()
    after = as_yaml(wanted).splitlines()
    name = f"{wanted['kind']}/{wanted['metadata']['name']}"
    return "\n".join(difflib.unified_diff(before, after, f"{name} (there)", name, lineterm=""))


def _only_wanted_fields(there: Any, wanted: Any) -> Any:
    if isinstance(wanted, Mapping) and isinstance(there, Mapping):
        return {
            name: _only_wanted_fields(there[name], wanted[name]) for name in wanted if name in there
        }
    if isinstance(wanted, list) and isinstance(there, list):
        pairs = zip(there, wanted, strict=False)
        return [_only_wanted_fields(*pair) for pair in pairs] + there[len(wanted) :]
    return there
