"""Receipts, both ways: telling senders that their messages were delivered or read, and hearing it about one's own."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Final

from chatlib import events
from chatlib.envelope import REFUSED, Delivery, Outgoing
from chatlib.errors import DecodeError
from chatlib.events import Events
from chatlib.link import Link
from chatlib.messages import RECEIVE_MESSAGE, ReceiveMessage, decode
from chatlib.names import escape, user_of_queue
from chatlib.sent import SentMessage
from chatlib.settled import Settled
from chatlib.store import Store
from chatlib.topology import RECEIPTS
from chatlib.workers import Mailbox, Workers

__all__ = ["Receipts"]

_log = logging.getLogger("chatlib.receipts")

REACH: Final = 10_000
"""Sent messages of one conversation that a cumulative "read" can still reach back to."""


class Receipts:
    """sent: the messages of this chat that somebody still holds, by id. store: keeps receipts until the broker has confirmed them."""

    def __init__(self, link: Link, sent: Mapping[str, SentMessage], store: Store | None, hops: Events, workers: Workers) -> None:
        self._link = link
        self._store = store
        self._settled = Settled(store.remove_receipts, workers, "receipts") if store else None
        self._sent = sent
        self._hops = hops
        self._lock = threading.Lock()
        self._conversations: dict[tuple[str, str], deque[str]] = {}
        self._mailbox = Mailbox(workers, self._receive)

    def publish(self, sender: str, receipt: ReceiveMessage, stored: bool = False) -> None:
        """Tell `sender`; resent until confirmed, like any message. stored: it is in the store already.

        Raises OutboxError if the store cannot take it.
        """
        body, to = receipt.encode(), f"@{sender}"
        if self._store and not stored:
            self._store.add_receipts([(receipt.receipt_id, sender, body)])
        self._link.publish(
            Outgoing(
                RECEIPTS.name,
                escape(sender),
                body,
                receipt.receipt_id,
                RECEIVE_MESSAGE,
                int(time.time()),
                self._on_outcome,
                user=receipt.recipient_id,
                to=to,
            )
        )

    def _on_outcome(self, outgoing: Outgoing, result: str, why: str) -> None:
        """On the I/O thread. That somebody is gone, or that his queue of receipts is full, is no loss."""
        if result == REFUSED:
            _log.warning("the receipt for message_id=%s is not sent: %s", outgoing.message_id, why)
        if self._settled:
            self._settled.add(outgoing.message_id)

    def send_what_was_left(self) -> None:
        """What an earlier process was to tell, and did not see confirmed. Raises OutboxError, DecodeError."""
        for sender, body in self._store.waiting_receipts() if self._store else ():
            try:
                receipt = decode(body)
            except DecodeError as exc:
                _log.error("a receipt that was left, unreadable: %s", exc)
                continue
            if isinstance(receipt, ReceiveMessage):
                self.publish(sender, receipt, True)

    def close(self) -> None:
        """Call it when the link is closed and before the store is."""
        if self._settled:
            self._settled.finish()

    def expect(self, sent: SentMessage) -> None:
        """`sent` is on its way: a "read" for a later message of its conversation will cover it."""
        key = sent.sender_id, sent.to
        conversation = self._conversations.get(key)
        if conversation is None:
            with self._lock:
                conversation = self._conversations.setdefault(key, deque(maxlen=REACH))
        conversation.append(sent.message_id)

    def deliver(self, delivery: Delivery) -> None:
        """On the I/O thread: a delivery from a queue of receipts."""
        self._mailbox.put(delivery)

    def _receive(self, delivery: object) -> None:
        """On a worker, in order."""
        assert isinstance(delivery, Delivery)
        try:
            receipt = decode(delivery.body)
            if not isinstance(receipt, ReceiveMessage):
                raise DecodeError("a SEND_MESSAGE does not belong in a queue of receipts", delivery.body)
        except DecodeError as exc:
            _log.warning("dropped from %s what is no receipt: %s", delivery.queue, exc)
        else:
            self._apply(receipt, user_of_queue(delivery.queue))
        self._link.ack(delivery)

    def _apply(self, receipt: ReceiveMessage, sender: str | None) -> None:
        sent = self._sent.get(receipt.message_id)
        if sent is not None and not sent._receipt(receipt.recipient_id, receipt.read_status):
            return
        self._tell(receipt.message_id, receipt)  # where its SentMessage is gone, or another process sent it, only the hooks hear of it
        if receipt.read_status == "read":
            self._read_up_to(receipt, self._conversation(receipt, sender) if sent is None else (sent.sender_id, sent.to))

    def _conversation(self, receipt: ReceiveMessage, sender: str | None) -> tuple[str, str] | None:
        """Which one the message of `receipt` belongs to, though nobody holds it; None if nothing is held that could be earlier."""
        for key, ids in list(self._conversations.items()) if self._sent else ():
            if key[0] == sender and receipt.message_id in tuple(ids):
                return key
        return None

    def _read_up_to(self, receipt: ReceiveMessage, conversation: tuple[str, str] | None) -> None:
        """Everything earlier in the conversation is read, too, back to what was read before."""
        for message_id in reversed(tuple(self._conversations.get(conversation, ()) if conversation else ())):
            earlier = self._sent.get(message_id)
            if earlier is None or message_id >= receipt.message_id or earlier._never_reached(receipt.recipient_id):
                continue
            if not earlier._receipt(receipt.recipient_id, "read"):
                break
            self._tell(message_id, receipt)

    def _tell(self, message_id: str, receipt: ReceiveMessage) -> None:
        if self._hops.wanted:
            self._hops.emit(events.RECEIPT, message_id, user=receipt.recipient_id, state=receipt.read_status)
