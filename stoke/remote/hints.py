"""The text of every hint that the runner inside a job can give.

Code can print events of its own, so an event holds no hint text: it holds a code and parameters, as in
`["free-space", "/tmp"]`, and this table has the text. An unknown code gives no hint, and neither does a
parameter that does not match its pattern exactly. Patterns allow no shell characters, and spaces only
in a list of names, so a parameter cannot add a sentence or a command to the text around it.

Scripts of `stoke render script` contain this module: Python 3.9, standard library only.
"""

from __future__ import annotations

import re

from stoke.remote.protocol import HintCode

_PACKAGE = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_NIX_PACKAGE = r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}"
_NIX_PACKAGES = rf"{_NIX_PACKAGE}(?:, {_NIX_PACKAGE}){{0,9}}"
_VERSION = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,49}"
_PYTHON = r"3\.[0-9]{1,2}(?:\.[0-9]{1,2})?"
_SIZE = r"[1-9][0-9]{0,8}m"
# No "@", because an address with a login must not be shown.
_INDEX = r"https?://[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~%+/:-]*)?"
_PATH = r"/[\w./+:,=@~-]*"
_LONGEST = 500  # characters of one parameter; the runner sends fewer

# Code to text and a pattern for each parameter. {place} is the options that name the job's cache;
# {docker} is empty if the job already runs in a container.
_TABLE: dict[str, tuple[str, ...]] = {
    HintCode.CHECK_NETWORK: ("check the network and the index settings: stoke doctor",),
    HintCode.CHECK_NIX_NETWORK: (
        "check the network and the settings nix.url and nix.substituters",
    ),
    HintCode.FREE_SPACE: ("free space on the disk that holds {0}", _PATH),
    HintCode.HAS_PROGRAM: ("name the package that has it: -w PACKAGE",),
    HintCode.PRUNE_PYTHON: (
        "make room on the cache volume: stoke cache prune --unused 7d{place}, "
        "or stoke cache clear{place}",
    ),
    HintCode.PRUNE_SYSTEM: (
        "make room on the system volume: stoke cache prune --kind system --unused 7d{place}",
    ),
    HintCode.CLEAR_SYSTEM: ("empty the volume: stoke cache clear --kind system{place}",),
    HintCode.CONTAINERS_LOOPBACK: (
        "in a container this address means the container: have the index listen on an address that "
        "containers reach, such as that of the Docker bridge, and name that one",
    ),
    HintCode.OWN_NIX: ("run it with a /nix of its own: --no-cache",),
    HintCode.RUN_IN_DOCKER: ("run it in a container: stoke run -b docker",),
    HintCode.SEND_AGAIN: ("submit the job again: stoke then sends all files of the project",),
    HintCode.IMAGE_WITH_NIX: ("use an image that has it: stoke setup image",),
    HintCode.IMAGE_WITH_UV: ("use an image that has uv: stoke setup image makes one",),
    HintCode.IMAGE_WITH_PYTHON: (
        "name an image that has it, for example: {docker}--image python:{0}-slim",
        _PYTHON,
    ),
    HintCode.NO_COMPILER: (
        "no C compiler (cc, gcc or clang) is on PATH; if the build needs one, name an image that has "
        "it: {docker}--image IMAGE",
    ),
    HintCode.NIX_PAIR: ("set nix.url and nix.sha256 to a pair that belongs together",),
    HintCode.NIXPKGS_NAMES: ("packages are called as in nixpkgs: nix search nixpkgs WORD",),
    HintCode.DID_YOU_MEAN: ("did you mean {0}?", _NIX_PACKAGES),
    HintCode.ADD_HASHES: ("name it with its hashes, or take --require-hashes out",),
    HintCode.CHECK_HASHES: (
        "check where the hash comes from, and which index serves this package",
    ),
    HintCode.PRE_RELEASE: (
        "name a pre-release, as in {0}=={1}, or put a line --pre into a requirements file (-r)",
        _PACKAGE,
        _VERSION,
    ),
    HintCode.PRE_LINE: ("put a line --pre into a requirements file (-r) beside {0}", _PACKAGE),
    HintCode.INDEX_ORDER: (
        "only the first index that has {0} is asked, {1}. If {2} is the one to trust, ask it first: "
        "--extra-index {2}",
        _PACKAGE,
        _INDEX,
        _INDEX,
    ),
    HintCode.TRUST_INDEX: (
        "name a file with the certificate authority of that server: "
        "export STOKE_INDEX__CA_BUNDLE=/path/to/authority.pem",
    ),
    HintCode.MORE_MEMORY: (
        "give the job more: --memory {0}. Once the packages are there, it needs less",
        _SIZE,
    ),
    HintCode.MACHINE_MEMORY: (
        "give the job more: make room on its machine. Once the packages are there, it needs less",
    ),
}
CODES = frozenset(_TABLE)


def hint_text(hint: object, backend: str | None = None, scope: str | None = None) -> str | None:
    """Return the text of a hint from an event, or None if the runner cannot have sent it.

    `backend` and `scope` are the job's own. A script has neither, and gets no hint that names a cache.
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
