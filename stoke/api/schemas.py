"""Schemas and examples of the OpenAPI document."""

from __future__ import annotations

from typing import Any

from stoke.api.client_request import EARLIER_CODE
from stoke.history.job import JobState

_TEXT: dict[str, Any] = {"type": "string"}
_MAYBE_TEXT: dict[str, Any] = {"type": ["string", "null"]}
_MAYBE_NUMBER: dict[str, Any] = {"type": ["number", "null"]}
_TIME: dict[str, Any] = {"type": ["string", "null"], "format": "date-time"}

JOB: dict[str, Any] = {"$ref": "#/components/schemas/Job"}
JOBS: dict[str, Any] = {
    "type": "object",
    "required": ["tasks", "total", "offset", "next"],
    "properties": {
        "tasks": {"type": "array", "items": JOB},
        "total": {"type": "integer"},
        "offset": {"type": "integer"},
        "next": {"type": ["integer", "null"], "description": "The offset of the next page."},
    },
}
SUBMISSION: dict[str, Any] = {
    "anyOf": [
        {"$ref": "#/components/schemas/EarlierRequest"},
        {"$ref": "#/components/schemas/Request"},
    ]
}
EARLIER: dict[str, Any] = {
    "type": "object",
    "description": "The request of the earlier service. Every field has a default.",
    "additionalProperties": False,
    "properties": {
        "pythonCode": {**_TEXT, "default": EARLIER_CODE},
        "dependencies": {
            **_MAYBE_TEXT,
            "description": "Python packages, between commas or spaces.",
        },
        "requirementsFile": {**_MAYBE_TEXT, "description": "Text of a requirements file."},
        "systemDependencies": {**_MAYBE_TEXT, "description": "Names in nixpkgs, as dependencies."},
        "useCache": {"type": "boolean", "default": True},
    },
}
EARLIER_EXAMPLES: dict[str, Any] = {
    "earlier": {
        "pythonCode": "import numpy as np; print(np.array([1,2,3]))",
        "dependencies": "numpy",
        "useCache": True,
    },
    "defaults": {},
    "own": {
        "code": "print(6 * 7)",
        "dependencies": ["numpy>=2"],
        "python": "3.13",
        "timeout": "5m",
        "results": ["out/*.csv"],
    },
}
JOB_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "A job, as stoke show --json prints it. Times are RFC 3339 in UTC, sizes bytes, "
    "durations seconds; null is unknown.",
    "required": ["id", "name", "backend", "scope", "state", "provisional", "submitted_at"],
    "properties": {
        "id": _TEXT,
        "name": _TEXT,
        "kind": _TEXT,
        "backend": _TEXT,
        "scope": _TEXT,
        "state": {"type": "string", "enum": [state.value for state in JobState]},
        "provisional": {"type": "boolean", "description": "Its end is not confirmed yet."},
        "stale": {"type": "boolean", "description": "Its engine did not answer."},
        "exit_code": {"type": ["integer", "null"]},
        "reason": _MAYBE_TEXT,
        "submitted_at": _TIME,
        "started_at": _TIME,
        "finished_at": _TIME,
        "seconds": _MAYBE_NUMBER,
        "cpu_seconds": _MAYBE_NUMBER,
        "peak_memory": _MAYBE_NUMBER,
        "phases": {"type": "array", "items": {"type": "object"}},
        "predicted": {"type": ["object", "null"]},
        "packages": {"type": "object"},
        "notes": {"type": "array", "items": {"type": "object"}},
        "log": {"type": "object"},
        "results": {"type": "object"},
        "attempts": {"type": "array", "items": {"type": "object"}},
        "damage": _MAYBE_TEXT,
        "schedule": {**_MAYBE_TEXT, "description": "The schedule that it is a run of."},
        "task_of": {
            "type": ["object", "null"],
            "description": "The sweep that it is a task of, and its number there.",
        },
        "sweep": {
            "type": ["object", "null"],
            "description": "Of a sweep: its tasks, their states, rate and remaining time.",
        },
        "spec": {"type": ["object", "null"], "description": "Its request, without secrets."},
    },
}
JOB_EXAMPLE: dict[str, Any] = {
    "id": "job-7k2pqa",
    "name": "job",
    "kind": "code",
    "backend": "local",
    "scope": "default",
    "state": "succeeded",
    "provisional": False,
    "stale": False,
    "exit_code": 0,
    "reason": None,
    "submitted_at": "2026-11-21T12:03:45.120Z",
    "started_at": "2026-11-21T12:03:45.300Z",
    "finished_at": "2026-11-21T12:03:45.410Z",
    "seconds": 0.29,
    "cpu_seconds": 0.05,
    "peak_memory": 11_534_336,
    "log": {"lines": 1, "bytes": 3, "gaps": 0},
    "results": {
        "files": 0,
        "bytes": 0,
        "collected_at": "2026-11-21T12:03:45.420Z",
        "problem": None,
    },
    "spec": {"code": "print(6 * 7)"},
}
RESULTS: dict[str, Any] = {
    "type": "object",
    "required": ["job", "bytes", "files"],
    "properties": {
        "job": _TEXT,
        "bytes": {"type": "integer"},
        "files": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["path", "bytes", "sha256", "href"],
                "properties": {
                    "path": _TEXT,
                    "bytes": {"type": "integer"},
                    "sha256": _TEXT,
                    "href": {**_TEXT, "description": "Where the file is read."},
                },
            },
        },
        "refused": {"type": "array", "items": {"type": "object"}},
        "refused_count": {"type": "integer"},
    },
}
RESULTS_EXAMPLE: dict[str, Any] = {
    "job": "job-7k2pqa",
    "bytes": 3,
    "files": [
        {
            "path": "out/scores.csv",
            "bytes": 3,
            "sha256": "e38c3a7a0cbe8bb2ab6c5a3c3b1f9f0dbb6d6ee1d2f0a6a4f2b4e0f3b9f6d2aa",
            "href": "/api/v1/tasks/job-7k2pqa/results/files/out/scores.csv",
        }
    ],
    "refused": [],
    "refused_count": 0,
}
VOLUME: dict[str, Any] = {
    "type": "object",
    "required": ["backend", "scope", "kind", "name"],
    "properties": {
        "backend": _TEXT,
        "node": _MAYBE_TEXT,
        "scope": _TEXT,
        "kind": {"type": "string", "enum": ["python", "system"]},
        "name": _TEXT,
        "bytes": _MAYBE_NUMBER,
        "measured_at": _TIME,
        "entries": _MAYBE_NUMBER,
        "hit_rate": _MAYBE_NUMBER,
        "saved_seconds": _MAYBE_NUMBER,
        "saved_bytes": _MAYBE_NUMBER,
        "in_use_by": {"type": "array", "items": _TEXT},
    },
}
VOLUMES: dict[str, Any] = {
    "type": "object",
    "required": ["caches", "unanswered"],
    "properties": {
        "caches": {"type": "array", "items": VOLUME},
        "unanswered": {
            "type": "array",
            "description": "Backends that did not answer.",
            "items": {"type": "object"},
        },
    },
}
FREED: dict[str, Any] = {
    "type": "object",
    "required": ["freed", "caches"],
    "properties": {
        "freed": {"type": "integer", "description": "Bytes."},
        "caches": {"type": "array", "items": {"type": "object"}},
    },
}
PROBLEM: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": _TEXT,
        "title": _TEXT,
        "status": {"type": "integer"},
        "detail": _TEXT,
        "field": {**_TEXT, "description": "The path of the wrong field."},
        "hint": {**_TEXT, "description": "How to correct it."},
    },
}
