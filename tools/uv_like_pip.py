"""Run uv with the settings that pip has on this machine: `uv_like_pip.py UV ARGUMENTS...`.

uv reads neither pip.conf nor PIP_* variables, and trusts the public certificate authorities only. Run
by `tools/setup` with the machine's own Python, so this needs the standard library and pip.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys

SECTIONS = ("global", "install", ":env:")  # as in pip, a later one wins


def pip_settings() -> dict[str, str]:
    """Return the settings of `pip install` from its files and variables; empty if pip fails."""
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    found: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for line in asked.stdout.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        try:
            found[section][name] = str(ast.literal_eval(value))
        except (KeyError, SyntaxError, ValueError):
            continue
    return {name: value for section in SECTIONS for name, value in found[section].items()}


def uv_variables(pip: dict[str, str]) -> dict[str, str]:
    """Return the same settings as variables of uv. Every package is checked against its locked hash."""
    env = {"UV_SYSTEM_CERTS": "true", "UV_INDEX_STRATEGY": "unsafe-best-match"}
    places = [
        place
        for place in pip.get("find-links", "").split()
        if "://" in place or os.path.exists(place)  # pip passes over a folder that is not there
    ]
    for name, value in (
        ("UV_DEFAULT_INDEX", pip.get("index-url", "")),
        ("UV_EXTRA_INDEX_URL", " ".join(pip.get("extra-index-url", "").split())),
        ("UV_INSECURE_HOST", " ".join(pip.get("trusted-host", "").split())),
        ("UV_FIND_LINKS", ",".join(places)),
        ("SSL_CERT_FILE", pip.get("cert", "")),
        ("SSL_CLIENT_CERT", pip.get("client-cert", "")),
        ("HTTP_PROXY", pip.get("proxy", "")),
        ("HTTPS_PROXY", pip.get("proxy", "")),
    ):
        if value:
            env[name] = value
    if pip.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        env["UV_NO_INDEX"] = "true"
    return env


def main() -> None:
    # What is set for uv itself wins.
    own = {name: value for name, value in os.environ.items() if name.startswith("UV_")}
    env = {**uv_variables(pip_settings()), **own}
    try:
        os.execve(sys.argv[1], sys.argv[1:], {**os.environ, **env})
    except OSError as error:  # Another machine's program, a file system without programs.
        sys.exit(f"setup: {sys.argv[1]} does not run: {error.strerror}")


if __name__ == "__main__":
    main()
