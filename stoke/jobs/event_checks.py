"""Check the events of a job against forgery by the user's code.

The runner marks its events with the job's nonce. The user's code can read that nonce (from /proc, from
the runner's memory) and print events of its own. An event is therefore accepted only if the runner
could have written it at that point of the job, with times that fit the engine's timestamps of the log.
Text that arrives after the code has begun is marked as the job's. A hint arrives as a code, whose text
is ours (`stoke.remote.hints`), and is accepted only before the code has begun.

Before the user's code begins, only the runner and the build steps of packages can write.
"""

from __future__ import annotations

import re
import time
from typing import Any

from stoke.history.job import PREPARING_PHASES, Job
from stoke.remote.events import Event
from stoke.remote.hints import hint_text
from stoke.remote.protocol import ProgressStage

RUN, RESULTS = "run", "results"
MARKED = "the job reports: "
"""The prefix of every text that the user's code may have written."""
# The reasons of an end for which the runner sends no error event.
_REASONS = re.compile(
    r"stopped|interrupted|timeout|out of memory|killed by signal \d{1,2}"
    r"|its terminal was closed|the shell ended with exit code \d{1,3}"
)
# How far an event's time may be from the engine's timestamp of the line that carries it, in seconds.
_TOLERANCE = 5.0
_MOST_NOTES = 100
_MOST_TEXT = 4000
_MOST_MARKED = 300
_MOST_PACKAGES = 100_000
_MOST_FILES = 1 << 30
_MOST_BYTES = 1 << 50
_MOST_CORES = 4096
# Seconds between two figures of usage or progress, by the engine's timestamps. The runner waits
# longer, but an engine may write late.
_LEAST_BETWEEN = 0.5
_MOST_LEFT = 3
_MOST_REMAINING = 86_400
_NAME = re.compile(r"[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]{0,299}")
_KEY = re.compile(r"[A-Za-z0-9_.+-]{1,200}")


