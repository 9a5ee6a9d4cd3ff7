"""Find the cluster and the credentials by kubectl's rules, with the kubernetes package.

Imported at the first request, because the package takes about 0.2 s to load.
"""

from __future__ import annotations

import datetime
import json
import os
import shlex
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3
from kubernetes.client import Configuration
from kubernetes.client.rest import RESTClientObject
from kubernetes.config.config_exception import ConfigException
from kubernetes.config.incluster_config import (
    SERVICE_CERT_FILENAME,
    SERVICE_TOKEN_FILENAME,
    InClusterConfigLoader,
)
from kubernetes.config.kube_config import FileOrData, KubeConfigLoader, KubeConfigMerger
from urllib3.util.ssl_ import create_urllib3_context

from backends.common.answers import BoundedResponse
from stoke.errors import EngineError
from stoke.files.untrusted import parse_json

DEFAULT_FILE = "~/.kube/config"
IN_CLUSTER = "in-cluster"
# Generous, because a plugin may have to ask a server for a token.
PLUGIN_SECONDS = 60
# Idle connections to keep: a screen makes many requests at once.
CONNECTIONS = 32
# A token is not used in its last seconds, because it would expire on the way.
EXPIRES_EARLY = datetime.timedelta(seconds=10)


@dataclass(frozen=True)
class Plugin:
    """A program that the kubeconfig names for getting credentials.

    `command` runs with `variables` added to the environment. `source` is the file that names it.
    """

    command: tuple[str, ...]
    variables: tuple[tuple[str, str], ...]
    source: str


@dataclass(frozen=True)
class Access:
    """A cluster and the credentials for it: a connection pool, and the headers that authenticate."""

    server: str
    context: str
    namespace: str
    pool: urllib3.PoolManager
    headers: Mapping[str, str]
    expires: datetime.datetime | None

    @property
    def expired(self) -> bool:
        now = datetime.datetime.now(datetime.UTC)
        return self.expires is not None and now + EXPIRES_EARLY >= self.expires


@dataclass(frozen=True)
class KubeContext:
    """One context of the kubeconfig, read without getting credentials."""

    name: str
    server: str
    namespace: str
    plugin: Plugin | None
    kubectl: str
    """The kubectl command that reaches the same cluster, for hints."""
    merged: Any = field(repr=False)


def find(context: str | None, kubeconfig: str | None) -> KubeContext:
    """Return the context to use. Reads files and runs nothing. Raises `EngineError` if there is
    none.

    `kubeconfig` overrides KUBECONFIG: one file, or several separated by colons, of which the first
    that defines a name wins. Without any file, a pod's own service account is used.
    """
    paths, merged = _read(kubeconfig)
    if merged.config is None:
        if context is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
            return KubeContext(
                IN_CLUSTER, _in_cluster_server(), _in_cluster_namespace(), None, "kubectl", None
            )
        raise EngineError(
            f"there is no kubeconfig: {paths} does not exist",
            f"name one: export {_variable(kubeconfig)}=/its/path; or run on this machine: -b local",
        )
    name = context or _current(merged, paths)
    try:
        return _context(merged, name, paths)
    except ConfigException as error:
        raise EngineError(
            f"the kubeconfig {paths} has no usable context {name!r}: {_one_line(error)}",
            f"list the contexts: {_kubectl(paths)} config get-contexts",
        ) from error


def list_contexts(kubeconfig: str | None) -> tuple[str | None, dict[str, KubeContext | str]]:
    """Return the current context's name, and every context or the reason why it is unusable.

    Runs nothing. Without a kubeconfig there are no contexts. Raises `EngineError` if it is
    unreadable.
    """
    paths, merged = _read(kubeconfig)
    if merged.config is None:
        return None, {}
    found: dict[str, KubeContext | str] = {}
    for one in merged.config.value.get("contexts") or ():
        name = str(one["name"])
        try:
            found[name] = _context(merged, name, paths)
        except ConfigException as error:
            found[name] = _one_line(error)
    try:
        return _current(merged, paths), found
    except EngineError:
        return None, found


def _read(kubeconfig: str | None) -> tuple[str, Any]:
    """Return the path, and the merged files, whose `config` is None if no file exists."""
    paths = kubeconfig or os.environ.get("KUBECONFIG") or DEFAULT_FILE
    try:
        merged = KubeConfigMerger(paths)
    except Exception as error:
        # Errors of YAML, of the file system, and of files with other content.
        raise EngineError(
            f"the kubeconfig {paths} cannot be read: {_one_line(error)}",
            f"check it: {_kubectl(paths)} config view; or name another: "
            f"export {_variable(kubeconfig)}=/its/path",
        ) from error
    return paths, merged


