"""uv's cache on a Python volume: which packages it holds, and where."""

from __future__ import annotations

import contextlib
import os

from stoke.remote.housekeeping.files import names_in
from stoke.remote.housekeeping.limits import MAX_POINTER_DEPTH, MAX_REPORTED, PACKAGE_NAME
from stoke.remote.housekeeping.sizes import allocated, walk
from stoke.remote.protocol import PythonLayout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from stoke.remote.housekeeping.sizes import ReclaimableBytes
    from stoke.remote.housekeeping.volume import CacheVolume


class UvCache:
    """The packages in uv's cache; `read` fills in all of it."""

    def __init__(self, volume: CacheVolume) -> None:
        self.folder = volume.path(PythonLayout.UV_CACHE)
        self.archives: dict[str, int] = {}  # path -> bytes
        self.packages: dict[str, list[str]] = {}  # name -> all of its paths
        self._volume = volume

    def read(self) -> None:
        self._volume.set_activity("measuring uv's cache")
        for bucket in names_in(self.folder):
            kind = bucket.partition("-v")[0]
            if kind == "archive":
                for name in names_in(os.path.join(self.folder, bucket)):
                    self._read_archive(bucket, name)
            elif kind in ("wheels", "sdists", "simple"):
                for path in _package_entries(os.path.join(self.folder, bucket)):
                    name = os.path.basename(path)
                    name = name[: -len(".rkyv")] if kind == "simple" else name
                    if PACKAGE_NAME.fullmatch(name):
                        self.packages.setdefault(name, []).append(path)
        for paths in self.packages.values():
            paths += sorted({archive for path in paths for archive in self._archives_of(path)})

    def _read_archive(self, bucket: str, name: str) -> None:
        path = os.path.join(self.folder, bucket, name)
        # uv renames complete archives into place and never changes them.
        key = "uv/%s/%s" % (bucket, name)
        values = self._volume.index.get(key, [], (int,))
        if values is None:
            values = [allocated(walk(path, self._volume.tick))]
            self._volume.index.put(key, [], values)
        self.archives[path] = values[0]

    def _archives_of(self, folder: str) -> Iterator[str]:
        """Yield the archives that links below a package's folder point to."""
        folders = [(folder, 0)]
        while folders:
            self._volume.tick()
            parent, depth = folders.pop()
            try:
                entries = os.scandir(parent)
            except OSError:
                continue
            with entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        if entry.is_symlink():
                            target = os.readlink(entry.path).split("/")
                            archive = os.path.join(self.folder, *target[-2:])
                            if archive in self.archives:
                                yield archive
                        elif depth < MAX_POINTER_DEPTH and entry.is_dir(follow_symlinks=False):
                            folders.append((entry.path, depth + 1))

    def bytes(self) -> int:
        """Return the bytes of the whole cache."""
        rest = allocated(walk(self.folder, self._volume.tick, self.archives))
        return rest + sum(self.archives.values())

    def package_bytes(self, name: str) -> int:
        return sum(
            self.archives.get(path) or allocated(walk(path, self._volume.tick))
            for path in self.packages[name]
        )

    def add_packages(self, reclaimable: ReclaimableBytes, names: list[str]) -> None:
        for name in names:
            for path in self.packages.get(name, []):
                reclaimable.add(path)

    def package_names(self) -> list[str]:
        """Return the names of packages without reading all of the cache, at most `MAX_REPORTED`."""
        names: set[str] = set()
        for bucket in names_in(self.folder):
            if bucket.partition("-v")[0] in ("wheels", "sdists"):
                for path in _package_entries(os.path.join(self.folder, bucket)):
                    self._volume.tick()
                    name = os.path.basename(path)
                    if PACKAGE_NAME.fullmatch(name) and len(names) < MAX_REPORTED:
                        names.add(name)
        return sorted(names)


def _package_entries(bucket: str) -> Iterator[str]:
    """Yield the packages' entries in a bucket: below the index `pypi`, or one level deeper."""
    for kind in names_in(bucket):
        folders = [os.path.join(bucket, kind)]
        if kind != "pypi":
            folders = [os.path.join(folders[0], name) for name in names_in(folders[0])]
        for folder in folders:
            for name in names_in(folder):
                yield os.path.join(folder, name)
