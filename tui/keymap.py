"""The user's keys: keys.toml beside config.toml, with a table for each screen.

    [jobs]
    stop = "x"
    find = "slash,ctrl+f"

`stoke setup keys` prints such a file with every action. An action with an error keeps its default keys,
and the error is shown at the start.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from difflib import get_close_matches
from importlib import import_module
from pkgutil import walk_packages

from textual.binding import Binding
from textual.dom import DOMNode
from textual.keys import _character_to_key

import tui
from stoke.files.paths import config_file
from stoke.files.untrusted import read_toml

FILE = "keys.toml"


def actions() -> dict[str, Binding]:
    """Return every action that has an id, by that id."""
    for module in walk_packages(tui.__path__, "tui."):
        import_module(module.name)
    found: dict[str, Binding] = {}
    for node in _own_nodes(DOMNode):
        for binding in node.__dict__.get("BINDINGS", ()):
            if isinstance(binding, Binding) and binding.id:
                found.setdefault(binding.id, binding)
    return dict(sorted(found.items()))


def _own_nodes(node: type[DOMNode]) -> Iterator[type[DOMNode]]:
    for below in node.__subclasses__():
        if below.__module__.startswith("tui."):
            yield below
        yield from _own_nodes(below)


def load() -> tuple[dict[str, str], list[str]]:
    """Return (keys by the id of their action, errors of the file)."""
    path = config_file().parent / FILE
    if not os.path.exists(path):
        return {}, []
    try:
        given = read_toml(path)
    except (OSError, ValueError) as error:
        return {}, [f"Cannot read {path}, using the default keys: {error}"]
    known = actions()
    wanted: dict[str, str] = {}
    errors: list[str] = []
    for group, table in given.items():
        for name, keys in table.items() if isinstance(table, dict) else ((None, table),):
            action = f"{group}.{name}" if name else group
            problem = _problem(action, keys, known)
            if problem:
                errors.append(f"{path.name}: {problem}")
            else:
                wanted[action] = ",".join(_keys(keys))
    wanted, clashes = without_clashes(known, wanted)
    return wanted, errors + [f"{path.name}: {clash}" for clash in clashes]


def _problem(action: str, keys: object, known: dict[str, Binding]) -> str | None:
    if action not in known:
        near = get_close_matches(action, known, 1)
        return f"unknown action {action}" + (f"; did you mean {near[0]}?" if near else "")
    if not isinstance(keys, str) or not all(_keys(keys)):
        return f"{action}: keys must be text such as x or ctrl+x"
    return None


def _keys(text: str) -> list[str]:
    """Return each key by the name that Textual uses: `slash` for `/`."""
    keys = (key.strip() for key in text.split(","))
    return [_character_to_key(key) if len(key) == 1 else key for key in keys]


def without_clashes(
    known: dict[str, Binding], wanted: dict[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Drop keys that another action of the same screen or of the program has; return why.

    Actions that share a key by default may keep sharing it.
    """
    keys = {action: set(_keys(binding.key)) for action, binding in known.items()}
    defaults = {action: set(own) for action, own in keys.items()}
    clashes = []
    accepted = {}
    for action, text in wanted.items():
        keys[action] = set(_keys(text))
    for action, text in wanted.items():
        group = action.partition(".")[0]
        others = [
            other
            for other in keys
            if other != action
            and (group == "app" or other.partition(".")[0] in (group, "app"))
            and (keys[action] & keys[other]) - (defaults[action] & defaults[other])
        ]
        if others:
            taken = ", ".join(sorted(keys[action] & keys[others[0]]))
            clashes.append(f"{taken} is already used by {others[0]}; {action} keeps its default")
            keys[action] = defaults[action]
        else:
            accepted[action] = text
    return accepted, clashes


def as_file() -> str:
    """Return a keys.toml with every action and its keys, as comments."""
    lines = [f"# Your keys. Save this as {FILE} beside config.toml and change any line."]
    group = None
    for action, binding in actions().items():
        above, _, name = action.partition(".")
        if above != group:
            group = above
            lines += ["", f"[{group}]"]
        lines.append(f'# {name} = "{binding.key}"  # {binding.description}')
    return "\n".join(lines) + "\n"
