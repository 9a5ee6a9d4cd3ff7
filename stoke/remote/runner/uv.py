"""Run uv: its variables and configuration, and what its failures mean."""

from __future__ import annotations

import os
import re
import shutil

from stoke.remote.common.files import DISK_FULL, is_below, is_full
from stoke.remote.common.network import is_loopback
from stoke.remote.protocol import HintCode, PythonLayout
from stoke.remote.runner.errors import CacheError, NetworkError, PhaseError
from stoke.remote.runner.files import write_atomically
from stoke.remote.runner.memory import out_of_memory_kills
from stoke.remote.runner.network import ConnectionSettings
from stoke.remote.runner.tools import killed, run_tool
from stoke.remote.runner.uv_report import UV_NOISE, UV_UNTRUSTED, UvReport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from stoke.remote.runner.job import RemoteJob
    from stoke.remote.runner.uv_progress import UvProgress

UV_LOCAL_VARIABLES = (
    "UV_CONCURRENT_BUILDS",
    "UV_CONCURRENT_DOWNLOADS",
    "UV_CONCURRENT_INSTALLS",
    "UV_CREDENTIALS_DIR",
    "UV_GITHUB_TOKEN",
    "UV_HTTP_CONNECT_TIMEOUT",
    "UV_HTTP_RETRIES",
    "UV_HTTP_TIMEOUT",
    "UV_LOCK_TIMEOUT",
    "UV_NATIVE_TLS",
    "UV_PYTHON_INSTALL_MIRROR",
    "UV_REQUEST_TIMEOUT",
    "UV_SYSTEM_CERTS",
)
"""Variables of uv that the job may set: they cannot change which packages it gets."""
UV_INDEX_VARIABLES = (
    "UV_DEFAULT_INDEX",
    "UV_INDEX_URL",
    "UV_INDEX",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
)
MOST_WARNINGS = 20


