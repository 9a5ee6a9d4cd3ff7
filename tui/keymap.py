"""Keys of one's own: keys.toml beside config.toml, a table a screen, an action and its keys.

    [jobs]
    stop = "x"
    find = "slash,ctrl+f"

`stoke setup keys` prints such a file with every action in it. What is wrong with a line is said at
the start, and that action keeps its own keys.
"""

from __future__ import annotations

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
    """Every action that has an id, by that id."""
    for module in walk_packages(tui.__path__, "tui."):
        import_module(module.name)
    found: dict[str, Binding] = {}
    for node in _ours(DOMNode):
        for binding in node.__dict__.get("BINDINGS", ()):
            if isinstance(binding, Binding) and binding.id:
                found.setdefault(binding.id, binding)
    return dict(sorted(found.items()))


def _ours(node: type[DOMNode]) -> Iterator[type[DOMNode]]:
    for below in node.__subclasses__():
        if below.__module__.startswith("tui."):
            yield below
        yield from _ours(below)


def load() -> tuple[dict[str, str], list[str]]:
    """(keys by an action's id, what is wrong with the file)."""
    path = config_file().parent / FILE
    if not path.exists():
        return {}, []
    try:
        given = read_toml(path)
    except (OSError, ValueError) as error:
        return {}, [f"{path} cannot be read, every key is as it was: {error}"]
    known = actions()
    wanted: dict[str, str] = {}
    wrong: list[str] = []
    for group, table in given.items():
        for name, keys in table.items() if isinstance(table, dict) else ((None, table),):
            action = f"{group}.{name}" if name else group
            problem = _problem(action, keys, known)
            if problem:
                wrong.append(f"{path.name}: {problem}")
            else:
                wanted[action] = ",".join(_keys(keys))
    wanted, clashes = without_clashes(known, wanted)
    return wanted, wrong + [f"{path.name}: {clash}" for clash in clashes]


def _problem(action: str, keys: object, known: dict[str, Binding]) -> str | None:
    if action not in known:
        near = get_close_matches(action, known, 1)
        return f"there is no action {action}" + (f"; did you mean {near[0]}?" if near else "")
    if not isinstance(keys, str) or not all(_keys(keys)):
        return f"{action} needs keys as text, for example x or ctrl+x"
    return None


def _keys(text: str) -> list[str]:
    """Each key by its long name, as Textual knows it: `slash` for `/`."""
    keys = (key.strip() for key in text.split(","))
    return [_character_to_key(key) if len(key) == 1 else key for key in keys]


def without_clashes(
    known: dict[str, Binding], wanted: dict[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Takes out what would put a second action on a key of the same screen, or hide one of the
    program's own keys; says which. Actions that share a key already may go on doing so."""
    keys = {action: set(_keys(binding.key)) for action, binding in known.items()}
    before = {action: set(own) for action, own in keys.items()}
    clashes = []
    kept = {}
    for action, text in wanted.items():
        keys[action] = set(_keys(text))
    for action, text in wanted.items():
        group = action.partition(".")[0]
        others = [
            other
            for other in keys
            if other != action
            and (group == "app" or other.partition(".")[0] in (group, "app"))
            and (keys[action] & keys[other]) - (before[action] & before[other])
        ]
        if others:
            taken = ", ".join(sorted(keys[action] & keys[others[0]]))
            clashes.append(f"{taken} is taken by {others[0]} already; {action} keeps its own")
            keys[action] = before[action]
        else:
            kept[action] = text
    return kept, clashes


def as_file() -> str:
    """A keys.toml with every action and the keys it has, as comments."""
    lines = [
        f"# Keys of your own. Put this into {FILE} beside config.toml and change what you like."
    ]
    group = None
    for action, binding in actions().items():
        above, _, name = action.partition(".")
        if above != group:
            group = above
            lines += ["", f"[{group}]"]
        lines.append(f'# {name} = "{binding.key}"  # {binding.description}')
    return "\n".join(lines) + "\n"
