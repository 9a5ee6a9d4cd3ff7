"""The Pod Security level that a namespace enforces, and what jobs need there.

https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backends.argo.cluster import ApiError
from backends.argo.names import labels_of

if TYPE_CHECKING:
    from backends.argo.cluster import Cluster
    from stoke.config.model import ArgoConfig

ENFORCED = "pod-security.kubernetes.io/enforce"


def enforced_level(cluster: Cluster) -> str | None:
    """Return the level that the namespace enforces, or None if it has none or may not be read."""
    try:
        namespace: dict[str, Any] = cluster.request(
            "GET", f"/api/v1/namespaces/{cluster.namespace}"
        )
    except ApiError:
        return None
    level: str | None = labels_of(namespace).get(ENFORCED)
    return level


def needed_settings(level: str | None, argo: ArgoConfig) -> dict[str, Any]:
    """Return the settings of `argo` that have to be others for jobs to be admitted."""
    needed: dict[str, Any] = {}
    if level == "restricted" and not argo.restricted:
        needed["restricted"] = True
    if level in ("baseline", "restricted") and argo.cache == "hostpath":
        needed["cache"] = "claim"
    return needed
