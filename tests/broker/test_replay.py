"""A replay on a real broker: who gets what, what is judged, what is left behind, and that the verdict can be bad."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import chatlib
from chatlib import events
from chatlib.brokers import LocalBroker
from chatlib.checker import check
from chatlib.recorder import load
from chatlib.replay import GAP, Leftovers, Progress, replay
from chatlib.transcript import Transcript, TranscriptError, parse_transcript, small_transcript
from tests.support import wait_until

Unique = Callable[[str], str]


def script(*lines: str) -> Transcript:
    """A transcript of lines such as "0 join ann", "2 ann: hello" in one group; the first number is its second."""
    records = []
    for number, line in enumerate(lines, 1):
        second, first, rest = line.split(" ", 2)
        record = {"id": number, "ts": f"2024-04-20T10:00:{float(second):09.6f}Z", "group": "#garden"}
        if first.endswith(":"):
            record |= {"sender": first[:-1], "text": rest}
        elif first == "nick":
            record |= {"event": first, "sender": rest.split()[0], "new": rest.split()[1]}
        else:
            record |= {"event": first, "sender": rest}
        records.append(json.dumps(record))
    return parse_transcript(records)


@pytest.fixture
def prefix(unique: Unique) -> str:
    """Keeps the users of a test apart from those of others."""
    return f"{unique('replay')}-"


def received(history: Path, prefix: str) -> dict[str, list[str]]:
    """Who handled which of the messages, by their number in the order of sending."""
    records = load(history)
    numbers = {record["message_id"]: str(number) for number, record in enumerate([r for r in records if r["hop"] == events.STORED], 1)}
    found: dict[str, list[str]] = {}
    for record in records:
        if record["hop"] == events.HANDLED:
            found.setdefault(record["user"].removeprefix(prefix), []).append(numbers[record["message_id"]])
    return found


# who gets what


def test_the_small_transcript_arrives_at_everybody_once_and_in_order(broker: LocalBroker, prefix: str) -> None:
    result = replay(small_transcript(), broker, prefix=prefix)
    summary = small_transcript().summary(gap=GAP)
    assert result.clean and result.verdict.valid
    assert (result.messages, result.expected) == (summary.messages, summary.deliveries) == (52, 115)
    assert (result.users, result.senders, result.groups) == (9, 9, 3)
    assert result.verdict.attempted == result.verdict.confirmed == 52
    assert result.verdict.delivered == result.verdict.handled == result.verdict.expected == 115
    assert result.messages_per_second > 0 and result.deliveries_per_second > 0
    assert result.to_dict()["lost"] == 0 and json.loads(json.dumps(result.to_dict()))["clean"] is True


def test_a_message_goes_to_those_who_are_members_at_that_line(broker: LocalBroker, prefix: str, tmp_path: Path) -> None:
    """Not to who joins later, not to who has left, also to who is away, to a new name after a change of it."""
    play = script(
        "0 join ann",
        "0 join bob",
        "0 ann: one",  # bob
        "0 join cat",
        "0 ann: two",  # bob, cat
        "0 part bob",
        "0 ann: three",  # cat
        "0 quit cat",
        "0 ann: four",  # cat, who is away
        "0 bob: five",  # bob is back by writing: ann, cat
        "0 nick cat dog",
        "0 ann: six",  # bob, dog
    )
    result = replay(play, broker, prefix=prefix, history_file=tmp_path / "run.jsonl")
    assert received(tmp_path / "run.jsonl", prefix) == {"bob": ["1", "2", "6"], "cat": ["2", "3", "4", "5"], "ann": ["5"], "dog": ["6"]}
    assert result.clean and result.expected == 9


def test_many_changes_of_membership_among_many_messages_are_exact(broker: LocalBroker, prefix: str, tmp_path: Path) -> None:
    """Somebody joins and leaves around every message: none is off by one in either direction."""
    lines = ["0 join ann", "0 join bob"]
    for number in range(150):
        lines += [f"0 ann: in {number}", "0 part bob", f"0 ann: out {number}", "0 join bob"]
    result = replay(script(*lines), broker, prefix=prefix, history_file=tmp_path / "run.jsonl")
    assert received(tmp_path / "run.jsonl", prefix) == {"bob": [str(2 * number + 1) for number in range(150)]}
    assert result.clean


def test_receipts_come_back_when_they_are_asked_for(broker: LocalBroker, prefix: str) -> None:
    result = replay(small_transcript(), broker, prefix=prefix, receipts=True)
    assert result.clean
    assert result.verdict.attempted == 52  # receipts are no messages
    assert 0 < result.verdict.receipts <= 115


def test_a_chat_that_is_there_can_be_used_and_goes_on(broker: LocalBroker, prefix: str) -> None:
    with chatlib.connect(broker) as chat:
        seen: list[str] = []
        chat.on_event(lambda event: seen.append(event["hop"]))
        result = replay(small_transcript(), chat, prefix=prefix)
        assert result.clean
        assert Counter(seen)[events.HANDLED] == 115
        bob = chat.user(f"{prefix}bob")
        chat.user(f"{prefix}ann").send(bob.address, "afterwards").wait(10)
        assert [message.content for message in bob.receive(limit=1, timeout=10)] == ["afterwards"]


def test_what_others_do_on_the_same_chat_is_not_counted(broker: LocalBroker, prefix: str) -> None:
    with chatlib.connect(broker) as chat:
        eve, mallory = chat.user(f"{prefix}eve"), chat.user(f"{prefix}mallory")
        mallory.on_message(lambda message: None)
        stop = threading.Event()

        def chatter() -> None:
            while not stop.wait(0.001):
                eve.send(mallory.address, "psst")

        other = threading.Thread(target=chatter)
        other.start()
        try:
            result = replay(small_transcript(), chat, prefix=prefix)
        finally:
            stop.set()
            other.join()
    assert result.clean and result.verdict.attempted == 52


# the pace


def test_speed_keeps_the_pace_of_the_log_and_a_limit_cuts_silences(broker: LocalBroker, prefix: str) -> None:
    """A log of 6 s at ten times its speed takes 0.6 s at least; with silences of at most 0.1 s less than that is asked for."""
    play = script("0 ann: one", "3 ann: two", "6 ann: three")
    assert replay(play, broker, prefix=prefix, speed=10).seconds >= 0.6
    moments: list[Progress] = []
    cut = replay(play, broker, prefix=prefix, speed=0.001, idle_limit=0.15, on_progress=moments.append)
    assert cut.clean and 0.3 <= cut.seconds < 60  # without the limit it would take 6,000 s
    assert {moment.phase for moment in moments} == {"signing up", "playing", "draining", "judging"}


@pytest.mark.parametrize("wrong", [{"speed": -1.0}, {"speed": float("nan")}, {"idle_limit": -1.0}, {"gap": 0.0}])
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, float], broker: LocalBroker) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replay(small_transcript(), broker, **wrong)  # type: ignore[arg-type]


def test_a_message_that_is_too_long_is_refused_before_anything_is_sent(broker: LocalBroker, prefix: str) -> None:
    sent: list[Progress] = []
    with pytest.raises(TranscriptError, match="message of id 2 cannot be sent"):
        replay(script("0 ann: one", f"0 ann: {'x' * 70_000}"), broker, prefix=prefix, on_progress=sent.append)
    assert not sent


# a bad verdict


def in_the_silence(
    play: Transcript, broker: LocalBroker, prefix: str, after: int, act: Callable[[chatlib.Chat], None]
) -> chatlib.replay.ReplayResult:
    """Replay, and let `act` do its harm over another connection when so many messages were sent."""
    done = []
    with chatlib.connect(broker) as other:

        def watch(progress: Progress) -> None:
            if not done and progress.sent >= after:
                done.append(True)
                act(other)

        result = replay(play, broker, prefix=prefix, speed=1, on_progress=watch)
    assert done
    return result


def test_a_message_that_somebody_throws_away_is_lost_in_the_verdict(broker: LocalBroker, prefix: str) -> None:
    """Bob is away; what waits for him is purged behind everybody's back."""

    def purge(other: chatlib.Chat) -> None:
        inbox = chatlib.names.inbox_queue(f"{prefix}bob")
        wait_until(lambda: other._link.queues.depth(inbox)[0] == 2, what="both messages in the inbox")
        assert other._link.queues.purge(inbox) == 2

    play = script("0 join bob", "0 quit bob", "0 ann: one", "0 ann: two", "1 ann: three")
    result = in_the_silence(play, broker, prefix, 2, purge)
    assert (result.verdict.lost, result.verdict.delivered, result.expected) == (2, 1, 3)
    assert not result.clean


