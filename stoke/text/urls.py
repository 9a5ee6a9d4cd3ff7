"""Web addresses: whether one can be stored with a job, its login, and the header that sends it."""

from __future__ import annotations

import re
from collections.abc import Collection
from enum import StrEnum
from urllib.parse import quote, unquote, urlsplit, urlunsplit

_NAMED = r"\$\{[A-Z0-9_]+\}"
NAMED_LOGIN = re.compile(rf"{_NAMED}(?::(?:{_NAMED}|x-oauth-basic)?)?|[A-Za-z0-9._~-]*:{_NAMED}")
"""A login in an address that only names variables: `${TOKEN}`, `user:${PASSWORD}`."""


class AddressFault(StrEnum):
    """Why an address cannot be stored with a job. Callers word it for their users."""

    SCHEME = "scheme"
    BROKEN = "broken"
    PASSWORD = "password"  # noqa: S105


def address_fault(address: str, schemes: Collection[str]) -> AddressFault | None:
    """Return what is wrong with an address whose scheme must be one of these, in lower case.

    Errors must not repeat the address of a `BROKEN` or `PASSWORD` fault: a password with a slash in it
    ends the host early, and is then taken for a port. A login that only names variables is none of the
    faults, and neither is a user without a password for ssh: `git@host`.
    """
    scheme = address.partition("://")[0] if "://" in address else ""
    if scheme not in schemes:
        return AddressFault.SCHEME
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        return AddressFault.BROKEN
    login, at, _ = parts.netloc.rpartition("@")
    if at and not NAMED_LOGIN.fullmatch(login) and (not scheme.endswith("ssh") or ":" in login):
        return AddressFault.PASSWORD
    # At the end of a line in a requirements file, a backslash would swallow the next line.
    if not host or port == 0 or not address.isprintable() or " " in address or "\\" in address:
        return AddressFault.BROKEN
    return None


def split_login(address: str) -> tuple[str, str]:
    """Return user:password as written in the address, and the address without it."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return "", address
    login, at, host = parts.netloc.rpartition("@")
    return login, urlunsplit(parts._replace(netloc=host)) if at else address


def login_of(text: str) -> tuple[str, str]:
    """Return (user, password) of the login in an address, where they are percent-encoded."""
    user, _, password = text.partition(":")
    return unquote(user), unquote(password)


def secrets_of(user: str, password: str) -> list[str]:
    """The texts that must not be shown of a login. A user without a password is a token."""
    secret = password or user
    return [secret, quote(secret, safe="")] if secret else []


def basic_authorization(user: str, password: str) -> str:
    """Return the value of an Authorization header (RFC 7617)."""
    import base64

    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
