"""The fields of a request, as keyword arguments with types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict


class RequestFields(TypedDict, total=False):
    """The fields of `stoke schema`. What is left out comes from the configuration."""

    module: str
    exec: str
    args: Sequence[str]
    dependencies: Sequence[str]
    requirements: str
    constraints: str
    locked: bool
    system: Sequence[str]
    python: str
    env: Mapping[str, str]
    secrets: Mapping[str, str]
    mounts: Sequence[str]
    results: Sequence[str]
    hold: float | str
    retries: int
    retry_exit: Sequence[int]
    notify: bool
    workspace: str
    index: Mapping[str, Any]
    nix: Mapping[str, Any]
    image: str
    timeout: float | str
    cpu: float
    memory: int | str
    shm_size: int | str
    cpu_request: float
    memory_request: int | str
    gpu: int
    profile: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    use_cache: bool
    scope: str
