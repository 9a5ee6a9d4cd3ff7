"""The results of a job, which are on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

from stoke.errors import RequestError
from stoke.results.collect import Collected, ResultFile
from stoke.results.copy_out import copy_out
from stoke.results.store import results_folder


class JobResults(Sequence[ResultFile]):
    """The collected files, sorted by path: each has `path`, `size` in bytes and `sha256`."""

    def __init__(self, job_id: str, collected: Collected) -> None:
        self._collected = collected
        self.job_id = job_id
        self.folder = results_folder(job_id)
        """Where they are. The files in it are stoke's: `copy_to` gives copies to change."""

    def __repr__(self) -> str:
        return f"<{len(self)} results in {self.folder}>"

    @overload
    def __getitem__(self, at: int) -> ResultFile: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[ResultFile]: ...
    def __getitem__(self, at: int | slice) -> ResultFile | Sequence[ResultFile]:
        return self._collected.files[at]

    def __len__(self) -> int:
        return len(self._collected.files)

    def __iter__(self) -> Iterator[ResultFile]:
        return iter(self._collected.files)

    @property
    def bytes(self) -> int:
        return self._collected.bytes

    @property
    def refused(self) -> tuple[tuple[str, str], ...]:
        """What was not collected: (path, why)."""
        return self._collected.refused

    @property
    def refused_count(self) -> int:
        """How many files were not collected; `refused` has the first."""
        return self._collected.refused_count

    def path(self, name: str) -> Path:
        """Return where a result is. Raises `RequestError` if the job has none of that name."""
        if not any(file.path == name for file in self):
            raise RequestError("name", f"{name!r} is not among the {len(self):,} results")
        return self.folder / name

    def copy_to(self, folder: str | Path, *, force: bool = False) -> int:
        """Copy all of them into a folder, which is made, and return how many files were written.

        Files with the same content are left alone. Others of the same names raise `RequestError`
        before anything is written, unless `force` replaces them.
        """
        return copy_out(
            self._collected, self.folder, Path(folder), force=force, progress=lambda *_: None
        )

    async def copy_to_async(self, folder: str | Path, *, force: bool = False) -> int:
        """Do the same on a thread."""
        return await asyncio.to_thread(self.copy_to, folder, force=force)
