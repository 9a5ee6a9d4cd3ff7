"""What the command palette lists of the running program."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from stoke.history.listing import GROUPS, ORDERS
from stoke.request.presets import Preset
from tui.messages import EditRequest, ShowJob
from tui.palette_entries import Entries, Entry, Program

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tui.context import Context
    from tui.jobs.screen import JobsScreen
    from tui.textual_patches.app import PatchedApp

_SETTINGS = ("mouse", "wrap", "stamps", "columns", "order", "reverse", "group")
"""Actions of keys that change how something is shown."""


def entries(
    app: PatchedApp,
    context: Context,
    titles: Mapping[str, str],
    switch: Callable[[str], object],
    jobs_screen: Callable[[], JobsScreen],
    find_keys: Callable[[str], object],
) -> Entries:
    """Return the entries of the palette. Over a dialog they are its keys: it must be answered first.

    `titles` are those of the screens, by the names that `switch` takes.
    """

    def open_preset(preset: Preset) -> None:
        if preset.spec is not None:
            app.post_message(EditRequest(preset.spec, preset.name, context.config.backend))

    program = Program(
        show_job=lambda job_id: app.post_message(ShowJob(job_id)),
        filter_jobs=lambda words: jobs_screen().filter(words),
        open_preset=open_preset,
        set_theme=lambda name: setattr(app, "theme", name),
        find_keys=find_keys,
    )
    screens = {
        mode: Entry("screen", title, _key(app, mode), partial(switch, mode))
        for mode, title in titles.items()
    }
    is_covered = app.screen.is_modal
    return Entries(
        context,
        program,
        screens={} if is_covered else screens,
        others=[*_keys(app), *(() if is_covered else _settings(jobs_screen))],
        themes=() if is_covered else app.available_themes,
        themed=app.theme,
        only_others=is_covered,
    )


def _key(app: PatchedApp, mode: str) -> str:
    """Return the key of a screen; empty where a text field takes it."""
    action = f"switch('{mode}')"
    keys = (
        app.get_key_display(binding)
        for _, binding, _, _ in app.screen.active_bindings.values()
        if binding.action == action
    )
    return next(keys, "")


def _keys(app: PatchedApp) -> Iterator[Entry]:
    """Yield what the keys do that work where the focus is."""
    seen = set()
    for node, binding, enabled, _ in app.screen.active_bindings.values():
        known = (id(node), binding.action)
        name = binding.action.partition("(")[0]
        if not enabled or not binding.id or not binding.description or known in seen:
            continue
        if name in ("switch", "palette"):
            continue
        seen.add(known)
        kind = "setting" if name in _SETTINGS else "key"
        run = partial(app.run_action, binding.action, node)
        yield Entry(kind, binding.description, app.get_key_display(binding), run)


def _settings(jobs_screen: Callable[[], JobsScreen]) -> Iterator[Entry]:
    """Yield the ways to arrange Jobs."""
    for order in ORDERS:
        run = partial(lambda order: jobs_screen().sort_by(order), order)
        yield Entry("setting", f"Sort jobs by {order}", "", run)
    for group in (*GROUPS, None):
        title = f"Group jobs by {group}" if group else "Do not group jobs"
        yield Entry(
            "setting", title, "", partial(lambda group: jobs_screen().group_by(group), group)
        )
