"""The history of a group over a real broker: read again by anybody, from any time, to an end, and bounded by age and size."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

import chatlib
from chatlib import Chat, ChatError, ChatUser, InvalidName, TopologyMismatch
from chatlib.brokers import LocalBroker
from chatlib.gate import PATIENCE
from chatlib.group import ChatGroup
from chatlib.names import history_queue
from chatlib.topology import SETTLING
from tests.support import unique_name, wait_until
from tests.wire import close_connections, raw

Unique = Callable[[str], str]


@pytest.fixture(scope="module")
def chat(broker: LocalBroker) -> Iterator[Chat]:
    with chatlib.connect(broker) as chat:
        yield chat


@pytest.fixture(scope="module")
def teams(chat: Chat) -> list[ChatGroup]:
    """Groups that keep their history: made at the same time, since each takes two seconds to settle."""
    with ThreadPoolExecutor(10) as pool:
        return list(pool.map(lambda _: chat.group("#" + unique_name("team"), history=True), range(8)))


@pytest.fixture
def team(teams: list[ChatGroup]) -> ChatGroup:
    """A group that keeps its history, and in which nothing was said yet."""
    return teams.pop()


def words(messages: Iterator[chatlib.SendMessage]) -> list[str]:
    return [message.content for message in messages]


def test_a_newcomer_reads_all_the_last_few_and_from_a_moment_on(chat: Chat, broker: LocalBroker, team: ChatGroup, unique: Unique) -> None:
    """1 said and acked by the members; 2 read by another process' chat that never joined; 3 reading takes nothing away."""
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    bob.join(team.address)
    ids = [ann.send(team.address, str(number)).wait(5).message_id for number in range(10)]
    said = time.time()
    moment = wait_until(
        lambda: datetime.now(UTC) if time.time() > said + 0.001 else None, what="the next millisecond: that is how finely times are kept"
    )
    ids += [bob.send(team.address, str(number)).wait(5).message_id for number in range(10, 15)]
    assert [message.content for message in bob.receive(limit=10, timeout=5) if not message.ack()] == [str(n) for n in range(10)]
    with chatlib.connect(broker) as other:
        same = other.group(team.address)
        for _ in range(2):
            found = list(same.history())
            assert [message.message_id for message in found] == ids
            assert [message.content for message in found] == [str(number) for number in range(15)]
            assert {message.sender_id for message in found} == {ann.name, bob.name} and {message.to for message in found} == {team.address}
        for last in (0, 1, 4, 15, 100, 10**30):
            assert words(same.history(last=last)) == [str(number) for number in range(15)][15 - last if last < 15 else 0 :]
        assert words(same.history(since=moment)) == [str(number) for number in range(10, 15)]
        assert words(same.history(since=moment.timestamp())) == [str(number) for number in range(10, 15)]
        assert words(same.history(since=moment.astimezone(tz=None))) == [str(number) for number in range(10, 15)]
        assert words(same.history(since=moment, last=2)) == ["13", "14"]
        assert words(same.history(since=datetime.now(UTC) + timedelta(hours=1))) == []
        assert words(same.history(since=0)) == [str(number) for number in range(15)]


def test_the_moment_is_a_moment(chat: Chat, team: ChatGroup) -> None:
    assert words(team.history()) == []  # nothing said yet is no error, and an end
    assert words(team.history(last=3)) == []
    with pytest.raises(ValueError, match="aware"):
        team.history(since=datetime(2026, 1, 1))  # noqa: DTZ001  that is the point
    for last in (-1, 1.5, "1", True):
        with pytest.raises(ValueError, match="a whole number, at least 0"):
            team.history(last=last)  # type: ignore[arg-type]


def test_a_moment_before_all_time_is_the_beginning_and_hurts_nobody(chat: Chat, team: ChatGroup, unique: Unique) -> None:
    """AMQP knows no time before 1970, and pika would end the connection of everybody over it."""
    ann = chat.user(unique("ann"))
    ann.send(team.address, "first").wait(20)
    for moment in (-1, datetime(1960, 1, 1, tzinfo=UTC), datetime.min.replace(tzinfo=UTC)):
        assert [message.content for message in team.history(since=moment)] == ["first"]
    assert chat.reconnects == 0
    for wrong in (math.inf, math.nan, -1e30, "yesterday", [1], datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))):
        with pytest.raises(ValueError, match="since must be"):
            team.history(since=wrong)  # type: ignore[arg-type]


def test_without_a_history_there_is_none_to_read(chat: Chat, unique: Unique) -> None:
    group = chat.group("#" + unique("team"))
    for read in (group.history, lambda: group.history(last=1), lambda: group.history(since=0)):
        with pytest.raises(ChatError, match=r"no history is kept.*history=True"):
            read()
    assert chat.reconnects == 0


