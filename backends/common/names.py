"""Names that engines see: labels, the default image, and the mount points of caches."""

from __future__ import annotations

MANAGED = "stoke.managed"
JOB = "stoke.job"
SCOPE = "stoke.scope"
KIND = "stoke.kind"
NONCE = "stoke.nonce"
TYPE = "stoke.type"
"""What a volume is that is no cache: "workspace"."""
WORKSPACE_NAME = "stoke.workspace"
"""The workspace that a volume is, or that a job mounts."""

PUBLIC_IMAGE = "python:3.13-slim-trixie"
CACHE = "/cache"
NIX = "/nix"
MOUNT_POINTS = {"python": CACHE, "system": NIX}
