"""Histories while the broker is killed: what was confirmed is in them, once and in order, and no reader is left hanging."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import chatlib
from chatlib import ChatError, Settings
from chatlib.events import UNKNOWN, Event
from chatlib.group import ChatGroup
from tests.support import wait_until

Unique = Callable[[str], str]
Kill = Callable[[Any], None]
PATIENCE = 60.0
OLD = 8_000  # messages; reading them takes a while


def read(team: ChatGroup, **options: Any) -> list[str]:
    """The history, read again as long as it says that it cannot be read now."""

    def attempt() -> list[str] | None:
        try:
            return [message.content for message in team.history(**options)] or [""]
        except ChatError:
            return None

    found = wait_until(attempt, PATIENCE, "the history can be read")
    return found if found != [""] else []


class Reader(threading.Thread):
    """Reads one history after the other, and notes how each reading ended and how long it took."""

    def __init__(self, team: ChatGroup) -> None:
        super().__init__(daemon=True)
        self.team = team
        self.stop = threading.Event()
        self.whole: list[list[str]] = []
        self.failed: list[tuple[ChatError, float]] = []
        self.spans: list[tuple[float, float]] = []
        self.surprises: list[BaseException] = []

    def run(self) -> None:
        while not self.stop.is_set():
            began = time.monotonic()
            try:
                self.whole.append([message.content for message in self.team.history()])
            except ChatError as exc:
                self.failed.append((exc, time.monotonic() - began))
                self.stop.wait(0.05)
            except BaseException as exc:
                self.surprises.append(exc)
                return
            finally:
                self.spans.append((began, time.monotonic()))


@pytest.mark.timeout(300)
def test_begun_confirmed_killed_and_all_there(mortal: Any, kill_and_start: Kill, unique: Unique) -> None:
    """Twice: 1 a history is begun, and the moment that `chat.group` returns 200 messages are sent and confirmed; 2 SIGKILL, while
    somebody reads another, older history; 3 the 200 are there; 4 the reader got everything or a typed error in time, never a part
    and never silence.
    """
    with chatlib.connect(mortal, settings=Settings(request_timeout=20.0)) as chat:
        ann = chat.user(unique("ann"))
        old = chat.group("#" + unique("old"), history=True)
        ann.send_many((old.address, str(number)) for number in range(OLD))
        assert chat.flush(30)
        for _ in range(2):
            # 1
            team = chat.group("#" + unique("team"), history=True)
            sent = ann.send_many((team.address, str(number)) for number in range(200))
            reader = Reader(old)
            reader.start()
            for message in sent:
                message.wait(20)
            # 2
            killed = time.monotonic()
            kill_and_start(mortal)
            # 3
            assert read(team) == [str(number) for number in range(200)]
            assert read(team, last=3) == ["197", "198", "199"]
            # 4
            done = len(reader.whole)
            wait_until(lambda done=done, reader=reader: len(reader.whole) > done, PATIENCE, "the reader reads again")
            reader.stop.set()
            reader.join(30)
            assert not reader.is_alive() and not reader.surprises
            assert all(found == [str(number) for number in range(OLD)] for found in reader.whole)
            assert any(began < killed + 0.5 < ended for began, ended in reader.spans), "no reading was hit by the kill"
            assert max(ended - began for began, ended in reader.spans) < 60
            print([f"{type(exc).__name__} after {took:.1f} s" for exc, took in reader.failed])
        assert chat.reconnects >= 2


@pytest.mark.timeout(300)
def test_written_through_kills_it_has_everything_once_and_in_order(mortal: Any, kill_and_start: Kill, unique: Unique) -> None:
    """1 somebody writes as fast as he can through two kills at random moments; 2 outcomes were unknown, so things were sent again, and
    the stream has them twice; 3 read, every confirmed message is there, once, in the order of sending, as in the inbox of a member,
    although inboxes are up a second before streams; 4 the last n and since, too.
    """
    rng = random.Random(9)
    with chatlib.connect(mortal) as chat:
        unknown: list[Event] = []
        chat.on_event(lambda event: unknown.append(event) if event["hop"] == UNKNOWN else None)
        ann = chat.user(unique("ann"))
        team = chat.group("#" + unique("team"), history=True)
        bob = chat.user(unique("bob"))
        bob.join(team.address)
        got: list[str] = []
        bob.on_message(lambda message: got.append(message.content))
        sent, stop = list[chatlib.SentMessage](), threading.Event()

        def write() -> None:
            while not stop.is_set():
                sent.extend(ann.send_many((team.address, f"{len(sent) + number}") for number in range(50)))
                sent[-1].wait(PATIENCE)

        writer = threading.Thread(target=write)
        writer.start()
        # 1
        for _ in range(2):
            goal = len(sent) + rng.randrange(1_000, 3_000)
            wait_until(lambda goal=goal: len(sent) > goal, 60, f"{goal} messages are written", poll=0.001)
            kill_and_start(mortal)
            before = len(sent)
            wait_until(lambda before=before: len(sent) > before + 100, PATIENCE, "writing goes on")
        stop.set()
        writer.join(PATIENCE)
        assert chat.flush(30) and {message.state for message in sent} == {"confirmed"}
        # 2
        assert unknown, "no outcome was unknown: the kills did not hurt"
        # 3
        everything = [str(number) for number in range(len(sent))]
        assert read(team) == everything
        wait_until(lambda: len(got) >= len(sent), PATIENCE, "the member has them, too")
        assert got == everything
        # 4
        assert read(team, last=700) == everything[-700:]
        moment = sent[len(sent) // 2].timestamp
        assert read(team, since=moment) == [message.content for message in sent if message.timestamp >= moment]
        print(f"{len(sent)} messages, {len(unknown)} sent again")


def test_a_reader_of_a_broker_that_stays_away_is_told(mortal: Any, unique: Unique) -> None:
    """Not a hang: BrokerUnavailable or OutcomeUnknown, in the time that the settings say."""
    settings = Settings(request_timeout=5.0)
    with chatlib.connect(mortal, settings=settings) as chat:
        ann = chat.user(unique("ann"))
        team = chat.group("#" + unique("team"), history=True)
        ann.send_many((team.address, str(number)) for number in range(1_000))
        assert chat.flush(20)
        reading = team.history()
        assert next(reading).content == "0"
        mortal.kill()
        began = time.monotonic()
        with pytest.raises(ChatError):
            for _ in reading:
                pass
        assert time.monotonic() - began < 8
        began = time.monotonic()
        for read_again in (lambda: list(team.history()), lambda: team.history(last=2)):
            with pytest.raises((chatlib.BrokerUnavailable, chatlib.OutcomeUnknown)):
                read_again()
        assert time.monotonic() - began < 2 * settings.request_timeout + 3
