"""Run jobs as Argo Workflows on a Kubernetes cluster, with caches on its nodes or in claims."""

from backends.argo.backend import ArgoBackend

__all__ = ["ArgoBackend"]
