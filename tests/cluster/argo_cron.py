"""The stand-in's CronWorkflows: workflows that begin at the times of cron expressions.

As workflow/cron/operator.go of Argo Workflows 4.1 does it: names, labels and owners of the runs, the
timezone, `suspend`, `concurrencyPolicy` Forbid, missed runs within `startingDeadlineSeconds`, and the
status. History limits delete nothing here.
"""

from __future__ import annotations

import re
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import urllib3

from tests.cluster.api import Api, ApiError, Object
from tests.cluster.argo_pod import PREFIX
from tests.cluster.argo_spec import WORKFLOWS
from tests.cluster.manifests import GROUP, VERSION
from tests.cluster.workflow_fields import (
    Key,
    is_completed,
    object_key,
    object_uid,
)

LONGEST_NAME = 52
LOOK_SECONDS = 1.0
INSTANCE = f"{PREFIX}controller-instanceid"
_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_PART = re.compile(r"(?:(\*)|(\d+)(?:-(\d+))?)(?:/(\d+))?")


@dataclass
class _Known:
    spec: Object
    next: datetime


class CronWorkflows:
    """Begins the runs of all CronWorkflows that `take` got."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._crons: dict[Key, Object] = {}
        self._known: dict[str, _Known] = {}

    def take(self, what: str, found: Object) -> None:
        """Get a list of CronWorkflows, or a change of one, from a watch."""
        if what == "LISTED":
            self._crons = {object_key(one): one for one in found["items"]}
        elif what == "DELETED":
            self._crons.pop(object_key(found), None)
        else:
            self._crons[object_key(found)] = found

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            for cron in list(self._crons.values()):
                try:
                    self._look(cron)
                except (ApiError, urllib3.exceptions.HTTPError) as error:
                    print(f"{object_key(cron)}: {error}", flush=True)
                except Exception:
                    traceback.print_exc()  # one CronWorkflow must not end all
            time.sleep(LOOK_SECONDS)

    def _look(self, cron: Object) -> None:
        spec, uid = cron["spec"], object_uid(cron)
        now = datetime.now(ZoneInfo(spec.get("timezone", "UTC")))
        known = self._known.get(uid)
        try:
            if len(cron["metadata"]["name"]) > LONGEST_NAME:
                raise ValueError("cron workflow name must not be more than 52 characters long")
            (line,) = spec["schedules"]
            if known is None or known.spec != spec:
                self._known[uid] = _Known(spec, next_time(line, now))
                missed = self._missed(cron, line, now)
                if missed is not None:
                    self._begin(cron, missed)
            elif now >= known.next:
                self._known[uid] = _Known(spec, next_time(line, now))
                self._begin(cron, known.next)
        except ValueError as error:
            condition = {"type": "SpecError", "status": "True", "message": str(error)}
            if (cron.get("status") or {}).get("conditions") != [condition]:
                self._write(cron, {"conditions": [condition]})

    def _missed(self, cron: Object, line: str, now: datetime) -> datetime | None:
        """Return the newest time that was missed and is not too late."""
        last = (cron.get("status") or {}).get("lastScheduledTime")
        seconds = cron["spec"].get("startingDeadlineSeconds")
        if last is None or seconds is None:
            return None
        missed = None
        following = next_time(line, datetime.fromisoformat(last).astimezone(now.tzinfo))
        while following < now:
            missed, following = following, next_time(line, following)
        late = missed is not None and now >= missed + timedelta(seconds=seconds)
        return None if late else missed

    def _begin(self, cron: Object, at: datetime) -> None:
        namespace, name = object_key(cron)
        runs = self._runs(cron)
        if cron["spec"].get("suspend"):
            return
        if cron["spec"].get("concurrencyPolicy") == "Forbid" and runs:
            return
        planned = at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        about = cron["spec"].get("workflowMetadata") or {}
        labels = cron["metadata"].get("labels") or {}
        owner = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "CronWorkflow",
            "name": name,
            "uid": object_uid(cron),
            "controller": True,
            "blockOwnerDeletion": True,
        }
        workflow = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "Workflow",
            "metadata": {
                "name": f"{name}-{int(at.timestamp())}",
                "labels": {
                    **{one: text for one, text in labels.items() if one == INSTANCE},
                    f"{PREFIX}cron-workflow": name,
                    **(about.get("labels") or {}),
                },
                "annotations": {
                    f"{PREFIX}scheduled-time": planned,
                    **(about.get("annotations") or {}),
                },
                "ownerReferences": [owner],
            },
            "spec": cron["spec"]["workflowSpec"],
        }
        try:
            made = self._api.create(f"{WORKFLOWS}/namespaces/{namespace}/workflows", workflow)
        except ApiError as error:
            if error.reason == "AlreadyExists":
                return
            text = f"Failed to submit Workflow: {error.message}"
            condition = {"type": "SubmissionError", "status": "True", "message": text}
            self._write(cron, {"conditions": [condition]})
            return
        reference = {"kind": "Workflow", "name": made["metadata"]["name"], "uid": object_uid(made)}
        self._write(cron, {"active": [reference], "lastScheduledTime": planned, "conditions": None})

    def _runs(self, cron: Object) -> list[Object]:
        """Return the runs that have not ended."""
        namespace, name = object_key(cron)
        query = {"labelSelector": f"{PREFIX}cron-workflow={name}"}
        listed = self._api.get(f"{WORKFLOWS}/namespaces/{namespace}/workflows", query)
        return [
            one
            for one in listed["items"]
            if not is_completed(one)
            and object_uid(cron) in [o["uid"] for o in one["metadata"].get("ownerReferences", ())]
        ]

    def _write(self, cron: Object, status: Object) -> None:
        namespace, name = object_key(cron)
        self._api.merge(
            f"{WORKFLOWS}/namespaces/{namespace}/cronworkflows/{name}", {"status": status}
        )


def next_time(line: str, after: datetime) -> datetime:
    """Return the next time of an expression, as the package robfig/cron reads it: with `*`, without a
    step, in one of the two fields of days, both have to match; otherwise one is enough."""
    words = line.split()
    if len(words) != 5:
        raise ValueError(f"expected exactly 5 fields, found {len(words)}: [{line}]")
    fields = [set(_numbers(word, *range_)) for word, range_ in zip(words, _RANGES, strict=True)]
    minutes, hours, days, months, weekdays = fields
    both = any(re.search(r"\*(/1)?(,|$)", words[number]) for number in (2, 4))
    time = after.replace(second=0, microsecond=0) + timedelta(minutes=1)
    for _ in range(366 * 5):
        of_month, of_week = time.day in days, time.isoweekday() % 7 in weekdays
        matches = (of_month and of_week) if both else (of_month or of_week)
        if time.month in months and matches:
            today = time.date()
            while time.date() == today:
                if time.minute in minutes and time.hour in hours:
                    return time
                time += timedelta(minutes=1)
        else:
            time = time.replace(hour=0, minute=0) + timedelta(days=1)
    raise ValueError(f"no time in five years: {line}")


def _numbers(word: str, first: int, last: int) -> Iterator[int]:
    for part in word.split(","):
        found = _PART.fullmatch(part)
        if found is None:
            raise ValueError(f"failed to parse {part}")
        star, low, high, step = found.groups()
        begin = first if star else int(low)
        end = last if star or (step and high is None) else int(high or low)
        if not first <= begin <= end <= last:
            raise ValueError(f"{part} is out of range ({first}-{last})")
        yield from range(begin, end + 1, int(step or 1))
