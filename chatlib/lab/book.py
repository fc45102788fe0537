"""The bank's book: a small database file, which outlives the process that writes in it."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from chatlib.received import ReceivedMessage

__all__ = ["Book", "Line"]

TABLE = "CREATE TABLE IF NOT EXISTS book (at REAL, user TEXT, message_id TEXT, name TEXT, amount INTEGER)"


class Line(NamedTuple):
    """One payment that was carried out. at: Unix seconds. user: from whose inbox it came."""

    at: float
    user: str
    message_id: str
    order: str
    amount: int


class Book:
    """What was paid, one line each; the file at `path` may be open in several processes. user: from whose inbox it comes."""

    def __init__(self, path: str | Path, user: str = "") -> None:
        self.path = Path(path)
        self.user = user
        self._read = 0
        # Each line is committed when it is written. Not synced: what dies here is a process, not the machine.
        self._db = sqlite3.connect(self.path, timeout=10, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute(TABLE)

    def add(self, message: ReceivedMessage) -> None:
        """Carry out the payment that is in `message`: a line in the book."""
        self._write("INSERT INTO book VALUES (:at, :user, :message_id, :name, :amount)", message)

    def add_once(self, message: ReceivedMessage) -> None:
        """The same, unless the book has a line with this message id: looked up and written in one statement."""
        unless = "WHERE NOT EXISTS (SELECT * FROM book WHERE message_id = :message_id)"
        self._write(f"INSERT INTO book SELECT :at, :user, :message_id, :name, :amount {unless}", message)

    def _write(self, statement: str, message: ReceivedMessage) -> None:
        payment = json.loads(message.content)
        values = {"at": time.time(), "user": self.user, "message_id": message.message_id}
        self._db.execute(statement, values | {"name": payment["order"], "amount": payment["amount"]})

    @property
    def lines(self) -> list[Line]:
        """All lines, in the order in which they were written."""
        return [Line(*row) for row in self._db.execute("SELECT * FROM book ORDER BY rowid")]

    def news(self) -> list[Line]:
        """The lines that were not there when this was last asked."""
        lines = self.lines
        first, self._read = self._read, len(lines)
        return lines[first:]

    @property
    def twice(self) -> list[str]:
        """The orders that were carried out more than once, as their messages say, in order."""
        times = Counter((line.message_id, line.order) for line in self.lines)
        return [order for (_, order), count in times.items() if count > 1]

    def close(self) -> None:
        """Close the file; idempotent."""
        self._db.close()

    def __len__(self) -> int:
        count: int = self._db.execute("SELECT COUNT(*) FROM book").fetchone()[0]
        return count

    def __repr__(self) -> str:
        return f"<Book, {len(self)} lines>"
