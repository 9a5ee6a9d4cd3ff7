"""Rows of the history, and the jobs and phases that they hold.

Any value in a row can be damaged. A damaged value reads as unknown, and `Job.damage` names it.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

from stoke.history.job import CODE, PHASES, Counts, Job, JobState, Phase, Prediction

# What `_checked` accepts in a column: a type, and whether the value is required.
_TEXT, NUMBER, _FLAG, TIME, _SECONDS = "text", "a number", "a flag", "a time", "seconds"
JOB_KINDS = {
    **dict.fromkeys(("id", "name", "backend", "scope", "state"), (_TEXT, True)),
    **dict.fromkeys(
        (
            "reason", "image", "request_hash", "python_hash", "system_hash", "predicted_python",
            "predicted_system", "predicted_counts", "results_problem", "checkpoint", "job_kind",
            "sweep", "schedule",
        ),
        (_TEXT, False),
    ),
    **dict.fromkeys(
        ("log_lines", "log_bytes", "log_gaps", "results_files", "results_bytes"), (NUMBER, True)
    ),
    **dict.fromkeys(("exit_code", "peak_memory", "task"), (NUMBER, False)),
    **dict.fromkeys(("provisional", "stop_requested"), (_FLAG, True)),
    "submitted_at": (TIME, True),
    **dict.fromkeys(("started_at", "finished_at", "results_at", "held_until"), (TIME, False)),
    **dict.fromkeys(("cpu_seconds", "predicted_seconds"), (_SECONDS, False)),
}  # fmt: skip
PHASE_KINDS = {
    "name": (_TEXT, True), "started_at": (TIME, True), "seconds": (_SECONDS, False),
    "hit": (_FLAG, False), "packages": (NUMBER, False), "cached": (NUMBER, False),
    "bytes": (NUMBER, False), "key": (_TEXT, False), "made_at": (TIME, False),
    "activity": (_TEXT, False),
}  # fmt: skip
_REPLACEMENTS: dict[str, object] = {_TEXT: "?", NUMBER: 0, _FLAG: 0, TIME: 0.0}
LONGEST_TEXT = 64 * 1024
"""Longer text in one column counts as damage and is cut."""
LATEST = 250_000_000_000.0
"""Later times (after the year 9892) count as damage, because `datetime` cannot hold them."""
_NO_NAME = re.compile(r"damaged-row-(\d{1,18})")
_ID = re.compile(r"[A-Za-z0-9][^/\0\n\r]{0,252}")
# In the order in which `_checked` takes a row's values; row number and job id come last.
JOB_COLUMNS = ", ".join([*JOB_KINDS, "rowid"])
PHASE_COLUMNS = ", ".join([*PHASE_KINDS, "job_id"])


def named(job_id: str) -> tuple[str, object]:
    """Return the SQL condition that finds a job, and its value.

    A row with a damaged id is found by its row number (see `name_of`).
    """
    unnamed = _NO_NAME.fullmatch(job_id)
    return ("rowid = ?", int(unnamed[1])) if unnamed else ("id = ?", job_id)


def name_of(job_id: object, rowid: int) -> str:
    """Return a job's id, or a substitute for a damaged one. Ids become names of folders."""
    sound = isinstance(job_id, str) and _ID.fullmatch(job_id)
    return str(job_id) if sound else f"damaged-row-{rowid}"


