"""What happens to a message, hop by hop: one record and one log line for each.

::

    outbox.stored -> publish.sent -> publish.confirmed | publish.returned | publish.nacked | publish.unknown
      -> consume.delivered -> handled -> acked | retried | dead
                           -> consume.dropped  (a duplicate of what was handled: acked, not shown)

The same records feed the log, the hooks (`Chat.on_event`), the run's history and the checker,
so one grep by message id follows a message through every hop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final

from chatlib.callbacks import callback

__all__ = [
    "ACKED",
    "CONFIRMED",
    "DEAD",
    "DELIVERED",
    "DROPPED",
    "FAULT_BEGAN",
    "FAULT_ENDED",
    "HANDLED",
    "JOINED",
    "LEFT",
    "LINK",
    "NACKED",
    "PAUSED",
    "RECEIPT",
    "REPLAYED",
    "RETRIED",
    "RETURNED",
    "SENT",
    "STORED",
    "UNKNOWN",
    "Event",
    "Events",
]

Event = dict[str, Any]
"""One hop: always `hop` (str) and `at` (float, Unix seconds); then what is known of
`message_id user sender to queue attempt redelivered reason state`.
`user` is who acts: the sender up to publish.*, the recipient from consume.* on. A plain dict, so that it is JSON as it stands."""

STORED: Final = "outbox.stored"  #: send() accepted it: message_id, user, to
SENT: Final = "publish.sent"  #: written to the broker, each resend again: message_id, user, to
CONFIRMED: Final = "publish.confirmed"  #: the broker has it on disk
RETURNED: Final = "publish.returned"  #: no queue took it
NACKED: Final = "publish.nacked"  #: the broker refused it: reason
UNKNOWN: Final = "publish.unknown"  #: the link broke before a confirm; it will be sent again
DELIVERED: Final = "consume.delivered"  #: came out of the inbox: user, sender, to, queue, attempt, redelivered
DROPPED: Final = "consume.dropped"  #: a duplicate of what was handled, not shown to the handler
HANDLED: Final = "handled"  #: ack() was called or the handler returned: user, attempt
ACKED: Final = "acked"  #: the ack is on its way to the broker; lost with its link, the broker hands out again what was acked
RETRIED: Final = "retried"  #: will come back: user, attempt, reason, delay (seconds)
DEAD: Final = "dead"  #: in the dead letters: user, attempt, reason
RECEIPT: Final = "receipt"  #: a RECEIVE_MESSAGE reached the sender: user (who read), sender, state
REPLAYED: Final = "replayed"  #: from the dead letters back into the inbox of user
PAUSED: Final = "paused"  #: a handler failed for everything, its inbox is left alone for a while: user, reason, seconds
JOINED: Final = "group.joined"  #: the binding is on the broker: user, to, began (Unix seconds when it was asked for)
LEFT: Final = "group.left"  #: the binding is gone: user, to, began
LINK: Final = "link"  #: the link changed its state: state, reason
FAULT_BEGAN: Final = "fault.began"  #: a fault was injected: name
FAULT_ENDED: Final = "fault.ended"  #: a fault was healed: name

_log = logging.getLogger("chatlib.hops")


class Events:
    """Sends each event to the log (DEBUG) and to every listener; costs next to nothing when nobody listens."""

    def __init__(self) -> None:
        self._listeners: tuple[Callable[[Event], None], ...] = ()

    @property
    def wanted(self) -> bool:
        """Whether anybody would see an event: callers on the hot path ask before they build one."""
        return bool(self._listeners) or _log.isEnabledFor(logging.DEBUG)

    def listen(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call `listener` with every event, on the thread where it happens; it must be quick and must not block.

        Returns a function that stops it. An exception in a listener is logged and goes no further.
        """
        self._listeners = (*self._listeners, listener)

        def stop() -> None:
            self._listeners = tuple(other for other in self._listeners if other is not listener)

        return stop

    def emit(self, hop: str, message_id: str = "", **fields: Any) -> None:
        """Record that `message_id` reached `hop` now; `fields` as in `Event`."""
        if not self.wanted:
            return
        event: Event = {"hop": hop, "at": time.time(), "message_id": message_id, **fields}
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug(" ".join(f"{key}={value}" for key, value in event.items() if key != "at" and value != ""))
        for listener in self._listeners:
            try:
                with callback:
                    listener(event)
            except (Exception, SystemExit):  # noqa: BLE001  somebody else's code must not end the thread that reports
                _log.exception("an event listener failed on hop=%s message_id=%s", hop, message_id)
