"""Delivery tags against a plain model: nothing is settled twice, nothing is forgotten, order is kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from chatlib.tags import Acks, Confirms


class ConfirmsModel(RuleBasedStateMachine):
    """The model: a list of (tag, item) in the order of publishing."""

    def __init__(self) -> None:
        super().__init__()
        self.confirms: Confirms[str] = Confirms()
        self.model: list[tuple[int, str]] = []
        self.published = 0
        self.items = 0

    @rule()
    def publish(self) -> None:
        self.published += 1
        self.items += 1
        assert self.confirms.add(f"item {self.items}") == self.published
        self.model.append((self.published, f"item {self.items}"))

    @rule()
    def publish_what_cannot_be_written(self) -> None:
        self.confirms.take_back(self.confirms.add("never written"))

    @rule(tag=st.integers(0, 30), multiple=st.booleans())
    def settle(self, tag: int, multiple: bool) -> None:
        expected = [(t, item) for t, item in self.model if (t <= tag if multiple else t == tag)]
        assert self.confirms.settle(tag, multiple) == [item for _, item in expected]
        self.model = [pair for pair in self.model if pair not in expected]

    @rule()
    def lose_the_channel(self) -> None:
        assert self.confirms.drain() == [item for _, item in self.model]
        self.model.clear()
        self.published = 0

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.confirms) == len(self.model)


class AcksModel(RuleBasedStateMachine):
    """The model: what the broker holds as handed out and not acked; it closes the channel for an ack of an unknown tag."""

    def __init__(self) -> None:
        super().__init__()
        self.acks = Acks()
        self.broker: list[int] = []
        self.unsettled: list[int] = []
        self.next = 1

    @rule(count=st.integers(1, 4))
    def deliver(self, count: int) -> None:
        for _ in range(count):
            self.acks.delivered(self.next)
            self.broker.append(self.next)
            self.unsettled.append(self.next)
            self.next += 1

    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        tags = data.draw(st.lists(st.integers(0, self.next + 1), max_size=6))
        mine = {tag for tag in tags if tag in self.unsettled}
        self.unsettled = [tag for tag in self.unsettled if tag not in mine]
        for tag, multiple in self.acks.settle(tags):
            assert tag in self.broker, "the broker would close the channel: unknown tag"
            acked = {known for known in self.broker if known <= tag} if multiple else {tag}
            assert not acked & set(self.unsettled), "acked what nobody settled: it would be lost"
            self.broker = [known for known in self.broker if known not in acked]

    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        tag = data.draw(st.integers(0, self.next + 1))
        known = tag in self.unsettled
        assert self.acks.requeued(tag) is known
        if known:
            self.unsettled.remove(tag)
            self.broker.remove(tag)

    @rule()
    def lose_the_channel(self) -> None:
        self.acks.clear()
        self.broker.clear()
        self.unsettled.clear()
        self.next = 1

    @invariant()
    def what_is_settled_is_acked_at_once(self) -> None:
        assert self.broker == self.unsettled
        assert self.acks.open_count == len(self.unsettled)


TestConfirms = ConfirmsModel.TestCase
TestAcks = AcksModel.TestCase


def test_a_run_of_settled_tags_is_one_ack() -> None:
    acks = Acks()
    for tag in range(1, 101):
        acks.delivered(tag)
    assert acks.settle(range(1, 101)) == [(100, True)]


def test_a_slow_message_does_not_hold_up_the_acks_behind_it() -> None:
    acks = Acks()
    for tag in range(1, 6):
        acks.delivered(tag)
    assert acks.settle([2, 3]) == [(2, False), (3, False)]
    assert acks.settle([1]) == [(1, False)]
    assert acks.settle([4, 5]) == [(5, True)]


@given(st.lists(st.integers(1, 50), max_size=30))
def test_an_unknown_tag_is_never_acked(tags: list[int]) -> None:
    assert Acks().settle(tags) == []
    assert Confirms[str]().settle(5, True) == []
