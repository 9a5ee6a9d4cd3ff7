"""Make requests for jobs that only build an environment, so that later jobs find it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stoke.errors import RequestError
from stoke.jobs.request import Request
from stoke.request.spec import make_spec
from stoke.request.stored import read_stored_fields

if TYPE_CHECKING:
    from stoke.config.model import Config
    from stoke.history.database import History
    from stoke.request.spec import JobSpec

CODE = "# stoke cache warm\n"
WARM_FIELDS = {
    "dependencies", "requirements", "constraints", "locked", "system", "nix", "python", "index",
    "uv", "image", "scope",
}  # fmt: skip
"""The fields that decide the environment."""


def warm_request(spec: JobSpec, config: Config, upgrade: bool = False) -> Request:
    """Return a request that builds the environment of `spec` and compiles its bytecode."""
    return Request.configured(
        spec,
        config,
        name="warm",
        upgrade=upgrade,
        compile_bytecode=True,
    )


def most_used(
    history: History, config: Config, backend: str, scope: str, count: int, upgrade: bool = False
) -> list[Request]:
    """Return requests for the environments that jobs of this backend and scope used most."""
    requests: list[Request] = []
    for text in history.most_used(backend, scope):
        try:
            asked = read_stored_fields(text)
            fields = {name: asked[name] for name in WARM_FIELDS if name in asked}
            spec = make_spec({**fields, "code": CODE})
        except (RequestError, ValueError):
            continue  # A damaged record.
        if len(requests) == count:
            break
        if spec.has_packages or spec.system:
            requests.append(warm_request(spec, config, upgrade))
    if not requests:
        raise RequestError(
            "top", f"no job has asked for packages in scope {scope} on {backend} yet",
            "name them: stoke cache warm -w numpy",
        )  # fmt: skip
    return requests