def test_what_is_said_to_an_empty_group_is_kept_and_marks_are_not_shown(
    chat: Chat, broker: LocalBroker, team: ChatGroup, unique: Unique
) -> None:
    """Nobody is a member; a stranger's bytes and the marks of readers lie in between."""
    ann = chat.user(unique("ann"))
    for number in range(3):
        ann.send(team.address, str(number)).wait(5)
        list(team.history(last=1))
        with raw(broker.url) as stranger:
            stranger.put(history_queue(team.name), b"\xff\x00 somebody else's")
    assert words(team.history()) == ["0", "1", "2"]
    assert words(team.history(last=2)) == ["1", "2"]


def test_reading_ends_while_somebody_writes_as_fast_as_he_can(chat: Chat, broker: LocalBroker, team: ChatGroup, unique: Unique) -> None:
    """Each way of reading ends, has everything that was confirmed before, in order, and the writer has not stopped."""
    stop, confirmed = threading.Event(), list[int]()
    with chatlib.connect(broker) as writing:
        ann = writing.user(unique("ann"))

        def write() -> None:
            number = 0
            while not stop.is_set():
                batch = ann.send_many((team.address, str(number + i)) for i in range(100))
                number += 100
                batch[-1].wait(30)
                confirmed.append(number)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            wait_until(lambda: len(confirmed) > 10, 20, "it writes")
            for options in ({}, {"last": 50}, {"last": 1}, {"since": time.time() - 0.5}, {}, {"last": 50}):
                before, began = confirmed[-1], time.monotonic()
                numbers = [int(word) for word in words(team.history(**options))]  # type: ignore[arg-type]
                took, after = time.monotonic() - began, confirmed[-1]
                assert took < 20, f"{options}: {took:.1f} s"
                assert numbers == list(range(numbers[0], numbers[-1] + 1)), "a gap, or out of order"
                assert before - 1 <= numbers[-1], f"{options}: what was confirmed before is missing"
                assert "last" not in options or len(numbers) == options["last"]
                assert options or numbers[0] == 0
                wait_until(lambda after=after: confirmed[-1] > after, 20, "the writer goes on")
        finally:
            stop.set()
            writer.join(30)


