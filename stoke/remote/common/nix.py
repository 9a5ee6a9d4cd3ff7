"""Messages of Nix."""

from __future__ import annotations

import re

NIX_DATABASE_ERROR = re.compile(
    r"not a database|malformed|unable to open database|disk I/O error|database schema", re.I
)
"""Matches messages about a database that Nix cannot read."""
