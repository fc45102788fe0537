"""A history, read: from the records of `chatlib.events` to messages, copies and changes of membership. For `chatlib.checker`."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final, NoReturn

from chatlib import events as hops
from chatlib.errors import HistoryError
from chatlib.events import Event
from chatlib.messages import SEND_MESSAGE

__all__ = ["NEVER", "Copy", "Group", "Ledger", "Sent"]

NEVER: Final = 1 << 200  #: a moment after all others

PUBLISH: Final = frozenset({hops.STORED, hops.SENT, hops.CONFIRMED, hops.RETURNED, hops.NACKED, hops.UNKNOWN})
RECEIVE: Final = frozenset({hops.DELIVERED, hops.DROPPED, hops.HANDLED, hops.ACKED, hops.RETRIED, hops.DEAD})
KNOWN: Final = {name: name for name in PUBLISH | RECEIVE | {hops.JOINED, hops.LEFT, hops.RECEIPT}}  # one object for each name


class Sent:
    """One message, as the records of its sender tell. Moments are ints that compare by time, then by place in the history."""

    __slots__ = ("confirmed", "first", "last", "last_at", "last_hop", "outcome", "recipients", "sender", "stored", "to")

    def __init__(self, sender: str, to: str) -> None:
        self.sender, self.to = sender, to
        self.first = self.stored = self.confirmed = NEVER
        self.last = -NEVER
        self.outcome = "unknown"
        self.recipients: frozenset[str] | None = None
        self.last_hop, self.last_at = "", float("-inf")


class Copy:
    """One (message, recipient) pair, as the records of the recipient tell."""

    __slots__ = ("again", "attempts", "dead", "dropped", "handled", "handled_at", "last_at", "last_hop", "out_at", "retried")

    def __init__(self) -> None:
        self.attempts = 0  # bit n: attempt n came out
        self.again = 0  # times that it came out again in the same attempt
        self.dropped = 0
        self.handled = 0
        self.out_at = self.handled_at = NEVER  # the first of each
        self.dead = self.retried = False
        self.last_hop, self.last_at = "", float("-inf")


class Group:
    """Who was a member when. To be asked for moments that do not go back."""

    def __init__(self, changes: list[tuple[int, int, str, bool]]) -> None:
        self.changes = sorted(changes)  # (done, began, user, joined)
        self.earliest = list(accumulate((change[1] for change in reversed(self.changes)), min))[::-1]
        first: dict[str, bool] = {}
        for _, _, user, joined in self.changes:
            first.setdefault(user, joined)
        self.members = {user for user, joined in first.items() if not joined}  # who left had been a member before the history began
        self.next = 0

    def advance(self, moment: int) -> set[str]:
        """The members at `moment`: all that was done by then."""
        while self.next < len(self.changes) and self.changes[self.next][0] < moment:
            _, _, user, joined = self.changes[self.next]
            (self.members.add if joined else self.members.discard)(user)
            self.next += 1
        return self.members

    def until(self, moment: int) -> Iterator[str]:
        """Who joined or left, or was about to, between the moment of the last `advance` and `moment`."""
        for place in range(self.next, len(self.changes)):
            if self.earliest[place] > moment:
                return
            if self.changes[place][1] <= moment:
                yield self.changes[place][2]


class Ledger:
    """The history, read: messages, copies and changes of membership."""

    def __init__(self) -> None:
        self.sent: dict[str, Sent] = {}
        self.copies: defaultdict[str, dict[str, Copy]] = defaultdict(dict)
        self.changes: defaultdict[str, list[tuple[int, int, str, bool]]] = defaultdict(list)
        self.telling: set[str] = set()  # recipients of whom the history records handling
        self.nameless_dead = self.retries = self.receipts = 0

    def read(self, history: Iterable[Event]) -> None:
        """Take every record. Raises HistoryError for the first that is malformed."""
        for number, record in enumerate(history):
            try:
                name, at = record["hop"], record["at"]
            except (KeyError, TypeError, IndexError):
                _refuse(record, "must be an object with hop and at")
            if type(at) not in (float, int) or at - at != 0:
                _refuse(record, "at must be a time in Unix seconds")
            if type(name) is not str or not name:
                _refuse(record, "hop must be a text")
            known = KNOWN.get(name)
            if known is None:
                continue  # the link, faults, and hops of a later version
            moment = (int(at * 1e9) << 40) + number
            if known in RECEIVE:
                self._received(record, known, at, moment)
            elif known in PUBLISH:
                self._published(record, known, at, moment)
            elif known == hops.RECEIPT:
                self.receipts += 1
            else:
                self._membership(record, known, moment)

    def _received(self, record: Event, name: str, at: float, moment: int) -> None:
        message_id, user = record.get("message_id"), record.get("user")
        if name == hops.DEAD and not message_id:  # undecodable: it has no id
            self.nameless_dead += 1
            return
        if type(message_id) is not str or type(user) is not str or not user:
            _refuse(record, "message_id and user must be texts")
        copies = self.copies[message_id]
        copy = copies.get(user)
        if copy is None:
            copy = copies[sys.intern(user)] = Copy()
        if at >= copy.last_at:
            copy.last_at, copy.last_hop = at, name
        if name == hops.DELIVERED:
            attempt = record.get("attempt", 1)
            if type(attempt) is not int or not 0 <= attempt <= 10_000:
                _refuse(record, "attempt must be a whole number from 0 to 10,000")
            copy.again += copy.attempts >> attempt & 1
            copy.attempts |= 1 << attempt
            copy.retried |= attempt > 1  # whoever retried it may have been killed before he could record it
            copy.out_at = min(copy.out_at, moment)
            return
        if name == hops.DROPPED:
            copy.dropped += 1
            return
        self.telling.add(user)
        if name == hops.HANDLED:
            copy.handled += 1
            copy.handled_at = min(copy.handled_at, moment)
        elif name == hops.RETRIED:
            copy.retried = True
            self.retries += 1
        elif name == hops.DEAD:
            copy.dead = True

    def _published(self, record: Event, name: str, at: float, moment: int) -> None:
        message_id, user, to = record.get("message_id"), record.get("user"), record.get("to")
        if record.get("kind", SEND_MESSAGE) != SEND_MESSAGE or (to == "" and name != hops.STORED):
            return  # a receipt, or a recipient's copy on its way to a retry queue or to the dead letters
        if type(message_id) is not str or not message_id:
            _refuse(record, "message_id must be a text")
        sent = self.sent.get(message_id)
        if sent is None or not sent.to:
            named = type(user) is str and type(to) is str and len(to) > 1 and to[0] in "@#"
            if name == hops.STORED and not named:
                _refuse(record, 'user must be a name and to an address, "@bob" or "#team"')
            if sent is None:
                sent = self.sent[message_id] = Sent("", "")
            if named:
                sent.sender, sent.to = sys.intern(str(user)), sys.intern(str(to))
        if at >= sent.last_at:
            sent.last_at, sent.last_hop = at, name
        sent.first, sent.last = min(sent.first, moment), max(sent.last, moment)
        if name == hops.CONFIRMED:
            sent.confirmed, sent.outcome = min(sent.confirmed, moment), "confirmed"
        elif name == hops.RETURNED and sent.outcome != "confirmed":
            sent.outcome = "returned"
        elif name == hops.NACKED and sent.outcome == "unknown":
            sent.outcome = "rejected"
        elif name == hops.STORED:
            sent.stored = min(sent.stored, moment)
            if (recipients := record.get("recipients")) is not None:
                if not isinstance(recipients, list | tuple | set | frozenset) or not all(isinstance(each, str) for each in recipients):
                    _refuse(record, "recipients must be a list of names")
                sent.recipients = frozenset(recipients)

    def _membership(self, record: Event, name: str, moment: int) -> None:
        user, to, began = record.get("user"), record.get("to"), record.get("began")
        if type(user) is not str or not user or type(to) is not str or not to.startswith("#"):
            _refuse(record, 'user must be a name and to a group, "#team"')
        if began is not None and (type(began) not in (float, int) or began - began != 0):
            _refuse(record, "began must be a time in Unix seconds")
        since = moment if began is None else min(moment, int(began * 1e9) << 40)
        self.changes[to].append((moment, since, sys.intern(user), name == hops.JOINED))


def _refuse(record: object, what: str) -> NoReturn:
    text = repr(record)
    raise HistoryError(f"not a record of a history: {what}; found {text if len(text) <= 200 else text[:200] + '…'}")