def test_many_read_at_once_and_one_who_stops_early_hurts_nobody(chat: Chat, team: ChatGroup, unique: Unique) -> None:
    ann = chat.user(unique("ann"))
    ann.send_many((team.address, str(number)) for number in range(300))
    assert chat.flush(10)
    assert next(team.history()).content == "0"
    found: list[list[str]] = []
    readers = [threading.Thread(target=lambda: found.append(words(team.history()))) for _ in range(5)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(20)
    assert found == [[str(number) for number in range(300)]] * 5
    assert chat.reconnects == 0


def fill(ann: ChatUser, team: ChatGroup, megabytes: int) -> None:
    """Say so much, in pieces of 50 kB."""
    for _ in range(megabytes):
        ann.send_many((team.address, "x" * 50_000) for _ in range(20))
    assert ann._chat.flush(60)


def test_what_is_beyond_its_size_goes_the_oldest_first(chat: Chat, unique: Unique) -> None:
    """Whole segments go, when one is full: of 8 MB in a history of 2 MB the first is gone, the last is there, and it is about 2 MB."""
    team = chat.group("#" + unique("team"), history=True, max_bytes=2_000_000)
    ann = chat.user(unique("ann"))
    first = ann.send(team.address, "first").wait(5)
    assert words(team.history()) == ["first"]
    fill(ann, team, 8)
    last = ann.send(team.address, "last").wait(5)

    def bounded() -> bool:
        ids = [(message.message_id, len(message.content)) for message in team.history()]
        return ids[-1][0] == last.message_id and ids[0][0] != first.message_id and sum(size for _, size in ids) < 4_000_000

    wait_until(bounded, 30, "the oldest are gone, and about as much is left as was asked for", poll=0.5)


def test_what_is_older_than_its_age_goes(chat: Chat, unique: Unique) -> None:
    """RabbitMQ looks when a segment is full: what is younger than a second by then stays, the older segments go."""
    team = chat.group("#" + unique("team"), history=True, max_age="1s", max_bytes=10_000_000)
    ann = chat.user(unique("ann"))
    first = ann.send(team.address, "first").wait(5)
    fill(ann, team, 2)
    written = time.monotonic()
    wait_until(lambda: time.monotonic() - written > 1.5, 5, "a second and a half have passed")

    def gone() -> bool:
        fill(ann, team, 2)
        return first.message_id not in {message.message_id for message in team.history()}

    wait_until(gone, 30, "the first is gone", poll=0.5)
    last = ann.send(team.address, "last").wait(5)
    assert [message.message_id for message in team.history(last=1)] == [last.message_id]


def test_to_begin_it_again_changes_nothing_and_other_limits_are_refused(
    chat: Chat, broker: LocalBroker, team: ChatGroup, unique: Unique
) -> None:
    ann = chat.user(unique("ann"))
    ann.send(team.address, "0").wait(5)
    began = time.monotonic()
    assert words(chat.group(team.address, history=True).history()) == ["0"]
    with chatlib.connect(broker) as other:
        assert words(other.group(team.address, history=True).history()) == ["0"]
        assert time.monotonic() - began < 5
        with pytest.raises(TopologyMismatch):
            other.group(team.address, history=True, max_bytes=1_000_000)
        assert words(other.group(team.address).history()) == ["0"]


@pytest.mark.parametrize("limits", [{"max_bytes": 1.5}, {"max_bytes": True}, {"max_age": 7}], ids=str)
def test_a_limit_that_is_none_is_refused_and_hurts_nobody(chat: Chat, unique: Unique, limits: dict[str, Any]) -> None:
    group, reconnects, began = "#" + unique("team"), chat.reconnects, time.monotonic()
    with pytest.raises(ValueError, match=rf"{next(iter(limits))} is a "):
        chat.group(group, history=True, **limits)
    assert time.monotonic() - began < 1
    ann = chat.user(unique("ann"))
    ann.send(ann.address, "still here").wait(10)
    assert chat.reconnects == reconnects
    with pytest.raises(ChatError, match="no history is kept"):
        chat.group(group).history()


def test_deleted_it_is_gone_and_the_group_goes_on(chat: Chat, broker: LocalBroker, team: ChatGroup, unique: Unique) -> None:
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    bob.join(team.address)
    ann.send(team.address, "0").wait(5)
    team.delete_history()
    with pytest.raises(ChatError, match="no history is kept"):
        team.history()
    ann.send(team.address, "1").wait(5)
    assert [message.content for message in bob.receive(limit=2, timeout=5) if not message.ack()] == ["0", "1"]
    team.delete_history()  # nothing there is no error
    again = chat.group(team.address, history=True, max_bytes=1_000_000)  # another one, with other limits
    ann.send(team.address, "2").wait(5)
    assert words(again.history()) == ["2"]


def test_who_finds_a_history_that_somebody_else_has_just_begun_waits_until_it_is_safe(broker: LocalBroker, unique: Unique) -> None:
    """A stream that is there is not yet one to rely on (see test_young_queues): a second chat waits, too; a third need not."""
    address = "#" + unique("team")
    with chatlib.connect(broker) as one, chatlib.connect(broker) as two:
        first = threading.Thread(target=lambda: one.group(address, history=True))
        first.start()
        wait_until(lambda: two._link.queues.exists(history_queue(address[1:])), 10, "the stream is there")
        began = time.monotonic()
        two.group(address, history=True)
        assert time.monotonic() - began > SETTLING - 0.2
        first.join(10)
        with chatlib.connect(broker) as three:
            began = time.monotonic()
            three.group(address, history=True)
            assert time.monotonic() - began < SETTLING - 0.5


def test_a_name_that_is_too_long_for_a_stream_is_refused_and_the_longest_is_not(chat: Chat, unique: Unique) -> None:
    """The broker would declare the stream, route to it, and never confirm what was said there."""
    ann = chat.user(unique("ann"))
    name = unique("g").ljust(225, "g")
    team = chat.group("#" + name, history=True)
    ann.send(team.address, "it works").wait(20)
    assert words(team.history()) == ["it works"]
    with pytest.raises(InvalidName, match="225 bytes"):
        chat.group("#" + name + "g", history=True)
    team.delete_history()


def test_a_history_that_somebody_else_deleted_does_not_come_back_half(broker: LocalBroker, unique: Unique) -> None:
    """Kept by two chats, deleted by one: after a reconnect of the other nobody waits for a stream that is gone, nor does a third."""
    with chatlib.connect(broker) as here, chatlib.connect(broker, name=unique("there")) as there:
        address = "#" + unique("team")
        ann, bob = there.user(unique("ann")), here.user(unique("bob"))
        bob.join(address)
        for each in (here, there):
            each.group(address, history=True)
        ann.send(address, "1").wait(10)
        here.group(address).delete_history()
        close_connections(broker, there.name)
        wait_until(lambda: there.reconnects == 1 and there.state == "connected", 15, "it is connected again")
        ann.send(address, "2").wait(5)
    with chatlib.connect(broker) as third:
        third.user(unique("cid")).send(address, "3").wait(5)


def test_while_a_group_waits_for_its_history_everybody_else_goes_on(broker: LocalBroker, unique: Unique) -> None:
    """The stream was deleted behind our back, and the group still says that it keeps one: its messages wait, no others do."""
    with chatlib.connect(broker, name=unique("chat")) as chat:
        ann, team, other = chat.user(unique("ann")), "#" + unique("team"), "#" + unique("other")
        chat.group(team, history=True)
        for group in (team, other):
            ann.join(group)
            ann.send(group, "0").wait(10)
        with raw(broker.url) as stranger:
            stranger.channel.queue_delete(history_queue(team[1:]))
        close_connections(broker, chat.name)
        wait_until(lambda: chat.reconnects == 1 and chat.state == "connected", 15, "it is connected again")
        first, second = ann.send_many([(team, "1"), (team, "2")])
        ann.send_many([(ann.address, "to somebody"), (other, "to others")])[-1].wait(5)
        assert first.state == second.state == "pending" and chat.unconfirmed >= 2  # with a mark, one after the other
        assert second.wait(PATIENCE + 15) and first.state == "confirmed", "in the end they go on without it"
