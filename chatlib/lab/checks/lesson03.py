"""Offline users. What the answers are held against is done on the learner's own broker, with fresh names each time."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

from chatlib.checker import check as judge_history
from chatlib.errors import InboxFull
from chatlib.lab.exercises import NotYet, Wrong, require_answer
from chatlib.lab.lesson import Lesson
from chatlib.lab.waiting import NotInTime, wait_until
from chatlib.recorder import Recorder
from chatlib.sent import SentState
from chatlib.settings import Settings
from chatlib.user import ChatUser

__all__ = ["CHECKS"]

ROOM = 5  # messages in the inboxes of exercises 2 and 3
TEXTS = [f"text {number}" for number in range(1, 21)]
PATIENCE = 15.0  # seconds after which a sender is stopped that never ends


def three_receipts(lesson: Lesson, answers: Any) -> str:
    """Three messages for somebody away; he acks two, marks the second as read, and leaves."""
    answers = require_answer(answers)
    if not isinstance(answers, tuple | list) or len(answers) != 3:
        raise Wrong('give three words, such as ("read", "delivered", "nothing")')
    if any(answer is ... for answer in answers):
        raise NotYet("put your three words in the place of the ..., run that cell, then this one")
    mark = uuid.uuid4().hex[:6]
    ann, ben = lesson.chat.users([f"ann-{mark}", f"ben-{mark}"])
    ben.go_offline()
    sent = [ann.send(ben.address, str(number)).wait() for number in (1, 2, 3)]
    ben.go_online()
    got = []
    for message in ben.receive(limit=2, timeout=10):
        message.ack()
        got.append(message)
    got[-1].mark_read()
    ben.go_offline()
    wait_until(lambda: sent[0].receipts and sent[1].receipts.get(ben.name) == "read", 10, "Ann has heard of it")
    seen = [str(each.receipts.get(ben.name, "nothing")) for each in sent]
    for number, (said, saw) in enumerate(zip(answers, seen, strict=True), 1):
        if said != saw:
            raise Wrong(f"of message {number} Ann does not know {said!r}", f"I did it on your broker, and she knew {saw!r}")
    return f"I did it on your broker, and Ann knew {', '.join(seen)}: read covers what came before it, and nothing that came after"


def one_is_full(lesson: Lesson, state: Any, who: Any) -> str:
    """A message to a group of three: the sender, one with room, and one whose inbox is full."""
    if require_answer(state) is ... or who in (..., [...]) or (isinstance(who, list | tuple) and ... in who):
        raise NotYet("put your answers in the place of the ..., run that cell, then this one")
    mark = uuid.uuid4().hex[:6]
    with lesson.connect(f"exam {mark}", settings=Settings(inbox_limit=ROOM)) as chat:
        ann, ben, cem = chat.users([f"{name}-{mark}" for name in ("ann", "ben", "cem")])
        group = f"#room-{mark}"
        for user in (ann, ben, cem):
            user.join(group)
        cem.go_offline()
        for number in range(ROOM):
            ben.send(cem.address, f"filling {number}").wait()
        sent = ann.send(group, "who can hear me?")
        wait_until(lambda: sent.state is not SentState.PENDING, 10, "the broker has answered")
        has_it = []
        for message in ben.receive(limit=1, timeout=10):
            message.ack()
            has_it.append("ben")
        if cem.waiting > ROOM:
            has_it.append("cem")
    if state != sent.state:
        raise Wrong(f"its state is not {state!r}", f"I did it on your broker: {sent.state.value!r}, since {sent.error}")
    if not isinstance(who, list | tuple | set) or sorted(who) != has_it:
        raise Wrong(
            f"it is not {who!r} who has it",
            f"I did it on your broker, and {' and '.join(has_it)} got it",
        )
    return (
        f"I did it on your broker: {sent.state.value}, and yet {' and '.join(has_it)} has it. In a group a refusal is indefinite: "
        "do not say it again under a new id, or Ben hears it twice"
    )


def patient_sender(lesson: Lesson, function: Any) -> str:
    """An inbox of five, twenty texts, and a reader who comes late and is slow."""
    require_answer(function)
    mark = uuid.uuid4().hex[:6]
    with lesson.connect(f"exam {mark}", settings=Settings(inbox_limit=ROOM, prefetch=1)) as chat:
        ann, ben = chat.users([f"ann-{mark}", f"ben-{mark}"])
        ben.go_offline()
        if function(ann, ben.address, []) is ...:
            raise NotYet("write the function first")
        got: list[str] = []
        pause = threading.Event()

        def read(message: Any) -> None:
            pause.wait(0.02)
            got.append(message.content)

        ben.on_message(read)
        late = threading.Timer(0.5, ben.go_online)
        late.start()
        early, problem = _run(function, ann, ben.address)
        late.join()
        with contextlib.suppress(NotInTime):
            wait_until(lambda: len(got) >= len(TEXTS), 3, "all texts have arrived")
        wait_until(lambda: ben.waiting == 0, 10, "the inbox is empty")
    if problem is not None:
        raise Wrong(
            "your function gave up at the first refusal: catch InboxFull, wait a little, and send again",
            f"{type(problem).__name__}: {problem}",
        )
    if early:
        raise Wrong(
            "your function never came to an end",
            f"I stopped waiting after {PATIENCE:g} s; {len(set(got))} of {len(TEXTS)} texts had arrived",
        )
    return _compare(got)


def _run(function: Callable[..., Any], sender: ChatUser, to: str) -> tuple[bool, Exception | None]:
    """Run the learner's function on a thread, so that an endless one does not hold the notebook: (endless, what it raised)."""
    raised: list[Exception] = []

    def run() -> None:
        try:
            function(sender, to, list(TEXTS))
        except Exception as exc:  # noqa: BLE001  the learner's code may raise anything
            raised.append(exc)

    thread = threading.Thread(target=run, name="exercise 3.3", daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if raised and not isinstance(raised[0], InboxFull):
        raise raised[0]
    return thread.is_alive(), raised[0] if raised else None


def _compare(got: list[str]) -> str:
    counts = Counter(got)
    missing = [text for text in TEXTS if not counts[text]]
    twice = [text for text in TEXTS if counts[text] > 1]
    if missing:
        raise Wrong("what was refused must be sent again", f"{len(missing)} of {len(TEXTS)} never arrived, the first is {missing[0]!r}")
    if twice:
        raise Wrong("send again only what was refused", f"{twice[0]!r} arrived {counts[twice[0]]} times")
    if got != TEXTS:
        wrong = next(number for number, (a, b) in enumerate(zip(got, TEXTS, strict=True)) if a != b)
        raise Wrong(
            "the order is lost: while one text is refused, a later one may be taken; wait for each before you send the next",
            f"number {wrong + 1} that arrived was {got[wrong]!r}",
        )
    return f"the reader was away, then slow, in an inbox of {ROOM}; all {len(TEXTS)} texts arrived once, in order"


def out_of_order(lesson: Lesson, function: Any) -> str:
    """A reader that handles three messages, in such a way that the checker finds some out of order."""
    require_answer(function)
    mark = uuid.uuid4().hex[:6]
    with lesson.connect(f"exam {mark}", settings=Settings(prefetch=10)) as chat:
        recorder = Recorder()
        stop = chat.on_event(recorder)
        ann, ben = chat.users([f"ann-{mark}", f"ben-{mark}"])
        for number in (1, 2, 3):
            ann.send(ben.address, str(number)).wait()
        try:
            if function(ben) is ...:
                raise NotYet("write the function first")
        finally:
            ben.on_message(None)
        deadline = time.monotonic() + 2
        while (verdict := judge_history(recorder.events)).handled < 3 and time.monotonic() < deadline:
            threading.Event().wait(0.02)
        stop()
    order = [event["message_id"] for event in recorder.events if event["hop"] == "handled"]
    if verdict.handled < 3:
        raise Wrong("handle all three: call ack() on each", f"{verdict.handled} of 3 were handled")
    if not verdict.out_of_order:
        numbers = {message_id: place for place, message_id in enumerate(sorted(order), 1)}
        raise Wrong(
            "the checker found all in order: it looks at when a message was handled (acked), not at when it came",
            f"your reader handled {', '.join(str(numbers[each]) for each in order)}",
        )
    example = verdict.examples["out_of_order"][0]
    found = f"{verdict.out_of_order} out of order, since {example.why}"
    return f"the checker says: {found}. The broker had kept the order, and the reader lost it"


CHECKS: dict[str, Callable[..., str]] = {"1": three_receipts, "2": one_is_full, "3": patient_sender, "4": out_of_order}
