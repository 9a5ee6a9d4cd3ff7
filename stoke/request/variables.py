"""`${NAME}` in requirements and addresses: variables of the process that submits a request."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from stoke.errors import RequestError

VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")
_LOGIN = re.compile(r"(://[^/\s@]*@)")
_COMMENT = re.compile(r"(?:^|(?<=[ \t]))#.*")


def expanded(text: str, field: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return `text` with the values of its variables, except in comments and in logins of addresses.

    A login keeps its `${NAME}`, because the value is a secret. `RequestError` for a variable that is
    not set.
    """
    if "${" not in text:
        return text
    comment = _COMMENT.search(text)
    end = comment.start() if comment else len(text)
    pieces = _LOGIN.split(text[:end])
    pieces[::2] = [fill_in(piece, field, environ) for piece in pieces[::2]]
    return "".join(pieces) + text[end:]


def fill_in(text: str, field: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return `text` with the values of its variables. `RequestError` for one that is not set."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in environ:
            raise RequestError(
                field, f"names the variable {found[1]}, which is not set", f"export {found[1]}=..."
            )
        return environ[found[1]]

    return VARIABLE.sub(value, text)
