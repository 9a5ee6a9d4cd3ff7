"""What travels with a job: the runner, and its payload as gzip of JSON.

Secrets and credentials are read here, from where the request says, and go nowhere else.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from stoke.cache.keys import RequestKeys
from stoke.delivery.checkpoints import checkpoint_folder
from stoke.delivery.network import NOTHING, Network
from stoke.delivery.uv_config import UvConfig, origins, uv_config
from stoke.errors import RequestError
from stoke.files import debug
from stoke.remote import bundle
from stoke.remote.protocol import PAYLOAD_VERSION
from stoke.request.default_index import default_index
from stoke.request.requirement import canonical_name
from stoke.request.requirements_text import Entry
from stoke.request.source_code import declared_encoding
from stoke.request.spec import JobSpec, NixSettings, Project
from stoke.request.surroundings import login_variables
from stoke.request.variables import fill_in
from stoke.text.urls import login_of, secrets_of, split_login

if TYPE_CHECKING:
    from stoke.remote.schema import (
        IndexPayload,
        Payload,
        ProjectPayload,
        Start,
        SystemPayload,
        UvRelease,
    )

# A variable of the system takes 128 KiB, and a secret becomes one.
MAX_SECRET = 128 * 1024
# All public authorities together take some 220 KiB.
MAX_BUNDLE = 8 * 1024**2
MAX_COPY = 512 * 1024**2
"""Bytes of a project whose files a job leaves on the cache volume for the next one."""
_REMOTE = Path(bundle.__file__).parent


def runner_source(spec: JobSpec, follows: bool = False) -> bytes:
    """Return the program that runs inside the job, with only the parts that this job can need.

    `follows` is whether it starts after other jobs, whose results it gets.
    """
    # uv provides packages, and also a Python of another version.
    compiled = bool(spec.project and spec.project.compiled)
    return bundle.runner_source(
        packages=spec.has_packages or bool(spec.python) or compiled,
        nix=bool(spec.system),
        project=spec.project is not None,
        compiled=compiled,
        results=bool(spec.results),
        inputs=follows,
        waits=spec.shell or spec.hold is not None,
    )


@cache
def live_output_source() -> str:
    """Return the module that the runner puts into the job's interpreter."""
    source = (_REMOTE / "live_output.py").read_text()
    return bundle.without_comments(source)


def make_payload(
    spec: JobSpec,
    keys: RequestKeys,
    *,
    nonce: str,
    program: str,
    lock_ttl: int,
    upgrade: bool,
    on_cache_trouble: str = "uncached",
    compile_bytecode: bool = False,
    lock_only: bool = False,
    checkpoint: str | None = None,
    with_logins: bool = True,
    network: Network = NOTHING,
) -> bytes:
    """Return the runner's input. `program` is what the code sees as sys.argv[0] and in tracebacks.

    `checkpoint` is the name that its checkpoint is found by again (None: the job has none). Without
    `with_logins`, leave out the logins of package indexes that uv's settings and `${NAME}`
    refer to. Raises `RequestError` if a secret or a CA bundle is not where the request says.
    """
    parsed = spec.parsed_requirements()
    uv = uv_config(spec, with_secrets=with_logins)
    index = _index(spec, network, with_logins)
    index["secrets"] += uv.secrets
    resolved = _resolved(spec.secrets)
    # A shorter value is a flag or a number, and masking it would garble the debug log.
    debug.hide(
        [*index["secrets"], *resolved.values(), *(v for v in spec.env.values() if len(v) > 5)]
    )
    origin = origins(spec.requirements)
    wanted = [*spec.dependencies, *(entry.text for entry in parsed.requirements)]
    constraints = spec.parsed_constraints()
    payload: Payload = {
        "version": PAYLOAD_VERSION,
        "nonce": nonce,
        "program": program,
        "code": spec.code,
        "encoding": declared_encoding(spec.code),
        "start": _start(spec),
        "project": _project(spec),
        "args": list(spec.args),
        "env": {**spec.env, **resolved},
        # A local job inherits the variables of stoke; the code must not get the index's password.
        "withheld": [
            reference.removeprefix("env:")
            for reference in [spec.index.credentials]
            if reference and reference.startswith("env:")
        ],
        "python": spec.python,
        "system": _system(spec, keys),
        "requirements": [*uv.lines, *wanted] if wanted else [],
        # uv reads --pre from its command line only.
        "pre": "--pre" in parsed.options,
        "constraints": [entry.text for entry in constraints],
        "hashes": _hashes([*parsed.requirements, *constraints]),
        "require_hashes": parsed.require_hashes,
        "lock": [
            (entry.text, list(entry.hashes), origin.get(canonical_name(entry.text)))
            for entry in parsed.requirements
        ]
        if spec.locked
        else None,
        "request": keys.python,
        "lock_ttl": 0 if upgrade else lock_ttl,
        "upgrade": upgrade,
        "use_cache": spec.use_cache,
        "on_cache_trouble": on_cache_trouble,
        "compile": compile_bytecode,
        "lock_only": lock_only,
        "timeout": spec.timeout,
        "results": list(spec.results),
        "checkpoint": None if checkpoint is None else checkpoint_folder(checkpoint),
        "hold": spec.hold,
        "live_output": live_output_source(),
        "index": index,
        "settings": uv.for_runner(),
        "uv": _uv_release(_uv_default_index(uv) or default_index()),
    }
    # mtime=0: the same request gives the same bytes.
    return gzip.compress(json.dumps(payload).encode(), 6, mtime=0)


