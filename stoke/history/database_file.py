"""The SQLite file of the history: opening, schema upgrades, statements and the errors they can meet."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from stoke.errors import EngineError
from stoke.files.paths import check_owner, history_file, make_private
from stoke.history.reserve import free_reserve, keep_reserve
from stoke.history.schema import MIGRATIONS

READING_SECONDS = 0.1
"""How long a reader waits for a writer that locks readers out, which no writer in WAL mode does."""


class DatabaseFile:
    """The open file of the history. Safe to use from several threads.

    With `read_only` the file must exist, and a lock of another process is an error at once. Otherwise
    such a lock is waited for, `wait_seconds` at most.
    """

    def __init__(
        self, path: Path | None = None, *, read_only: bool = False, wait_seconds: float = 10
    ) -> None:
        self._wait_seconds = wait_seconds
        self.path = path or history_file()
        self._lock = threading.RLock()
        if read_only:
            self._open_for_reading()
            return
        make_private(self.path.parent)
        self._make_file()
        try:
            try:
                self._open()
            except sqlite3.Error:
                if not free_reserve(self.path.parent):
                    raise
                self._open()
        except sqlite3.Error as error:
            raise self._trouble(error) from error
        keep_reserve(self.path.parent)

    def _open(self) -> None:
        self._db = sqlite3.connect(
            self.path, timeout=self._wait_seconds, isolation_level=None, check_same_thread=False
        )
        # No other file gets this number while SQLite has the file open.
        self._inode = os.stat(self.path).st_ino
        self._db.row_factory = sqlite3.Row
        self._write_ahead()
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA foreign_keys = ON")
        self._migrate()

    def _make_file(self) -> None:
        """Create the file with access for its owner only; SQLite gives its other files the same mode.

        The file is not opened here: closing it would release the locks of every other connection of
        this process (https://www.sqlite.org/howtocorrupt.html, section 2.2).
        """
        try:
            try:
                os.mknod(self.path, 0o600)
            except FileExistsError:
                pass
            check_owner(self.path)
        except OSError:
            pass  # SQLite fails for the same reason and reports it.

    def _open_for_reading(self) -> None:
        from urllib.parse import quote

        try:
            self._db = sqlite3.connect(
                f"file:{quote(str(self.path))}?mode=ro",
                uri=True,
                timeout=READING_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
        except sqlite3.Error as error:
            raise self._trouble(error) from error
        self._db.row_factory = sqlite3.Row

    def _write_ahead(self) -> None:
        """Switch to WAL mode. SQLite does not wait if another process switches at the same time."""
        deadline = time.monotonic() + 10
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _migrate(self) -> None:
        version = self._version()
        if version < 0:
            raise self._damaged(f"its schema has the number {version}")
        if version > len(MIGRATIONS):
            raise EngineError(
                f"{self.path} was written by a newer stoke (schema {version}, this one knows "
                f"{len(MIGRATIONS)})",
                "upgrade stoke, or keep another history: export STOKE_STATE_DIR=/some/folder",
            )
        if version == len(MIGRATIONS):
            return
        # Read the version again under the write lock: two processes may open a new file at once.
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for number in range(self._version(), len(MIGRATIONS)):
                for statement in MIGRATIONS[number].split(";"):
                    self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise

    def is_outdated(self) -> bool:
        """Return whether this is the history no longer: its file was removed or replaced, or a newer
        stoke has changed the schema."""
        try:
            found = os.stat(self.path).st_ino
        except OSError:
            return True
        version = self.query("PRAGMA user_version")[0][0]
        return bool(found != self._inode or version > len(MIGRATIONS))

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def _damaged(self, why: object) -> EngineError:
        from shlex import quote

        path, aside = quote(str(self.path)), quote(f"{self.path}.damaged")
        return EngineError(
            f"the history {self.path} is damaged ({why})",
            f"put it aside and begin a new one: mv {path} {aside}",
        )

    def _trouble(self, error: sqlite3.Error) -> EngineError:
        from shlex import quote

        from stoke.remote.common.files import is_full

        # A missing table means that the file has the newest schema's number but not its tables.
        broken = ("malformed", "not a database", "no such table", "no such column", "corrupt")
        if any(words in str(error) for words in broken):
            return self._damaged(error)
        # SQLite reports an I/O error if the disk is too full for the files beside the history.
        failed_write = "disk I/O error" in str(error)
        if "disk is full" in str(error) or (failed_write and is_full(str(self.path.parent))):
            return EngineError(
                f"cannot write to the history {self.path}: {error}",
                "make room there, or name another folder: export STOKE_STATE_DIR=/some/folder",
            )
        if failed_write:
            return EngineError(
                f"cannot use the history {self.path}: {error}",
                "see whether its disk is broken or over a quota (dmesg, quota), or name another "
                "folder: export STOKE_STATE_DIR=/some/folder",
            )
        if "locked" in str(error):
            return EngineError(
                f"another program holds the history {self.path} ({error})",
                f"wait for it, or see which one: fuser {quote(str(self.path))}",
            )
        return EngineError(
            f"cannot use the history {self.path}: {error}",
            "make the folder writable, or name another: export STOKE_STATE_DIR=/some/folder",
        )

    def query(self, sql: str, values: Iterable[Any] = ()) -> Sequence[sqlite3.Row]:
        """Run one statement and return its rows. Only modules of this package call it."""
        with self._lock:
            values = tuple(values)
            try:
                return self._db.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                if "decode to UTF-8" not in str(error):
                    if free_reserve(self.path.parent) and not self._db.in_transaction:
                        return self.query(sql, values)
                    raise self._trouble(error) from error
            try:
                # The text is damaged. A lenient text factory costs a call for each value.
                self._db.text_factory = _lenient_text
                return self._db.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise self._trouble(error) from error
            finally:
                self._db.text_factory = str

    def query_many(self, sql: str, rows: Iterable[Iterable[Any]]) -> None:
        """Run one statement for each of many rows of values."""
        with self._lock:
            try:
                self._db.executemany(sql, [tuple(row) for row in rows])
            except sqlite3.Error as error:
                raise self._trouble(error) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write everything inside the `with` block, or nothing of it."""
        with self._lock:
            self.query("BEGIN IMMEDIATE")
            try:
                yield
                self.query("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self.query("ROLLBACK")
                raise

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _lenient_text(data: bytes) -> str:
    return data.decode(errors="replace")
