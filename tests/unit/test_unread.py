"""Cumulative "read": one receipt for each sender, never one for what came later."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from chatlib import unread as module
from chatlib.messages import SendMessage
from chatlib.received import ReceivedMessage
from chatlib.unread import Unread

NOWHERE: Any = None  # no inbox and no delivery: nothing here is settled


def received(number: int, sender: str = "ann", group: str | None = "team") -> ReceivedMessage:
    recipient = None if group else "bob"
    message = SendMessage(f"{number:026}", sender, group, recipient, "x", datetime.now(UTC))
    return ReceivedMessage(message, 1, (), NOWHERE, NOWHERE)


def take(unread: Unread, message: ReceivedMessage) -> list[tuple[str, str]]:
    """Mark it read: for each sender the last id up to it."""
    last = unread.up_to(message)
    unread.drop_up_to(message)
    return [*last.items()]


def test_reading_a_message_reads_all_before_it_in_its_conversation() -> None:
    unread = Unread()
    messages = [received(0, "ann"), received(1, "cid"), received(2, "ann"), received(3, "dan"), received(4, "cid")]
    for message in messages:
        unread.add(message)
    unread.add(received(9, "ann", None))
    assert unread.count("#team") == 5 and unread.count("@ann") == 1
    assert sorted(take(unread, messages[3])) == [("ann", f"{2:026}"), ("cid", f"{1:026}"), ("dan", f"{3:026}")]
    assert unread.count("#team") == 1 and unread.count("@ann") == 1
    assert unread.up_to(messages[4]) == unread.up_to(messages[4]) == {"cid": f"{4:026}"}, "to ask takes nothing away"


def test_a_message_that_is_read_twice_or_unknown_speaks_for_itself_only() -> None:
    unread = Unread()
    unread.add(received(0))
    unread.add(received(1))
    take(unread, received(1))
    assert take(unread, received(0)) == [("ann", f"{0:026}")]
    assert take(unread, received(7, "cid")) == [("cid", f"{7:026}")]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40))
def test_every_message_is_read_exactly_once_by_the_last_receipt_after_it(steps: list[tuple[str, bool]]) -> None:
    """The model: a list of unread messages; reading takes all of it."""
    unread, waiting = Unread(), list[ReceivedMessage]()
    for number, (sender, read) in enumerate(steps):
        message = received(number, sender)
        unread.add(message)
        waiting.append(message)
        if read:
            expected = {m.sender_id: m.message_id for m in waiting}
            assert dict(take(unread, message)) == expected
            waiting.clear()
        assert unread.count("#team") == len(waiting)


def test_it_is_bounded_and_forgets_the_oldest(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "LIMIT", 5)
    unread = Unread()
    for number in range(12):
        unread.add(received(number))
    assert unread.count("#team") == 5
    assert take(unread, received(0)) == [("ann", f"{0:026}")]
    assert unread.count("#team") == 5


def test_a_redelivered_message_is_counted_once_and_keeps_its_place() -> None:
    unread = Unread()
    for number in (0, 1, 0):
        unread.add(received(number))
    assert unread.count("#team") == 2
    assert take(unread, received(0)) == [("ann", f"{0:026}")]
