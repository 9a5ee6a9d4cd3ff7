"""The command palette: every action that works where the focus is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from textual.command import DiscoveryHit, Hit, Hits, Provider

Command = tuple[str, str, Callable[[], Any]]


class Actions(Provider):
    """One command for each key: its description, the key, and its action."""

    def _commands(self) -> Iterator[Command]:
        seen = set()
        for node, binding, enabled, _ in self.screen.active_bindings.values():
            known = (id(node), binding.action)
            if not enabled or not binding.id or not binding.description or known in seen:
                continue
            seen.add(known)
            run = partial(self.app.run_action, binding.action, node)
            yield binding.description, self.app.get_key_display(binding), run

    async def discover(self) -> Hits:
        for name, key, run in self._commands():
            yield DiscoveryHit(name, run, help=f"key: {key}")

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for name, key, run in self._commands():
            score = matcher.match(name)
            if score > 0:
                yield Hit(score, matcher.highlight(name), run, help=f"key: {key}")
