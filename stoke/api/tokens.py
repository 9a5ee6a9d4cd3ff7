"""Bearer tokens: named, each with one right and perhaps with scopes. Only their hashes are stored.

A token is 256 random bits, so a plain SHA-256 of it can be neither reversed nor guessed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stoke.errors import EngineError, RequestError
from stoke.files.atomic import write_atomically
from stoke.files.file_lock import take_lock
from stoke.files.paths import check_owner, make_private, state_dir
from stoke.files.untrusted import read_json

RIGHTS = ("read", "submit", "admin")
"""Each includes those before it."""
PREFIX = "stoke_"
"""Every token begins so, which lets scanners for leaked secrets recognize it."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")


@dataclass(frozen=True)
class Token:
    name: str
    right: str
    scopes: tuple[str, ...]
    """The cache scopes whose jobs it sees and submits; empty for all."""
    sha256: str
    made_at: float

    def may(self, right: str) -> bool:
        return RIGHTS.index(self.right) >= RIGHTS.index(right)

    def sees(self, scope: str) -> bool:
        return not self.scopes or scope in self.scopes


def api_folder() -> Path:
    """Return the folder of the server's own files, which only their owner can enter."""
    return make_private(state_dir() / "api")


class TokenFile:
    """The tokens of this user. Changes of the file count at the next request."""

    def __init__(self) -> None:
        self._path = api_folder() / "tokens.json"
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._tokens: tuple[Token, ...] = ()

    def all(self) -> tuple[Token, ...]:
        """Return the tokens. Raises `EngineError` if the file is damaged or open to other users."""
        with self._lock:
            try:
                found = self._path.stat()
            except FileNotFoundError:
                self._seen, self._tokens = None, ()
                return ()
            seen = (found.st_mtime_ns, found.st_size, found.st_ino)
            if seen != self._seen:
                check_owner(self._path)
                if found.st_mode & 0o077:
                    raise EngineError(
                        f"other users can read or write {self._path}",
                        f"close it to them: chmod 600 {self._path}",
                    )
                self._tokens = self._read()
                self._seen = seen
            return self._tokens

    def find(self, secret: str) -> Token | None:
        """Return the token with this text. Takes the same time whichever it is."""
        digest = _hash(secret)
        found = None
        for token in self.all():
            if hmac.compare_digest(token.sha256, digest):
                found = token
        return found

    def add(self, name: str, right: str, scopes: Sequence[str] = ()) -> str:
        """Add a token and return its text, which is stored nowhere. Raises `RequestError`."""
        if not _NAME.fullmatch(name):
            raise RequestError("name", f"{name!r} is not a name; use up to 40 of A-Z a-z 0-9 . _ -")
        if right not in RIGHTS:
            raise RequestError("right", f"{right!r} is not one of {', '.join(RIGHTS)}")
        from stoke.request.spec import check_scope

        for scope in scopes:
            try:
                check_scope(scope)
            except ValueError as error:
                raise RequestError("scope", str(error)) from None
        secret = PREFIX + secrets.token_urlsafe(32)
        made = Token(name, right, tuple(scopes), _hash(secret), time.time())
        lock = take_lock(self._path.with_suffix(".lock"), wait=True)
        assert lock is not None
        try:
            known = self.all()
            if any(token.name == name for token in known):
                raise RequestError(
                    "name",
                    f"there is a token called {name} already",
                    f"remove it first: stoke api token rm {name}",
                )
            self._write((*known, made))
        finally:
            os.close(lock)
        return secret

    def remove(self, name: str) -> None:
        lock = take_lock(self._path.with_suffix(".lock"), wait=True)
        assert lock is not None
        try:
            known = self.all()
            left = tuple(token for token in known if token.name != name)
            if len(left) == len(known):
                raise RequestError(
                    "name", f"there is no token called {name!r}", "list them: stoke api token ls"
                )
            self._write(left)
        finally:
            os.close(lock)

    def _read(self) -> tuple[Token, ...]:
        try:
            return tuple(_token(row) for row in read_json(self._path)["tokens"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise EngineError(
                f"the tokens in {self._path} cannot be read: {error}",
                f"remove the file, then make new ones: rm {self._path}",
            ) from error

    def _write(self, tokens: Sequence[Token]) -> None:
        rows = [asdict(token) for token in tokens]
        write_atomically(self._path, json.dumps({"version": 1, "tokens": rows}, indent=1))


def _token(row: dict[str, Any]) -> Token:
    token = Token(
        str(row["name"]),
        str(row["right"]),
        tuple(str(scope) for scope in row["scopes"]),
        str(row["sha256"]),
        float(row["made_at"]),
    )
    if token.right not in RIGHTS or not re.fullmatch("[0-9a-f]{64}", token.sha256):
        raise ValueError(f"the token {token.name!r} is damaged")
    return token


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()
