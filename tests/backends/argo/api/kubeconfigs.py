"""Kubeconfig files, with a token or a credential plugin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from backends.argo.cluster import pods_path

PODS = pods_path("team-a")
NOTHING: dict[str, Any] = {"items": []}


def write(path: Path, content: dict[str, Any]) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def config(name: str, server: str = "http://127.0.0.1:1", **more: Any) -> dict[str, Any]:
    """A kubeconfig with one of each, all called `name`."""
    return {
        "clusters": [{"name": name, "cluster": {"server": server}}],
        "users": [{"name": name, "user": {"token": f"token-of-{name}"}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        **more,
    }


def plugin_user(script: Path, **more: Any) -> dict[str, Any]:
    version = "client.authentication.k8s.io/v1"
    return {"exec": {"apiVersion": version, "command": "sh", "args": [str(script)], **more}}
