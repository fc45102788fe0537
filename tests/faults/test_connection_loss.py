"""The network between a chat and its broker fails, in all the ways in which it does: cut, silent, cut in the middle of a handshake."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

import chatlib
from chatlib import Settings
from chatlib.brokers import LocalBroker
from chatlib.events import DROPPED, UNKNOWN, Event
from chatlib.names import inbox_queue
from tests.support import wait_until
from tests.wire import Cable, raw

Unique = Callable[[str], str]


def test_both_sides_are_cut_again_and_again(broker: LocalBroker, unique: Unique) -> None:
    """Sender and receiver on cables of their own, each cut ten times in the middle of something, while 6,000 messages go through:
    all confirmed, handled once, in order; and the cuts were felt: unknown outcomes, duplicates on the wire.
    """
    events: list[Event] = []
    with (
        Cable(broker.url) as his,
        Cable(broker.url) as hers,
        chatlib.connect(his.url) as receiver,
        chatlib.connect(hers.url) as sender,
    ):
        for chat in (receiver, sender):
            chat.on_event(lambda event: events.append(event) if event["hop"] in (UNKNOWN, DROPPED) else None)
        ann, bob = sender.user(unique("ann")), receiver.user(unique("bob"))
        got: list[int] = []
        bob.on_message(lambda message: got.append(int(message.content.strip())))
        sent = []
        for cut in range(10):
            hers.cut_after = hers.sent + 30_011 + 977 * cut
            sent += [ann.send(bob.address, f"{number:200}") for number in range(cut * 600, cut * 600 + 600)]
            wait_until(lambda cut=cut: len(got) > cut * 600, 20, "some of them came")
            before = receiver.reconnects
            his.cut()
            wait_until(lambda cut=cut: hers.cuts > cut and sender.reconnects > cut, 20, "hers was cut, and is back")
            wait_until(lambda before=before: receiver.reconnects > before, 20, "his is back")
        assert sender.flush(30)
        wait_until(lambda: len(got) >= 6_000, 30, "everything is handled")
        assert got == list(range(6_000))
        assert {message.state for message in sent} == {"confirmed"}
        assert his.cuts >= 10 and hers.cuts >= 10 and sender.reconnects >= 10 and receiver.reconnects >= 10
        hops = [event["hop"] for event in events]
        assert hops.count(UNKNOWN) > 0 and hops.count(DROPPED) > 0
        bob.go_offline()
        with raw(broker.url) as observer:
            wait_until(lambda: observer.depth(inbox_queue(bob.name)) == 0, 10, "nothing is left")


def test_a_cut_at_any_byte_of_the_first_seconds_only_delays(broker: LocalBroker, unique: Unique) -> None:
    """Handshake, channels, declarations, consumers: the cable is cut at growing distances from the start, each time in a new chat."""
    name, expected = unique("bob"), []
    for distance in (1, 7, 8, 9, 300, 700, 1_000, 1_300, 1_600, 2_000, 2_500, 3_000):
        with Cable(broker.url) as cable:
            cable.cut_after = distance
            with chatlib.connect(cable.url, settings=Settings(receipts=False)) as chat:
                bob = chat.user(name)
                for number in range(20):
                    expected.append(f"{distance} {number}")
                    bob.send(bob.address, expected[-1])
                assert chat.flush(20)
                assert cable.cuts >= 1, "it was not cut"
                got = [message.content for message in bob.receive(limit=20, timeout=10) if not message.ack()]
                assert got == expected[-20:]
                assert chat.flush(10)


def test_a_line_that_goes_silent_is_noticed_by_the_heartbeat(broker: LocalBroker, unique: Unique) -> None:
    """Nothing is closed, nothing comes: as behind a firewall that forgot the connection."""
    with Cable(broker.url) as cable, chatlib.connect(cable.url, settings=Settings(heartbeat=2, attempt_timeout=2)) as chat:
        ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
        ann.send(bob.address, "0").wait(30)
        began = time.monotonic()
        cable.hold(*cable.alive)
        sent = [ann.send(bob.address, str(number)) for number in range(1, 50)]
        wait_until(lambda: chat.reconnects >= 1, 30, "the link is made anew")
        assert time.monotonic() - began >= 2
        assert chat.flush(20) and {message.state for message in sent} == {"confirmed"}
        assert [message.content for message in bob.receive(limit=50, timeout=10) if not message.ack()] == [str(n) for n in range(50)]


@pytest.mark.parametrize("role", [b" publish", b" consume"])
def test_one_of_the_two_connections_is_enough_to_recover(broker: LocalBroker, unique: Unique, role: bytes) -> None:
    """Whichever is lost: both are made anew, and everything goes on."""
    with Cable(broker.url) as cable, chatlib.connect(cable.url) as chat:
        ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
        got: list[int] = []
        bob.on_message(lambda message: got.append(int(message.content)))
        for number in range(300):
            ann.send(bob.address, str(number))
            if number == 150:
                victims = [alive for alive in cable.alive if cable.role(alive, role)]
                assert len(victims) == 1
                cable.cut(*victims)
        wait_until(lambda: chat.reconnects == 1 and len(got) >= 300, 20, "everything is handled")
        assert chat.flush(10) and got == list(range(300))
        wait_until(lambda: len(cable.alive) == 2, 10, "the old pair is gone")


def test_who_closes_while_something_is_asked_for_closes_in_good_order(broker: LocalBroker, unique: Unique) -> None:
    """What the broker answers meanwhile must not make the connection break: acks that are on their way would be lost."""
    name = unique("closing")
    with Cable(broker.url) as cable:
        chat = chatlib.connect(cable.url, name=name)
        bob = chat.user(unique("bob"))
        cable.hold(*[number for number in cable.alive if cable.role(number, b" consume")])
        before = cable.sent
        receiving = threading.Thread(target=lambda: list(bob.receive(timeout=20)))  # a queue is declared, and then consumed
        closing = threading.Thread(target=chat.close)
        receiving.start()
        wait_until(lambda: cable.sent > before, 10, "it was asked for")
        closing.start()
        wait_until(lambda: chat.state == "closed", 10, "the chat closes")
        cable.release()
        closing.join(10)
        receiving.join(10)
        assert chat.reconnects == 0 and not closing.is_alive() and not receiving.is_alive()

    def ends() -> list[str]:
        return [line for line in broker.log_lines(500) if "closing AMQP" in line and f"{name} consume" in line]

    told = wait_until(ends, 10, "the broker tells of its end")
    assert len(told) == 1 and "[info]" in told[0], told
