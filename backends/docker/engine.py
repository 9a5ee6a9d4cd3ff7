"""The connection to the engine: its address, its client, and its errors as `EngineError`."""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from stoke.errors import EngineError
from stoke.files.debug import Logger
from stoke.system_limits import chain_of

if TYPE_CHECKING:
    from docker.tls import TLSConfig

_log = Logger(__name__)

CONNECT_SECONDS = 5
# Seconds between two bytes of a response. Generous, because an engine under load is slow.
ANSWER_SECONDS = 120
PODMAN = "Podman"
DEFAULT_SOCKET = "unix:///var/run/docker.sock"
OTHERWISE = "or run on this machine: -b local"
TLS_VARIABLES = "export DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=/folder/with/its/certificates"
START_IT = f"start it: sudo systemctl start docker; {OTHERWISE}"


MISSHAPEN = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What Python raises if a response has another shape than Docker's API specifies."""
LONGEST_EXPLANATION = 2_000


class AnswerError(EngineError):
    """The engine answered with an error: its HTTP status and its own message."""

    def __init__(self, what: str, hint: str | None, status: int, explanation: str) -> None:
        super().__init__(what, hint)
        self.status = status
        self.explanation = explanation


class NotReachedError(EngineError):
    """The engine got nothing of the request."""


@dataclass(frozen=True)
class Address:
    """Where an engine listens. `source` tells users where the address comes from."""

    url: str
    source: str
    tls: TLSConfig | None = None


class Engine:
    """One engine, connected to at the first call. Safe to use from several threads."""

    def __init__(self, host: str | None) -> None:
        self._host = host
        self._lock = threading.Lock()
        self._address: Address | None = None
        self._api: Any = None
        self._product: str | None = None

    @contextmanager
    def call(self, what: str) -> Iterator[Any]:
        """Give docker-py's APIClient, and raise all of its errors as `EngineError`.

        `what` completes "cannot ...". The client is untyped, because its type stubs lack the
        low-level requests that logs and stops need.
        """
        import requests.exceptions
        import urllib3.exceptions
        from docker.errors import DockerException

        try:
            yield self._connected()
        except EngineError:
            raise
        except (
            DockerException,
            requests.exceptions.RequestException,
            urllib3.exceptions.HTTPError,
            OSError,
        ) as error:
            _log.debug("%s failed: %s: %s", what, type(error).__name__, error)
            raise as_engine_error(error, what, self.address().url) from error
        except MISSHAPEN as error:
            raise misshapen(what, error) from error

    def address(self) -> Address:
        """Return the address. It is read once, so that a process always talks to the same engine."""
        if self._address is None:
            self._address = find_address(self._host, os.environ)
        return self._address

    def is_podman(self) -> bool:
        if self._product is None:
            with self.call("ask the engine for its version") as api:
                self._product = product_of(api.version())
        return self._product == PODMAN

    def close(self) -> None:
        with self._lock:
            if self._api is not None:
                self._api.close()
                self._api = None

    def _connected(self) -> Any:
        with self._lock:
            if self._api is None:
                from backends.docker.client import Client

                address = self.address()
                api = Client(
                    base_url=address.url,
                    version="auto",
                    timeout=CONNECT_SECONDS,
                    tls=address.tls or False,
                )
                # Set afterwards, because the constructor accepts only a single number.
                api.timeout = (CONNECT_SECONDS, ANSWER_SECONDS)  # type: ignore[assignment]
                # Otherwise requests would apply proxies, .netrc and REQUESTS_CA_BUNDLE to the
                # engine, the last one in place of the engine's own certificate authority.
                api.trust_env = False
                api.hooks["response"].append(_log_response)
                self._api = api
            return self._api


def product_of(version: dict[str, Any]) -> str:
    """Return the engine's display name from its response to `GET /version`."""
    names = [str(one.get("Name", "")) for one in version.get("Components") or []]
    return PODMAN if any(name.startswith(PODMAN) for name in names) else "Docker"


@contextmanager
def checking_answer(what: str) -> Iterator[None]:
    """Raise `EngineError` if the code inside finds a response of another shape than the API's."""
    try:
        yield
    except MISSHAPEN as error:
        raise misshapen(what, error) from error


def misshapen(what: str, error: BaseException) -> EngineError:
    why = f"{type(error).__name__}: {error}"[:200]
    return EngineError(
        f"cannot {what}: the response is not that of a Docker engine ({why})",
        "check the engine: docker info",
    )


def _log_response(response: Any, **_: object) -> None:
    """Log a request: without its query, which may hold what a user wrote."""
    _log.debug(
        "%s %s: %d after %.0f ms",
        response.request.method, response.request.path_url.partition("?")[0], response.status_code,
        response.elapsed.total_seconds() * 1000,
    )  # fmt: skip


def is_local(url: str) -> bool:
    """Whether an engine at this address runs on this machine."""
    parts = urlsplit(url)
    return parts.scheme in ("unix", "http+unix") or parts.hostname in (
        "127.0.0.1",
        "::1",
        "localhost",
    )


