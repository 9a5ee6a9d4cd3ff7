"""Schemathesis asks each operation for what the OpenAPI document describes, and for what it forbids."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from stoke.api.operations import OPERATIONS, document
from stoke.history.database import History
from stoke.history.queue import JobQueue
from tests.api.served import Client, Process, make_token

EXAMPLES = 25
"""Requests of each kind to each operation."""
EXCLUDED = [
    # A schema does not say all: whether a backend is installed, or a text is Python code.
    positive_data_acceptance,
    # Wrong tokens are soon answered with 429; `test_security.py` has them.
    ignored_auth,
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, str]]:
    """A client of a server, and an ended job with results. The queue is paused then, so that no code of
    an example ever runs."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("described")
        patch.setenv("STOKE_STATE_DIR", str(home / "state"))
        patch.setenv("STOKE_CACHE_DIR", str(home / "cache"))
        patch.setenv("STOKE_CONFIG", str(home / "config.toml"))
        patch.setenv("STOKE_INDEX__URL", "http://127.0.0.1:9/simple")
        patch.setenv("STOKE_API__BACKENDS", '["local"]')
        patch.setenv("STOKE_API__RATE", "100000")
        secret = make_token("admin", "admin")
        server = Process()
        try:
            client = Client(server.address, secret)
            code = "import os; open(os.environ['STOKE_RESULTS'] + '/a', 'w').write('x'); print(1)"
            job = client.run({"code": code})
            with History() as history:
                JobQueue(history).pause(["local"])
            yield client, job["id"]
        finally:
            server.kill()


@functools.cache
def described() -> dict[str, Any]:
    schema = schemathesis.openapi.from_dict(document())
    found: dict[str, Any] = {}
    for operation in schema.get_all_operations():
        assert isinstance(operation, Ok)
        found[operation.ok().definition.raw["operationId"]] = operation.ok()
    return found


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.name)
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda one: one.value)
def test_answers_are_those_that_are_described(
    served: tuple[Client, str], operation: Any, mode: GenerationMode
) -> None:
    client, job_id = served
    if mode is GenerationMode.NEGATIVE and operation.right is None:
        pytest.skip("takes nothing that could be wrong")
    cases = described()[operation.name].as_strategy(generation_mode=mode)

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, existing=st.booleans())
    def ask(case: Any, existing: bool) -> None:
        if existing and "id" in case.path_parameters:
            case.path_parameters["id"] = job_id
            if "path" in case.path_parameters:
                case.path_parameters["path"] = "a"
        answer = case.call(
            base_url=client.address, headers={"Authorization": f"Bearer {client.secret}"}
        )
        case.validate_response(answer, excluded_checks=EXCLUDED)

    ask()
