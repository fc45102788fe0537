"""An inbox without a broker: what goes back to the queue, and in which order."""

from __future__ import annotations

import threading
from typing import Any

from chatlib.envelope import Delivery
from chatlib.events import Events
from chatlib.handled import Handled
from chatlib.inbox import Inbox
from chatlib.settings import Settings


def delivery(number: int) -> Delivery:
    return Delivery(0, number, "inbox.bob", b"", str(number), {}, False, None, None)


class Link:
    """Takes back what it is given; while it takes the first, the I/O thread hands out number 32."""

    def __init__(self) -> None:
        self.given_back: list[int] = []
        self.inbox: Inbox
        self.io_thread = threading.Thread(target=lambda: self.inbox.deliver(delivery(32)))

    def requeue(self, delivery: Delivery) -> None:
        if not self.given_back:
            self.io_thread.start()
            self.io_thread.join(0.2)  # time enough to overtake, if it can
        self.given_back.append(delivery.tag)


def test_what_is_handed_out_while_he_goes_away_goes_back_behind_what_came_before_it() -> None:
    link: Any = Link()
    inbox = Inbox("bob", link, Settings(), Handled(10), None, Events(), lambda: None, lambda *_: None)  # type: ignore[arg-type]
    link.inbox = inbox
    for number in range(1, 32):
        inbox.deliver(delivery(number))
    inbox.give_back()
    link.io_thread.join(5)
    assert link.given_back == list(range(1, 33))
