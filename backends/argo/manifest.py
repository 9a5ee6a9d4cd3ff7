"""Objects as text for people and for kubectl."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

Object = dict[str, Any]


def as_yaml(*objects: Mapping[str, Any]) -> str:
    """One document an object. Strings that look like something else are quoted."""
    import yaml  # type: ignore[import-untyped]

    text: str = yaml.safe_dump_all(
        objects, sort_keys=False, default_flow_style=False, width=100, allow_unicode=True
    )
    return text


def difference(there: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> str:
    """What would change, as a unified diff; empty when nothing would. Of what is there only the fields
    that are wanted count: the cluster adds its own."""
    before = [] if there is None else as_yaml(_of_interest(there, wanted)).splitlines()
    after = as_yaml(wanted).splitlines()
    name = f"{wanted['kind']}/{wanted['metadata']['name']}"
    return "\n".join(difflib.unified_diff(before, after, f"{name} (there)", name, lineterm=""))


def _of_interest(there: Any, wanted: Any) -> Any:
    if isinstance(wanted, Mapping) and isinstance(there, Mapping):
        return {name: _of_interest(there[name], wanted[name]) for name in wanted if name in there}
    if isinstance(wanted, list) and isinstance(there, list):
        pairs = zip(there, wanted, strict=False)
        return [_of_interest(*pair) for pair in pairs] + there[len(wanted) :]
    return there
