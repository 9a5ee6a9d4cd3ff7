"""The connection to one cluster: raw JSON over the kubernetes package's connection pool.

The package's models are not used: they take half a second to import and reject fields that are
newer than they are.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from backends.argo.shapes import ANSWER
from backends.common.answers import body_of, limit_time, read_body
from backends.common.chunked import ChunkedDecoder
from stoke.errors import EngineError
from stoke.files.debug import Logger
from stoke.files.shapes import Shape, ShapeError, checked
from stoke.files.untrusted import parse_json

if TYPE_CHECKING:
    from backends.argo.kubeconfig import Access, KubeContext, Plugin

_log = Logger(__name__)

CONNECT_SECONDS = 5
READ_SIZE = 256 * 1024
# Most bytes of an error's body, and most seconds for it; a longer body is not a Status object.
MAX_STATUS = 256 * 1024
STATUS_SECONDS = 30.0
# Characters of an error's message. An admission webhook may return a long one.
LONGEST_MESSAGE = 4_000
# Most seconds of a Retry-After header that are respected.
LONGEST_WAIT = 60.0
LEAST_WAIT = 0.1
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
METADATA_ONE = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
WORKFLOWS = "argoproj.io/v1alpha1"


class ApiError(EngineError):
    """An error of the API server, or of the connection to it.

    `status`, `reason` and `message` come from the server. If it did not answer, `status` is 0 and
    `reason` is "Unreachable", "Untrusted", "Timeout" or "Cut".
    """

    def __init__(
        self,
        what: str,
        hint: str | None = None,
        *,
        status: int = 0,
        reason: str = "",
        message: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(what, hint)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after

    @property
    def is_unsent(self) -> bool:
        """Whether the server got nothing of the request."""
        return self.status == 0 and self.reason in ("Unreachable", "Untrusted")


class Cluster:
    """One cluster and namespace, connected to at the first use. Safe to use from several threads.

    `approve` is called before a credential plugin of the kubeconfig runs; an error that it raises
    ends the request.
    """

    def __init__(
        self,
        *,
        context: str | None,
        namespace: str | None,
        kubeconfig: str | None = None,
        approve: Callable[[Plugin], None] | None = None,
    ) -> None:
        self._requested = (context, kubeconfig)
        self._namespace = namespace
        self._approve = approve
        self._lock = threading.Lock()
        self._found: KubeContext | None = None
        self._access: Access | None = None
        self._closed = threading.Event()

    @property
    def namespace(self) -> str:
        return self._namespace or self._context().namespace

    @property
    def context_name(self) -> str:
        return self._context().name

    @property
    def kubectl(self) -> str:
        """The kubectl command that reaches the same cluster, for hints."""
        return self._context().kubectl

    @property
    def server(self) -> str:
        return self._context().server

    @property
    def plugin(self) -> Plugin | None:
        """The credential plugin that the kubeconfig names, if any. Does not run it."""
        return self._context().plugin

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str | None = None,
        accept: str | None = None,
        timeout: float = 10,
        shape: Shape = ANSWER,
    ) -> Any:
        """Return the response, which has this shape; for DELETE, None. Raises `ApiError`.

        A GET request whose response is cut is sent once more.
        `timeout` is in seconds and includes the pauses that the server asks for.
        """
        headers = {"Accept": accept or "application/json", "Accept-Encoding": "gzip"}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = content_type or "application/json"
        until = time.monotonic() + timeout
        again = method == "GET"
        while True:
            try:
                with self.translated(method, path):
                    opened = self.opened(method, path, query or {}, headers, data, until)
                    answer = read_body(opened, until=until)
                if method == "DELETE":
                    return None  # The object, or a Status: which one it is depends on its kind.
                return checked(parse_json(answer), shape)
            except ApiError as error:
                if error.reason == "Cut" and again:
                    again = False
                    continue
                wait = error.retry_after
                if wait is not None:
                    wait = max(wait, LEAST_WAIT)
                if wait is None or time.monotonic() + wait >= until or self._closed.wait(wait):
                    raise
            except ShapeError as error:
                what = f"{self.server} answered {method} {path} unlike an API server: {error}"
                raise ApiError(what, f"check the cluster: {self.kubectl} version") from error
            except ValueError as error:
                raise ApiError(f"{self.server} did not answer {method} {path} with JSON") from error

    def stream(
        self,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str] | None = None,
        silence: float | None = None,
        seconds: float | None = None,
    ) -> RawStream:
        """Return a response to be read while it arrives. Connects at the first read, so it can be
        closed before.

        A response is cut after `silence` seconds without a byte, and `seconds` after its begin; None
        waits for ever.
        """
        return RawStream(self, path, query, headers or {}, silence, seconds)

    def close(self) -> None:
        self._closed.set()
        with self._lock:
            if self._access is not None:
                pools = self._access.pool.pools
                # urllib3's clear leaves connections open until the pools are garbage collected.
                for key in pools.keys():  # noqa: SIM118 (it cannot be iterated)
                    pools[key].close()
                pools.clear()

    def opened(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | Sequence[tuple[str, str]],
        headers: Mapping[str, str],
        data: bytes | None = None,
        until: float | None = None,
        silence: float | None = None,
        doing: str | None = None,
    ) -> Any:
        """Return a successful urllib3 response whose body is still unread.

        Raises urllib3's errors, or `ApiError` for an error status. Rejected credentials are renewed
        once. An idle connection may have died, so a GET request is sent once more. `doing` completes
        "cannot ..." in errors.
        """
        from urllib3 import Timeout
        from urllib3.exceptions import ProtocolError, SSLError

        access = self._connected()
        again = method == "GET"
        renewed = False
        while True:
            began = time.monotonic()
            left = silence if until is None else max(0.1, until - began)
            try:
                response = access.pool.request(
                    method,
                    f"{access.server}{path}" + (f"?{urlencode(query)}" if query else ""),
                    body=data,
                    headers={**access.headers, **headers},
                    timeout=Timeout(
                        connect=min(CONNECT_SECONDS, left or CONNECT_SECONDS), read=left
                    ),
                    retries=False,
                    redirect=False,
                    preload_content=False,
                )
            except (ProtocolError, SSLError) as error:
                if not again or not _is_cut(error):
                    raise
                again = False
                continue
            # Without the query, which may hold what a user wrote.
            milliseconds = (time.monotonic() - began) * 1000
            _log.debug("%s %s: %d after %.0f ms", method, path, response.status, milliseconds)
            if 200 <= response.status < 300 or (response.status == 101 and "Upgrade" in headers):
                return response
            said = self._refusal_of(response, until or time.monotonic() + STATUS_SECONDS)
            if response.status != 401 or renewed:
                break
            renewed = True
            access = self._connected(instead_of=access)
        wait = response.headers.get("Retry-After", "")
        raise refusal(
            doing or f"{_verb(method, path, dict(query))} on {self.context_name}",
            self.context_name,
            self.kubectl,
            response.status,
            said,
            min(float(wait), LONGEST_WAIT) if wait.isdecimal() else None,
        )

    @staticmethod
    def _refusal_of(response: Any, until: float) -> bytes:
        try:
            return read_body(response, MAX_STATUS, until)
        except OSError:  # The status code alone is enough.
            return b""

    @contextmanager
    def translated(self, method: str, path: str) -> Iterator[None]:
        """Raise errors of the connection as `ApiError`."""
        from urllib3.exceptions import (
            ConnectTimeoutError,
            HTTPError,
            NewConnectionError,
            ProxyError,
            ReadTimeoutError,
            SSLError,
        )

        try:
            yield
        except (HTTPError, OSError) as error:
            where = f"the cluster at {self.server} (context {self.context_name})"
            why = _why(error)
            _log.debug("%s %s failed: %s: %s", method, path, type(error).__name__, why)
            if isinstance(error, SSLError) and not _is_cut(error):
                what, reason = f"cannot verify {where}: {why}", "Untrusted"
                hint = "set the kubeconfig's certificate-authority to that of this cluster"
            elif isinstance(error, NewConnectionError | ConnectTimeoutError | ProxyError):
                what, reason = f"cannot connect to {where}: {why}", "Unreachable"
                hint = f"check the network or VPN, then try: {self.kubectl} version"
            elif isinstance(error, ReadTimeoutError | TimeoutError):
                what, reason = f"{where} did not answer {method} {path} in time", "Timeout"
                hint = f"check the cluster: {self.kubectl} get --raw /readyz"
            else:
                what, reason = f"the connection to {where} was cut: {why}", "Cut"
                hint = f"check the cluster: {self.kubectl} get --raw /readyz"
            raise ApiError(what, hint, reason=reason) from error

    def _context(self) -> KubeContext:
        with self._lock:
            return self._found_context()

    def _found_context(self) -> KubeContext:
        if self._found is None:
            from backends.argo import kubeconfig

            self._found = kubeconfig.find(*self._requested)
        return self._found

    def _connected(self, instead_of: Access | None = None) -> Access:
        """Return valid credentials: new ones if they have expired or are those in `instead_of`."""
        from backends.argo import kubeconfig

        with self._lock:
            if self._access is not None and (self._access is instead_of or self._access.expired):
                # Read the kubeconfig again, because another program may have renewed its
                # credentials; keep the context, even if the current context has changed.
                name = (
                    None if self._access.context == kubeconfig.IN_CLUSTER else self._access.context
                )
                self._found = kubeconfig.find(name, self._requested[1])
                self._access = None
            if self._access is None:
                self._access = kubeconfig.connect(self._found_context(), self._approve)
            return self._access


class RawStream:
    """The body of one response, in pieces as they arrive; see `Cluster.stream`.

    The first piece is empty and reports that the server has begun to answer. Iteration ends where
    the server ends the response. A cut, a silence or an error status raises `ApiError`. `close` may
    be called from another thread and ends the iteration within a second, without an error.
    """

    def __init__(
        self,
        cluster: Cluster,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        silence: float | None,
        seconds: float | None,
    ) -> None:
        self._seconds = seconds
        self._cluster = cluster
        self._path = path
        self._query = query
        self._headers = headers
        self._silence = silence
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._socket: Any = None

    def __iter__(self) -> Iterator[bytes]:
        from backends.argo.kubeconfig import reporting_socket

        if self._closed.is_set():
            return
        response = None
        try:
            with self._cluster.translated("GET", self._path):
                with reporting_socket(self._use):
                    response = self._cluster.opened(
                        "GET", self._path, self._query, self._headers, silence=self._silence
                    )
                if self._seconds is not None:
                    limit_time(response, time.monotonic() + self._seconds)
                yield b""
                yield from self._bodies(response)
        except ApiError:
            if not self._closed.is_set():
                raise
        finally:
            self.close()
            if response is not None:
                response.close()

    def close(self) -> None:
        with self._lock:
            self._closed.set()
            _shut(self._socket)
            self._socket = None

    def _use(self, connection: Any) -> None:
        """Remember the socket of a request that has been sent and has no response yet."""
        with self._lock:
            self._socket = connection
            if self._closed.is_set():
                _shut(connection)

    def _bodies(self, response: Any) -> Iterator[bytes]:
        if not response.chunked or response.headers.get("Content-Encoding"):
            yield from body_of(response)
            return
        # Read below urllib3 and http.client: they return one chunk a call, and the server sends one
        # a line.
        file = response._fp.fp
        chunks = ChunkedDecoder()
        while not (chunks.ended or self._closed.is_set()):
            data = file.read1(READ_SIZE)
            if not data:
                raise ConnectionResetError("the response ended early")
            try:
                body = chunks.feed(data)
            except ValueError as error:
                raise ConnectionResetError(str(error)) from error
            if body:
                yield body


def resource_path(api: str, namespace: str, resource: str, name: str = "", sub: str = "") -> str:
    """Return the URL path of a resource. `api` is "v1" for the core, else a group and version such
    as "argoproj.io/v1alpha1"."""
    parts = [
        "apis" if "/" in api else "api",
        api,
        "namespaces",
        quote(namespace, safe=""),
        resource,
    ]
    return "/" + "/".join(parts + [quote(one, safe="") for one in (name, sub) if one])


def workflows_path(namespace: str, name: str = "") -> str:
    return resource_path(WORKFLOWS, namespace, "workflows", name)


def pods_path(namespace: str, name: str = "", sub: str = "") -> str:
    return resource_path("v1", namespace, "pods", name, sub)


def refusal(
    doing: str, context: str, kubectl: str, status: int, said: bytes, retry_after: float | None
) -> ApiError:
    """Return the error for an error response. `doing` completes "cannot ..."."""
    try:
        answer = parse_json(said)
        message, reason = str(answer.get("message") or ""), str(answer.get("reason") or "")
        message, reason = message[:LONGEST_MESSAGE], reason[:100]
    except (ValueError, AttributeError):
        # Proxies and kubelets answer without a Status object.
        message, reason = said.decode(errors="replace").strip()[:500], ""
    why = message or f"the server answered with status {status}"
    hint = None
    if status == 401:
        what = f"the cluster of the context {context} rejected your credentials: {why}"
        hint = f"log in again, then try: {kubectl} auth whoami"
    elif status == 403 and (missing := _MISSING_RIGHT.search(message)):
        verb, resource, group, namespace = missing.groups()
        resource = f"{resource}.{group}" if group else resource
        place = f"-n {namespace}" if namespace else "--all-namespaces"
        what = f"cannot {doing}: you may not {verb} {resource}"
        ask = f"{kubectl} auth can-i {verb} {resource} {place}"
        hint = f"ask for that right, then try: {ask}"
    else:
        what = f"cannot {doing}: {why}"
    return ApiError(
        what, hint, status=status, reason=reason, message=message, retry_after=retry_after
    )


_MISSING_RIGHT = re.compile(
    r'cannot (\w+) resource "([^"]+)" in API group "([^"]*)"(?: in the namespace "([^"]+)")?'
)
_PATH = re.compile(
    r"/apis?/[^/]+(?:/v[^/]+)?(?:/namespaces/(?P<namespace>[^/]+))?/(?P<resource>[^/]+)(?:/(?P<name>.+))?"
)
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def _verb(method: str, path: str, query: Mapping[str, str]) -> str:
    """Return a request in words, such as "list pods in team-a"."""
    found = _PATH.fullmatch(path)
    if found is None:
        return f"{method} {path}"
    verb = _VERBS.get(method) or ("get" if found["name"] else "list")
    if query.get("watch"):
        verb = "watch"
    words = [verb, found["resource"], *([found["name"]] if found["name"] else [])]
    return " ".join(words + ([f"in {found['namespace']}"] if found["namespace"] else []))


def _shut(connection: Any) -> None:
    """Shut the socket down, which wakes a thread that reads from it; closing does not."""
    if connection is None:
        return
    try:
        # Through a proxy, urllib3 wraps the socket in an object of its own for TLS.
        plain = getattr(connection, "socket", connection)
        socket.socket.shutdown(plain, socket.SHUT_RDWR)
    except OSError:
        pass


def _is_cut(error: BaseException) -> bool:
    """Whether the connection only ended early, which inside TLS is reported as an SSL error."""
    import ssl

    from urllib3.exceptions import SSLError

    return not isinstance(error, SSLError) or isinstance(error.args[0], ssl.SSLEOFError)


def _why(error: BaseException) -> str:
    """Return the innermost reason, without the library's wrapping."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        found = inner.__cause__ or inner.__context__ or getattr(inner, "reason", None)
        inner = found if isinstance(found, BaseException) else None
    return str(error.args[-1] if error.args else error)
