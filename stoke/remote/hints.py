"""The text of every hint that the runner inside a job can give.

A job can print events of its own, so an event carries no hint as text: it carries a code and
parameters, as in `["free-space", "/tmp"]`, and this table has the text. A code that is not in the table
gives no hint, and neither does a parameter that does not match its pattern exactly. A pattern allows no
shell character and no space (but in a list of names), so a parameter cannot add a sentence or a command
to the text around it.

A script of `stoke render script` carries this file: Python 3.9, standard library only.
"""

from __future__ import annotations

import re

_PACKAGE = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_NIX_PACKAGE = r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}"
_NIX_PACKAGES = rf"{_NIX_PACKAGE}(?:, {_NIX_PACKAGE}){{0,9}}"
_VERSION = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,49}"
_PYTHON = r"3\.[0-9]{1,2}(?:\.[0-9]{1,2})?"
_SIZE = r"[1-9][0-9]{0,8}m"
# No "@": an address with a login is not shown.
_INDEX = r"https?://[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~%+/:-]*)?"
_PATH = r"/[\w./+:,=@~-]*"
_LONGEST = 500  # characters of one parameter; the runner sends fewer

# Code: the text, and a pattern for each of its parameters. {place} is how the job's cache is named on
# the command line, {docker} is empty where the job already runs in a container.
_TABLE: dict[str, tuple[str, ...]] = {
    "check-network": ("check the network and the index settings: stoke doctor",),
    "check-nix-network": ("check the network and the settings nix.url and nix.substituters",),
    "free-space": ("free space on the disk that holds {0}", _PATH),
    "prune-python": (
        "make room on the cache volume: stoke cache prune --unused 7d{place}, "
        "or stoke cache clear{place}",
    ),
    "prune-system": (
        "make room on the system volume: stoke cache prune --kind system --unused 7d{place}",
    ),
    "clear-system": ("empty the volume: stoke cache clear --kind system{place}",),
    "containers-loopback": (
        "in a container this address means the container: have the index listen on an address that "
        "containers reach, such as that of the Docker bridge, and name that one",
    ),
    "own-nix": ("run it with a /nix of its own: --no-cache",),
    "run-in-docker": ("run it in a container: stoke run -b docker",),
    "image-with-nix": ("use an image that has it: stoke setup image",),
    "image-with-uv": ("use an image that has uv: stoke setup image makes one",),
    "image-with-python": (
        "name an image that has it, for example: {docker}--image python:{0}-slim",
        _PYTHON,
    ),
    "nix-pair": ("set nix.url and nix.sha256 to a pair that belongs together",),
    "nixpkgs-names": ("packages are called as in nixpkgs: nix search nixpkgs WORD",),
    "did-you-mean": ("did you mean {0}?", _NIX_PACKAGES),
    "add-hashes": ("name it with its hashes, or take --require-hashes out",),
    "check-hashes": ("check where the hash comes from, and which index serves this package",),
    "pre-release": (
        "name a pre-release, as in {0}=={1}, or put a line --pre into a requirements file (-r)",
        _PACKAGE,
        _VERSION,
    ),
    "pre-line": ("put a line --pre into a requirements file (-r) beside {0}", _PACKAGE),
    "index-order": (
        "only the first index that has {0} is asked, {1}. If {2} is the one to trust, ask it first: "
        "--extra-index {2}",
        _PACKAGE,
        _INDEX,
        _INDEX,
    ),
    "trust-index": (
        "name a file with the certificate authority of that server: "
        "export STOKE_INDEX__CA_BUNDLE=/path/to/authority.pem",
    ),
    "more-memory": (
        "give the job more: --memory {0}. Once the packages are there, it needs less",
        _SIZE,
    ),
    "machine-memory": (
        "give the job more: make room on its machine. Once the packages are there, it needs less",
    ),
}
CODES = frozenset(_TABLE)


def hint_text(hint: object, backend: str | None = None, scope: str | None = None) -> str | None:
    """Return the text of a hint from an event, or None if the runner cannot have sent it.

    `backend` and `scope` are the job's own. A script has neither: it gets no hint that names its cache.
    """
    if not isinstance(hint, (list, tuple)) or not hint or not isinstance(hint[0], str):
        return None
    code, *parameters = hint
    if code not in _TABLE:
        return None
    text, *patterns = _TABLE[code]
    if len(parameters) != len(patterns):
        return None
    if not all(map(_is_valid, parameters, patterns)):
        return None
    if "{place}" in text and backend is None:
        return None
    place = f" -b {backend} --scope {scope}"
    docker = "-b docker " if backend in (None, "local") else ""
    return text.format(*parameters, place=place, docker=docker)


def _is_valid(parameter: object, pattern: str) -> bool:
    return (
        isinstance(parameter, str)
        and len(parameter) <= _LONGEST
        and re.fullmatch(pattern, parameter) is not None
    )
