"""The mark that lets a job's code start once, whatever answers of the API server are lost."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from backends.argo.single_start import NOT_SURE, PAUSES, POD, STARTED_BEFORE, why_not_started


class ApiServer:
    """Keeps one task result. Each request is served and answered, served and not answered, or lost."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] | None = None
        self.fates: list[str] = []
        self.requested = 0

    def ask(self, method: str, name: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.requested += 1
        fate = self.fates.pop(0) if self.fates else "answered"
        if fate == "lost":
            return 0, {"message": "timed out"}
        answer = self._serve(method, body)
        return (0, {"message": "reset"}) if fate == "unanswered" else answer

    def _serve(self, method: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if method == "POST":
            if self.kept is not None:
                return 409, {"message": "already exists"}
            self.kept = body
            return 201, body
        assert method == "PATCH" and body == {}
        return (404, {}) if self.kept is None else (200, self.kept)


def result(pod: str) -> dict[str, Any]:
    return {"metadata": {"name": "job-started", "labels": {POD: pod}}}


FATES = st.lists(st.sampled_from(["answered", "unanswered", "lost"]), max_size=14)


@given(st.lists(FATES, min_size=1, max_size=4))
def test_of_any_number_of_pods_at_most_one_starts(fates: list[list[str]]) -> None:
    server = ApiServer()
    said = []
    for number, of_pod in enumerate(fates):
        server.fates = list(of_pod)
        said.append(why_not_started(server.ask, result(f"pod-{number}"), lambda _: None))
    assert said.count(None) <= 1
    assert all(one.startswith((STARTED_BEFORE, NOT_SURE)) for one in said if one is not None)
    if all(not of_pod for of_pod in fates):
        assert said == [None, *[STARTED_BEFORE + "pod-0"] * (len(fates) - 1)]


def test_a_forbidden_request_is_not_retried() -> None:
    asked = []

    def refuse(method: str, name: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        asked.append(method)
        return 403, {"message": "may not create workflowtaskresults"}

    said = why_not_started(refuse, result("pod-0"), lambda _: None)
    assert said == NOT_SURE + "403 may not create workflowtaskresults"
    assert asked == ["POST"]


def test_a_server_that_never_answers_is_given_up() -> None:
    server = ApiServer()
    server.fates = ["lost"] * 100
    pauses: list[float] = []
    said = why_not_started(server.ask, result("pod-0"), pauses.append)
    assert said == NOT_SURE + "no answer timed out"
    assert pauses == list(PAUSES) and server.requested == len(PAUSES)
