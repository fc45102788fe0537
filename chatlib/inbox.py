"""One user's side of an inbox: from a delivery to a message, and from a settled message to an ack, a retry or a dead letter."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from chatlib import events
from chatlib.attempts import (
    ATTEMPT,
    FAILURES,
    FIRST_ATTEMPT,
    FIRST_FAILURE,
    MAX_FAILURES,
    count_in,
    failures_of,
    first_failure_of,
    headers_of_death,
    reason_of,
)
from chatlib.delays import Delays
from chatlib.envelope import CONFIRMED, REFUSED, RETURNED, Delivery, Outgoing
from chatlib.errors import ChatClosed, DecodeError, OutboxError
from chatlib.events import Events
from chatlib.handled import DONE, Handled
from chatlib.link import Link, LinkState
from chatlib.messages import SEND_MESSAGE, ReceiveMessage, SendMessage, decode
from chatlib.names import escape, retries_queue
from chatlib.received import ReceivedMessage
from chatlib.settings import Settings
from chatlib.topology import DEAD
from chatlib.unread import Unread

__all__ = ["Inbox"]

_log = logging.getLogger("chatlib.inbox")


class Inbox:
    """What has arrived for `user` on this link and is not settled. Deliveries come in on the I/O thread, messages go out on any.

    on_arrival: called on the I/O thread when something was put in. send_receipt(sender, receipt, stored): publishes a RECEIVE_MESSAGE.
    """

    def __init__(
        self,
        user: str,
        link: Link,
        settings: Settings,
        handled: Handled,
        delays: Delays,
        hops: Events,
        on_arrival: Callable[[], None],
        send_receipt: Callable[[str, ReceiveMessage, bool], None],
    ) -> None:
        self.user = user
        self._link = link
        self._settings = settings
        self._handled = handled
        self._delays = delays
        self._hops = hops
        self._on_arrival = on_arrival
        self._send_receipt = send_receipt
        self.private = not settings.receipts  #: tell nobody what was received and read
        self._rng = random.Random()
        self._changed = threading.Condition()
        self._arrived: deque[Delivery] = deque()
        self._closed = False
        self._away = False
        self._in_hand: dict[tuple[str, int], ReceivedMessage] = {}  # shown and not settled, by (message id, attempt)
        self._unread = Unread()

    # ---- in: on the I/O thread -------------------------------------------------------------------------------------------

    def deliver(self, delivery: Delivery) -> None:
        """Put in a delivery. One of a message that is in somebody's hands now only renews how that one can be acked."""
        attempt = count_in(delivery, ATTEMPT)
        with self._changed:
            if _again(self._in_hand.get((delivery.message_id, attempt)), delivery):
                return
            if self._closed:  # else it would come ahead of what `close` threw away; the broker hands out all of it again, in order
                return
            away = self._away
            if not away:
                self._arrived.append(delivery)
                self._changed.notify()
        if away:  # the broker has not heard of it yet
            self._link.requeue(delivery)
        else:
            self._on_arrival()

    def reset(self, queue: str) -> None:
        """The consumer of `queue` is gone: what was not shown yet will be handed out again, in the same order."""
        with self._changed:
            kept = [delivery for delivery in self._arrived if delivery.queue != queue]
            self._arrived.clear()
            self._arrived.extend(kept)

    # ---- out: on any thread ----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Nothing more will come: whoever waits is told."""
        with self._changed:
            self._closed = True
            self._arrived.clear()
            self._changed.notify_all()

    def next(self, timeout: float) -> ReceivedMessage | None:
        """The next message to be handled, or None when there was none for `timeout` seconds.

        Duplicates, a user's own words to a group, and what is no chat message are settled on the way and not shown.
        """
        deadline = time.monotonic() + timeout
        while True:
            with self._changed:
                rest = min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX)
                self._changed.wait_for(lambda: self._arrived or self._closed, rest)
                if self._closed or not self._arrived:
                    return None
                delivery = self._arrived.popleft()
                received = self._open(delivery)
                if received is not None:
                    self._in_hand[received.message_id, received.attempt] = received
                    self._unread.add(received)
            if received is not None:
                return received
            deadline = time.monotonic() + timeout  # something came, though not for the handler

    def open(self) -> None:
        """From now on he takes what comes."""
        with self._changed:
            self._away = False

    def give_back(self) -> None:
        """Everything that was not shown goes back to the queue, in its place, and what comes later, too, until `open`.

        To be called when the broker has stopped handing out. What is handed out even so goes back behind what came before it (hence
        all under the lock): a quorum queue hands out again in the order in which messages came back, a classic one in the old one.
        """
        with self._changed:
            self._away = True
            while self._arrived:
                self._link.requeue(self._arrived.popleft())

    def _open(self, delivery: Delivery) -> ReceivedMessage | None:
        attempt = count_in(delivery, ATTEMPT)
        try:
            message = decode(delivery.body)
            if not isinstance(message, SendMessage):
                raise DecodeError("a RECEIVE_MESSAGE does not belong in an inbox", delivery.body)
        except DecodeError as exc:
            self._bury(delivery, attempt, [str(exc)])
            return None
        wanted = self._hops.wanted
        if wanted:
            self._hops.emit(
                events.DELIVERED,
                message.message_id,
                user=self.user,
                sender=message.sender_id,
                to=message.to,
                queue=delivery.queue,
                attempt=attempt,
                redelivered=delivery.redelivered,
            )
        if message.group_id is not None and message.sender_id == self.user:
            self._link.ack(delivery)  # his own words, come back through the group
            return None
        with self._changed:
            if _again(self._in_hand.get((message.message_id, attempt)), delivery):  # without the id as a property
                return None
        if self._handled.seen(self.user, message.message_id, attempt) or (message.message_id, attempt) in self._in_hand:
            if wanted:
                self._hops.emit(events.DROPPED, message.message_id, user=self.user, attempt=attempt)
            self._link.ack(delivery)
            if self._handled.seen(self.user, message.message_id, DONE):
                self._tell_delivered(message)  # the receipt may have been lost with the ack
            return None
        return ReceivedMessage(message, attempt, failures_of(delivery), self, delivery)

    # ---- settling: called by the message ---------------------------------------------------------------------------------

    def ack(self, received: ReceivedMessage) -> None:
        """Remember the id, ack, tell the sender: in this order, so that a death in between repeats and never loses."""
        self._check_open()
        if not self._take(received):
            return
        message = received.message
        try:
            self._handled.add(self.user, message.message_id, receipts=self._to_tell(message))
        except OutboxError:
            received._settled = False
            raise
        self._hops.emit(
            events.HANDLED, message.message_id, user=self.user, sender=message.sender_id, to=message.to, attempt=received.attempt
        )
        self._release(received)
        self._tell_delivered(message)

    def retry(self, received: ReceivedMessage, reason: str) -> None:
        """Publish a copy that waits in a retry queue; ack the original when the copy is safe there, so that a death repeats."""
        self._check_open()
        reason = reason_of(reason)
        first = min(count_in(received._delivery, FIRST_ATTEMPT), received.attempt)  # anybody may have written the headers
        first_failure = first_failure_of(received._delivery)
        delay = self._settings.retry.delay_ms(received.attempt - first + 1, time.time() - first_failure, self._rng)
        if delay is None or received.attempt + 1 == DONE:
            self.reject(received, reason)
            return
        if not self._take(received):
            return
        failures = [*received.failures, reason][-MAX_FAILURES:]
        headers = {ATTEMPT: received.attempt + 1, FIRST_ATTEMPT: first, FAILURES: failures, FIRST_FAILURE: int(first_failure * 1000)}

        def waits(_: Outgoing, __: str, ___: str) -> None:
            self._hops.emit(
                events.RETRIED, received.message_id, user=self.user, attempt=received.attempt, reason=reason, delay=delay / 1000
            )

        def kept() -> None:
            self._pass_on(received)

        def refused(why: str) -> None:
            self._bury(received._delivery, received.attempt, [*failures, f"no place to wait: {why}"], received)

        self._delays.put(delay, self._copy_of(received._delivery, "", retries_queue(self.user), headers, waits), kept, refused)

    def reject(self, received: ReceivedMessage, reason: str) -> None:
        """To the dead letters, for good."""
        self._check_open()
        reason = reason_of(reason)
        if self._take(received):
            failures = [*received.failures, reason][-MAX_FAILURES:]
            self._bury(received._delivery, received.attempt, failures, received)

    def mark_read(self, received: ReceivedMessage) -> None:
        """One receipt for each sender: his last message up to this one in the conversation."""
        self._check_open()
        read = self._unread.up_to(received)
        for sender, message_id in read.items():
            if not self.private:
                self._send_receipt(sender, ReceiveMessage(self.user, message_id, "read"), False)
        self._unread.drop_up_to(received)  # last: if the disk refuses a receipt, all are sent when it is marked again

    def _check_open(self) -> None:
        """Settling means something only as long as there is a link; while a chat closes there still is."""
        if self._link.state is LinkState.CLOSED:
            raise ChatClosed("this chat is closed, and the message comes again: make a new one with chatlib.connect")

    def _take(self, received: ReceivedMessage) -> bool:
        with self._changed:
            first, received._settled = not received._settled, True
            return first

    def _release(self, received: ReceivedMessage) -> None:
        with self._changed:
            self._in_hand.pop((received.message_id, received.attempt), None)
            delivery = received._delivery  # perhaps renewed by a reconnect meanwhile
        self._link.ack(delivery)
        self._hops.emit(events.ACKED, received.message_id, user=self.user, attempt=received.attempt)

    def keep_in_mind(self, received: ReceivedMessage) -> None:
        """It was handled, and the disk refuses its id: only a later process could show it twice."""
        self._handled.remember(self.user, received.message_id)

    def again(self, received: ReceivedMessage, why: str) -> None:
        """Neither retried nor buried: hand it out again."""
        with self._changed:
            self._in_hand.pop((received.message_id, received.attempt), None)
            delivery = received._delivery
        self._link.requeue(delivery)

    def _delivered(self, message: SendMessage) -> ReceiveMessage:
        return ReceiveMessage(self.user, message.message_id, "delivered")

    def _to_tell(self, message: SendMessage) -> list[tuple[str, str, bytes]]:
        """The receipt for `message` as the store keeps it, if there is to be one."""
        receipt = self._delivered(message)
        return [] if self.private else [(receipt.receipt_id, message.sender_id, receipt.encode())]

    def _tell_delivered(self, message: SendMessage) -> None:
        if not self.private:
            self._send_receipt(message.sender_id, self._delivered(message), True)

    def _bury(self, delivery: Delivery, attempt: int, failures: list[str], received: ReceivedMessage | None = None) -> None:
        failures = [reason_of(failure) for failure in failures] or ["rejected"]
        first_failure = first_failure_of(received._delivery) if received else time.time()
        headers = headers_of_death(queue=delivery.queue, attempt=attempt, failures=failures, first_failure=first_failure, now=time.time())

        def outcome(_: Outgoing, result: str, why: str) -> None:
            if result == REFUSED:  # handed out again, it would come back here at once
                _log.error("message_id=%s stays in %s, nobody here may bury it: %s", delivery.message_id, delivery.queue, why)
                return
            if result != CONFIRMED:
                if result == RETURNED:  # the queue of dead letters was deleted: without it this one would go round and round
                    self._link.queues.mend()
                self.again(received, why) if received else self._link.requeue(delivery)
                return
            _log.warning("dead: message_id=%s in %s after %d attempts: %s", delivery.message_id, delivery.queue, attempt, failures[-1])
            self._hops.emit(events.DEAD, delivery.message_id, user=self.user, attempt=attempt, reason=failures[-1])
            if received:
                self._pass_on(received)  # a replay comes as a later attempt
            else:
                self._link.ack(delivery)

        self._link.publish(self._copy_of(delivery, DEAD.name, escape(self.user), headers, outcome))

    def _pass_on(self, received: ReceivedMessage) -> None:
        """A copy of it is safe elsewhere: done with this attempt."""
        try:
            self._handled.add(self.user, received.message_id, received.attempt)
        except OutboxError as exc:  # only a later process could take up this attempt again
            self._handled.remember(self.user, received.message_id, received.attempt)
            _log.error("message_id=%s was passed on by %s, but that is not on disk: %s", received.message_id, self.user, exc)
        self._release(received)

    def _copy_of(
        self, delivery: Delivery, exchange: str, key: str, headers: dict[str, Any], outcome: Callable[[Outgoing, str, str], None]
    ) -> Outgoing:
        return Outgoing(
            exchange,
            key,
            delivery.body,
            delivery.message_id,
            SEND_MESSAGE,
            delivery.timestamp or int(time.time()),
            outcome,
            headers,
            delivery.content_type,
            user=self.user,
        )


def _again(shown: ReceivedMessage | None, delivery: Delivery) -> bool:
    """Whether `delivery` is what is shown, handed out again after a loss; then it is acked by this one. Not if only the id is the same."""
    if shown is None or shown._delivery.epoch == delivery.epoch or shown._delivery.body != delivery.body:
        return False
    shown._delivery = delivery
    return True
