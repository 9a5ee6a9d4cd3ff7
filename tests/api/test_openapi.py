"""The OpenAPI document describes what the server does."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

from stoke.api.operations import OPERATIONS, document
from tests.api.served import STOKE, Client


def test_the_document_is_whole(client: Client) -> None:
    served = Client(client.address, None).get("/api/v1/openapi.json").json()
    assert served["openapi"].startswith("3.1")
    printed = subprocess.run([STOKE, "api", "openapi"], check=True, capture_output=True, text=True)
    assert json.loads(printed.stdout) == served
    schemas = served["components"]["schemas"]
    for name in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(served)):
        assert name in schemas
    names = [one["operationId"] for path in served["paths"].values() for one in path.values()]
    assert len(names) == len(set(names)) == len(OPERATIONS)


def test_every_example_of_a_request_is_accepted(client: Client) -> None:
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {})
            examples = content.get("application/json", {}).get("examples", {})
            if "{id}" in path:
                continue
            for name, example in examples.items():
                answer = client.ask(method, path, json=example["value"])
                # There is no cache yet to prune and to clear.
                assert answer.status_code in (200, 202, 404), (name, answer.text)
                if "id" in answer.json():
                    client.ask("DELETE", f"/api/v1/tasks/{answer.json()['id']}?grace=0")


def test_answers_have_what_the_document_requires(client: Client) -> None:
    job = client.run(
        {"code": "import os; open(os.environ['STOKE_RESULTS'] + '/a', 'w').write('x')"}
    )
    for path in ("/healthz", "/api/v1/tasks", "/api/v1/tasks/{id}", "/api/v1/tasks/{id}/results",
                 "/api/v1/caches"):  # fmt: skip
        answer = client.get(path.replace("{id}", job["id"]))
        assert answer.status_code == 200, answer.text
        described = document()["paths"][path]["get"]["responses"]["200"]["content"]
        check(answer.json(), described["application/json"]["schema"])


def check(value: Any, schema: dict[str, Any]) -> None:
    """The part of JSON schema that the answers' schemas use."""
    if "$ref" in schema:
        schema = document()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    python: dict[str, Any] = {
        "object": dict, "array": list, "string": str, "integer": int, "boolean": bool,
        "number": (int, float), "null": type(None),
    }  # fmt: skip
    assert not kinds or any(isinstance(value, python[kind]) for kind in kinds), (value, schema)
    assert "enum" not in schema or value in schema["enum"]
    if isinstance(value, dict):
        assert set(schema.get("required", ())) <= value.keys()
        for name, inner in schema.get("properties", {}).items():
            if name in value:
                check(value[name], inner)
    elif isinstance(value, list):
        for item in value:
            check(item, schema.get("items", {}))
