"""The window of publishes in flight, on a channel that only notes what is written: the rest of publishing is seen on a real broker."""

from __future__ import annotations

from typing import Any

import pytest

from chatlib.envelope import CONFIRMED, Outgoing
from chatlib.events import Events
from chatlib.publisher import Publisher


class Wire:
    """A channel, and what happened in which order: "write 3", "told 3"."""

    is_open = True

    def __init__(self) -> None:
        self.log: list[str] = []

    def publish(self, outgoing: Outgoing) -> None:
        self.log.append(f"write {outgoing.message_id}")

    def told(self, outgoing: Outgoing, outcome: str, _: str) -> None:
        assert outcome == CONFIRMED
        self.log.append(f"told {outgoing.message_id}")


@pytest.fixture
def wire() -> Wire:
    return Wire()


def made(wire: Any, window: int, count: int) -> Publisher:
    publisher = Publisher(window, Events(), lambda *_: None)
    publisher.attach(wire)
    for number in range(1, count + 1):
        publisher.publish(Outgoing("chat.users", "bob", b"x", str(number), "SEND_MESSAGE", 0, wire.told))
    publisher.pump()
    return publisher


@pytest.mark.parametrize("window", [1, 3])
def test_no_more_than_the_window_is_in_flight(wire: Wire, window: int) -> None:
    publisher, confirmed = made(wire, window, 10), 0
    while publisher.unconfirmed:
        written = sum(entry.startswith("write") for entry in wire.log)
        assert written - confirmed == min(window, 10 - confirmed), "as many as may be, and no more"
        confirmed += 1
        publisher.on_confirm(confirmed, False, True)
    assert [entry for entry in wire.log if entry.startswith("told")] == [f"told {number}" for number in range(1, 11)]


def test_the_next_window_is_written_before_anybody_hears_of_the_last(wire: Wire) -> None:
    """The broker has nothing to do until then."""
    publisher = made(wire, 2, 4)
    publisher.on_confirm(2, True, True)
    assert wire.log == ["write 1", "write 2", "write 3", "write 4", "told 1", "told 2"]


def test_nothing_is_written_while_the_broker_blocks(wire: Wire) -> None:
    publisher = made(wire, 1, 2)
    publisher.blocked = True
    publisher.on_confirm(1, False, True)
    assert wire.log == ["write 1", "told 1"]
    publisher.blocked = False
    publisher.pump()
    assert wire.log[2:] == ["write 2"]


def test_what_was_in_flight_at_a_loss_goes_out_again_first_and_in_order(wire: Wire) -> None:
    publisher = made(wire, 3, 5)
    publisher.on_confirm(1, False, True)
    publisher.detach("lost")
    wire.log.clear()
    publisher.attach(wire)  # type: ignore[arg-type]
    publisher.pump()
    assert wire.log == ["write 2", "write 3", "write 4"] and publisher.unconfirmed == 4
