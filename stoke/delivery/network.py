"""Find the network settings of this machine that a job needs: certificate authorities and proxies.

uv trusts the authorities that Mozilla lists. A company's own authorities are in this machine's store,
so they are delivered with the job; the public ones are in every container.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import unquote, urlsplit

from stoke.errors import EngineError
from stoke.files.atomic import write_atomically
from stoke.files.paths import cache_dir, check_owner, is_open_to_others, make_private
from stoke.files.untrusted import read_json
from stoke.remote.common.network import SYSTEM_STORES

# The public authorities that a distribution ships. Its release may be older or newer than certifi's,
# and authorities that Mozilla has dropped since must not be brought into containers.
_SHIPPED = (
    ("/usr/share/ca-certificates/mozilla", ".crt"),  # Debian, Ubuntu, Alpine
    ("/usr/share/pki/ca-trust-source", ".p11-kit"),  # Fedora, RHEL
    ("/usr/share/ca-certificates/trust-source", ".p11-kit"),  # Arch
    ("/usr/share/pki/trust", ".p11-kit"),  # openSUSE
)
# A store of all public authorities has some 220 KiB, and 1 MiB in the longest form of distributions.
MAX_STORE = 16 * 1024**2
FORMAT = 1
"""Change it when the same files give another result, so that cached results are not used."""
SETTLED_SECONDS = 2
"""Files that changed within these seconds are read again: clocks of file systems are coarse."""
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@dataclass(frozen=True)
class Network:
    """Network settings for a job. Proxies may hold passwords, so never store or print this."""

    authorities: tuple[str, ...] = ()
    """Certificates, each as PEM."""
    proxies: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """(lower-case variable, its value)"""

    @property
    def secrets(self) -> list[str]:
        """The passwords in the proxies' addresses, as written there and percent-decoded."""
        found = [password_of(address) for name, address in self.proxies if name != "no_proxy"]
        return [each for text in found if text for each in dict.fromkeys((text, unquote(text)))]


NOTHING = Network()


def this_network(*, proxies: bool, environ: Mapping[str, str] = os.environ) -> Network:
    """Return this machine's own authorities and, with `proxies`, the proxies of its environment."""
    found = environment_proxies(environ) if proxies else {}
    return Network(tuple(own_authorities(environ)), tuple(found.items()))


