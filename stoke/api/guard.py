"""Checks of every request before its operation: Host, Origin, tokens in addresses, rate, token.

A page in a browser can send requests to any address of this machine, and with DNS rebinding under a
name of its own. The checks of Host and Origin stop it: https://owasp.org/www-community/attacks/csrf
"""

from __future__ import annotations

import math
import re
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from stoke.api.errors import ProblemError
from stoke.api.hosts import WILDCARDS, is_address_of
from stoke.api.limits import RateLimit
from stoke.api.tokens import PREFIX, Token, TokenFile
from stoke.config.model import ListenConfig

_TOKEN_NAME = re.compile(
    r"(?:access|api|auth|bearer|refresh|id)?[_-]?(?:token|key)|authorization|bearer|password|secret",
    re.IGNORECASE,
)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::(\d{1,5}))?")
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})


_SCHEMES = {"ws": "http", "wss": "https"}


class Guard:
    """`section` is that of the server in the configuration. `failures` limits wrong tokens by address,
    `rate` the requests of each token."""

    def __init__(
        self,
        section: str,
        config: ListenConfig,
        tokens: TokenFile,
        failures: RateLimit,
        rate: RateLimit,
    ) -> None:
        self._section = section
        self._making = "stoke api token add NAME"
        if section == "serve":
            self._making += " --right admin"
        self._hosts = host_names(config.host, config.hosts)
        self._origins = frozenset(origin.rstrip("/").lower() for origin in config.origins)
        self._tokens = tokens
        self._failures = failures
        self._rate = rate

    def check_address(self, request: HTTPConnection, *, is_page: bool = False) -> None:
        """Raise `ProblemError` for a request that a foreign page may have sent, or with a token in its
        address. Foreign pages may link to a page of this server (`is_page`)."""
        headers = request.headers
        if "transfer-encoding" in headers and "content-length" in headers:
            # A proxy in front may take the other one, and see another request in the body.
            raise ProblemError(400, "The body has two lengths.", headers={"Connection": "close"})
        hosts = headers.getlist("host")
        found = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if found is None or not (
            found[1].lower() in self._hosts or is_address_of(found[1], request)
        ):
            raise ProblemError(
                421,
                f"The Host is not a name of this server ({self._section}.hosts).",
                hint=f"list it in the server's configuration under [{self._section}]: "
                'hosts = ["NAME"]',
            )
        origins = headers.getlist("origin")
        if origins and not (len(origins) == 1 and self._is_known(origins[0], request, hosts[0])):
            raise ProblemError(
                403, f"This Origin may not use the server ({self._section}.origins)."
            )
        site = headers.get("sec-fetch-site", "none")
        if is_page and headers.get("sec-fetch-dest") == "document":
            site = "none"
        if not origins and site not in ("none", "same-origin"):
            raise ProblemError(
                403, f"Pages of other sites may not use the server ({self._section}.origins)."
            )
        if PREFIX in request.scope["query_string"].decode("latin-1") or any(
            _TOKEN_NAME.fullmatch(name) for name in request.query_params
        ):
            raise ProblemError(
                400,
                "A token in an address ends up in logs and histories.",
                hint="replace the one that was sent; send it as a header: Authorization: Bearer TOKEN",
            )

    def _is_known(self, origin: str, request: HTTPConnection, host: str) -> bool:
        if origin.lower() in self._origins:
            return True
        try:
            own = urlsplit(origin)
        except ValueError:  # http://[
            return False
        scheme = request.url.scheme
        return own.scheme == _SCHEMES.get(scheme, scheme) and own.netloc.lower() == host.lower()

    def token(self, request: HTTPConnection) -> Token:
        """Return the token of a request. Raises `ProblemError` 401 without a known one, and 429."""
        sent = request.headers.getlist("authorization")
        kind, _, secret = sent[0].partition(" ") if len(sent) == 1 else ("", "", "")
        token = None
        if kind.lower() == "bearer" and 0 < len(secret) <= 200:
            token = self._tokens.find(secret.strip())
        if token is None:
            # Only wrong tokens are slowed down: behind a proxy, all clients have one address.
            wait = self._failures.take(request.client.host if request.client else "?")
            if wait:
                raise self._too_many(wait)
            what = "The token is unknown." if sent else "The request has no token."
            raise ProblemError(
                401,
                what,
                hint=f"make a token: {self._making}; send it: Authorization: Bearer TOKEN",
                headers={"WWW-Authenticate": 'Bearer realm="stoke"'},
            )
        wait = self._rate.take(token.name)
        if wait:
            raise self._too_many(wait)
        return token

    def _too_many(self, seconds: float) -> ProblemError:
        return ProblemError(
            429,
            f"Too many requests ({self._section}.rate).",
            headers={"Retry-After": str(max(1, math.ceil(seconds)))},
        )


def host_names(host: str, more: tuple[str, ...]) -> frozenset[str]:
    """Return the names for a server that listens on `host`, with those of the configuration."""
    names = {name.lower() for name in more}
    own = f"[{host}]" if ":" in host else host
    if own in WILDCARDS:
        own = "localhost"  # And the address that a client connects to: `is_address_of`.
    names.add(own.lower())
    return frozenset(names | LOOPBACK)
