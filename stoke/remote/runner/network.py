"""The proxies and certificate authorities of everything that downloads."""

from __future__ import annotations

import os

from stoke.remote.common.network import SYSTEM_STORES, is_loopback
from stoke.remote.runner.files import write_atomically

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stoke.remote.runner.job import RemoteJob

PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy")


def _read_store() -> tuple[str, str]:
    """Return (path, text) of the certificate store that programs use here.

    The path is empty if variables name the store, because uv reads those; both are empty without a
    store.
    """
    named = [os.environ.get("SSL_CERT_FILE", "")]
    for folder in os.environ.get("SSL_CERT_DIR", "").split(":"):
        if os.path.isdir(folder):
            named += [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    named = [path for path in named if os.path.isfile(path)]
    paths = named or [path for path in SYSTEM_STORES if os.path.isfile(path)][:1]
    texts = []
    for path in paths:
        try:
            with open(path, encoding="latin-1") as file:
                texts.append(file.read())
        except OSError:  # such folders often hold keys that only root may read
            pass
    return "" if named or not paths else paths[0], "\n".join(texts)


class ConnectionSettings:
    """Proxies and certificate authorities for uv and Nix; the user's code does not get them."""

    def __init__(self, job: RemoteJob) -> None:
        self._job = job
        self._index = job.payload["index"]
        self._variables: dict[str, str] | None = None

    def variables(self) -> dict[str, str]:
        """Return the variables that name proxies and certificate authorities."""
        if self._variables is None:
            self._variables = {**self._proxies(), **self._authorities()}
        return self._variables

    def _proxies(self) -> dict[str, str]:
        """Return variables for the request's proxy, or else for those of the submitting machine.

        A job whose own environment names proxies, on this machine or in an image, uses those.
        """
        if self._index["proxy"]:
            found = {"http_proxy": self._index["proxy"], "https_proxy": self._index["proxy"]}
        elif any(os.environ.get(name) or os.environ.get(name.upper()) for name in PROXY_VARIABLES):
            return {}
        else:
            found = dict(self._index["proxies"])
            for name in [name for name in PROXY_VARIABLES if is_loopback(found.get(name, ""))]:
                if self._job.container:
                    del found[name]
                    self._job.events.note(
                        "%s of the submitting machine is not used: a container cannot reach a proxy "
                        "that listens on that machine's loopback address" % name.upper()
                    )
        return {**found, **{name.upper(): address for name, address in found.items()}}

    def _authorities(self) -> dict[str, str]:
        """Return variables for the request's authorities, which replace all others.

        Without such, add the authorities of the submitting machine to the store here. Without either,
        uv trusts the public authorities.
        """
        if self._job.ca_bundle:
            return _trusting(self._job.ca_bundle)
        text = self._index["ca_bundle"]
        if text is None:
            if not self._index["authorities"]:
                return {}
            path, text = _read_store()
            known = "".join(text.split())
            missing = [
                pem for pem in self._index["authorities"] if "".join(pem.split()) not in known
            ]
            if not missing:
                return {"SSL_CERT_FILE": path} if path else {}
            if not text:
                self._job.events.note(
                    "this job has no certificate store: only the %d authorities of the submitting "
                    "machine are trusted" % len(missing)
                )
            text = "\n".join([text, *missing])
        bundle = os.path.join(self._job.work, ".ca.pem")
        write_atomically(bundle, text)
        return _trusting(bundle)


def _trusting(bundle: str) -> dict[str, str]:
    return {"SSL_CERT_FILE": bundle, "GIT_SSL_CAINFO": bundle}
