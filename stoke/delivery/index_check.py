"""Check whether this machine reaches the package indexes as uv would, and find out what prevents it.

Uses the standard library and one connection per request, to see which step fails: name, connection,
proxy, certificate, login or address.
"""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

from stoke.backend.api import CheckResult
from stoke.config.defaults import with_defaults
from stoke.config.model import Config
from stoke.delivery.network import environment_proxies, names_of, own_authorities, trusted_files
from stoke.delivery.payload import read_reference
from stoke.delivery.uv_config import uv_config
from stoke.errors import RequestError
from stoke.request.default_index import default_index
from stoke.request.spec import make_spec
from stoke.request.surroundings import login_variables
from stoke.request.variables import expanded, fill_in
from stoke.text.urls import basic_authorization, login_of, split_login

ANSWER_SECONDS = 3.0
"""Timeout of each step: a connection, a handshake, an answer."""
PATIENCE = 6.0
"""Timeout of the whole check. A name lookup takes no timeout, so its thread is abandoned."""
DEFAULT_PORTS = {"http": 80, "https": 443}


class TroubleError(Exception):
    """Why a request got no useful answer, with a hint."""

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


@dataclass(frozen=True)
class Proxy:
    """A proxy's address and the variable or setting that has it."""

    address: SplitResult
    variable: str

    @property
    def host(self) -> str:
        """The address to show, without the login."""
        return f"{self.address.hostname}:{self.address.port or DEFAULT_PORTS['http']}"

    @property
    def login(self) -> dict[str, str]:
        login = split_login(self.address.geturl())[0]
        return {"Proxy-Authorization": basic_authorization(*login_of(login))} if login else {}


def start_check(config: Config) -> Callable[[], list[CheckResult]]:
    """Start the check on a thread; return a function that waits for its findings."""
    found: list[CheckResult] = []
    began = time.monotonic()
    thread = threading.Thread(target=lambda: found.extend(check_network(config)), daemon=True)
    thread.start()

    def result() -> list[CheckResult]:
        thread.join(max(0.0, began + PATIENCE - time.monotonic()))
        if found:
            return list(found)
        detail = f"no answer within {PATIENCE:.0f} s"
        return [CheckResult("index", False, detail, "check the network and the name server")]

    return result


def check_network(config: Config) -> list[CheckResult]:
    """Return one finding for the certificates in use and one for each index."""
    certificates = _certificates(config)
    if not certificates.works:
        return [certificates]  # No server is trusted until this is fixed.
    context = _context(config)
    try:
        logins = _indexes(config)
    except RequestError as error:
        return [certificates, CheckResult("index", False, error.what, error.hint)]
    with ThreadPoolExecutor(len(logins) or 1) as pool:
        asked = pool.map(lambda url: _index(url, logins[url], config, context), logins)
        return [certificates, *asked]


# ---------------------------------------------------------------------------- certificates


def _certificates(config: Config) -> CheckResult:
    what, bundle = "certificates", config.index.ca_bundle
    if bundle:
        if os.path.isfile(Path(bundle).expanduser()):
            return CheckResult(what, True, f"only those in {bundle} (index.ca_bundle)")
        return CheckResult(
            what, False, f"index.ca_bundle names {bundle}, which does not exist",
            "name an existing file, or unset index.ca_bundle",
        )  # fmt: skip
    for variable, exists in (("SSL_CERT_FILE", os.path.isfile), ("SSL_CERT_DIR", os.path.isdir)):
        value = os.environ.get(variable)
        if value and not any(exists(path) for path in value.split(":")):
            return CheckResult(
                what, False, f"{variable} names {value}, which does not exist, so uv trusts no server",
                f"unset {variable}, or set it to an existing path",
            )  # fmt: skip
    own = names_of(own_authorities())
    if not own:
        return CheckResult(what, True, "the public authorities")
    names = ", ".join(own[:3]) + (f" and {len(own) - 3} more" if len(own) > 3 else "")
    return CheckResult(what, True, f"the public authorities, and those of this machine: {names}")


