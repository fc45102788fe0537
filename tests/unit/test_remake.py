"""What is done when the broker ends a consumer: the queue is asked for until it is there, unless nobody wants it any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from chatlib.admin import Request
from chatlib.errors import ChatClosed, ChatError, NoAnswer, QueueDown, TopologyMismatch
from chatlib.remake import PAUSE, remaking
from chatlib.subscriber import Subscription


class Stand:
    """Admin and subscriber in one, with what was asked of them."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.worked = 0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.consumed: list[Subscription] = []
        self.wanted = True

    def of_queue(self, _: str) -> list[Any]:
        return []

    def ask(self, request: Request, *, first: bool) -> None:
        assert first
        self.asked.append(request)

    def work(self) -> None:
        self.worked += 1

    def later(self, seconds: float, function: Callable[[], None]) -> None:
        self.timers.append((seconds, function))

    def misses(self, _: Subscription) -> bool:
        return self.wanted

    def again(self, subscription: Subscription) -> None:
        self.consumed.append(subscription)


SUBSCRIPTION = Subscription("inbox.bob", "tag", lambda _: None, lambda _: None)


def failed(stand: Any, error: ChatError) -> None:
    remaking(SUBSCRIPTION, stand, stand).future.set_exception(error)


@pytest.mark.parametrize("error", [QueueDown("its node is down"), NoAnswer("lost"), ChatError("no exchange")])
def test_what_cannot_be_had_now_is_asked_for_again_after_a_pause(error: ChatError) -> None:
    stand = Stand()
    failed(stand, error)
    ((seconds, function),) = stand.timers
    assert seconds == PAUSE and not stand.asked
    function()
    assert len(stand.asked) == stand.worked == 1
    stand.asked[0].future.set_exception(error)
    assert len(stand.timers) == 2, "and again"


def test_who_has_left_meanwhile_is_left_alone() -> None:
    stand = Stand()
    failed(stand, QueueDown("its node is down"))
    stand.wanted = False
    stand.timers[0][1]()
    assert not stand.asked


def test_another_ones_queue_is_used_and_a_closed_chat_asks_for_nothing() -> None:
    stand = Stand()
    failed(stand, TopologyMismatch("other arguments"))
    assert stand.consumed == [SUBSCRIPTION]
    failed(stand, ChatClosed("closed"))
    assert not stand.timers and stand.consumed == [SUBSCRIPTION]
