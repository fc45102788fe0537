"""What was handed out and not handled goes back to its place: the order holds for who goes offline and online again."""

from __future__ import annotations

from typing import Literal

import pytest

import chatlib
from tests.support import wait_until

COUNT = 250


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_who_goes_offline_and_online_again_and_again_gets_everything_in_order(vhost: str, queue_type: Literal["classic", "quorum"]) -> None:
    """Each time with a hundred in hand that were not shown, and one that is handed out in the very moment of going."""
    settings = chatlib.Settings(queue_type=queue_type)
    with chatlib.connect(vhost, settings=settings) as chat:
        ann, bob = chat.users(["ann", "bob"])
        for number in range(COUNT):
            ann.send("@bob", str(number))
        assert chat.flush(30)
        got = []
        for _ in range(6):
            (message,) = bob.receive(limit=1, timeout=10)
            wait_until(lambda: len(bob._inbox._arrived) >= 30, 10, "many are in hand")
            got.append(message.content)
            message.ack()
            bob.go_offline()
            bob.go_online()
        for message in bob.receive(limit=COUNT - len(got), timeout=10):
            got.append(message.content)
            message.ack()
        assert got == [str(number) for number in range(COUNT)]
