"""What must survive the death of this process: a small SQLite file in `data_dir`.

Three tables: messages that were sent and not yet confirmed (the outbox), receipts likewise, and the ids of what was handled.
Every call is committed when it returns, which protects against the death of the *process*: the operating system has it.
Against power loss SQLite would have to sync at each commit: ask for that with `sync=True`; it costs a disk write a message.
One process at a time: a second opener gets `OutboxLocked`.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from chatlib.errors import OutboxDamaged, OutboxError, OutboxFull, OutboxLocked

__all__ = ["Store"]

_SCHEMA_VERSION = 2
_SCHEMA = """
CREATE TABLE outbox (seq INTEGER PRIMARY KEY, message_id TEXT NOT NULL, body BLOB NOT NULL, at REAL NOT NULL);
CREATE TABLE receipts (seq INTEGER PRIMARY KEY, receipt_id TEXT NOT NULL, sender TEXT NOT NULL, body BLOB NOT NULL);
CREATE INDEX receipts_by_id ON receipts (receipt_id);
CREATE TABLE handled (seq INTEGER PRIMARY KEY, user TEXT NOT NULL, message_id TEXT NOT NULL, attempt INTEGER NOT NULL, at REAL NOT NULL);
"""
_FROM_1_TO_2 = "ALTER TABLE handled ADD COLUMN at REAL NOT NULL DEFAULT 0; UPDATE handled SET at = strftime('%s', 'now');"
_ADD_RECEIPT = "INSERT INTO receipts(receipt_id, sender, body) VALUES (?,?,?)"
_TRIM = "DELETE FROM handled WHERE seq <= (SELECT MAX(seq) FROM handled) - ? OR at < ?"
_TABLES = {"outbox", "receipts", "handled"}
# Rows that are none of ours. Moments are Unix seconds up to the year 9999; after a number up to 2**62 others can be given; a body may also
# be text, since somebody who repairs the file by hand writes that.
_WRONG = """
SELECT 'outbox', seq FROM outbox WHERE typeof(message_id) <> 'text' OR typeof(body) NOT IN ('blob', 'text')
    OR typeof(at) <> 'real' OR at NOT BETWEEN 0 AND 253402300799 OR seq NOT BETWEEN 0 AND 4611686018427387904
UNION ALL
SELECT 'receipts', seq FROM receipts WHERE typeof(receipt_id) <> 'text' OR typeof(sender) <> 'text'
    OR typeof(body) NOT IN ('blob', 'text') OR seq NOT BETWEEN 0 AND 4611686018427387904
UNION ALL
SELECT 'handled', seq FROM handled WHERE typeof(user) <> 'text' OR typeof(message_id) <> 'text' OR typeof(attempt) <> 'integer'
    OR typeof(at) <> 'real' OR at NOT BETWEEN 0 AND 253402300799 OR seq NOT BETWEEN 0 AND 4611686018427387904
