"""Who is logged in: browsers that have sent a token, each with a cookie and a key.

Cookies of 127.0.0.1 are sent to every port of it, so a server of another user could collect ours. The
key is held by the page alone, under its origin, which includes the port; screens open only with both.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from stoke.api.tokens import Token, TokenFile

IDLE_SECONDS = 12 * 3600.0
MOST = 1000
RIGHT = "admin"


def may_open(token: Token) -> bool:
    """Return whether a token opens the screens. They show every scope and reach all files of the user,
    so neither a lower right nor a scope could limit what is done there."""
    return token.may(RIGHT) and not token.scopes


@dataclass(eq=False)
class Login:
    token: Token
    key: str
    """The SHA-256 of the key."""
    used_at: float = field(default_factory=time.monotonic)

    def has_key(self, key: str) -> bool:
        return hmac.compare_digest(self.key, _hash(key))


class Logins:
    """Logins live in this process alone: a server that is started again asks for the token again."""

    def __init__(self, tokens: TokenFile, clock: Callable[[], float] = time.monotonic) -> None:
        self._tokens = tokens
        self._clock = clock
        self._logins: dict[str, Login] = {}
        """By the SHA-256 of the cookie."""

    def add(self, token: Token) -> tuple[str, str]:
        """Return the cookie and the key of a new login."""
        cookie, key = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        while len(self._logins) >= MOST:
            del self._logins[next(iter(self._logins))]
        self._logins[_hash(cookie)] = Login(token, _hash(key), self._clock())
        return cookie, key

    def find(self, cookie: str) -> Login | None:
        """Return a login that counts."""
        login = self._logins.get(_hash(cookie))
        if login is None:
            return None
        if not self.is_valid(login):
            del self._logins[_hash(cookie)]
            return None
        return login

    def touch(self, login: Login) -> None:
        """Count a use of a login: a key press. Pages connect again without their user."""
        login.used_at = self._clock()

    def is_valid(self, login: Login) -> bool:
        """Return whether a login counts: its token exists, and it was used within 12 hours."""
        if login not in self._logins.values():
            return False
        is_fresh = self._clock() - login.used_at < IDLE_SECONDS
        return is_fresh and any(
            token.sha256 == login.token.sha256 and may_open(token) for token in self._tokens.all()
        )

    def remove(self, cookie: str) -> Login | None:
        return self._logins.pop(_hash(cookie), None)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()
