"""Which messages may be in flight together, so that a killed broker cannot keep a later one and lose an earlier one."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from chatlib.envelope import Outgoing
from chatlib.publisher import LARGE, SMALL, Lanes


def message(size: int, key: str = "bob", exchange: str = "chat.users") -> Outgoing:
    return Outgoing(exchange, key, b"x" * size, "id", "SEND_MESSAGE", 0, lambda *_: None)


sizes = st.sampled_from([1, SMALL - 1, SMALL, LARGE - 1, LARGE, 60_000])


@given(st.lists(st.tuples(sizes, st.sampled_from(["bob", "cid"])), max_size=40), st.data())
def test_what_is_in_flight_for_an_address_is_all_small_or_all_large_or_one(messages: list[tuple[int, str]], data: st.DataObject) -> None:
    """And whatever the confirms, everything gets its turn, in order."""
    lanes, line, flying, gone = Lanes(), deque(message(size, key) for size, key in messages), list[Outgoing](), list[Outgoing]()
    expected = list(line)
    while line:
        if lanes.enter(line[0]):
            flying.append(line.popleft())
            gone.append(flying[-1])
        else:
            assert flying, "nothing is in flight, so nobody would ever try again"
            lanes.leave(flying.pop(data.draw(st.integers(0, len(flying) - 1))))
        for key in ("bob", "cid"):
            mine = [len(each.body) for each in flying if each.key == key]
            assert all(size < SMALL for size in mine) or all(size >= LARGE for size in mine) or len(mine) == 1
    assert gone == expected


def test_addresses_do_not_hold_each_other_up() -> None:
    lanes = Lanes()
    assert lanes.enter(message(10)) and lanes.enter(message(10))
    assert not lanes.enter(message(LARGE))
    assert lanes.enter(message(LARGE, "cid")) and lanes.enter(message(LARGE, exchange="chat.groups"))


def test_after_a_loss_everything_is_free() -> None:
    lanes = Lanes()
    assert lanes.enter(message(10))
    lanes.clear()
    assert lanes.enter(message(LARGE))