class Uv:
    """Runs uv for one job."""

    def __init__(self, job: RemoteJob) -> None:
        self._job = job
        self._program: str | None = None
        self._warned: set[str] = set()

    def environment(self) -> dict[str, str]:
        """Return the variables of uv's processes; only these hold the logins of package indexes.

        uv's settings come from the request alone, so the job's own variables of uv are left out,
        except those that cannot change which packages are installed.
        """
        env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "UV_"))
            and name not in ("VIRTUAL_ENV", "CONDA_PREFIX")
        }
        env.update({name: os.environ[name] for name in UV_LOCAL_VARIABLES if name in os.environ})
        index = self._job.payload["index"]
        if index["url"]:
            env["UV_DEFAULT_INDEX"] = index["url"]
        if index["extra"]:
            env["UV_INDEX"] = " ".join(index["extra"])
        env.update(self._job.shared(ConnectionSettings).variables())
        env.update(self._job.payload["settings"]["environment"])
        env.update(
            UV_CACHE_DIR=self._job.path(PythonLayout.UV_CACHE),
            UV_LINK_MODE="hardlink",
            UV_NO_PROGRESS="1",
            UV_NO_WRAP="1",  # UvReport needs whole lines, also if COLUMNS is set
            UV_PYTHON_INSTALL_DIR=self._job.path(PythonLayout.INTERPRETERS),
            UV_PYTHON_DOWNLOADS="never",
            UV_NO_CONFIG="1",
            NO_COLOR="1",
        )
        return env

    def run(
        self, *arguments: str, progress: UvProgress | None = None, **changes: str
    ) -> tuple[str, str]:
        """Run uv and return (stderr, stdout). Raise a `PhaseError` that explains a failure.

        `changes` are variables.
        """
        if self._program is None:
            self._note_ignored_indexes()
            self._program = self._job.given_uv or shutil.which("uv")
        if self._program is None:
            from stoke.remote.runner.uv_download import download_uv

            self._program = download_uv(self._job, self.environment())
        env = self.environment()
        env.update(changes)
        kills = out_of_memory_kills()
        argv = [self._program, *arguments]
        code, err, out = run_tool(self._job.termination, argv, env, progress)
        if code < 0:
            raise killed("uv", -code, kills, self._job.container)
        report = UvReport(err)
        for warning in report.warnings:
            self._warn(warning)
        if code != 0:
            raise self._explain(report)
        return err, out

    def _note_ignored_indexes(self) -> None:
        """Note which of the image's variables name an index, if the request names none."""
        index, settings = self._job.payload["index"], self._job.payload["settings"]
        ignored = [name for name in UV_INDEX_VARIABLES if os.environ.get(name)]
        if (
            self._job.container
            and ignored
            and not (index["url"] or index["extra"] or settings["indexes"])
        ):
            self._job.events.note(
                "the image's %s is not used; name the index in the request (--index URL) or in the "
                "configuration ([index] url)" % ", ".join(ignored)
            )

    def _warn(self, warning: str) -> None:
        """Pass a warning of uv on as a note, each once and at most `MOST_WARNINGS`."""
        is_new = warning not in self._warned and not UV_NOISE.match(warning)
        if is_new and len(self._warned) < MOST_WARNINGS:
            self._warned.add(warning)
            self._job.events.note("uv warns: " + warning.replace(self._job.work + "/", ""))

    def _explain(self, report: UvReport) -> PhaseError:
        """Return the error for a failure, with a hint if uv's messages name the cause."""
        text = report.summary.replace(self._job.work + "/", "") or "uv failed without a message"
        output = report.output
        url, why = report.unreached()
        if why is not None:
            host = url.split("/")[2].rpartition("@")[2] if "://" in url else "the package index"
            hint = HintCode.CHECK_NETWORK
            if self._job.container and is_loopback(url):
                hint = HintCode.CONTAINERS_LOOPBACK
            elif UV_UNTRUSTED in why:
                hint = HintCode.TRUST_INDEX
            return NetworkError(
                "%s could not be reached, and the cache does not hold everything: %s" % (host, why),
                (hint,),
            )
        number, path = report.failed_call()
        if number is not None:
            is_full_disk = number in DISK_FULL
            in_cache = is_full_disk if path is None else is_below(path, self._job.cache)
            if in_cache:
                return CacheError(
                    text, self._job.full_cache_hint() if is_full_disk else None, output
                )
            if is_full_disk:
                return PhaseError(text, (HintCode.FREE_SPACE, path or self._job.work), output)
        if is_full(self._job.cache):
            what = (
                "the job's disk"
                if self._job.cache == self._job.private_cache
                else "the cache volume"
            )
            return CacheError("%s is full: %s" % (what, text), self._job.full_cache_hint(), output)
        advice = report.advice()
        return PhaseError(text + (advice and "\nuv says: " + advice), report.hint(), output)

    def unreached_git_server(self) -> str | None:
        """Return which web server of a git repository cannot be reached, and why; None if all can.

        git reports this in its user's language, so connect to find out. Behind a proxy, or with
        ssh, only git knows the way.
        """
        import socket

        env = self.environment()
        if any(env.get(name) for name in ("HTTPS_PROXY", "https_proxy", "http_proxy", "ALL_PROXY")):
            return None
        for line in self._job.payload["requirements"]:
            found = re.search(r"git\+(https?)://(?:[^/@]*@)?([^/:\s]+)(?::(\d+))?/", line)
            if found:
                port = int(found[3] or (443 if found[1] == "https" else 80))
                try:
                    socket.create_connection((found[2], port), 5).close()
                except OSError as error:
                    return "%s could not be reached: %s" % (found[2], error)
        return None

    def config_file(self, name: Literal["lock", "install"]) -> str:
        """Write the request's settings for this step as a configuration file; return its path."""
        path = os.path.join(self._job.work, "uv-%s.toml" % name)
        write_atomically(path, self._job.payload["settings"][name])
        return path