LIMIT 1
"""
_SIGNS_OF_DAMAGE = ("not a database", "malformed", "corrupt", "decode to UTF-8")


class Store:
    """The file `chat.sqlite3` in `data_dir` (made if missing). Thread-safe.

    sync: wait for the disk at each commit (power loss), not only for the operating system (process death).
    Raises OutboxLocked, OutboxDamaged or OutboxError (not writable), each with what to do.
    """

    def __init__(self, data_dir: str | os.PathLike[str], *, sync: bool = False) -> None:
        if not os.fspath(data_dir):
            raise OutboxError("data_dir is empty, which would be the folder that happens to be the current one: name one")
        self.path = Path(data_dir) / "chat.sqlite3"
        self._lock = threading.Lock()
        self._accepting = threading.Lock()  # rows are numbered in the order in which they are written
        self._pid = os.getpid()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # isolation_level=None: each statement is its own transaction unless BEGIN says otherwise.
            self._db = sqlite3.connect(self.path, timeout=0.2, isolation_level=None, check_same_thread=False)
        except (OSError, ValueError, sqlite3.Error) as exc:  # ValueError: a NUL in the path
            raise OutboxError(f"cannot open {self.path}: {exc}: choose a data_dir that is a writable folder") from exc
        try:
            # Exclusive: no second process, and no shared memory file to keep in step.
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute(f"PRAGMA synchronous={'FULL' if sync else 'NORMAL'}")
            self._db.execute("BEGIN IMMEDIATE")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            self._db.execute("COMMIT")
            tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type='table'")}
            if version == 0 and tables:
                raise OutboxDamaged(self._damaged(f"it holds other tables: {', '.join(sorted(tables))}"))
            if version == 0:
                self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={_SCHEMA_VERSION}; COMMIT;")
            elif version not in (1, _SCHEMA_VERSION):
                raise OutboxDamaged(
                    f"{self.path} has schema {version}, this chatlib knows {_SCHEMA_VERSION}: use the version that wrote it"
                )
            elif missing := _TABLES - tables:
                raise OutboxDamaged(self._damaged(f"without the table {', '.join(sorted(missing))}"))
            elif version == 1:
                self._db.executescript(f"BEGIN; {_FROM_1_TO_2} PRAGMA user_version={_SCHEMA_VERSION}; COMMIT;")
            if self._db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise OutboxDamaged(self._damaged("the integrity check failed"))
            for table, row in self._db.execute(_WRONG):  # it could not be sent, and would be lost as if the broker had refused it
                raise OutboxDamaged(self._damaged(f"row {row} of the table {table} has a value of a wrong type or out of range"))
            # Where each id is: an index in the file would make every commit half as dear again.
            self._rows: dict[str, int] = dict(self._db.execute("SELECT message_id, seq FROM outbox"))
            self._last_row: int = max(self._rows.values(), default=0)
        except sqlite3.Error as exc:
            self._db.close()
            raise self._explain(exc) from exc
        except UnicodeDecodeError as exc:  # sqlite3 tells of names that are none in this way
            self._db.close()
            raise OutboxDamaged(self._damaged(exc)) from exc
        except OutboxDamaged:
            self._db.close()
            raise
        _open_stores.add(self)

    def _damaged(self, why: object) -> str:
        return (
            f"{self.path} is not a readable outbox ({why}): it was left as it is; move it away and start again, or repair it with sqlite3"
        )

    def _explain(self, exc: sqlite3.Error) -> OutboxError:
        text = str(exc)
        if "locked" in text:
            return OutboxLocked(f"{self.path} is open in another process or Chat: close that one, or give each its own data_dir")
        if "full" in text:
            return OutboxFull(f"the disk of {self.path} is full: the message was not accepted; make room")
        if "readonly" in text or "read-only" in text:
            return OutboxError(f"{self.path} cannot be written: check its permissions")
        if isinstance(exc, sqlite3.DatabaseError) and any(word in text for word in _SIGNS_OF_DAMAGE):
            return OutboxDamaged(self._damaged(text))
        return OutboxError(f"{self.path} cannot be used ({text}): check its disk and its permissions")

    def _write(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        self._write_all([(statement, rows)])

    def _write_all(self, changes: Sequence[tuple[str, Sequence[tuple[Any, ...]]]]) -> None:
        """All of these or none: (statement, its rows)."""
        if os.getpid() != self._pid:
            raise OutboxError("this Chat was opened before a fork: connect again in the child, with a data_dir of its own")
        with self._lock:
            try:
                if len(changes) == 1 and len(changes[0][1]) == 1:
                    self._db.execute(changes[0][0], changes[0][1][0])
                else:
                    self._transaction(changes)
            except sqlite3.Error as exc:
                raise self._explain(exc) from exc

    def _transaction(self, changes: Sequence[tuple[str, Sequence[tuple[Any, ...]]]]) -> None:
        try:
            self._db.execute("BEGIN")
            for statement, rows in changes:
                self._db.executemany(statement, rows)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # some failures, such as a full disk, have rolled back already
                self._db.execute("ROLLBACK")
            raise

    def add(self, messages: Sequence[tuple[str, bytes, float]]) -> None:
        """Accept messages, all or none: (message_id, body, Unix seconds). They are committed when this returns.

        Raises OutboxFull or OutboxError: then nothing was accepted.
        """
        with self._accepting:
            rows = [(number, *message) for number, message in enumerate(messages, self._last_row + 1)]
            self._last_row += len(rows)  # first: if Ctrl-C ends this in the middle, numbers are left out and none is given twice
            self._write("INSERT INTO outbox(seq, message_id, body, at) VALUES (?,?,?,?)", rows)
            self._rows.update([(message_id, number) for number, message_id, _, _ in rows])

    def remove(self, message_ids: Iterable[str]) -> None:
        """Their outcome is known: they need not be sent again. Raises OutboxFull or OutboxError: then all of them are still there."""
        ids = list(message_ids)
        self._write("DELETE FROM outbox WHERE seq=?", [(self._rows.get(message_id, 0),) for message_id in ids])
        for message_id in ids:
            self._rows.pop(message_id, None)

    def waiting(self) -> list[tuple[bytes, float]]:
        """What has no outcome yet, in the order of sending: (body, Unix seconds)."""
        return self._read("SELECT CAST(body AS BLOB), at FROM outbox ORDER BY seq")

    def add_receipts(self, receipts: Sequence[tuple[str, str, bytes]]) -> None:
        """Receipts that are to be sent, all or none: (receipt_id, sender to be told, body)."""
        self._write(_ADD_RECEIPT, receipts)

    def remove_receipts(self, receipt_ids: Iterable[str]) -> None:
        """The broker has them."""
        self._write("DELETE FROM receipts WHERE receipt_id=?", [(receipt_id,) for receipt_id in receipt_ids])

    def waiting_receipts(self) -> list[tuple[str, bytes]]:
        """Receipts that the broker has not confirmed, oldest first: (sender to be told, body)."""
        return self._read("SELECT sender, CAST(body AS BLOB) FROM receipts ORDER BY seq")

    def _read(self, statement: str) -> list[Any]:
        with self._lock:
            try:
                return self._db.execute(statement).fetchall()
            except sqlite3.Error as exc:
                raise self._explain(exc) from exc

    def add_handled(self, user: str, message_id: str, attempt: int, at: float, receipts: Sequence[tuple[str, str, bytes]] = ()) -> None:
        """Remember that `user` was done with this attempt at the message (at: Unix seconds), and what is to be told of it, as one."""
        handled = ("INSERT INTO handled(user, message_id, attempt, at) VALUES (?,?,?,?)", [(user, message_id, attempt, at)])
        self._write_all([handled, (_ADD_RECEIPT, receipts)] if receipts else [handled])

    def handled(self, limit: int, since: float) -> list[tuple[str, str, int, float]]:
        """The last `limit` ids that were handled `since` (Unix seconds), oldest first: (user, message_id, attempt, Unix seconds).

        Older ones are forgotten here and now.
        """
        self.trim_handled(limit, since)
        return self._read("SELECT user, message_id, attempt, at FROM handled ORDER BY seq")

    def trim_handled(self, limit: int, since: float) -> None:
        """Forget all but about the last `limit` ids that were handled `since`."""
        self._write(_TRIM, [(limit, since)])

    def close(self) -> None:
        """Close the file; idempotent. Nothing happens in a forked child: the file is its parent's."""
        if os.getpid() == self._pid:
            with self._lock:
                self._db.close()


_open_stores: weakref.WeakSet[Store] = weakref.WeakSet()


def _leave_to_the_parent() -> None:
    """After a fork, in the child: SQLite forbids to close there what the parent has open.

    It would finish the parent's journal and remove it, and what the parent writes later would be lost with its process (seen
    by the tests). Python closes what nobody refers to, at the latest when it ends; so each one gets a reference for good.
    """
    stores = list(_open_stores)
    if stores:
        import ctypes

        for store in stores:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(store._db))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_the_parent)
