"""Jobs as Argo Workflows on a Kubernetes cluster, caches on its nodes or its claims."""

from backends.argo.backend import ArgoBackend

__all__ = ["ArgoBackend"]