def test_a_message_from_elsewhere_is_unexpected_in_the_verdict(broker: LocalBroker, prefix: str) -> None:
    def slip_in(other: chatlib.Chat) -> None:
        other.user(f"{prefix}eve").send(f"@{prefix}bob", "from nowhere").wait(10)

    result = in_the_silence(script("0 join bob", "0 ann: one", "1 ann: two"), broker, prefix, 1, slip_in)
    assert (result.verdict.unexpected, result.verdict.lost, result.verdict.delivered) == (1, 0, 2)
    assert not result.clean


def test_somebody_who_is_in_the_group_uninvited_is_seen(broker: LocalBroker, prefix: str) -> None:
    """A membership that the transcript does not know of brings a message to the wrong inbox."""

    def join(other: chatlib.Chat) -> None:
        other.users([f"{prefix}cat"], online=False)[0].join(f"#{prefix}garden")

    play = script("0 join cat", "0 part cat", "0 join bob", "0 ann: one", "1 ann: two")
    result = in_the_silence(play, broker, prefix, 1, join)
    assert (result.verdict.unexpected, result.verdict.lost) == (1, 0)
    assert not result.clean


# another day on the same broker


def test_a_second_replay_counts_nothing_of_the_first(broker: LocalBroker, prefix: str) -> None:
    first, second = (replay(small_transcript(), broker, prefix=prefix) for _ in range(2))
    assert first.clean and second.clean
    assert first.verdict == second.verdict