def connect(found: KubeContext, approve: Callable[[Plugin], None] | None) -> Access:
    """Get the credentials. Runs the context's plugin, if it has one and `approve` does not raise."""
    configuration = Configuration()
    loader: Any
    try:
        # Certificates and keys inside a kubeconfig are files only while they are loaded.
        with tempfile.TemporaryDirectory(prefix="stoke-") as folder:
            if found.merged is None:
                loader = InClusterConfigLoader(SERVICE_TOKEN_FILENAME, SERVICE_CERT_FILENAME)
                loader.load_and_set(configuration)
            else:
                if found.plugin is not None and approve is not None:
                    approve(found.plugin)
                loader = _Loader(  # type: ignore[no-untyped-call]
                    found.merged.config,
                    active_context=found.name,
                    config_persister=found.merged.save_changes,
                    temp_file_path=folder,
                )
                loader.plugin = found.plugin
                loader.load_and_set(configuration)
            context = _tls(configuration)
    except (ConfigException, OSError, ValueError) as error:
        raise EngineError(
            f"the credentials of the context {found.name!r} cannot be used: {_one_line(error)}",
            f"check whether kubectl can use them: {found.kubectl} version",
        ) from error
    headers = {"User-Agent": "stoke"}
    # Expired credentials are replaced as a whole; the package's own hook would run the plugin
    # twice.
    configuration.refresh_api_key_hook = None
    token = configuration.get_api_key_with_prefix("BearerToken")
    if token:
        headers["Authorization"] = token
    return Access(
        server=found.server,
        context=found.name,
        namespace=found.namespace,
        pool=_pool(configuration, context),
        headers=headers,
        expires=getattr(loader, "expiry", None),
    )


class _Loader(KubeConfigLoader):
    """Run plugins without a terminal, and report their failures."""

    plugin: Plugin | None = None
    _user: Any
    _cluster: Any

    def _load_from_exec_plugin(self) -> bool | None:
        if self.plugin is None:
            return None
        status = run_plugin(self.plugin, self._user["exec"].value, self._cluster.value)
        if status.get("token"):
            self.token = f"Bearer {status['token']}"
        if status.get("clientCertificateData"):
            for name, key in ("cert_file", "clientCertificateData"), ("key_file", "clientKeyData"):
                kept = FileOrData(
                    status,
                    None,
                    key,
                    base64_file_content=False,
                    temp_file_path=self._temp_file_path,
                )
                setattr(self, name, kept.as_file())
        if status.get("expirationTimestamp"):
            self.expiry = datetime.datetime.fromisoformat(status["expirationTimestamp"])
        return True


