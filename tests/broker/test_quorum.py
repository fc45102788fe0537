"""Quorum queues as chatlib declares them, where 3.10 and 4.x differ."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import chatlib
from chatlib import Settings, subscriber
from chatlib.brokers import LocalBroker
from chatlib.names import inbox_queue
from chatlib.topology import Queue, of_retry, of_user
from tests.support import wait_until
from tests.wire import raw


def test_a_message_that_comes_back_again_and_again_stays_in_its_place(broker: LocalBroker, unique: Callable[[str], str]) -> None:
    """RabbitMQ 4 throws out what a quorum queue delivered 21 times, where nothing else is said; 3.10 puts it at the end.

    A single active consumer, which an inbox has, would keep basic.get away.
    """
    user = unique("bob")
    queues = [each for each in of_user(user, inbox_limit=100, queue_type="quorum") if isinstance(each, Queue)]
    assert inbox_queue(user) in {queue.name for queue in queues} and len(queues) == 3
    with raw(broker.url) as observer:
        for queue in queues:
            changed = {"x-dead-letter-exchange": "", "x-single-active-consumer": False}
            observer.channel.queue_declare(queue.name, durable=True, arguments=dict(queue.arguments) | changed)
            for body in (b"first", b"second"):
                observer.put(queue.name, body, delivery_mode=2)
        for queue in queues:
            for _ in range(25):
                channel = observer.channel.connection.channel()

                def delivered(name: str = queue.name, channel: object = channel) -> bytes | None:
                    return channel.basic_get(name)[2]  # type: ignore[attr-defined]

                assert wait_until(delivered, 10, f"{queue.name} to deliver") == b"first"
                channel.close()  # the broker says that it is before the queue has the message back
                wait_until(lambda name=queue.name: observer.depth(name) == 2, 10, "both to be there")
            observer.channel.queue_delete(queue.name)


def test_a_retry_queue_is_accepted_and_hands_on(broker: LocalBroker, unique: Callable[[str], str]) -> None:
    """Its number of deliveries has no effect (nobody consumes there); it must be taken by the broker as it is."""
    target = unique("target")
    _, queue, _ = of_retry(150, 999)
    assert isinstance(queue, Queue)
    with raw(broker.url) as observer:
        observer.channel.queue_declare(target, durable=True)
        observer.channel.queue_declare(queue.name, durable=True, arguments=dict(queue.arguments) | {"x-dead-letter-routing-key": target})
        observer.put(queue.name, b"later", delivery_mode=2)
        assert observer.take(target, 1)[0][1] == b"later"
        observer.channel.queue_delete(queue.name)
        observer.channel.queue_delete(target)


def test_a_queue_without_a_leader_keeps_nobody_else_away(broker: LocalBroker, vhost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """1 who consumes such a queue loses the connection, each time (541); 2 after three times the others go on, and it is tried again
    after a while, in vain; 3 when the queue has its leader again, what was for it comes.
    """
    monkeypatch.setattr(subscriber, "ALONE", 4.0)
    replica = f"{{'{vhost.rpartition('/')[2]}_{inbox_queue('bob')}', node()}}"
    with chatlib.connect(vhost, settings=Settings(queue_type="quorum")) as chat:
        alice, bob = chat.users(["alice", "bob"])
        bob.go_offline()
        alice.send("@bob", "for later").wait(10)
        broker.rabbitmqctl("eval", f"ra:stop_server(quorum_queues, {replica}).")
        # 1
        bob.go_online()
        wait_until(lambda: chat.reconnects >= 3, 10, "the third loss")
        # 2
        before = chat.reconnects
        for _ in range(20):
            sent = alice.send("@alice", "to myself").wait(10)
            assert sent.state == "confirmed"
            next(alice.receive(1, timeout=10)).ack()
        wait_until(lambda: chat.reconnects == before + 1, 15, "it is tried again")
        # 3
        broker.rabbitmqctl("eval", f"ra:restart_server(quorum_queues, {replica}).")
        message = next(bob.receive(1, timeout=60))  # it is tried again after eight seconds
        assert message.content == "for later"
        message.ack()
