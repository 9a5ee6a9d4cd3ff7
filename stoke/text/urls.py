"""The user and password in a web address, and the header that sends them."""

from __future__ import annotations

from urllib.parse import quote, unquote, urlsplit, urlunsplit


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
