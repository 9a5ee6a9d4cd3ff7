"""What the server can do: each operation once, for its routes, its checks and its OpenAPI document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from stoke.api.errors import ProblemError

if TYPE_CHECKING:
    from stoke.api.server_state import Api
    from stoke.api.tokens import Token


@dataclass(frozen=True)
class Parameter:
    """A parameter of a query. `schema` is JSON schema: a type, and its bounds or values."""

    name: str
    help: str
    schema: Mapping[str, Any]

    def parse(self, text: str) -> str | int | bool:
        """Return the value of a text. Raises `ProblemError` 422."""
        kind = self.schema["type"]
        if kind == "boolean":
            if text not in ("true", "false"):
                raise self._wrong("must be true or false")
            return text == "true"
        if kind == "integer":
            if not (text.isascii() and text.isdecimal() and len(text) <= 18):
                raise self._wrong("must be a whole number that is not negative")
            number = int(text)
            least, most = self.schema.get("minimum", 0), self.schema.get("maximum", 10**18)
            if not least <= number <= most:
                raise self._wrong(f"must be from {least} to {most}")
            return number
        if "enum" in self.schema and text not in self.schema["enum"]:
            raise self._wrong(f"must be one of {', '.join(self.schema['enum'])}")
        if not self.schema.get("minLength", 0) <= len(text) <= self.schema.get("maxLength", 4000):
            raise self._wrong(
                f"must have {self.schema.get('minLength', 0)} to "
                f"{self.schema.get('maxLength', 4000)} characters"
            )
        if "\0" in text:
            raise self._wrong("has a NUL")
        return text

    def _wrong(self, why: str) -> ProblemError:
        return ProblemError(422, why, field=f"query.{self.name}")


@dataclass
class Call:
    """A request that has passed the guard and the checks of its operation."""

    api: Api
    request: Request
    token: Token | None
    query: dict[str, Any]
    audit: dict[str, Any] = field(default_factory=dict)
    """What the audit log has of it, beside what it has of every request."""

    @property
    def caller(self) -> Token:
        assert self.token is not None
        return self.token

    @property
    def job_id(self) -> str:
        return str(self.request.path_params["id"])


Handler = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True)
class Answer:
    """An answer in the OpenAPI document."""

    status: int
    about: str
    media_type: str = "application/json"
    schema: Mapping[str, Any] | None = None
    example: Any = None


@dataclass(frozen=True)
class Body:
    """The body of a request in the OpenAPI document; `examples` by name."""

    schema: Mapping[str, Any]
    examples: Mapping[str, Any]
    required: bool = False


@dataclass(frozen=True)
class Operation:
    method: str
    path: str
    name: str
    """Its operationId."""
    about: str
    right: str | None
    """The right that a token needs; None for operations without a token."""
    handler: Handler
    answers: tuple[Answer, ...]
    query: tuple[Parameter, ...] = ()
    headers: tuple[Parameter, ...] = ()
    """Headers that it reads, for the OpenAPI document."""
    body: Body | None = None

    def read_query(self, request: Request) -> dict[str, Any]:
        """Return the values of the query. Raises `ProblemError` for one that is unknown or wrong."""
        known = {one.name: one for one in self.query}
        values: dict[str, Any] = {}
        for name, text in request.query_params.multi_items():
            if name not in known:
                raise ProblemError(
                    422, f"is not a parameter of {self.path}", field=f"query.{name[:80]}"
                )
            if name in values:
                raise ProblemError(422, "is given twice", field=f"query.{name}")
            values[name] = known[name].parse(text)
        return values
