"""Run jobs as detached processes on this machine, with caches in folders."""

from backends.local.backend import LocalBackend

__all__ = ["LocalBackend"]
