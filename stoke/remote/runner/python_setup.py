"""Prepare the interpreter that runs the user's code."""

from __future__ import annotations

import os
import sys

from stoke.remote.protocol import PythonLayout
from stoke.remote.runner.files import write_atomically

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stoke.remote.runner.job import RemoteJob

LIVE_OUTPUT = "_stoke_live_output"
"""The module that makes output live, and the name of the .pth file that imports it."""


def prepare_interpreter(job: RemoteJob) -> bool:
    """Prepare the interpreter of a job; return whether all its processes write live output.

    If the image's interpreter is read-only, only the job's first process does (by -u).
    """
    if job.environment is None and not job.own_files:
        job.environment = os.path.join(job.work, "environment")
        make_empty_environment(job.environment, job.fingerprint)
    if job.environment:
        folder = site_packages(job.environment)
    elif job.python == sys.executable:
        folder = image_site_packages()
    else:
        return False  # an interpreter on the cache volume, which other jobs use
    if os.path.exists(os.path.join(folder, LIVE_OUTPUT + ".pth")):
        return True
    if job.environment and job.environment.startswith(job.path(PythonLayout.ENVIRONMENTS)):
        return False  # built by a stoke without live output
    try:
        make_output_live(folder, job.payload["live_output"])
    except OSError:
        return False
    return True


def site_packages(environment: str) -> str:
    """Return the folder of an environment's packages; an environment has one interpreter."""
    folder = os.path.join(environment, "lib")
    return os.path.join(folder, os.listdir(folder)[0], "site-packages")


def image_site_packages() -> str:
    """Return the folder in which this interpreter, started without -S, looks for .pth files first."""
    import site

    above = os.path.dirname(os.path.dirname(sys.executable))
    is_environment = os.path.exists(os.path.join(above, "pyvenv.cfg"))
    folders = site.getsitepackages([above] if is_environment else None)
    return next(filter(os.path.isdir, folders), folders[0])


def make_output_live(folder: str, source: str) -> None:
    """Make every process of an interpreter import the module `source`; `folder` has its packages."""
    write_atomically(os.path.join(folder, LIVE_OUTPUT + ".py"), source)
    write_atomically(os.path.join(folder, LIVE_OUTPUT + ".pth"), "import %s\n" % LIVE_OUTPUT)


def make_empty_environment(folder: str, fingerprint: list[str]) -> None:
    """Make a virtual environment without packages for the interpreter of a fingerprint.

    It is made by hand, because starting the interpreter for it would take longer than most jobs.
    """
    version = fingerprint[0].split()[0]
    python = fingerprint[2]
    name = "python" + ".".join(version.split(".")[:2])
    os.makedirs(os.path.join(folder, "bin"))
    os.makedirs(os.path.join(folder, "lib", name, "site-packages"))
    for link in ("python", "python3", name):
        os.symlink(python, os.path.join(folder, "bin", link))
    with open(os.path.join(folder, "pyvenv.cfg"), "w", encoding="utf-8") as file:
        file.write("home = %s\n" % os.path.dirname(python))
        file.write("include-system-site-packages = false\n")
        file.write("version = %s\nexecutable = %s\n" % (version, python))