def _context(config: Config) -> ssl.SSLContext:
    """Return a context that trusts the same authorities as the uv of a local job."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Like uv, without the stricter checks of authorities that Python makes since 3.13.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    bundle = config.index.ca_bundle
    own = [] if bundle else own_authorities()
    for file in [Path(bundle).expanduser()] if bundle else trusted_files(bool(own)):
        with suppress(OSError, ssl.SSLError):  # A folder may hold anything.
            context.load_verify_locations(cafile=file)
    for authority in own:
        context.load_verify_locations(cadata=authority)
    return context


# ---------------------------------------------------------------------------- indexes


def _indexes(config: Config) -> dict[str, tuple[str, str]]:
    """Return the indexes that jobs from here use, each with the user and password of uv's settings.

    They come from the configuration, and from the variables and files of uv that a request includes.
    """
    any_request = make_spec({"code": "pass", "dependencies": ["uv"]})
    uv = uv_config(with_defaults(any_request, config))
    configured = [url for url in (config.index.url, *config.index.extra) if url]
    found = dict.fromkeys(configured, ("", ""))
    own = {split_login(url)[1] for url in configured}
    for url, name in uv.indexes.items():
        if url not in own:
            user, password = (uv.environment.get(one, "") for one in login_variables(name))
            found[url] = (user, password)
    if config.index.url is None:  # uv asks the default index first.
        default = split_login(uv.default["url"])[1] if uv.default else default_index()
        if default:
            found = {default: found.get(default, ("", "")), **found}
    return {url: login for url, login in found.items() if url.startswith(("http://", "https://"))}


def _index(
    url: str, named: tuple[str, str], config: Config, context: ssl.SSLContext
) -> CheckResult:
    shown = split_login(url)[1]
    try:
        parts = urlsplit(expanded(url, "index"))
        login = _login(url, parts, named, config)
        proxy = _proxy(parts, config)
        way = f" through the proxy {proxy.host} ({proxy.variable})" if proxy else ""
        if proxy and proxy.address.scheme != "http":
            kind = proxy.address.scheme
            return CheckResult("index", True, f"{shown} was not checked: its proxy uses {kind}")
        status = _ask(parts, f"{parts.path.rstrip('/')}/uv/", login, proxy, context)
        if status == 404:
            # An index may lack uv. Its list of all packages is long, so it is requested only then.
            status = _ask(parts, f"{parts.path.rstrip('/')}/", login, proxy, context)
        _judge(status, parts, bool(login), config)
    except TroubleError as error:
        return CheckResult("index", False, f"{shown}: {error.what}", error.hint)
    except RequestError as error:
        return CheckResult("index", False, f"{shown}: {error.why}", error.hint)
    return CheckResult("index", True, f"{shown} answers{way}")


def _judge(status: int, parts: SplitResult, has_login: bool, config: Config) -> None:
    if status in (401, 403):
        if has_login:
            where = config.index.credentials or "its address or netrc"
            raise TroubleError(
                f"refuses the login ({status})", f"correct the user and password in {where}"
            )
        raise TroubleError(
            f"requires a login ({status})",
            "export INDEX_LOGIN=USER:PASSWORD STOKE_INDEX__CREDENTIALS=env:INDEX_LOGIN",
        )
    if status == 404:
        raise TroubleError(
            "no package index at this address (404)",
            "check its path; most index addresses end in /simple",
        )
    if status == 407:
        raise TroubleError("a proxy on the way requires a login (407)", _behind_proxy(parts.scheme))
    if status >= 400:
        later = "try again later, or ask its administrators"
        raise TroubleError(f"answers with an error ({status})", later if status >= 500 else None)


def _login(url: str, parts: SplitResult, named: tuple[str, str], config: Config) -> dict[str, str]:
    """Return the login header that uv would send.

    The login comes from uv's settings (`named`), the address `url` (`parts` has its variables filled
    in), the configuration, or netrc, in this order.
    """
    if any(named):
        return {"Authorization": basic_authorization(*named)}
    if login := split_login(url)[0]:
        user, password = login_of(fill_in(login, "index"))
        return {"Authorization": basic_authorization(user, password)}
    index = config.index
    meant = [index.url] if index.url else list(index.extra)
    if index.credentials and url in meant:
        user, _, password = read_reference(index.credentials, "index.credentials").partition(":")
        return {"Authorization": basic_authorization(user, password)}
    from netrc import NetrcParseError, netrc

    try:
        known = netrc(os.environ.get("NETRC") or None).authenticators(parts.hostname or "")
    except (OSError, NetrcParseError, KeyError):
        return {}
    return {"Authorization": basic_authorization(known[0], known[2])} if known else {}


def _proxy(parts: SplitResult, config: Config) -> Proxy | None:
    """Return the proxy that uv uses: from the configuration, or the environment unless in NO_PROXY."""
    known = environment_proxies()
    if proxy_bypass_environment(parts.netloc.rpartition("@")[2], {"no": known.get("no_proxy", "")}):
        return None
    name = next((name for name in (f"{parts.scheme}_proxy", "all_proxy") if name in known), None)
    if config.index.proxy:
        address, variable = config.index.proxy, "index.proxy"
    elif name is not None:
        address, variable = known[name], name if os.environ.get(name) else name.upper()
    else:
        return None
    return Proxy(urlsplit(address if "://" in address else f"http://{address}"), variable)


# ---------------------------------------------------------------------------- one request


def _ask(
    parts: SplitResult, path: str, login: Mapping[str, str], proxy: Proxy | None,
    context: ssl.SSLContext,
) -> int:  # fmt: skip
    """Return the status of a GET without reading its body. Raises `TroubleError` without an answer."""
    headers = {"Accept": "text/html", "User-Agent": "stoke", "Connection": "close", **login}
    port = parts.port or DEFAULT_PORTS[parts.scheme]
    host = parts.hostname or ""
    if proxy and parts.scheme == "http":
        path = parts._replace(netloc=parts.netloc.rpartition("@")[2], path=path).geturl()
        headers |= proxy.login

    def reach() -> socket.socket:
        sock = _connect(host, port, parts.scheme, proxy)
        if proxy and parts.scheme == "https":
            _tunnel(sock, f"{host}:{port}", proxy)
        return sock

    with _secure(reach, host, context) if parts.scheme == "https" else reach() as sock:
        connection = http.client.HTTPConnection(host, port)
        connection.sock = sock
        try:
            connection.request("GET", path, headers=headers)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            what = f"ended the connection without an answer ({type(error).__name__})"
            raise TroubleError(what, "try again later, or ask its administrators") from error
    if status == 407 and proxy:
        raise _refused_by(proxy, status, host, parts.scheme)
    return status


def _connect(host: str, port: int, scheme: str, proxy: Proxy | None) -> socket.socket:
    if proxy:
        host, port = proxy.address.hostname or "", proxy.address.port or DEFAULT_PORTS["http"]
    whose = f"the proxy {host}:{port} ({proxy.variable})" if proxy else f"{host}:{port}"
    hint = f"correct {proxy.variable}, or unset it" if proxy else _behind_proxy(scheme)
    try:
        return socket.create_connection((host, port), timeout=ANSWER_SECONDS)
    except (socket.gaierror, UnicodeError) as error:
        what = f"the name {host} of the proxy ({proxy.variable})" if proxy else f"the name {host}"
        # UnicodeError for a part of the name with more than 63 characters.
        why = error.strerror if isinstance(error, OSError) else "it is no valid name"
        raise TroubleError(f"{what} cannot be resolved: {why}", hint) from error
    except TimeoutError as error:
        raise TroubleError(
            f"{whose} does not answer within {ANSWER_SECONDS:.0f} s", hint
        ) from error
    except ConnectionRefusedError as error:
        raise TroubleError(f"{whose} refuses the connection", hint) from error
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise TroubleError(f"{whose} cannot be reached: {reason}", hint) from error


def _behind_proxy(scheme: str) -> str:
    variable = f"{scheme.upper()}_PROXY"
    return (
        "check the address and the network; if connections need a proxy: "
        f"export {variable}=http://HOST:PORT"
    )


def _tunnel(sock: socket.socket, target: str, proxy: Proxy) -> None:
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", "User-Agent: stoke"]
    lines += [f"{name}: {value}" for name, value in proxy.login.items()]
    try:
        sock.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = http.client.HTTPResponse(sock, method="CONNECT")
        answer.begin()
    except (OSError, http.client.HTTPException) as error:
        what = f"the server at {proxy.host} ({proxy.variable}) does not answer as a proxy"
        raise TroubleError(what, f"correct {proxy.variable}, or unset it") from error
    if answer.status != 200:
        raise _refused_by(proxy, answer.status, target.rpartition(":")[0], "https")


def _refused_by(proxy: Proxy, status: int, host: str, scheme: str) -> TroubleError:
    if status == 407:
        has = "refuses its login" if proxy.login else "requires a login"
        variable = proxy.variable
        if variable == "index.proxy":
            # The setting is stored with each job, so it must not hold a password.
            variable = f"{scheme.upper()}_PROXY"
            hint = f"unset index.proxy, and export {variable}=http://USER:PASSWORD@{proxy.host}"
        else:
            hint = f"export {variable}=http://USER:PASSWORD@{proxy.host}"
        return TroubleError(f"the proxy {proxy.host} ({proxy.variable}) {has} (407)", hint)
    return TroubleError(
        f"the proxy {proxy.host} ({proxy.variable}) refuses to connect ({status})",
        f"ask the proxy's administrators; if {host} needs no proxy: export NO_PROXY={host}",
    )


def _secure(
    reach: Callable[[], socket.socket], host: str, context: ssl.SSLContext
) -> ssl.SSLSocket:
    try:
        return context.wrap_socket(reach(), server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in _NOT_TRUSTED:
            what = f"its certificate comes from an authority that is not trusted here: {_issuer(reach)}"
            raise TroubleError(what, _trust_it()) from error
        what = f"its certificate is not valid: {error.verify_message}"
        raise TroubleError(what, "check this machine's clock, and the address") from error
    except TimeoutError as error:
        what = f"no TLS handshake within {ANSWER_SECONDS:.0f} s"
        raise TroubleError(what, "check the address and the port") from error
    except ssl.SSLEOFError as error:
        what = "ended the connection during the TLS handshake"
        raise TroubleError(what, "check the address and the port") from error
    except ssl.SSLError as error:
        hint = "check the address and the port; addresses without TLS begin with http://"
        raise TroubleError(f"does not speak TLS ({error.reason})", hint) from error
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        what = f"ended the connection during the TLS handshake: {reason}"
        raise TroubleError(what, "check the address and the port") from error


# OpenSSL's X509_V_ERR_*: the issuer is missing or self-signed.
_NOT_TRUSTED = (2, 18, 19, 20, 21)


def _issuer(reach: Callable[[], socket.socket]) -> str:
    """Return the issuer of the last certificate that the server sends: the authority to add."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with context.wrap_socket(reach()) as sock:
            # Python offers no public way to decode an unverified certificate.
            inner: Any = getattr(sock, "_sslobj")  # noqa: B009
            issuer = inner.get_unverified_chain()[-1].get_info()["issuer"]
    except (OSError, TroubleError, AttributeError, KeyError, IndexError, TypeError):
        return "its name cannot be read"
    names = dict(pair for part in issuer for pair in part)
    return str(names.get("commonName") or names.get("organizationName") or "without a name")


def _trust_it() -> str:
    """Return how to add an authority to this system, and how to add it for stoke alone."""
    for program, folder in (
        ("update-ca-certificates", "/usr/local/share/ca-certificates/"),
        ("update-ca-trust", "/etc/pki/ca-trust/source/anchors/"),
    ):
        if shutil.which(program, path="/usr/sbin:/sbin:/usr/bin:/bin"):
            everywhere = f"sudo cp FILE.crt {folder} && sudo {program}; or for stoke alone: "
            break
    else:
        everywhere = ""
    return (
        f"get that authority's certificate as a file, then {everywhere}"
        "export STOKE_INDEX__CA_BUNDLE=/path/FILE.crt"
    )