def find_address(configured: str | None, environ: Mapping[str, str]) -> Address:
    """Return the address: `docker.host` of the configuration, DOCKER_HOST, the docker context or
    the socket.

    An engine on the network gives root on its machine to every client, so it is rejected without
    TLS that verifies both sides.
    """
    from docker.context import ContextAPI
    from docker.context.config import get_current_context_name

    if host := configured or environ.get("DOCKER_HOST"):
        source = "docker.host in the configuration" if configured else "DOCKER_HOST"
        variable = "STOKE_DOCKER__HOST" if configured else "DOCKER_HOST"
        tls = None if host.startswith("unix://") else _own_tls(environ)
        return _checked(host, source, tls, variable, TLS_VARIABLES)
    name = environ.get("DOCKER_CONTEXT") or get_current_context_name()
    if name == "default":
        return Address(DEFAULT_SOCKET, "the default socket")
    # The variable overrides the choice of `docker context use`.
    hint = "unset DOCKER_CONTEXT" if environ.get("DOCKER_CONTEXT") else "docker context use default"
    try:
        context = ContextAPI.get_context(name)
    except Exception as error:  # docker-py raises plain exceptions here
        raise EngineError(f"the docker context {name!r} cannot be read: {error}", hint) from error
    if context is None or not context.Host:
        raise EngineError(f"there is no docker context {name!r}", hint)
    files = ",".join(f"{key}=/folder/{key}.pem" for key in ("ca", "cert", "key"))
    endpoint = shlex.quote(f"host={context.Host},{files}")
    add_tls = f"add certificates: docker context update {shlex.quote(name)} --docker {endpoint}"
    source = f"the docker context {name!r}"
    return _checked(context.Host, source, context.TLSConfig, "DOCKER_HOST", add_tls)


def _own_tls(environ: Mapping[str, str]) -> TLSConfig | None:
    """Return the TLS settings of DOCKER_TLS_VERIFY and DOCKER_CERT_PATH."""
    from docker.errors import TLSParameterError
    from docker.utils import kwargs_from_env

    try:
        tls: TLSConfig | None = kwargs_from_env(dict(environ)).get("tls")
    except TLSParameterError as error:
        folder = environ.get("DOCKER_CERT_PATH") or "~/.docker"
        raise EngineError(
            f"{folder} lacks the certificates for the Docker engine",
            "put ca.pem, cert.pem and key.pem there, or: export DOCKER_CERT_PATH=/their/folder",
        ) from error
    return tls


def _checked(url: str, source: str, tls: TLSConfig | None, variable: str, add_tls: str) -> Address:
    """Return the address if it is safe.

    `variable` overrides the address; `add_tls` is the hint that gives it certificates.
    """
    if url.startswith("unix://"):
        return Address(url, source)
    if not url.startswith(("tcp://", "https://")):
        raise EngineError(
            f"{source} names {url}, which is neither a unix:// nor a tcp:// address",
            "forward the engine's socket: ssh -nNT -L /tmp/docker.sock:/var/run/docker.sock HOST, "
            f"then export {variable}=unix:///tmp/docker.sock",
        )
    if tls is None or not tls.verify:
        raise EngineError(
            f"{source} names {url} without verified TLS, so every client is root on that machine",
            add_tls,
        )
    return Address(url, source, tls)


def as_engine_error(error: BaseException, what: str, url: str) -> EngineError:
    """Return an error of docker-py, requests or the socket as one sentence with a hint."""
    from docker.errors import APIError

    if isinstance(error, APIError) and error.response is not None:
        return _answer(error.response.status_code, str(error.explanation or ""), what)
    cause = _os_error(error)
    if isinstance(cause, FileNotFoundError):
        return NotReachedError(
            f"there is no Docker engine: {url} does not exist",
            f"install Docker, or {START_IT}",
        )
    if isinstance(cause, PermissionError):
        return NotReachedError(
            f"no permission to use the Docker engine at {url}",
            f"join its group: sudo usermod -aG docker $USER, and log in again; {OTHERWISE}",
        )
    if isinstance(cause, ConnectionRefusedError):
        return NotReachedError(f"the Docker engine at {url} is not running", START_IT)
    if _timed_out(error):
        return EngineError(
            f"cannot {what}: the Docker engine at {url} does not answer", "check it: docker info"
        )
    if cause is not None or any(isinstance(one, ConnectionError) for one in chain_of(error)):
        # http.client's error for a response that never began has no number.
        why = "it closed the connection" if cause is None else cause.strerror or str(cause)
        return EngineError(f"cannot {what}: lost the Docker engine at {url}: {why}", START_IT)
    why = str(error)[:LONGEST_EXPLANATION]
    return EngineError(f"cannot {what}: {why}", "check the engine: docker info")


def _answer(status: int, explanation: str, what: str) -> AnswerError:
    hint = None
    if "no space left" in explanation.lower():
        hint = "free disk space: stoke cache ls, then stoke cache clear; or docker system df"
    elif "could not select device driver" in explanation and "gpu" in explanation:
        hint = "install the NVIDIA Container Toolkit where the engine runs, or leave out --gpu"
    elif status in (401, 403):
        hint = "ask the engine's administrator to allow it"
    elif status >= 500:
        hint = "read the engine's log: sudo journalctl -u docker"
    explanation = explanation[:LONGEST_EXPLANATION]
    why = explanation or f"status {status}"
    return AnswerError(
        f"cannot {what}: the Docker engine answered: {why}", hint, status, explanation
    )


def _os_error(error: BaseException) -> OSError | None:
    """Return the operating system's error. requests' errors are OSErrors too, but have no number."""
    for one in chain_of(error):
        if isinstance(one, OSError) and one.errno is not None:
            return one
    return None


def _timed_out(error: BaseException) -> bool:
    import requests.exceptions

    kinds = (TimeoutError, requests.exceptions.Timeout)
    return any(isinstance(one, kinds) for one in chain_of(error))
