"""What travels with a job: everything the runner needs, as gzip of JSON.

Secrets and credentials are read here, from where the request says they stand, and go nowhere else.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from stoke.cache.keys import RequestKeys
from stoke.delivery.network import NOTHING, Network
from stoke.delivery.uv_config import UvConfig, origins, uv_config
from stoke.errors import RequestError
from stoke.request.default_index import default_index
from stoke.request.requirements import Entry, canonical_name
from stoke.request.source_code import declared_encoding
from stoke.request.spec import JobSpec, NixSettings
from stoke.request.surroundings import fill_in, login_variables
from stoke.text.urls import login_of, secrets_of, split_login

# A variable of the system takes 128 KiB, and a secret becomes one.
MAX_SECRET = 128 * 1024
# All public authorities together take some 220 KiB.
MAX_BUNDLE = 8 * 1024**2


def runner_source() -> bytes:
    """The source of the file that runs inside every job."""
    return (resources.files("stoke.remote") / "runner.py").read_bytes()


def housekeeping_source() -> bytes:
    """The source of the file that looks after a cache volume, where it is mounted."""
    return (resources.files("stoke.remote") / "housekeeping.py").read_bytes()


def live_output_source() -> str:
    """The source of the file that the runner puts into the job's interpreter."""
    return (resources.files("stoke.remote") / "live_output.py").read_text()


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
    with_logins: bool = True,
    network: Network = NOTHING,
) -> bytes:
    """The runner's input. `program` is what the code sees as sys.argv[0] and in tracebacks.

    Without `with_logins` the logins of package indexes that uv's settings and `${NAME}` refer to
    are left out. `RequestError` when a secret or a CA bundle is not where the request says.
    """
    parsed = spec.parsed_requirements()
    uv = uv_config(spec, with_secrets=with_logins)
    index = _index(spec, network, with_logins)
    index["secrets"] += uv.secrets
    origin = origins(spec.requirements)
    wanted = [*spec.dependencies, *(entry.text for entry in parsed.requirements)]
    constraints = spec.parsed_constraints()
    payload: dict[str, Any] = {
        "nonce": nonce,
        "program": program,
        "code": spec.code,
        # The code's file is written in the encoding that it declares.
        "encoding": declared_encoding(spec.code),
        "args": list(spec.args),
        "env": {**spec.env, **_resolved(spec.secrets)},
        # On this machine a job inherits our variables; the index's password is not for the code.
        "withheld": [
            reference.removeprefix("env:")
            for reference in [spec.index.credentials]
            if reference and reference.startswith("env:")
        ],
        "python": spec.python,
        "system": _system(spec, keys),
        "requirements": [*uv.lines, *wanted] if wanted else [],
        # uv takes --pre on its command line only.
        "pre": "--pre" in parsed.options,
        "constraints": [entry.text for entry in constraints],
        "hashes": _hashes([*parsed.requirements, *constraints]),
        "require_hashes": parsed.require_hashes,
        "lock": [
            [entry.text, list(entry.hashes), origin.get(canonical_name(entry.text))]
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
        "live_output": live_output_source(),
        "index": index,
        "settings": uv.for_runner(),
        "uv": {**_pinned_uv(), "index": _taken_default(uv) or default_index()},
    }
    # mtime=0: the same request gives the same bytes.
    return gzip.compress(json.dumps(payload).encode(), 6, mtime=0)


def _hashes(entries: Iterable[Entry]) -> dict[str, list[str]]:
    """Canonical name to all hashes that the user allows for that package."""
    hashes: dict[str, list[str]] = {}
    for entry in entries:
        if entry.hashes:
            hashes.setdefault(canonical_name(entry.text), []).extend(entry.hashes)
    return hashes


def read_reference(reference: str, field: str, environ: Mapping[str, str] = os.environ) -> str:
    """The value behind `env:NAME` or `file:/path` (its last newline taken off)."""
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
    """A text file that the request names; a link, a pipe or a device may stand for it."""
    with Path(where).expanduser().open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(f"it is longer than {limit // 1024} KiB")
    return data.decode()


def _resolved(secrets: Mapping[str, str]) -> dict[str, str]:
    """Those that stand on this machine; an engine's own it gives to the code itself."""
    return {
        name: read_reference(reference, f"secrets.{name}")
        for name, reference in secrets.items()
        if not reference.startswith("secret:")
    }


def _index(spec: JobSpec, network: Network, with_logins: bool) -> dict[str, Any]:
    """Addresses with their credentials in them, proxies, and certificate authorities."""
    own, parsed = spec.index, spec.parsed_requirements()
    url = parsed.index or own.url
    extra = [*own.extra, *parsed.extra_indexes]
    secrets: list[str] = []
    if own.credentials:
        credentials = read_reference(own.credentials, "index.credentials")
        if ":" not in credentials:
            raise RequestError("index.credentials", "must hold user:password")
        user, _, password = credentials.partition(":")
        # Addresses in a requirements file may be somebody else's: they are meant only where the
        # request itself names none.
        named = [own.url], own.extra, [parsed.index], parsed.extra_indexes
        meant = next((some for some in named if any(some)), ())
        if url and url in meant:
            url = _with_credentials(url, user, password)
        extra = [_with_credentials(it, user, password) if it in meant else it for it in extra]
        secrets = [password]
    if with_logins:
        url = url and _filled_in(url, secrets)
        extra = [_filled_in(address, secrets) for address in extra]
    bundle = None
    if spec.index.ca_bundle:
        try:
            bundle = _read_text(spec.index.ca_bundle, MAX_BUNDLE)
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError("index.ca_bundle", f"cannot be read: {error}") from None
    return {
        "url": url,
        "extra": extra,
        "proxy": spec.index.proxy,
        "ca_bundle": bundle,
        "authorities": list(network.authorities),
        "proxies": dict(network.proxies),
        "secrets": secrets + network.secrets,
    }


def _system(spec: JobSpec, keys: RequestKeys) -> dict[str, Any] | None:
    """The system packages in the order in which PATH will have them, and where Nix gets them."""
    if not spec.system:
        return None
    nix = spec.nix or NixSettings()
    return {
        "packages": list(dict.fromkeys(spec.system)),
        "request": keys.system,
        **nix.model_dump(mode="json"),
    }


def _pinned_uv() -> dict[str, Any]:
    """The version, file names and hashes of the uv that images without it get."""
    pins: dict[str, Any] = json.loads(
        (resources.files("stoke.remote") / "uv_wheels.json").read_text()
    )
    return pins


def _taken_default(uv: UvConfig) -> str | None:
    """The default index among uv's settings, with its login."""
    if uv.default is None:
        return None
    user, password = (uv.environment.get(one, "") for one in login_variables(uv.default["name"]))
    url = split_login(uv.default["url"])[1]
    return _with_credentials(url, user, password) if user or password else url


def _filled_in(url: str, secrets: list[str]) -> str:
    """An address whose login names variables, with their values, which join `secrets`."""
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