class EventChecks:
    """Check the events of one job, in the order of its log. `job` is its record so far."""

    def __init__(self, job: Job) -> None:
        self._submitted_at = job.submitted_at
        self._backend, self._scope = job.backend, job.scope
        self._run_began = job.started_at is not None
        # An end that the engine reported is provisional too, before the log is read. Only the runner
        # reports processor time, after the code has run.
        self._ended = job.provisional and job.cpu_seconds is not None
        starts = [one.started_at for one in job.phases if one.name in (*PREPARING_PHASES, RUN)]
        self._earliest = min(starts, default=None)
        self._notes = 0
        self._usage_at = self._progress_at = 0.0
        # The reason of an end may repeat the first line of an error, or its first and last line, each
        # with or without the phase.
        self._told: tuple[str, ...] = ()

    def admit(self, event: Event, at: float) -> Event | None:
        """Return the accepted parts of an event, or None.

        `at` is the engine's time (epoch seconds) of the log line that carried the event.
        """
        kind = event["event"]
        check = {
            "begin": self._begin,
            "phase": self._phase,
            "packages": self._packages,
            "note": self._note,
            "error": self._error_event,
            "progress": self._progress,
            "usage": self._usage,
            "end": self._end,
        }.get(kind)
        return check(event, at) if check is not None else None

    def _begin(self, event: Event, at: float) -> Event | None:
        name = event["phase"]
        if self._run_began or self._ended or name not in (*PREPARING_PHASES, RUN):
            return None
        self._run_began = name == RUN
        began = self._time(event["time"], at)
        if self._earliest is None:
            self._earliest = began
        return {"event": "begin", "phase": name, "time": began}

    def _phase(self, event: Event, at: float) -> Event | None:
        name = event["phase"]
        if name not in (*PREPARING_PHASES, RUN, RESULTS):
            return None
        if (name in (RUN, RESULTS)) != self._run_began:
            return None
        start = self._time(event["start"], at)
        checked: Event = {
            "event": "phase",
            "phase": name,
            "start": start,
            "seconds": min(max(0.0, event["seconds"]), self._most_seconds(start, at)),
            "bytes": _count(event.get("bytes"), _MOST_BYTES),
        }
        if name == RUN:
            return checked
        if name == RESULTS:  # Only the collected results count.
            return checked | {"bytes": None}
        key, made_at = event.get("key"), event.get("made_at")
        return checked | {
            "hit": event.get("hit"),
            "packages": _count(event.get("packages"), _MOST_PACKAGES),
            "cached": _count(event.get("cached"), _MOST_PACKAGES),
            "files": _count(event.get("files"), _MOST_FILES),
            "key": key if key is not None and _KEY.fullmatch(key) else None,
            "made_at": None if made_at is None else min(max(0.0, made_at), at),
        }

    def _packages(self, event: Event, _at: float) -> Event | None:
        if self._run_began or self._ended or event["phase"] not in PREPARING_PHASES:
            return None
        return {
            "event": "packages",
            "phase": event["phase"],
            "hit": _names(event["hit"]),
            "miss": _names(event["miss"]),
        }

    def _note(self, event: Event, _at: float) -> Event | None:
        self._notes += 1
        if self._run_began or self._ended or self._notes > _MOST_NOTES:
            return None
        return {"event": "note", "text": _bounded(event["text"], _MOST_TEXT)}

    def _error_event(self, event: Event, _at: float) -> Event | None:
        name, text, tail = event["phase"], event["text"], event.get("tail")
        hint = hint_text(event.get("hint"), self._backend, self._scope)
        self._notes += 1
        if self._ended or self._notes > _MOST_NOTES or name not in (*PREPARING_PHASES, RUN):
            return None
        if self._run_began:
            if name != RUN:
                return None
            text, tail, hint = _marked(text), None, None
        else:
            lines = text.split("\n")
            said = (lines[0], f"{lines[0]}: {lines[-1]}")
            self._told = tuple(begin + one for one in said for begin in ("", f"{name}: "))
        checked = {
            "event": "error",
            "phase": name,
            "text": _bounded(text, _MOST_TEXT),
            "hint": hint,
        }
        return checked if tail is None else {**checked, "tail": _bounded(tail, _MOST_TEXT)}

    def _progress(self, event: Event, at: float) -> Event | None:
        is_phase = event["phase"] in PREPARING_PHASES and event["stage"] in ProgressStage.ALL
        if (
            self._run_began
            or self._ended
            or at - self._progress_at < _LEAST_BETWEEN
            or not is_phase
        ):
            return None
        self._progress_at = at
        return {
            "event": "progress",
            "phase": event["phase"],
            "stage": event["stage"],
            "packages": _count(event["packages"], _MOST_PACKAGES),
            "left": _names(event["left"])[:_MOST_LEFT],
            "bytes": _count(event.get("bytes"), _MOST_BYTES),
            "total": _count(event.get("total"), _MOST_BYTES),
            "seconds": _count(event.get("seconds"), _MOST_REMAINING),
        }

    def _usage(self, event: Event, at: float) -> Event | None:
        """Accept plausible figures of running code, as seldom as the runner sends them.

        The code can forge such figures, which are about nothing but itself.
        """
        cores, memory = event["cores"], event["memory"]
        if not self._run_began or self._ended or at - self._usage_at < _LEAST_BETWEEN:
            return None
        if not 0 <= cores <= _MOST_CORES or not 0 <= memory <= _MOST_BYTES:
            return None
        self._usage_at = at
        time_of = self._time(event["time"], at)
        return {"event": "usage", "time": time_of, "cores": float(cores), "memory": memory}

    def _end(self, event: Event, at: float) -> Event | None:
        if not 0 <= event["exit_code"] <= 255:
            return None
        self._ended = True
        cpu_seconds = event.get("cpu_seconds")
        return {
            "event": "end",
            "time": self._time(event["time"], at),
            "exit_code": event["exit_code"],
            "reason": self._reason(event.get("reason")),
            "cpu_seconds": None if cpu_seconds is None else max(0.0, cpu_seconds),
            "peak_memory": _count(event.get("peak_memory"), _MOST_BYTES),
            "held": event.get("held"),
        }

    def _reason(self, reason: str | None) -> str | None:
        if reason is None or _REASONS.fullmatch(reason):
            return reason
        of_error = not self._run_began and any(one.startswith(reason) for one in self._told)
        return reason if of_error else _marked(reason)

    def _time(self, told: float, at: float) -> float:
        """Return the time in an event, moved into the range that the log's timestamps allow."""
        least = at - _TOLERANCE if self._earliest is None else min(self._earliest, at)
        return min(max(told, least), at)

    def _most_seconds(self, start: float, at: float) -> float:
        """Return the longest time that a phase can have taken.

        The client's clock counts as well, because the job's clock may be set back during a phase.
        """
        return max(at - start, time.time() - self._submitted_at) + _TOLERANCE


def _marked(text: str) -> str:
    return MARKED + _bounded(" ".join(text.split()), _MOST_MARKED)


def _bounded(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + " ..."


def _count(value: Any, most: int) -> int | None:
    return None if value is None else min(max(0, int(value)), most)


def _names(listed: list[object]) -> list[str]:
    return [name for name in listed if isinstance(name, str) and _NAME.fullmatch(name)]