def job_of(row: sqlite3.Row) -> Job:
    values, wrong = _checked(row, JOB_KINDS)
    state, counts = _STATES.get(values["state"]), _counts(values["predicted_counts"])
    if state is None:
        if "state" not in wrong:
            wrong["state"] = f"state {values['state'][:40]!r} is unknown"
        state = JobState.LOST
        values["provisional"] = 0
    if counts is None:
        wrong["predicted_counts"] = "predicted_counts is no JSON of counts"
    name = name_of(row["id"], row["rowid"])
    if name != row["id"]:
        wrong["id"] = f"id {str(row['id'])[:40]!r} names no job"
        values["id"] = name
    damage = "; ".join(wrong.values()) or None
    if "state" in wrong:
        values["reason"] = f"its record is damaged: {damage}"
    return Job(
        id=values["id"],
        name=values["name"],
        backend=values["backend"],
        scope=values["scope"],
        state=state,
        submitted_at=values["submitted_at"],
        provisional=bool(values["provisional"]),
        exit_code=values["exit_code"],
        reason=values["reason"],
        started_at=values["started_at"],
        finished_at=values["finished_at"],
        cpu_seconds=values["cpu_seconds"],
        peak_memory=values["peak_memory"],
        image=values["image"],
        request_hash=values["request_hash"],
        python_hash=values["python_hash"],
        system_hash=values["system_hash"],
        predicted=Prediction(
            values["predicted_python"],
            values["predicted_system"],
            values["predicted_seconds"],
            counts or {},
        ),
        log_lines=values["log_lines"],
        log_bytes=values["log_bytes"],
        log_gaps=values["log_gaps"],
        stop_requested=bool(values["stop_requested"]),
        results_files=values["results_files"],
        results_bytes=values["results_bytes"],
        results_at=values["results_at"],
        results_problem=values["results_problem"],
        checkpoint=values["checkpoint"],
        kind=values["job_kind"] or CODE,
        sweep=values["sweep"],
        task=values["task"],
        schedule=values["schedule"],
        held_until=values["held_until"],
        damage=damage,
    )


_STATES: dict[object, JobState] = {state.value: state for state in JobState}


def _checked(
    row: sqlite3.Row, kinds: Mapping[str, tuple[str, bool]]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a row's values and its damage by column. A damaged value reads as unknown."""
    values: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    for (name, (kind, required)), value in zip(kinds.items(), row, strict=False):
        if (value is None and not required) or is_sound(value, kind):
            values[name] = value
            continue
        wrong[name] = f"{name} is {'missing' if value is None else f'not {kind}'}"
        values[name] = _REPLACEMENTS[kind] if required else None
        if isinstance(value, str):
            wrong[name] += f" ({value[:40]!r})"
            if kind is _TEXT:
                wrong[name] = f"{name} is {len(value):,} characters long"
                values[name] = value[:200]
    return values, wrong


def is_sound(value: object, kind: str) -> bool:
    if kind is _TEXT:
        return isinstance(value, str) and len(value) <= LONGEST_TEXT
    if kind is NUMBER or kind is _FLAG:
        return isinstance(value, int)
    # Infinity and NaN are outside these bounds.
    return isinstance(value, int | float) and (0 if kind is TIME else -LATEST) <= value <= LATEST


def is_spec(text: object) -> bool:
    try:
        return isinstance(text, str) and isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def texts(rows: Iterable[sqlite3.Row], column: str) -> list[str]:
    return [row[column] for row in rows if isinstance(row[column], str)]


def position_of(phase: Phase) -> int:
    """Return a phase's position; a phase of another version of the runner comes last."""
    return PHASES.index(phase.name) if phase.name in PHASES else len(PHASES)


def phase_of(row: sqlite3.Row) -> tuple[Phase | None, str]:
    """Return a phase and the damage of its record; None for one without a name or a start."""
    values, wrong = _checked(row, PHASE_KINDS)
    told = f"a phase is damaged ({', '.join(wrong.values())})" if wrong else ""
    if "name" in wrong or "started_at" in wrong:
        return None, told
    if values["hit"] is not None:
        values["hit"] = bool(values["hit"])
    return Phase(**values), told


def counts_text(prediction: Prediction) -> str | None:
    counts = {
        kind: [one.cached, one.packages, one.named] for kind, one in prediction.counts.items()
    }
    return json.dumps(counts) if counts else None


def _counts(text: str | None) -> dict[str, Counts] | None:
    """Parse the text of `counts_text`; None for any other text."""
    if not text:
        return {}
    try:
        counts = {kind: Counts(*row) for kind, row in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    sound = all(
        isinstance(one.cached, int) and isinstance(one.packages, int) for one in counts.values()
    )
    return counts if sound else None
