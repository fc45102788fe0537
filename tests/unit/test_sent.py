"""A sent message: what `wait` waits for."""

from __future__ import annotations

import threading

import pytest

from chatlib.errors import OutcomeUnknown
from chatlib.messages import compose, new_message_id
from chatlib.names import parse_address
from chatlib.sent import SentMessage, SentState
from tests.support import wait_until


def message() -> SentMessage:
    return SentMessage(compose(new_message_id(), "alice", parse_address("@bob"), "hello", 0.0), lambda _: None)


def test_a_receipt_that_overtakes_the_confirm_does_not_end_the_waiting() -> None:
    """The receiver of a message on a quick link may ack it before the broker has confirmed it to the sender."""
    sent, outcome = message(), []
    waiting = threading.Thread(target=lambda: outcome.append(sent.wait(20)))
    waiting.start()
    wait_until(lambda: sent._events, 5, "it waits")
    sent._receipt("bob", "delivered")
    waiting.join(0.2)
    assert waiting.is_alive() and not outcome
    sent._settle(SentState.CONFIRMED, None)
    waiting.join(10)
    assert outcome == [sent]


def test_without_an_outcome_waiting_ends_in_time_and_says_that_it_is_unknown() -> None:
    sent = message()
    with pytest.raises(OutcomeUnknown, match=sent.message_id) as caught:
        sent.wait(0.05)
    assert not caught.value.definite
    assert not sent._events, "nobody waits any more"