def run_plugin(
    plugin: Plugin, asked: Mapping[str, Any], cluster: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the status in the plugin's answer. `asked` is the plugin's entry in the kubeconfig."""
    version = str(asked.get("apiVersion"))
    spec: dict[str, Any] = {"interactive": False}
    if asked.get("provideClusterInfo"):
        spec["cluster"] = _cluster_info(cluster)
    request = {"apiVersion": version, "kind": "ExecCredential", "spec": spec}
    shown = " ".join(plugin.command)
    if asked.get("interactiveMode") == "Always":
        raise ConfigException(f"{shown} needs a terminal, which it does not have here")
    try:
        done = subprocess.run(
            plugin.command,
            # Not this program's terminal, which may show a screen.
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PLUGIN_SECONDS,
            env={
                **os.environ,
                **dict(plugin.variables),
                "KUBERNETES_EXEC_INFO": json.dumps(request),
            },
        )
    except FileNotFoundError:
        advice = asked.get("installHint") or f"it is named in {plugin.source}"
        raise ConfigException(f"{plugin.command[0]} is not installed: {advice}") from None
    except subprocess.TimeoutExpired:
        raise ConfigException(f"{shown} took longer than {PLUGIN_SECONDS} s") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise ConfigException(f"{shown} ended with status {done.returncode}: {said}")
    try:
        answer = parse_json(done.stdout)
        status = answer["status"]
        if answer["apiVersion"] != version:
            raise ConfigException(f"{shown} speaks {answer['apiVersion']}, not {version}")
    except (ValueError, KeyError, TypeError):
        raise ConfigException(f"{shown} did not answer with an ExecCredential") from None
    whole = status.get("clientCertificateData") and status.get("clientKeyData")
    if not isinstance(status, dict) or not (status.get("token") or whole):
        raise ConfigException(f"{shown} answered with neither a token nor a certificate")
    return status


def _context(merged: Any, name: str, paths: str) -> KubeContext:
    config = merged.config
    inside = config["contexts"].get_with_name(name)["context"]
    cluster = config["clusters"].get_with_name(inside["cluster"])
    plugin = None
    if inside.safe_get("user"):
        user = config["users"].get_with_name(inside["user"])["user"]
        if isinstance(user.value, dict) and user.value.get("exec"):
            plugin = _plugin(user)
    return KubeContext(
        name=name,
        server=str(cluster["cluster"]["server"]).rstrip("/"),
        namespace=inside.safe_get("namespace") or "default",
        plugin=plugin,
        kubectl=f"{_kubectl(paths)} --context {shlex.quote(name)}",
        merged=merged,
    )


def _plugin(user: Any) -> Plugin:
    asked = user["exec"].value
    command = str(asked.get("command") or "")
    if not command:
        raise ConfigException("its exec plugin has no command")
    if "/" in command:
        # Like kubectl, relative to the folder of the file that names the plugin.
        command = str(Path(user.path).parent.absolute() / command)
    return Plugin(
        command=(command, *(str(one) for one in asked.get("args") or ())),
        variables=tuple((str(one["name"]), str(one["value"])) for one in asked.get("env") or ()),
        source=str(user.path),
    )


def _current(merged: Any, paths: str) -> str:
    """Return the current context of the first file that names one, as kubectl does.

    The kubernetes package takes the last.
    """
    for content in merged.config_files.values():
        if name := content.get("current-context"):
            return str(name)
    raise EngineError(
        "the kubeconfig names no current context",
        f"choose one: {_kubectl(paths)} config use-context NAME, or give --context NAME",
    )


def _variable(kubeconfig: str | None) -> str:
    """Return the variable that overrides the kubeconfig. A configured path wins over KUBECONFIG."""
    return "STOKE_ARGO__KUBECONFIG" if kubeconfig else "KUBECONFIG"


def _kubectl(paths: str) -> str:
    """Return the kubectl command that reads the same files."""
    if paths == (os.environ.get("KUBECONFIG") or DEFAULT_FILE):
        return "kubectl"
    return f"KUBECONFIG={shlex.quote(paths)} kubectl"


def _cluster_info(cluster: Mapping[str, Any]) -> dict[str, Any]:
    kept = {
        key: cluster[key]
        for key in (
            "server",
            "tls-server-name",
            "insecure-skip-tls-verify",
            "certificate-authority-data",
            "proxy-url",
        )
        if key in cluster
    }
    for extension in cluster.get("extensions") or ():
        if extension.get("name") == "client.authentication.k8s.io/exec":
            kept["config"] = extension.get("extension")
    return kept


def _in_cluster_server() -> str:
    host = os.environ["KUBERNETES_SERVICE_HOST"]
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _in_cluster_namespace() -> str:
    try:
        return Path(SERVICE_TOKEN_FILENAME).with_name("namespace").read_text().strip() or "default"
    except OSError:
        return "default"


def _tls(configuration: Any) -> ssl.SSLContext:
    """Return a context that verifies certificates like kubectl.

    Since Python 3.13 the defaults reject the CA of many clusters.
    """
    context = create_urllib3_context()
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not configuration.verify_ssl:
        # The kubeconfig turns verification off on purpose, and the warning would print into a
        # screen.
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif configuration.ssl_ca_cert:
        context.load_verify_locations(configuration.ssl_ca_cert)
    else:
        context.load_default_certs()
    if configuration.cert_file and configuration.key_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    return context


def _pool(configuration: Any, context: ssl.SSLContext) -> urllib3.PoolManager:
    """Return the package's connection pool, which knows proxies and server names.

    The certificates are in `context` already.
    """
    configuration.ssl_ca_cert = configuration.cert_file = configuration.key_file = None
    configuration.keep_alive = True
    configuration.connection_pool_maxsize = CONNECTIONS
    pool: urllib3.PoolManager = RESTClientObject(configuration).pool_manager
    pool.connection_pool_kw["ssl_context"] = context
    pool.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
    return pool


_socket_report = threading.local()


@contextmanager
def reporting_socket(tell: Callable[[Any], None]) -> Iterator[None]:
    """Inside the block, this thread's requests pass their socket to `tell` before they wait for the
    response.

    A log has no response while its container is silent, and must be closable all the same.
    """
    _socket_report.tell = tell
    try:
        yield
    finally:
        _socket_report.tell = None


class _SocketReporter:
    sock: Any
    response_class: Any = BoundedResponse

    def getresponse(self) -> Any:
        tell = getattr(_socket_report, "tell", None)
        if tell is not None:
            tell(self.sock)
        return super().getresponse()  # type: ignore[misc]


class _HTTPConnection(_SocketReporter, urllib3.connection.HTTPConnection):
    pass


class _HTTPSConnection(_SocketReporter, urllib3.connection.HTTPSConnection):
    pass


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