def test_messages_of_another_day_are_not_touched_unless_purged(broker: LocalBroker, prefix: str) -> None:
    """Given a message that waits for bob, when his name is in a transcript, then it is refused, and the message stays his."""
    with chatlib.connect(broker) as chat:
        bob = chat.user(f"{prefix}bob")
        bob.go_offline()
        chat.user(f"{prefix}eve").send(bob.address, "yours").wait(10)
    play = script("0 join bob", "0 ann: one")
    with pytest.raises(Leftovers, match=r"1 messages already wait for 1 of these users .*bob 1"):
        replay(play, broker, prefix=prefix)
    with chatlib.connect(broker) as chat:
        assert chat.users([f"{prefix}bob"], online=False)[0].waiting == 1
    assert replay(play, broker, prefix=prefix, purge=True).clean
    with chatlib.connect(broker) as chat:
        assert chat.users([f"{prefix}bob"], online=False)[0].waiting == 0


def test_a_replay_that_is_interrupted_leaves_nothing_for_the_next(broker: LocalBroker, prefix: str) -> None:
    """No message waits, nobody is a member: what was said in the middle by Ctrl-C is not found tomorrow."""

    def interrupt(progress: Progress) -> None:
        if progress.sent == 2:
            raise KeyboardInterrupt

    play = script("0 join bob", "0 quit bob", "0 ann: one", "0 ann: two", "1 ann: three")
    with pytest.raises(KeyboardInterrupt):
        replay(play, broker, prefix=prefix, speed=1, on_progress=interrupt)
    with chatlib.connect(broker) as chat:
        users = chat.users([f"{prefix}ann", f"{prefix}bob"], online=False)
        assert [user.waiting for user in users] == [0, 0]
        assert [user.groups for user in users] == [set(), set()]
    assert replay(play, broker, prefix=prefix).clean


def test_memberships_of_a_replay_that_was_killed_do_not_count(broker: LocalBroker, prefix: str) -> None:
    with chatlib.connect(broker) as chat:
        chat.user(f"{prefix}bob").join(f"#{prefix}garden")
    assert replay(script("0 ann: before", "0 join bob", "0 ann: after"), broker, prefix=prefix).clean


# the history


def test_the_history_on_disk_gives_the_same_verdict(broker: LocalBroker, prefix: str, tmp_path: Path) -> None:
    result = replay(small_transcript(), broker, prefix=prefix, history_file=tmp_path / "run.jsonl")
    again = check(load(tmp_path / "run.jsonl"))
    assert again == result.verdict and again.delivered == 115
    assert [file.name for file in tmp_path.iterdir()] == ["run.jsonl"]
