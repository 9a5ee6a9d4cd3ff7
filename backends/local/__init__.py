"""Jobs on this machine: detached processes, caches in folders."""

from backends.local.backend import LocalBackend

__all__ = ["LocalBackend"]
