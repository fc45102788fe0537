"""The lab's own AMQP: what lessons break with it is broken on purpose, and what it says is what the broker said."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from chatlib import BrokerUnavailable, ChatError, faults
from chatlib.lab import Wire
from chatlib.lab.lesson import Lesson
from chatlib.management import Management
from tests.support import wait_until
from tests.wire import raw

Unique = Callable[[str], str]


@pytest.fixture
def wire(lesson: Lesson) -> Iterator[Wire]:
    with Wire(lesson.broker.url) as opened:
        yield opened


def test_what_is_published_comes_out_with_its_id_body_and_delivery_mode(lesson: Lesson, wire: Wire, unique: Unique) -> None:
    """pika, beside it, reads what the wire wrote, and the wire what pika wrote with all properties that come before the id."""
    queue = unique("queue")
    wire.queue(queue)
    wire.publish("", queue, "one", "héllo", persistent=False)
    wire.publish("", queue, "two", "x" * 100_000)
    wait_until(lambda: wire.depth(queue) == 2, 10, "both are there")
    with raw(lesson.broker.url) as pika:
        taken = [(properties.message_id, body.decode(), properties.delivery_mode) for properties, body in pika.take(queue, 2)]
        assert taken == [("one", "héllo", 1), ("two", "x" * 100_000, 2)]
        pika.put(queue, b"three", content_type="t", content_encoding="e", headers={"a": "b"}, delivery_mode=2, priority=1,
                 correlation_id="c", reply_to="r", expiration="60000", message_id="id", timestamp=1, type="t")  # fmt: skip
        pika.put(queue, b"")
    assert wire.get(queue) == ("id", "three")
    assert wire.get(queue) == ("", "")
    assert wire.get(queue) is None
    wire.delete(queue)


def test_confirms_are_counted_by_id_and_nothing_is_confirmed_while_the_broker_hangs(lesson: Lesson, wire: Wire, unique: Unique) -> None:
    queue = unique("queue")
    wire.queue(queue)
    wire.publish("", queue, "before")
    wire.confirms()
    ids = [str(number) for number in range(200)]
    for message_id in ids:
        wire.publish("", queue, message_id)
    assert wire.listen(10) and wire.confirmed == set(ids)
    with faults.freeze(lesson.broker):
        wire.publish("", queue, "late")
        assert not wire.listen(0.2) and "late" not in wire.confirmed
    assert wire.listen(10) and "late" in wire.confirmed
    assert wire.drain(queue) == ["before", *ids, "late"]
    wire.publish("", unique("nowhere"), "nobody takes it")
    assert wire.listen(10), "confirmed, and dropped: it is not mandatory"
    wire.delete(queue)


def test_queues_are_what_they_were_declared_to_be(lesson: Lesson, unique: Unique) -> None:
    durable, fleeting, mine = (unique(name) for name in ("durable", "fleeting", "mine"))
    with Wire(lesson.broker.url) as wire, Management(lesson.broker.management_url, login=lesson.broker.url) as management:
        wire.queue(durable)
        wire.queue(fleeting, durable=False)
        wire.queue(mine, exclusive=True)
        listed = {each["name"]: each for each in management.get(management.in_vhost("queues"))}
        assert listed[durable]["durable"] and not listed[fleeting]["durable"]
        assert [listed[name].get("exclusive", False) for name in (durable, fleeting, mine)] == [False, False, True]
        wire.bye()
        left = {each["name"] for each in management.get(management.in_vhost("queues"))}
        assert mine not in left and {durable, fleeting} <= left, "what was exclusive is gone when bye() returns"
    with Wire(lesson.broker.url) as wire:
        for queue in (durable, fleeting):
            wire.delete(queue)


def test_a_refusal_is_told_in_the_brokers_words(lesson: Lesson, unique: Unique) -> None:
    with Wire(lesson.broker.url) as wire, pytest.raises(ChatError, match="closed the channel: 404 NOT_FOUND"):
        wire.depth(unique("nowhere"))
    wrong = lesson.broker.url.replace("//", "//nobody-", 1)
    with pytest.raises(BrokerUnavailable, match=r"closed the connection: 403 ACCESS_REFUSED|hung up|broke"):
        Wire(wrong)
    with pytest.raises(BrokerUnavailable, match="no connection"):
        Wire("amqp://127.0.0.1:1")


def test_a_broken_wire_says_so(lesson: Lesson, unique: Unique) -> None:
    with faults.Path(lesson.broker) as path, Wire(path.url, timeout=0.3) as wire:
        with faults.black_hole(path), pytest.raises(BrokerUnavailable, match=r"did not answer within 0\.3 s"):
            wire.depth(unique("queue"))
        with faults.cut(path), pytest.raises(BrokerUnavailable, match=r"broke|hung up"):
            wire.depth(unique("queue"))
