"""Addresses of servers, as they listen on them and as clients name them."""

from __future__ import annotations

import ipaddress

from starlette.requests import HTTPConnection

WILDCARDS = frozenset({"0.0.0.0", "[::]"})  # noqa: S104
"""Every address of the machine. As the host of a URL, none that a client can use."""


def is_address_of(host: str, request: HTTPConnection) -> bool:
    """Return whether a Host is the address that this connection was made to. DNS rebinding needs a
    name."""
    server = request.scope.get("server")
    try:
        own = ipaddress.ip_address(server[0] if server else "")
        return ipaddress.ip_address(host.strip("[]")) in (own, getattr(own, "ipv4_mapped", None))
    except ValueError:
        return False
