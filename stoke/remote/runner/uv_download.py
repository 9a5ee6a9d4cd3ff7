"""Download uv for images without it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re

from stoke.remote.common.trees import remove_tree
from stoke.remote.protocol import LOCK_SUFFIX, UNFINISHED_SUFFIX, HintCode, PythonLayout
from stoke.remote.runner.errors import PhaseError
from stoke.remote.runner.file_lock import FileLock
from stoke.remote.runner.network import PROXY_VARIABLES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stoke.remote.runner.job import RemoteJob


def download_uv(job: RemoteJob, env: dict[str, str]) -> str:
    """Put the static uv of a pinned wheel on the cache volume; return its path.

    `env` holds the variables of uv's processes, which name proxies and authorities.
    """
    import platform

    pinned = job.payload["uv"]
    machine = platform.machine()
    wheel = pinned["wheels"].get(machine)
    folder = job.path(PythonLayout.PROGRAMS)
    program = os.path.join(folder, "uv-%s-%s" % (pinned["version"], machine))
    if os.path.isfile(program):
        return program
    hint = (HintCode.IMAGE_WITH_UV,)
    if wheel is None:
        raise PhaseError("this image has no uv, and stoke can download none for %s" % machine, hint)
    index = job.payload["index"]["url"] or pinned["index"]
    if not index:
        raise PhaseError("this image has no uv, and there is no index to download it from", hint)
    os.makedirs(folder, exist_ok=True)
    with FileLock(program + LOCK_SUFFIX) as lock:
        lock.acquire(fcntl.LOCK_EX, lambda: job.events.note("another job downloads uv; waiting"))
        if os.path.isfile(program):
            return program
        job.events.note(
            "this image has no uv; downloading %s to the cache volume" % pinned["version"]
        )
        try:
            data = _download(env, index.rstrip("/") + "/uv/", wheel["name"])
        except (OSError, ValueError) as error:
            raise PhaseError("could not download uv from the index: %s" % error, hint) from None
        if hashlib.sha256(data).hexdigest() != wheel["sha256"]:
            text = "the index has another %s than this version of stoke expects" % wheel["name"]
            raise PhaseError(text, hint)
        import io
        import zipfile

        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            inside = [name for name in archive.namelist() if name.endswith(".data/scripts/uv")]
            aside = program + UNFINISHED_SUFFIX
            # A job may have put a pipe or a folder in either place.
            remove_tree(aside)
            remove_tree(program)
            with open(aside, "xb") as file:
                file.write(archive.read(inside[0]))
                file.flush()
                os.fsync(file.fileno())  # A crash of the machine would leave an empty program.
        os.chmod(aside, 0o755)  # noqa: S103
        os.rename(aside, program)
    return program


def _download(env: dict[str, str], page: str, name: str) -> bytes:
    """Return the file called `name` that an index page (PEP 503) links to."""
    import base64
    import ssl
    import urllib.parse
    import urllib.request

    context = ssl.create_default_context(cafile=env.get("SSL_CERT_FILE"))
    # As uv does: companies' authorities often fail the strict check that is on since Python 3.13.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    http, https, other, direct = (
        env.get(name) or env.get(name.upper()) or "" for name in (*PROXY_VARIABLES, "no_proxy")
    )
    proxies = {"http": http or other, "https": https or other}

    def get(url: str) -> bytes:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https"):
            raise ValueError("%s is not a web address" % parts.scheme)
        host = parts.netloc.rpartition("@")[2]
        request = urllib.request.Request(
            urllib.parse.urlunsplit(parts._replace(netloc=host)),
            headers={"Accept": "text/html", "User-Agent": "stoke"},
        )
        if parts.username:
            pair = urllib.parse.unquote("%s:%s" % (parts.username, parts.password or ""))
            token = base64.b64encode(pair.encode()).decode()
            request.add_header("Authorization", "Basic " + token)
        passed = urllib.request.proxy_bypass_environment(host, {"no": direct})  # type: ignore[attr-defined,unused-ignore]
        chosen = {kind: at for kind, at in proxies.items() if at and not passed}
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler(chosen), urllib.request.HTTPSHandler(context=context)
        )
        with opener.open(request, timeout=60) as answer:
            data: bytes = answer.read()
        return data

    for link in re.findall(r'href="([^"]+)"', get(page).decode(errors="replace")):
        address = urllib.parse.urljoin(page, link.replace("&amp;", "&")).split("#")[0]
        if urllib.parse.unquote(address.rsplit("/", 1)[-1]) == name:
            return get(address)
    raise ValueError("the index does not list %s" % name)