def _start(spec: JobSpec) -> Start:
    if spec.shell:
        return {"kind": "shell", "name": ""}
    if spec.project and spec.project.script:
        return {"kind": "script", "name": spec.project.script}
    if spec.module is not None:
        return {"kind": "module", "name": spec.module}
    if spec.exec is not None:
        return {"kind": "program", "name": spec.exec}
    return {"kind": "code", "name": ""}


def _copy_name(project: Project) -> str | None:
    """Return the name of the project's copies on the cache volume; None if it is too large for them."""
    if project.bytes > MAX_COPY:
        return None
    return hashlib.sha256(os.fsencode(project.root)).hexdigest()[:16]


def _project(spec: JobSpec) -> ProjectPayload | None:
    if spec.project is None or spec.project.digest is None:
        return None
    return {
        "digest": spec.project.digest,
        "copy": _copy_name(spec.project),
        "directory": spec.project.directory,
        "import_path": list(spec.project.import_path),
        "programs": list(spec.project.programs),
        "compiled": [list(one) for one in spec.project.compiled],
    }


def _hashes(entries: Iterable[Entry]) -> dict[str, list[str]]:
    """Return canonical name to all hashes that the user allows for that package."""
    hashes: dict[str, list[str]] = {}
    for entry in entries:
        if entry.hashes:
            hashes.setdefault(canonical_name(entry.text), []).extend(entry.hashes)
    return hashes


def read_reference(reference: str, field: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return the value of `env:NAME` or `file:/path` (without its last newline)."""
    kind, _, where = reference.partition(":")
    if kind == "env":
        value = environ.get(where)
        if value is None:
            raise RequestError(field, f"the variable {where} is not set", f"export {where}=...")
        return value
    try:
        return _read_text(where, MAX_SECRET).removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(field, f"cannot read {where}: {error}") from None


def _read_text(where: str, limit: int) -> str:
    """A text file that the request names, or a link, a pipe or a device."""
    with Path(where).expanduser().open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(f"it is longer than {limit // 1024} KiB")
    return data.decode()


def _resolved(secrets: Mapping[str, str]) -> dict[str, str]:
    """Return the secrets of this machine; an engine gives its own secrets to the code itself."""
    return {
        name: read_reference(reference, f"secrets.{name}")
        for name, reference in secrets.items()
        if not reference.startswith("secret:")
    }


def _index(spec: JobSpec, network: Network, with_logins: bool) -> IndexPayload:
    """Return addresses with their credentials, proxies, and certificate authorities."""
    own, parsed = spec.index, spec.parsed_requirements()
    url = parsed.index or own.url
    extra = [*own.extra, *parsed.extra_indexes]
    secrets: list[str] = []
    if own.credentials:
        credentials = read_reference(own.credentials, "index.credentials")
        if ":" not in credentials:
            raise RequestError("index.credentials", "must hold user:password")
        user, _, password = credentials.partition(":")
        # A requirements file may come from others: its addresses get the credentials only if the
        # request itself names none.
        groups = [own.url], own.extra, [parsed.index], parsed.extra_indexes
        private = next((group for group in groups if any(group)), ())
        if url and url in private:
            url = _with_credentials(url, user, password)
        extra = [_with_credentials(it, user, password) if it in private else it for it in extra]
        secrets = [password]
    if with_logins:
        url = url and _filled_in(url, secrets)
        extra = [_filled_in(address, secrets) for address in extra]
    ca_bundle = None
    if spec.index.ca_bundle:
        try:
            ca_bundle = _read_text(spec.index.ca_bundle, MAX_BUNDLE)
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError("index.ca_bundle", f"cannot be read: {error}") from None
    return {
        "url": url,
        "extra": extra,
        "proxy": spec.index.proxy,
        "ca_bundle": ca_bundle,
        "authorities": list(network.authorities),
        "proxies": dict(network.proxies),
        "secrets": secrets + network.secrets,
    }


def _system(spec: JobSpec, keys: RequestKeys) -> SystemPayload | None:
    """Return the system packages, in the order of their folders on PATH, and where Nix gets them."""
    if keys.system is None:
        return None
    nix = spec.nix or NixSettings()
    return {
        "packages": list(dict.fromkeys(spec.system)),
        "request": keys.system,
        "url": nix.url,
        "sha256": nix.sha256,
        "substituters": None if nix.substituters is None else list(nix.substituters),
        "trusted_keys": None if nix.trusted_keys is None else list(nix.trusted_keys),
    }


def _uv_release(index: str | None) -> UvRelease:
    """Return the uv that images without it get."""
    pinned = json.loads((_REMOTE / "uv_wheels.json").read_text())
    return {"version": pinned["version"], "wheels": pinned["wheels"], "index": index}


def _uv_default_index(uv: UvConfig) -> str | None:
    """Return the default index of uv's own settings, with its login."""
    if uv.default is None:
        return None
    user, password = (uv.environment.get(one, "") for one in login_variables(uv.default["name"]))
    url = split_login(uv.default["url"])[1]
    return _with_credentials(url, user, password) if user or password else url


def _filled_in(url: str, secrets: list[str]) -> str:
    """Return an address with the variables in its login filled in; add their values to `secrets`."""
    login, address = split_login(url)
    if "${" not in login:
        return url
    user, password = login_of(fill_in(login, "index"))
    secrets += secrets_of(user, password)
    return _with_credentials(address, user, password)


def _with_credentials(url: str, user: str, password: str) -> str:
    from urllib.parse import quote

    scheme, _, rest = url.partition("://")
    return f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{rest}"
