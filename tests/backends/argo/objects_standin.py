"""A stand-in for an API server that only stores objects: no controller, no pods.

It creates, lists by labels, patches and deletes, and deletes with an object all that only it owns, as
Kubernetes' garbage collector does. `denied` are the rights that its only user lacks.
"""

from __future__ import annotations

import copy
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Object = dict[str, Any]
_PATH = re.compile(
    r"/(?:api/v1|apis/(?P<group>[^/]+)/[^/]+)/namespaces/(?P<namespace>[^/]+)"
    r"/(?P<resource>[^/]+)(?:/(?P<name>[^/]+))?"
)
_VERBS = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}
_NUMBERS = count(1)


class _RefusalError(Exception):
    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = {"kind": "Status", "code": status, "reason": reason, "message": message}


class ObjectsStandin:
    """The objects of one namespace, `team-a`, by their resource and name."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        self.denied: set[tuple[str, str]] = set()
        self.lock = threading.Lock()
        self.server: ThreadingHTTPServer | None = None

    def named(self, resource: str) -> dict[str, Object]:
        """Return a resource's objects by their names."""
        with self.lock:
            return {
                name: copy.deepcopy(one)
                for (of, name), one in self.objects.items()
                if of == resource
            }

    def change(self, resource: str, name: str, changes: Object) -> None:
        """Merge a patch into an object, as a controller does."""
        with self.lock:
            _merge(self.objects[resource, name], changes)

    def delete(self, resource: str, name: str) -> None:
        """Delete an object and what only it owns, as `kubectl delete` does."""
        with self.lock:
            self._delete(resource, name)

    def kubeconfig(self, folder: Path) -> str:
        assert self.server is not None
        url = f"http://127.0.0.1:{self.server.server_address[1]}"
        place = {"cluster": "c", "user": "u", "namespace": "team-a"}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "standin",
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {"token": "sesame"}}],
            "contexts": [{"name": "standin", "context": place}],
        }
        path = folder / "kubeconfig"
        path.write_text(json.dumps(content))
        return str(path)

    def answer(self, method: str, url: str, kind: str, data: bytes) -> Object:
        address = urlsplit(url)
        found = _PATH.fullmatch(address.path)
        if found is None:
            raise _RefusalError(404, "NotFound", "the server could not find the resource")
        resource, name = found["resource"], unquote(found["name"] or "")
        query = {name: values[-1] for name, values in parse_qs(address.query).items()}
        verb = _VERBS.get(method) or ("get" if name else "list")
        if (verb, resource) in self.denied:
            raise _RefusalError(
                403,
                "Forbidden",
                f'{resource} is forbidden: User "ada" cannot {verb} resource "{resource}" in API group '
                f'"{found["group"] or ""}" in the namespace "team-a"',
            )
        body = json.loads(data) if data and method != "DELETE" else {}
        with self.lock:
            if verb == "list":
                return {"metadata": {}, "items": list(self._selected(resource, query))}
            if verb == "create":
                return self._create(resource, body)
            if (resource, name) not in self.objects:
                raise _RefusalError(404, "NotFound", f'{resource} "{name}" not found')
            if verb == "patch":
                if "strategic" in kind:
                    about = self.objects[resource, name]["metadata"]
                    about.setdefault("ownerReferences", [])
                    about["ownerReferences"] += body["metadata"]["ownerReferences"]
                else:
                    _merge(self.objects[resource, name], body)
            one = copy.deepcopy(self.objects[resource, name])
            if verb == "delete":
                self._delete(resource, name)
            return one

    def _create(self, resource: str, body: Object) -> Object:
        name = body["metadata"]["name"]
        if (resource, name) in self.objects:
            raise _RefusalError(409, "AlreadyExists", f'{resource} "{name}" already exists')
        body["metadata"] |= {
            "uid": f"uid-{next(_NUMBERS)}",
            "creationTimestamp": "2026-12-01T03:00:00Z",
        }
        self.objects[resource, name] = body
        return copy.deepcopy(body)

    def _selected(self, resource: str, query: dict[str, str]) -> Iterator[Object]:
        selector = re.split(r",(?![^(]*\))", query.get("labelSelector", ""))
        for (of, _), one in self.objects.items():
            labels = one["metadata"].get("labels") or {}
            if of == resource and all(_matches(labels, term) for term in selector if term):
                yield copy.deepcopy(one)

    def _delete(self, resource: str, name: str) -> None:
        self.objects.pop((resource, name), None)
        uids = {one["metadata"]["uid"] for one in self.objects.values()}
        for key, one in list(self.objects.items()):
            owners = one["metadata"].get("ownerReferences")
            if owners and not any(owner["uid"] in uids for owner in owners):
                self._delete(*key)


def _matches(labels: dict[str, str], term: str) -> bool:
    if found := re.fullmatch(r"(\S+) in \((.*)\)", term):
        return labels.get(found[1]) in found[2].split(",")
    if term.startswith("!"):
        return term[1:] not in labels
    name, unequal, value = term.partition("!=")
    if unequal:
        return labels.get(name) != value
    name, equal, value = term.partition("=")
    return labels.get(name) == value if equal else name in labels


def _merge(into: Object, changes: Object) -> None:
    for name, value in changes.items():
        if value is None:
            into.pop(name, None)
        elif isinstance(value, dict):
            _merge(into.setdefault(name, {}), value)
        else:
            into[name] = value


@contextmanager
def objects_standin() -> Iterator[ObjectsStandin]:
    standin = ObjectsStandin()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            kind = self.headers.get("Content-Type") or ""
            try:
                answer = standin.answer(self.command, self.path, kind, data)
            except _RefusalError as error:
                answer = error.status
            status = answer["code"] if answer.get("kind") == "Status" else 200
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    standin.server = server
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield standin
    finally:
        server.shutdown()
        server.server_close()
