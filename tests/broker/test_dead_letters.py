"""Dead letters over a real broker: looked at without being taken away, replayed under their id, purged; whatever their bytes are."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

import chatlib
from chatlib import Chat, ChatError, ReceivedMessage, RetryPolicy, Settings, faults
from chatlib.brokers import LocalBroker
from chatlib.events import DEAD, REPLAYED, RETURNED, Event
from chatlib.names import DEAD_LETTERS, inbox_queue
from tests.support import wait_until
from tests.wire import raw

Unique = Callable[[str], str]
QUICK = Settings(retry=RetryPolicy(attempts=2, base=0.1, cap=0.1))


@pytest.fixture
def chat(broker: LocalBroker) -> Iterator[Chat]:
    with chatlib.connect(broker, settings=QUICK) as chat:
        chat.dead_letters.purge()
        yield chat


def bury(chat: Chat, to: str, contents: list[str], unique: Unique) -> list[str]:
    """Send these to somebody who rejects all; their ids, once they are dead, in order."""
    ann, bob = chat.user(unique("ann")), chat.user(to)
    before = len(chat.dead_letters)
    ids = [ann.send(bob.address, content).message_id for content in contents]
    for message in bob.receive(limit=len(ids), timeout=10):
        message.reject(f"no {message.content}")
    wait_until(lambda: len(chat.dead_letters) == before + len(ids), 10, "all are dead")
    return ids


def test_looking_takes_nothing_away_and_keeps_the_order(chat: Chat, unique: Unique) -> None:
    ids = bury(chat, unique("bob"), [str(number) for number in range(20)], unique)
    for _ in range(3):
        assert [letter.message_id for letter in chat.dead_letters.list()] == ids
    assert [letter.message_id for letter in chat.dead_letters] == ids
    assert [letter.message_id for letter in chat.dead_letters.list(limit=5)] == ids[:5]
    assert len(chat.dead_letters) == 20
    letter = chat.dead_letters[ids[7]]
    assert letter.message is not None and (letter.message.content, letter.reason, letter.attempts) == ("7", "no 7", 1)
    with pytest.raises(KeyError, match="nowhere"):
        chat.dead_letters["nowhere"]


def test_as_a_table_they_are_one_row_each(chat: Chat, unique: Unique) -> None:
    empty = chat.dead_letters.table()
    bob = unique("bob")
    ids = bury(chat, bob, ["a", "b", "c"], unique)
    table = chat.dead_letters.table()
    assert list(table.columns) == list(empty.columns) == list(chat.dead_letters[ids[0]].to_dict()) and len(empty) == 0
    assert list(table["message_id"]) == ids
    assert list(table["content"]) == ["a", "b", "c"] and list(table["reason"]) == ["no a", "no b", "no c"]
    assert set(table["user"]) == {bob} and set(table["queue"]) == {inbox_queue(bob)} and set(table["attempts"]) == {1}
    assert (table["last_failure"] >= table["first_failure"]).all()
    assert str(table["last_failure"].dt.tz) == "UTC"


def test_one_of_many_is_replayed_or_purged_and_the_others_stay(chat: Chat, unique: Unique) -> None:
    bob = unique("bob")
    ids = bury(chat, bob, ["a", "b", "c", "d"], unique)
    with pytest.raises(KeyError, match="nowhere"):
        chat.dead_letters.replay(ids[0], "nowhere")  # all or none
    with pytest.raises(KeyError, match="nowhere"):
        chat.dead_letters.purge("nowhere", ids[0])
    assert len(chat.dead_letters) == 4
    assert chat.dead_letters.purge(ids[1]) == 1
    assert chat.dead_letters.replay(ids[2]) == 1
    assert [letter.message_id for letter in chat.dead_letters] == [ids[0], ids[3]]
    (message,) = chat.user(bob).receive(limit=1, timeout=5)
    assert (message.message_id, message.content, message.attempt) == (ids[2], "c", 2)
    assert message.failures == ("no c", "replayed from the dead letters")
    message.ack()
    assert chat.dead_letters.purge() == 2 and len(chat.dead_letters) == 0


def test_all_are_replayed_once_and_sender_and_hooks_hear_of_it(chat: Chat, unique: Unique) -> None:
    bob = unique("bob")
    events: list[Event] = []
    chat.on_event(lambda event: events.append(event) if event["hop"] == REPLAYED else None)
    ids = bury(chat, bob, [str(number) for number in range(50)], unique)
    got: list[str] = []
    chat.user(bob).on_message(lambda message: got.append(message.message_id))
    assert chat.dead_letters.replay() == 50
    wait_until(lambda: got == ids, 10, "all are handled, in order")
    assert [(event["message_id"], event["user"]) for event in events] == [(message_id, bob) for message_id in ids]
    assert chat.dead_letters.replay() == 0  # nothing there is no error
    assert chat.dead_letters.list() == []


def test_a_replay_may_wait_for_ever_and_not_for_what_is_no_time(chat: Chat, unique: Unique) -> None:
    bob = unique("bob")
    ids = bury(chat, bob, ["a"], unique)
    for wrong, error in ((math.nan, ValueError), (None, TypeError)):
        with pytest.raises(error, match=r"the timeout of replay\(\) must be a number of seconds"):
            chat.dead_letters.replay(timeout=wrong)  # type: ignore[arg-type]
    assert len(chat.dead_letters) == 1
    assert chat.dead_letters.replay(timeout=math.inf) == 1
    assert [message.message_id for message in chat.user(bob).receive(limit=2, timeout=0.5)] == ids
    assert len(chat.dead_letters) == 0


def test_a_replay_has_a_full_set_of_attempts_and_keeps_its_story(chat: Chat, unique: Unique) -> None:
    """Two attempts, dead; replayed, two more, dead again; and the whole story is in the letter."""
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    attempts: list[int] = []

    def handler(message: ReceivedMessage) -> None:
        attempts.append(message.attempt)
        raise RuntimeError(f"at {message.attempt}")

    bob.on_message(handler)
    sent = ann.send(bob.address, "x")
    first = wait_until(lambda: chat.dead_letters[sent.message_id], 15, "it is dead")
    assert attempts == [1, 2] and first.attempts == 2
    chat.dead_letters.replay(sent.message_id)
    wait_until(lambda: chat.dead_letters[sent.message_id].attempts == 4, 15, "it is dead again")
    again = chat.dead_letters[sent.message_id]
    assert attempts == [1, 2, 3, 4]
    reasons = ["RuntimeError: at 1", "RuntimeError: at 2", "replayed from the dead letters", "RuntimeError: at 3", "RuntimeError: at 4"]
    assert list(again.failures) == reasons
    assert first.last_failure and again.first_failure and again.first_failure > first.last_failure  # the clock of its total time, too
    assert sent.receipts == {}


def test_what_is_dead_for_several_members_is_a_letter_for_each(chat: Chat, unique: Unique) -> None:
    """One group message, rejected by two of three: each gets his own copy again, the third nothing."""
    group = "#" + unique("team")
    ann, *members = (chat.user(unique(name)) for name in ("ann", "bob", "cid", "dan"))
    for member in members:
        member.join(group)
    sent = ann.send(group, "x").wait(5)
    for member in members[:2]:
        for message in member.receive(limit=1, timeout=5):
            message.reject(f"not for {member.name}")
    for message in members[2].receive(limit=1, timeout=5):
        message.ack()
    wait_until(lambda: len(chat.dead_letters) == 2, 10, "both are dead")
    assert {letter.user for letter in chat.dead_letters} == {member.name for member in members[:2]}
    assert chat.dead_letters.replay(sent.message_id) == 2
    for member in members[:2]:
        (message,) = member.receive(limit=1, timeout=5)
        assert message.message_id == sent.message_id
        message.ack()
    assert list(members[2].receive(timeout=0.3)) == []
    wait_until(lambda: len(sent.receipts) == 3, 5, "all three have it in the end")


def test_two_who_replay_at_once_repeat_nothing(chat: Chat, broker: LocalBroker, unique: Unique) -> None:
    bob = unique("bob")
    ids = bury(chat, bob, [str(number) for number in range(100)], unique)
    got: Counter[str] = Counter()
    chat.user(bob).on_message(lambda message: got.update([message.message_id]))
    gate, counts = threading.Barrier(2), list[int]()

    def replay(by: Chat) -> None:
        gate.wait(5)
        counts.append(by.dead_letters.replay())

    with chatlib.connect(broker) as other:
        threads = [threading.Thread(target=replay, args=(by,)) for by in (chat, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    wait_until(lambda: len(got) == 100, 10, "all are handled")
    assert sum(counts) == 100 and set(got.values()) == {1} and set(got) == set(ids)


def test_bytes_that_are_no_message_stay_what_they_are(chat: Chat, broker: LocalBroker, unique: Unique) -> None:
    """1 they end in the dead letters byte for byte; 2 a replay brings them back there, unchanged; 3 what is behind them is received."""
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    bodies = [
        b"",
        bytes(range(256)),
        b"\x00" * 100_000,
        b'{"type": "SEND_MESSAGE"}',
        b'{"a": ' * 2_000,
        b"\x00\xd8",
        b"[]",
    ]
    with raw(broker.url) as stranger:
        for number, body in enumerate(bodies):
            stranger.put(inbox_queue(bob.name), body, message_id=f"{bob.name}-{number}", content_type="application/x-strange")
    ann.send(bob.address, "behind them")
    (message,) = bob.receive(limit=1, timeout=10)
    assert message.content == "behind them"
    message.ack()
    wait_until(lambda: len(chat.dead_letters) == len(bodies), 10, "all are dead")
    for turn in (1, 2):
        letters = chat.dead_letters.list()
        assert [letter.body for letter in letters] == bodies
        assert [letter.message_id for letter in letters] == [f"{bob.name}-{number}" for number in range(len(bodies))]
        assert all(letter.message is None and letter.user == bob.name and letter.reason and letter.attempts == turn for letter in letters)
        if turn == 1:
            assert chat.dead_letters.replay() == len(bodies)
            list(bob.receive(timeout=0.5))
            wait_until(lambda: len(chat.dead_letters) == len(bodies), 10, "all are dead again")
    with raw(broker.url) as observer:
        taken = observer.take(DEAD_LETTERS, len(bodies))
        assert [(properties.content_type, properties.delivery_mode) for properties, _ in taken] == [("application/x-strange", 2)] * len(
            bodies
        )


def test_strangers_among_the_dead_do_not_keep_the_others_from_being_replayed(chat: Chat, broker: LocalBroker, unique: Unique) -> None:
    bob = unique("bob")
    with raw(broker.url) as stranger:
        stranger.put(DEAD_LETTERS, b"from nowhere", message_id="stranger")
        (message_id,) = bury(chat, bob, ["x"], unique)
        with pytest.raises(ChatError, match="does not say whose inbox"):
            chat.dead_letters.replay("stranger", message_id)
        assert chat.dead_letters.replay() == 1
        (message,) = chat.user(bob).receive(limit=1, timeout=5)
        assert message.message_id == message_id
        message.ack()
        assert [letter.message_id for letter in chat.dead_letters] == ["stranger"]
        assert chat.dead_letters.purge("stranger") == 1


def test_a_letter_that_lies_there_twice_is_one(chat: Chat, broker: LocalBroker, unique: Unique) -> None:
    """What a death between a copy and its ack leaves behind. Without an id nobody can say that two are the same."""
    bob = unique("bob")
    (message_id,) = bury(chat, bob, ["x"], unique)
    with raw(broker.url) as stranger:
        for _ in range(2):
            ((properties, body),) = stranger.take(DEAD_LETTERS, 1)
            for _ in range(2):
                stranger.channel.basic_publish("", DEAD_LETTERS, body, properties)
        assert stranger.depth(DEAD_LETTERS) == 3
    assert [letter.message_id for letter in chat.dead_letters] == [message_id]
    assert chat.dead_letters.replay(message_id) == 1
    assert len(chat.dead_letters) == 0
    assert [message.message_id for message in chat.user(bob).receive(timeout=1) if not message.ack()] == [message_id]
    with raw(broker.url) as stranger:
        for _ in range(2):
            stranger.put(DEAD_LETTERS, b"the same")
    assert len(chat.dead_letters.list()) == 2
    assert chat.dead_letters.purge() == 2


def test_a_replay_into_a_full_inbox_says_so_and_loses_nothing(broker: LocalBroker, unique: Unique) -> None:
    with chatlib.connect(broker, settings=Settings(inbox_limit=2)) as chat:
        chat.dead_letters.purge()
        bob = unique("bob")
        ids = bury(chat, bob, ["a"], unique)
        user = chat.user(bob)
        user.go_offline()
        postman = chat.user(unique("postman"))
        for number in range(2):
            postman.send(user.address, str(number)).wait(5)
        with pytest.raises(ChatError, match="could not be replayed"):
            chat.dead_letters.replay()
        wait_until(lambda: [letter.message_id for letter in chat.dead_letters] == ids, 5, "it stays where it is")
        user.go_online()
        assert [message.content for message in user.receive(limit=2, timeout=5) if not message.ack()] == ["0", "1"]
        assert chat.dead_letters.replay() == 1
        assert [message.content for message in user.receive(limit=1, timeout=5) if not message.ack()] == ["a"]


def test_the_queue_of_the_dead_is_deleted_behind_our_back(broker: LocalBroker, chat: Chat, unique: Unique) -> None:
    """It is made again when somebody needs it, nobody has to connect anew, and what dies meanwhile does not go round and round."""
    events: list[Event] = []
    bury(chat, unique("bob"), ["before"], unique)
    chat.on_event(events.append)
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    faults.delete_queue(broker, DEAD_LETTERS)
    sent = ann.send(bob.address, "after")
    bob.on_message(lambda message: message.reject("no"))
    wait_until(lambda: (DEAD, sent.message_id) in [(event["hop"], event["message_id"]) for event in events], 30, "it is dead")
    assert [letter.message_id for letter in chat.dead_letters] == [sent.message_id]
    assert 1 <= [event["hop"] for event in events].count(RETURNED) < 50
    bob.on_message(None)
    faults.delete_queue(broker, DEAD_LETTERS)
    chat.user(unique("cid")).send(bob.address, "signed up, although what the sign-up ends with was missing").wait(10)
    assert len(chat.dead_letters) == 0 and chat.reconnects == 0
