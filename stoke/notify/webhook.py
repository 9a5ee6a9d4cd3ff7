"""Post a document to a web address."""

from __future__ import annotations

import http.client
import ipaddress
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from stoke.errors import EngineError

_TRY_AGAIN = (408, 425, 429)
_MOST_READ = 64 * 1024


class TemporaryError(EngineError):
    """It failed, and may succeed in a moment."""


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow none: the next address may be any."""


def is_allowed(address: str) -> bool:
    """Return whether a document may be sent there: by TLS, or to this machine."""
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or parts.password is not None:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def post(address: str, document: bytes, headers: dict[str, str], seconds: float) -> None:
    """Post JSON. Raises `TemporaryError`, or `EngineError` for an answer that stays the same.

    The address and the headers may hold secrets and are not repeated in errors. `seconds` limits each
    step of the connection; the caller limits the whole.
    """
    about = {"Content-Type": "application/json", "User-Agent": "stoke", **headers}
    request = Request(address, document, about, method="POST")  # noqa: S310
    try:
        with build_opener(_NoRedirects).open(request, timeout=seconds) as answer:
            answer.read(_MOST_READ)
    except HTTPError as error:
        error.close()
        _refuse(error.code)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise TemporaryError(f"the webhook cannot be reached: {reason}") from error


def _refuse(code: int) -> None:
    if 300 <= code < 400:
        raise EngineError(
            f"the webhook answered {code}, a redirect, which is not followed",
            "set notify.webhook to the final address",
        )
    kind = TemporaryError if code >= 500 or code in _TRY_AGAIN else EngineError
    raise kind(f"the webhook answered {code}")
