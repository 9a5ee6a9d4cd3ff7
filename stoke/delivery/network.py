"""What a job has to know of the network it is submitted from: certificate authorities and proxies.

uv trusts the authorities that Mozilla lists. A company's own one is in this machine's store, so it
travels with the job; the public ones, which every container has, stay here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import unquote, urlsplit

from stoke.remote.common.network import SYSTEM_STORES

# The public authorities that a distribution ships. Its release may be older or newer than certifi's,
# and what Mozilla has dropped since is not to be brought into containers.
_SHIPPED = (
    ("/usr/share/ca-certificates/mozilla", "*.crt"),  # Debian, Ubuntu, Alpine
    ("/usr/share/pki/ca-trust-source", "*.p11-kit"),  # Fedora, RHEL
    ("/usr/share/ca-certificates/trust-source", "*.p11-kit"),  # Arch
    ("/usr/share/pki/trust", "*.p11-kit"),  # openSUSE
)
# A store of all public authorities has some 220 KiB, the distributions' longest form of it 1 MiB.
MAX_STORE = 16 * 1024**2
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@dataclass(frozen=True)
class Network:
    """What a job takes along. Proxies may hold passwords, so nothing may store or print this."""

    authorities: tuple[str, ...] = ()
    """Certificates, each as PEM."""
    proxies: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """(lower-case variable, its value)"""

    @property
    def secrets(self) -> list[str]:
        """The passwords in the proxies' addresses, as written there and as meant."""
        found = [password_of(address) for name, address in self.proxies if name != "no_proxy"]
        return [each for text in found if text for each in dict.fromkeys((text, unquote(text)))]


NOTHING = Network()


def this_network(*, proxies: bool, environ: Mapping[str, str] = os.environ) -> Network:
    """The authorities that this machine trusts besides the public ones and, with `proxies`, the
    proxies that its environment names."""
    found = environment_proxies(environ) if proxies else {}
    return Network(tuple(own_authorities(environ)), tuple(found.items()))


def environment_proxies(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables of `PROXY_VARIABLES` that are set; the lower-case form wins, as in curl and uv."""
    both = ((name, environ.get(name) or environ.get(name.upper())) for name in PROXY_VARIABLES)
    found = {name: value for name, value in both if value}
    return found if found.keys() - {"no_proxy"} else {}


def password_of(address: str) -> str | None:
    """The password in an address, as written; None without one, or where it is no address."""
    try:
        return urlsplit(address if "://" in address else f"http://{address}").password
    except ValueError:
        return None


def store_files(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """The files of the store that programs use here: SSL_CERT_FILE and SSL_CERT_DIR replace the
    system's, as in OpenSSL and uv."""
    named = [Path(environ["SSL_CERT_FILE"])] if environ.get("SSL_CERT_FILE") else []
    for folder in environ.get("SSL_CERT_DIR", "").split(":"):
        named += _certificate_files(Path(folder)) if folder else []
    if any(path.is_file() for path in named):
        return named
    return next(([Path(path)] for path in SYSTEM_STORES if os.path.isfile(path)), [])


def own_authorities(environ: Mapping[str, str] = os.environ) -> list[str]:
    """The authorities, as PEM, that programs on this machine trust besides the public ones.

    REQUESTS_CA_BUNDLE and PIP_CERT count as well: where only they are set, pip works.
    """
    files = store_files(environ)
    named = (environ.get(name) for name in ("REQUESTS_CA_BUNDLE", "PIP_CERT"))
    files += [path for path in (Path(name) for name in named if name) if path.is_file()]
    trusted = _certificates(dict.fromkeys(files))
    for public in _public():
        if not trusted:
            return []
        trusted -= _certificates(public)
    return _only_authorities(trusted)


def trusted_files(with_own: bool) -> list[Path]:
    """The files whose authorities uv trusts in a local job: the store where variables name it or
    authorities of this machine's own are in it, else those that Mozilla lists."""
    if with_own or os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR"):
        return store_files()
    return next(_public())


def _public() -> Iterator[list[Path]]:
    """The files that hold public authorities; the distribution's are read only if need be."""
    from importlib.util import find_spec

    # Its file, not `certifi.where()`: some distributions have that name this machine's own store.
    certifi = find_spec("certifi")
    if certifi is not None and certifi.origin is not None:
        yield [Path(certifi.origin).with_name("cacert.pem")]
    for folder, pattern in _SHIPPED:
        yield sorted(Path(folder).glob(pattern))


def _certificate_files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file())
    except OSError:
        return []


def _certificates(files: Iterable[Path]) -> set[str]:
    """Every certificate in these files, as base64; a file that cannot be read holds none."""
    found = set()
    for path in files:
        try:
            with path.open("rb") as file:
                text = file.read(MAX_STORE).decode("latin-1")
        except OSError:
            continue
        for piece in text.split(_BEGIN)[1:]:
            body = "".join(piece.partition(_END)[0].split())
            if body.isascii():
                found.add(body)
    return found


def _only_authorities(certificates: Iterable[str]) -> list[str]:
    """As PEM, without what cannot be read and what is a server's own certificate."""
    return [
        pem for pem, _ in _decoded(f"{_BEGIN}\n{one}\n{_END}\n" for one in sorted(certificates))
    ]


def names_of(authorities: Iterable[str]) -> list[str]:
    """What people call these authorities: the common name of each, or its organization."""
    return [name for _, name in _decoded(authorities)]


def _decoded(certificates: Iterable[str]) -> Iterator[tuple[str, str]]:
    import ssl

    for pem in certificates:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(cadata=pem)
        except (ValueError, ssl.SSLError):
            continue
        # Only what may sign other certificates is listed.
        ders = context.get_ca_certs(binary_form=True)
        for der, known in zip(ders, context.get_ca_certs(), strict=True):
            parts = cast("tuple[tuple[tuple[str, str], ...], ...]", known["subject"])
            subject = dict(pair for part in parts for pair in part)
            name = subject.get("commonName") or subject.get("organizationName") or "without a name"
            yield ssl.DER_cert_to_PEM_cert(der), str(name)