def environment_proxies(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the `PROXY_VARIABLES` that are set; the lower-case form wins, as in curl and uv."""
    both = ((name, environ.get(name) or environ.get(name.upper())) for name in PROXY_VARIABLES)
    found = {name: value for name, value in both if value}
    return found if found.keys() - {"no_proxy"} else {}


def password_of(address: str) -> str | None:
    """Return the password in an address, as written; None without one or for an invalid address."""
    try:
        return urlsplit(address if "://" in address else f"http://{address}").password
    except ValueError:
        return None


def store_files(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Return the files of the certificate store that programs use here.

    SSL_CERT_FILE and SSL_CERT_DIR replace the system's store, as in OpenSSL and uv.
    """
    named = [Path(environ["SSL_CERT_FILE"])] if environ.get("SSL_CERT_FILE") else []
    for folder in environ.get("SSL_CERT_DIR", "").split(":"):
        named += [Path(path) for path in _files_in(folder)] if folder else []
    if any(map(os.path.isfile, named)):
        return named
    return next(([Path(path)] for path in SYSTEM_STORES if os.path.isfile(path)), [])


def own_authorities(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the authorities, as PEM, that programs on this machine trust besides the public ones.

    REQUESTS_CA_BUNDLE and PIP_CERT count as well, because pip works if only they are set.
    """
    files = store_files(environ)
    named = (environ.get(name) for name in ("REQUESTS_CA_BUNDLE", "PIP_CERT"))
    files += [path for path in (Path(name) for name in named if name) if os.path.isfile(path)]
    public = list(_public())
    key = _fingerprint([*files, *(path for group in public for path in group)])
    known = _cached(key)
    if known is not None:
        return known
    trusted = _certificates(dict.fromkeys(files))
    for group in public:
        if trusted:
            trusted -= _certificates(group)
    own = _only_authorities(trusted)
    _cache(key, own)
    return own


# Reading and decoding the stores takes 35 to 120 ms for each submit, the cached result 1 to 4 ms.


def _cache_file() -> Path:
    return cache_dir() / "authorities.json"


def _fingerprint(files: Iterable[Path | str]) -> str | None:
    """Return a digest of the files' names, identities, sizes and times of change.

    None if a file changed so recently that a second change might leave the times as they are.
    """
    newest = 0
    found: list[object] = [FORMAT]
    for path in files:
        try:
            status = os.stat(path)
        except OSError:
            found.append(str(path))
            continue
        newest = max(newest, status.st_mtime_ns, status.st_ctime_ns)
        times = status.st_mtime_ns, status.st_ctime_ns
        found.append((str(path), status.st_dev, status.st_ino, status.st_size, *times))
    if newest > time.time_ns() - SETTLED_SECONDS * 1_000_000_000:
        return None
    return hashlib.sha256(repr(found).encode(errors="surrogateescape")).hexdigest()


def _cached(key: str | None) -> list[str] | None:
    """Return the result that was cached for these files; None if there is none that can be trusted."""
    if key is None:
        return None
    try:
        path = _cache_file()
        if is_open_to_others(path.parent):
            return None
        check_owner(path)
        stored = read_json(path, MAX_STORE)
        own = stored["own"] if stored["key"] == key else None
    except (OSError, ValueError, LookupError, TypeError, EngineError):
        return None
    is_sound = isinstance(own, list) and all(
        isinstance(pem, str) and pem.startswith(_BEGIN) for pem in own
    )
    return own if is_sound else None


def _cache(key: str | None, own: list[str]) -> None:
    if key is None:
        return
    with suppress(OSError, EngineError):  # The next submit computes it again.
        make_private(_cache_file().parent)
        write_atomically(_cache_file(), json.dumps({"key": key, "own": own}))


def trusted_files(with_own: bool) -> list[Path]:
    """Return the files whose authorities uv trusts in a local job.

    These are the store, if variables name it or it has authorities of this machine's own, and otherwise
    the authorities that Mozilla lists.
    """
    if with_own or os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR"):
        return store_files()
    return [Path(path) for path in next(_public())]


def _public() -> Iterator[list[str]]:
    """Yield the groups of files that hold public authorities: certifi's, then the distribution's.

    Texts, because a `Path` for each of some 150 files takes 1 ms of every submit.
    """
    from importlib.util import find_spec

    # The file itself, because some distributions make `certifi.where()` return this machine's store.
    certifi = find_spec("certifi")
    if certifi is not None and certifi.origin is not None:
        yield [os.path.join(os.path.dirname(certifi.origin), "cacert.pem")]
    for folder, suffix in _SHIPPED:
        yield _files_in(folder, suffix)


def _files_in(folder: str, suffix: str = "") -> list[str]:
    """Return the files of a folder whose names have this end, sorted."""
    try:
        with os.scandir(folder) as entries:
            # A listing says of most files what they are; isfile() asks, and only links need that.
            return sorted(
                entry.path
                for entry in entries
                if entry.name.endswith(suffix)
                and (entry.is_file(follow_symlinks=False) or os.path.isfile(entry.path))
            )
    except OSError:
        return []


def _certificates(files: Iterable[Path | str]) -> set[str]:
    """Return every certificate in these files, as base64; skip files that cannot be read."""
    found = set()
    for path in files:
        try:
            with open(path, "rb") as file:
                text = file.read(MAX_STORE).decode("latin-1")
        except OSError:
            continue
        for piece in text.split(_BEGIN)[1:]:
            body = "".join(piece.partition(_END)[0].split())
            if body.isascii():
                found.add(body)
    return found


def _only_authorities(certificates: Iterable[str]) -> list[str]:
    """Return the certificates as PEM, without invalid ones and servers' own certificates."""
    return [
        pem for pem, _ in _decoded(f"{_BEGIN}\n{one}\n{_END}\n" for one in sorted(certificates))
    ]


def names_of(authorities: Iterable[str]) -> list[str]:
    """Return the names of these authorities: the common name of each, or its organization."""
    return [name for _, name in _decoded(authorities)]


def _decoded(certificates: Iterable[str]) -> Iterator[tuple[str, str]]:
    import ssl

    for pem in certificates:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(cadata=pem)
        except (ValueError, ssl.SSLError):
            continue
        # Lists only certificates that may sign others.
        ders = context.get_ca_certs(binary_form=True)
        for der, known in zip(ders, context.get_ca_certs(), strict=True):
            parts = cast("tuple[tuple[tuple[str, str], ...], ...]", known["subject"])
            subject = dict(pair for part in parts for pair in part)
            name = subject.get("commonName") or subject.get("organizationName") or "without a name"
            yield ssl.DER_cert_to_PEM_cert(der), str(name)
