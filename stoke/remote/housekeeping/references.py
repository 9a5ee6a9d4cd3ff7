"""Which environments and lockfiles need a package in uv's cache."""

from __future__ import annotations

import hashlib

from stoke.remote.common.names import canonical

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class StoredEnvironment:
    """An environment on the volume; `name` is its key."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.built_at: float | None = None
        self.last_used = 0.0
        self.uses = 0
        self.packages: list[str] = []
        self.lockfile = ""  # the digest of the lockfile that it was built from
        self.own = 0  # bytes of files without another link
        self.linked = 0  # bytes of files that are also in uv's cache or other environments
        self._canonical_names: set[str] | None = None

    @property
    def names(self) -> set[str]:
        """The canonical names of its packages."""
        if self._canonical_names is None:
            self._canonical_names = {canonical(package) for package in self.packages}
        return self._canonical_names


class StoredLockfile:
    """A lockfile in locks/."""

    def __init__(self, name: str, written_at: float, digest: str, names: list[str]) -> None:
        self.name = name
        self.written_at = written_at
        self.digest = digest
        self.names = names


class PackageReferences:
    """Counts which environments and lockfiles need a package.

    Jobs may be about to build from a fresh lockfile (written after `since`), so its packages count.
    An older lockfile counts with the environments built from it, and is unused without one. `counts`
    has for each package the digests of the lockfiles that need it, with their number of environments.
    """

    def __init__(
        self, environments: list[StoredEnvironment], lockfiles: list[StoredLockfile], since: float
    ) -> None:
        self.counts: dict[str, dict[str, int]] = {}
        self.unused_lockfiles: list[StoredLockfile] = []
        self._environments: dict[str, int] = {}
        self._lockfiles: dict[str, list[StoredLockfile]] = {}
        for one in environments:
            self._environments[one.lockfile] = self._environments.get(one.lockfile, 0) + 1
            self._count(one.names, one.lockfile)
        for lockfile in lockfiles:
            if lockfile.digest in self._environments:
                self._lockfiles.setdefault(lockfile.digest, []).append(lockfile)
            elif lockfile.written_at >= since:
                self._count(lockfile.names, lockfile.digest)
            else:
                self.unused_lockfiles.append(lockfile)

    def _count(self, names: Iterable[str], digest: str) -> None:
        for name in names:
            counts = self.counts.setdefault(name, {})
            counts[digest] = counts.get(digest, 0) + 1

    def unreferenced(self, packages: Iterable[str]) -> list[str]:
        """Return those packages that nothing needs."""
        return sorted(name for name in packages if name not in self.counts)

    def drop(self, one: StoredEnvironment) -> list[str]:
        """Remove an environment; return the packages that nothing needs any more."""
        unreferenced = []
        self._environments[one.lockfile] -= 1
        if not self._environments[one.lockfile]:
            self.unused_lockfiles += self._lockfiles.pop(one.lockfile, [])
        for name in one.names:
            counts = self.counts[name]
            counts[one.lockfile] -= 1
            if not counts[one.lockfile]:
                del counts[one.lockfile]
            if not counts:
                del self.counts[name]
                unreferenced.append(name)
        return sorted(unreferenced)


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
