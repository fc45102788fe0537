"""When the broker falls. What the answers are held against happens on the learner's own broker, or has happened there."""

from __future__ import annotations

import contextlib
import math
import socket
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

from chatlib import faults
from chatlib.chat import connect
from chatlib.errors import ChatError
from chatlib.lab.exercises import NotYet, Wrong, require_answer
from chatlib.lab.lesson import Lesson
from chatlib.lab.outages import outages
from chatlib.lab.waiting import wait_until
from chatlib.link import LinkState
from chatlib.sent import SentMessage, SentState
from chatlib.settings import Settings
from chatlib.user import ChatUser

__all__ = ["CHECKS"]

WORDS = ("definite", "indefinite")
FROZEN = 1.2  # seconds
ENDLESS = 20.0  # seconds after which a function is left alone that does not come to an end
LETTERS = 10


def certain_or_not(lesson: Lesson, answers: Any) -> str:
    """Four sends that end badly: no confirm, no such user, no broker, one full inbox in a group."""
    answers = require_answer(answers)
    if not isinstance(answers, tuple | list) or len(answers) != 4:
        raise Wrong('give four words, each "definite" or "indefinite"')
    if any(answer is ... for answer in answers):
        raise NotYet("put your words in the place of the ..., run that cell, then this one")
    mark = uuid.uuid4().hex[:6]
    ann, ben = lesson.chat.users([f"ann-{mark}", f"ben-{mark}"])
    errors: dict[str, ChatError] = {}
    with faults.freeze(lesson.broker):
        errors["A"] = _error(lambda: ann.send(ben.address, "a").wait(0.3))
    errors["B"] = _error(lambda: ann.send(f"@nobody-{mark}", "b").wait(10))
    errors["C"] = _error(lambda: connect(f"amqp://127.0.0.1:{_closed_port()}", settings=Settings(connect_timeout=0.2)))
    with lesson.connect(f"exam {mark}", settings=Settings(inbox_limit=1)) as chat:
        cem, dan = chat.users([f"cem-{mark}", f"dan-{mark}"])
        cem.go_offline()
        for user in (cem, dan):
            user.join(f"#room-{mark}")
        dan.send(cem.address, "the one that fits").wait()
        errors["D"] = _error(lambda: dan.send(f"#room-{mark}", "d").wait(10))
    for (letter, error), said in zip(errors.items(), answers, strict=True):
        saw = WORDS[0] if error.definite else WORDS[1]
        if said != saw:
            raise Wrong(f"{letter} is not {said!r}", f"I did it on your broker, and got {type(error).__name__}, which is {saw}")
    return f"I did all four on your broker, and got {', '.join(type(error).__name__ for error in errors.values())}"


def _error(act: Callable[[], Any]) -> ChatError:
    """What `act` raises."""
    try:
        act()
    except ChatError as exc:
        return exc
    raise NotYet("your broker was quicker than this check: run it again")


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def minutes_of_silence(lesson: Lesson, minutes: Any) -> str:
    """A fall a day, each as long as the median of the learner's own."""
    minutes = require_answer(minutes)
    fallen = outages(lesson)
    if not len(fallen):
        raise NotYet("run the three kills above first: the answer is held against them")
    median = float(fallen["no confirm"].median())
    expected = median * 365 / 60
    if not isinstance(minutes, int | float) or not math.isclose(minutes, expected, rel_tol=0.02):
        falls = ", ".join(map(str, fallen["no confirm"]))
        raise Wrong(f"it is not {minutes!r:.20}", f"your falls had {falls} s without a confirm; the median is {median}")
    percent = 100 * (1 - median / 86_400)
    return f"{median} s a day are {expected:.0f} minutes a year: your broker would be there {percent:.3f} % of the time"


