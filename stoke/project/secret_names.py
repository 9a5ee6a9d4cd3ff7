"""Tell files that probably hold secrets by their names."""

from __future__ import annotations

# Private keys, key stores, and the settings and states of tools that hold passwords.
_ENDINGS = (
    ".pem", ".key", ".p12", ".pfx", ".jks", ".keystore", ".kdbx", ".ppk", ".ovpn", ".kubeconfig",
    ".tfstate", ".tfstate.backup",
)  # fmt: skip
_NAMES = frozenset(
    {
        ".env", ".envrc", ".netrc", "_netrc", ".pypirc", ".npmrc", ".pgpass", ".my.cnf",
        ".git-credentials", ".dockercfg", ".htpasswd", ".boto", ".s3cfg", ".databrickscfg",
        ".vault-token", ".terraformrc", "kaggle.json", "kubeconfig", "credentials",
        "credentials.json", "credentials.csv", "credentials.db", "access_tokens.db",
        "application_default_credentials.json",
    }
)  # fmt: skip
_JSON = ("client_secret", "service-account", "service_account", "serviceaccount")
# Templates of such files, which people keep beside the code.
_TEMPLATES = (".example", ".sample", ".template", ".dist")
_IN_FOLDERS = frozenset({".docker/config.json", ".kube/config", ".streamlit/secrets.toml"})
_FOLDERS = frozenset({".aws", ".azure", ".gnupg", ".ssh"})


def looks_secret(path: str) -> bool:
    """Return whether a file of this path looks like a secret."""
    if path.endswith(".py"):  # Most files, and code is no secret.
        return False
    folders, _, name = path.lower().rpartition("/")
    if (
        name in _NAMES
        or name.endswith(_ENDINGS)
        or name.startswith((".env.", "kubeconfig."))
        # The private keys of ssh have no suffix, unlike id_map.csv and the public keys.
        or (name.startswith("id_") and "." not in name)
        or (name.endswith(".json") and name.startswith(_JSON))
    ):
        return not name.endswith(_TEMPLATES)
    if not folders:
        return False
    folder = folders.rpartition("/")[2]
    return folder in _FOLDERS or f"{folder}/{name}" in _IN_FOLDERS
