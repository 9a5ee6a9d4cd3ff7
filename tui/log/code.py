"""The code that a line of a traceback is about: the job's own, or a file of its project."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stoke.errors import StokeError
from stoke.remote.protocol import PROJECT_COPY, JobFolder, PythonLayout
from stoke.request.spec import JobSpec
from stoke.text.sanitize import clean

_PLACE = re.compile(r'File "([^"\n]{1,4096})", line (\d{1,7})\b')
MOST_ABOVE = 60
"""Lines above the cursor that are searched: the error is below its traceback."""


@dataclass(frozen=True)
class CodePlace:
    """A place in the code as a traceback names it."""

    path: str
    line: int

    def file_of(self, spec: JobSpec, job_id: str) -> Path | None:
        """Return the file of the job's project on this machine; None for code that is in no file.

        `StokeError` for a file that is neither.
        """
        # In a container, every job's own folder is /stoke.
        own = rf"(?:{re.escape(job_id)}|stoke)/{JobFolder.WORK}"
        code = re.search(rf"/{own}/{JobFolder.FILES}/(.+)", self.path)
        path = code[1] if code else self.path
        if "/" not in path and spec.code:
            return None
        project = spec.project
        if project is not None:
            copy = rf"{PythonLayout.PROJECT_COPIES}/{PROJECT_COPY}"
            inside = re.search(rf"/(?:{own}/{JobFolder.PROJECT}|{copy})/(?!\.\./)(.+)", path)
            relative = inside[1] if inside else project.script if "/" not in path else None
            if relative is not None and ".." not in relative.split("/"):
                file = Path(project.root, relative)
                if file.is_file():
                    return file
                raise StokeError(f"{clean(str(file))} is not on this machine any more")
        raise StokeError(f"{clean(path)} is not a file of this job or its project")


def places_above(texts: Iterable[str]) -> list[CodePlace]:
    """Return the places in lines of a log, the cursor's line first, up to the end of a traceback.

    If the first line names a place itself, only that place is returned.
    """
    found: list[CodePlace] = []
    for number, text in enumerate(texts):
        match = _PLACE.search(text)
        if match:
            found.append(CodePlace(match[1], int(match[2])))
            if number == 0:
                break
        elif found and not text.startswith(" "):
            break  # The title of the traceback.
    return found
