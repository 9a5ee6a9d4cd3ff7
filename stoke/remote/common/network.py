"""Certificate stores and loopback addresses."""

from __future__ import annotations

import re

SYSTEM_STORES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch, NixOS
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",  # Alpine, BSD
)
"""Where systems keep their certificate store as one file."""


def is_loopback(address: str) -> bool:
    """Return whether a proxy's address means the machine that reads it."""
    host = address.rpartition("://")[2].partition("/")[0].rpartition("@")[2]
    host = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return bool(re.match(r"(127(\.\d+){1,3}|0\.0\.0\.0|::1?|(.*\.)?localhost)\.?$", host, re.I))
