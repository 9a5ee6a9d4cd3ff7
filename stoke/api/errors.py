"""Errors as answers: `application/problem+json`, as RFC 9457 describes it."""

from __future__ import annotations

from typing import Any

from stoke.api.json_answer import JsonAnswer
from stoke.errors import EngineError, RequestError, StokeError, UnknownJobError
from stoke.text.sanitize import clean_block

TITLES = {
    400: "The request cannot be read",
    401: "A token is needed",
    403: "Not allowed",
    404: "Not found",
    405: "No such method here",
    408: "The request came too slowly",
    409: "In conflict with another request",
    413: "The request is too large",
    415: "Not JSON",
    421: "Another server's name",
    422: "The request is wrong",
    429: "Too many requests",
    500: "An error of the server",
    503: "Not possible now",
}


class ProblemError(Exception):
    """An answer with an error. `field` is the path of the wrong field in the request's JSON."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        hint: str | None = None,
        field: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.hint = hint
        self.field = field
        self.headers = headers or {}

    def answer(self) -> JsonAnswer:
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": TITLES.get(self.status, "Error"),
            "status": self.status,
            "detail": clean_block(self.detail),
        }
        if self.field is not None:
            body["field"] = clean_block(self.field)
        if self.hint:
            body["hint"] = clean_block(self.hint)
        return JsonAnswer(
            body, self.status, headers=self.headers, media_type="application/problem+json"
        )


def problem_error(error: StokeError) -> ProblemError:
    """Return the answer for an error of the core."""
    if isinstance(error, UnknownJobError):
        return ProblemError(404, error.what)
    if isinstance(error, RequestError):
        return ProblemError(422, error.why, hint=error.hint, field=error.field)
    if isinstance(error, EngineError):
        return ProblemError(503, error.what, hint=error.hint, headers={"Retry-After": "5"})
    return ProblemError(500, error.what, hint=error.hint)