def patient_reporter(lesson: Lesson, function: Any) -> str:
    """The broker is frozen for a moment, an addressee does not exist; each text arrives once and has its final state."""
    require_answer(function)
    mark = uuid.uuid4().hex[:6]
    with lesson.connect(f"exam {mark}") as chat:
        ann, ben = chat.users([f"ann-{mark}", f"ben-{mark}"])
        if function(ann, []) is ...:
            raise NotYet("write the function first")
        letters = [(ben.address, f"text {number}") for number in range(1, LETTERS + 1)]
        letters.insert(3, (f"@nobody-{mark}", "text for nobody"))
        with faults.freeze(lesson.broker) as frozen:
            thaw = threading.Timer(FROZEN, frozen.heal)
            thaw.start()
            report, problem = _run(function, ann, letters)
            thaw.join()
        wait_until(lambda: chat.unconfirmed == 0, 20, "everything sent has its outcome")
        got = []
        for message in ben.receive(timeout=0.5):
            got.append(message.content)
            message.ack()
    if problem is not None:
        what = f"{type(problem).__name__}: {problem}"
        raise Wrong("your function gave up; an error of one message must not keep the others from you", what)
    _compare(report, letters, got)
    return f"the broker was frozen for {FROZEN:g} s; all {LETTERS} texts arrived once, and the one for nobody is reported as returned"


def _run(function: Callable[..., Any], sender: ChatUser, letters: list[tuple[str, str]]) -> tuple[Any, Exception | None]:
    """Run the learner's function on a thread, so that an endless one does not hold the notebook: (what it returned, what it raised)."""
    results: list[Any] = []
    raised: list[Exception] = []

    def run() -> None:
        try:
            results.append(function(sender, list(letters)))
        except Exception as exc:  # noqa: BLE001  the learner's code may raise anything
            raised.append(exc)

    thread = threading.Thread(target=run, name="exercise 7.3", daemon=True)
    thread.start()
    thread.join(ENDLESS)
    if thread.is_alive():
        raise Wrong("your function never came to an end", f"I stopped waiting after {ENDLESS:g} s")
    return (results[0] if results else None), (raised[0] if raised else None)


def _compare(report: Any, letters: list[tuple[str, str]], got: list[str]) -> None:
    counts = Counter(got)
    twice = [text for _, text in letters if counts[text] > 1]
    if twice:
        raise Wrong(
            "unknown does not mean failed: do not send again yourself, wait again",
            f"{twice[0]!r} arrived {counts[twice[0]]} times; chatlib had sent it, too",
        )
    if not isinstance(report, dict):
        raise Wrong("return a dict of text and state", f"your function returned {report!r:.60}")
    for address, text in letters:
        saw = "confirmed" if counts[text] else "returned"
        said = report.get(text, "nothing")
        if str(said) == "pending":
            raise Wrong("wait until the outcome is known", f"you reported {text!r} as pending; a second later it was {saw}")
        if str(said) != saw:
            raise Wrong(f"{text!r} to {address} is not {said!s:.40}", f"on your broker it was {saw}")


def accepted_and_lost(lesson: Lesson, function: Any) -> str:
    """Accepted by a chat without a data_dir, while its network is cut; and gone with the chat."""
    require_answer(function)
    mark = uuid.uuid4().hex[:6]
    reader = lesson.chat.user(f"reader-{mark}")
    with faults.Path(lesson.broker) as path, connect(path, name=f"exam {mark}", on_event=lesson.recorder) as chat:
        chat.user("careless")
        with faults.cut(path):
            wait_until(lambda: chat.state is LinkState.RECOVERING, 10, "the chat has noticed that its network is cut")
            sent = function(chat, reader.address)
            if sent is ...:
                raise NotYet("write the function first")
        wait_until(lambda: chat.state is LinkState.CLOSED or chat.unconfirmed == 0, 15, "what was sent has its outcome")
        _still_lost(sent, reader)
    return (
        f"{sent.message_id} was accepted, its state is {sent.state.value!r}, and it never came. The chat was closed with it in its outbox, "
        "and said so in the log. With a data_dir the next connect would have sent it"
    )


def _still_lost(sent: Any, reader: ChatUser) -> None:
    if not isinstance(sent, SentMessage) or sent.to != reader.address:
        raise Wrong("return what send() returned for a message to the address that you got", f"you returned {sent!r:.80}")
    got = []
    for message in reader.receive(limit=1, timeout=0.5):
        got.append(message.content)
        message.ack()
    with contextlib.suppress(ChatError):
        sent.wait(0.1)
    if got or sent.state is not SentState.PENDING:
        why = f"it arrived: {got[0]!r:.40}" if got else f"its outcome came: {sent.state.value}"
        raise Wrong("the chat lived long enough to send it: what takes an outbox away that is only in memory?", why)


CHECKS: dict[str, Callable[..., str]] = {"1": certain_or_not, "2": minutes_of_silence, "3": patient_reporter, "4": accepted_and_lost}
