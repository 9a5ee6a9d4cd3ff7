"""What the command palette finds: jobs, presets, themes, screens, settings, keys, and its commands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from stoke.errors import StokeError
from stoke.history.job import Job
from stoke.history.listing import Listing, ListingQuery
from stoke.request import presets
from stoke.text.sanitize import clean
from tui import format as fmt
from tui.context import Context

MOST_JOBS = 8
MOST_RECENT = 20


@dataclass(frozen=True)
class Entry:
    """One line of the palette. Equal `kind` and `title` mean the same thing at the next start too."""

    kind: str
    title: str
    detail: str
    run: Callable[[], Any]

    @property
    def id(self) -> str:
        return f"{self.kind} {self.title}"


class Program(NamedTuple):
    """What the entries ask of the program."""

    show_job: Callable[[str], Any]
    filter_jobs: Callable[[str], Any]
    open_preset: Callable[[presets.Preset], Any]
    set_theme: Callable[[str], Any]
    find_keys: Callable[[str], Any]


class Entries:
    """All entries, as they were when the palette opened. `others` are settings, and the keys that
    worked there; `screens` come in the order of their modes."""

    def __init__(
        self,
        context: Context,
        program: Program,
        screens: dict[str, Entry],
        others: Iterable[Entry],
        themes: Iterable[str],
        themed: str,
        only_others: bool,
    ) -> None:
        self._context = context
        self._program = program
        self._listing = Listing(context.reading)
        self._screens = screens
        self._others = list(others)
        self._only_others = only_others
        self._themes = [
            Entry(
                "theme",
                name,
                "current" if name == themed else "",
                partial(program.set_theme, name),
            )
            for name in sorted(themes)
        ]
        self._presets = [
            Entry("preset", one.name, _packages(one), partial(program.open_preset, one))
            for one in ([] if only_others else presets.found())
            if one.spec is not None
        ]

    # --- what was used last -----------------------------------------------------------------------

    def _recent(self) -> list[str]:
        stored = self._context.ui_state.get("palette")
        return [one for one in stored if isinstance(one, str)] if isinstance(stored, list) else []

    def remember(self, entry: Entry) -> None:
        """Put an entry before all others from now on, and after the next start."""
        if entry.kind == "command":
            return
        rest = [one for one in self._recent() if one != entry.id]
        self._context.ui_state.set(palette=[entry.id, *rest][:MOST_RECENT])

    # --- search -----------------------------------------------------------------------------------

    def find(self, text: str) -> list[Entry]:
        """Return the entries for what was typed; after a colon, commands come first."""
        words = text.strip().lstrip(":").lstrip()
        is_command = text.lstrip().startswith(":") and not self._only_others
        found = self._command(words) if is_command else []
        known = {entry.id for entry in found}
        return [*found, *(entry for entry in self._search(words) if entry.id not in known)]

    def _search(self, words: str) -> list[Entry]:
        recent = {known: place for place, known in enumerate(self._recent())}
        ranked = []
        entries = (*self._screens.values(), *self._others, *self._presets, *self._themes)
        for entry in entries:
            rank = _rank(entry, words.casefold().split())
            if rank is not None:
                ranked.append((recent.get(entry.id, MOST_RECENT), rank, entry))
        # The listing matches packages and states too, so its jobs are not ranked again.
        for job in self._jobs(words):
            entry = self._job_entry(job)
            ranked.append((recent.get(entry.id, MOST_RECENT), 1 if words else -1, entry))
        ranked.sort(key=lambda one: one[:2])
        return [entry for *_, entry in ranked]

    def _jobs(self, words: str) -> list[Job]:
        """Return the newest jobs that the filter of Jobs would list."""
        if self._only_others:
            return []
        try:
            self._listing.read(ListingQuery(words=words), self._context.clock())
            shown = range(min(len(self._listing), MOST_JOBS))
            return [job for place in shown if (job := self._listing.job(place)) is not None]
        except StokeError:
            return []  # Jobs shows what is wrong with the history.

    def _job_entry(self, job: Job) -> Entry:
        age = fmt.duration(max(0.0, self._context.clock() - job.submitted_at))
        detail = f"{job.state.value}, {age} ago, {job.backend}"
        return Entry("job", job.id, detail, lambda: self._program.show_job(job.id))

    # --- commands ---------------------------------------------------------------------------------

    def _command(self, words: str) -> list[Entry]:
        name, blank, argument = words.partition(" ")
        argument = argument.strip()
        commands = self._commands()
        if blank and name.casefold() in commands:
            _, expand = commands[name.casefold()]
            return list(expand(argument))
        begun = name.casefold()
        return [
            found
            for command, (help_text, expand) in commands.items()
            if command.startswith(begun) and not blank
            for found in [_named(command, help_text, expand)]
        ]

    def _commands(self) -> dict[str, tuple[str, Callable[[str], Iterator[Entry]]]]:
        """Return each command with its help and what it offers for an argument, the best first."""

        def screen(mode: str) -> Callable[[str], Iterator[Entry]]:
            return lambda _: iter([self._screens[mode]])

        def jobs(argument: str) -> Iterator[Entry]:
            title = f"Jobs that match {argument}" if argument else "All jobs"
            yield Entry("command", title, "", lambda: self._program.filter_jobs(argument))

        def logs(argument: str) -> Iterator[Entry]:
            return (self._job_entry(job) for job in self._jobs(argument))

        def help_(argument: str) -> Iterator[Entry]:
            title = f"Keys that match {argument}" if argument else "All keys"
            yield Entry("command", title, "", lambda: self._program.find_keys(argument))

        def among(entries: list[Entry]) -> Callable[[str], Iterator[Entry]]:
            def matching(argument: str) -> Iterator[Entry]:
                words = argument.casefold().split()
                ranked = [(rank, one) for one in entries if (rank := _rank(one, words)) is not None]
                ranked.sort(key=lambda pair: pair[0])
                return (one for _, one in ranked)

            return matching

        return {
            "jobs": ("WORDS: list the jobs that match, as / does", jobs),
            "logs": ("JOB: show the log of the newest job that matches", logs),
            "new": ("write a job", screen("new")),
            "caches": ("sizes and contents of the caches", screen("caches")),
            "metrics": ("what the caches saved", screen("metrics")),
            "race": ("a cold run beside a warm one", screen("race")),
            "preset": ("NAME: put a preset into the form", among(self._presets)),
            "theme": ("NAME: change the colours", among(self._themes)),
            "help": ("WORDS: search the keys", help_),
        }


def _named(command: str, help_text: str, expand: Callable[[str], Iterator[Entry]]) -> Entry:
    """Return the entry of a command that was typed without its argument."""
    first = next(expand(""), None)
    return Entry("command", f":{command}", help_text, first.run if first else lambda: None)


def _packages(preset: presets.Preset) -> str:
    spec = preset.spec
    return ", ".join((*spec.dependencies, *spec.system) if spec else ()) or "no packages"


def _rank(entry: Entry, words: list[str]) -> int | None:
    """Return how well an entry matches, 0 the best; None if a word is nowhere in it."""
    title = entry.title.casefold()
    everything = f"{title} {entry.kind} {entry.detail.casefold()}"
    if not all(word in everything for word in words):
        return None
    if title.startswith(" ".join(words)):
        return 0
    return 1 if all(f" {word}" in f" {title}" for word in words) else 2


def shown(entry: Entry) -> str:
    """Return the title as a terminal may have it."""
    return clean(entry.title)
