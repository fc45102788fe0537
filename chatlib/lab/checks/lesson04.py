"""What survives a restart. What the answers are held against happens on the learner's own broker and network, or has happened there."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

from chatlib import faults
from chatlib.errors import BrokerUnavailable, ChatError
from chatlib.lab.amqp import Wire
from chatlib.lab.exercises import NotYet, Wrong, require_answer
from chatlib.lab.lesson import Lesson
from chatlib.lab.waiting import wait_until
from chatlib.lab.ways import EXCHANGE, Ways
from chatlib.management import Management

__all__ = ["CHECKS"]

LEFT, SEEN, SENT = 35, 85, 120  # of exercise 4.2: without a confirm, with one, all
BROKEN = 0.8  # seconds that the network is broken in exercise 4.3
ENDLESS = 15.0  # seconds after which a sender that goes on connecting is stopped
PROGRAMS = {"D-C": "first", "-PC": "second", "DP-": "third"}


def quiet_kill(lesson: Lesson, answers: Any, ways: Any) -> str:
    """How many of 100 letters each of three programs finds again: as it was in the experiment SIGKILL of this very lesson."""
    answers = _numbers(answers, 3)
    if not isinstance(ways, Ways):
        raise Wrong("pass the eight ways of this lesson: check('4.1', answers, ways)")
    lost = ways.lost.to_dict()
    if "SIGKILL" not in lost:
        raise NotYet("run the experiment SIGKILL above first: the answer is held against it")
    for (way, program), said in zip(PROGRAMS.items(), answers, strict=True):
        kept = 100 - lost["SIGKILL"][way]
        if said != kept:
            raise Wrong(
                f"the {program} program does not find {said} letters", f"it is the way {way}: of its 100 letters {100 - kept} were lost"
            )
    kept_by = [f"{way} kept {100 - lost['SIGKILL'][way]}" for way in PROGRAMS]
    return f"as in your experiment: {', '.join(kept_by)} of 100"


def without_a_confirm(lesson: Lesson, least: Any, most: Any) -> str:
    """85 of 120 are confirmed when the network breaks. The other 35 get swallowed on their way, or their confirms do."""
    answers = _numbers((require_answer(least), require_answer(most)), 2)
    queue = f"exam-{uuid.uuid4().hex[:6]}"
    with faults.Path(lesson.broker) as path, Wire(lesson.broker.url) as observer:
        observer.queue(queue)
        swallowed = _broken_after(path, observer, queue, way_there=True)
        observer.drain(queue)
        unheard = _broken_after(path, observer, queue, way_there=False)
        observer.delete(queue)
    for what, said, saw in zip(("least", "most"), answers, (swallowed, unheard), strict=True):
        if said != saw:
            how = "before the 35 had passed" if what == "least" else "when all had passed and only the confirms were missing"
            raise Wrong(f"at {what} it is not {said}", f"I broke the network {how}, and {saw} letters were in the queue")
    return f"I broke the network twice: before the 35 had passed, {swallowed} were in the queue, and after it {unheard}"


def _broken_after(path: faults.Path, observer: Wire, queue: str, *, way_there: bool) -> int:
    """Send 85 and hear the confirms; break the path before (or after) the other 35 have passed; how many are in the queue."""
    with Wire(path.url) as wire:
        wire.confirms()
        _publish(wire, queue, SEEN)
        if not wire.listen(10):
            raise BrokerUnavailable("the broker did not confirm in time: run the check again")
        if way_there:
            with faults.black_hole(path):
                _publish(wire, queue, LEFT)
                wait_until(lambda: path.swallowed > 0, 10, "the letters are swallowed")
            return observer.depth(queue)
        _publish(wire, queue, LEFT)
        wait_until(lambda: observer.depth(queue) == SENT, 10, "the letters have arrived")
        with faults.cut(path):
            return observer.depth(queue)


def _publish(wire: Wire, queue: str, count: int) -> None:
    for number in range(count):
        wire.publish("", queue, f"letter {number}")


def safe_sender(lesson: Lesson, function: Any) -> str:
    """The network swallows the first try and stays broken for a moment; in the end all are there, under the ids that were given."""
    require_answer(function)
    mark = uuid.uuid4().hex[:6]
    queue = f"exam-{mark}"
    messages = {f"{mark}-{number:02}": f"body {number}" for number in range(1, 21)}
    with faults.Path(lesson.broker) as path, Wire(lesson.broker.url) as observer, contextlib.ExitStack() as end:
        observer.queue(queue)
        end.callback(observer.delete, queue)
        if function(_Network(lesson.broker.url), "", queue, {}) is ...:
            raise NotYet("write the function first")
        network = _Network(path.url, path)
        end.callback(network.heal)
        try:
            function(network, "", queue, dict(messages))
        except BrokerUnavailable as exc:
            raise Wrong("your function gave up while the network was broken: catch BrokerUnavailable and try again", str(exc)) from exc
        early = network.is_broken
        network.heal()
        arrived = Counter(observer.drain(queue))
    missing, strangers = [each for each in messages if each not in arrived], [each for each in arrived if each not in messages]
    if network.connects == 0:
        raise Wrong("your function did not connect: use connect(), in a with", "")
    if strangers:
        raise Wrong("send again under the same id: under another one nobody can tell a second copy", f"{strangers[0]!r} is in the queue")
    if early or missing:
        when = "while the network was still broken" if early else "at the end"
        raise Wrong(
            "your function returned before every message was confirmed",
            f"the network swallowed your first try; you returned {when}, and {len(missing)} of {len(messages)} messages never arrived",
        )
    return f"the network swallowed your first try; you connected {network.connects} times, and all {len(messages)} ids are in the queue"


class _Network:
    """What exercise 4.3 calls `connect`: a wire with confirms on. With a path, the first one goes dead as soon as it is there."""

    def __init__(self, url: str, path: faults.Path | None = None) -> None:
        self.connects = 0
        self._url = url
        self._path = path
        self._fault: faults.Fault | None = None
        self._timer: threading.Timer | None = None
        self._deadline = time.monotonic() + ENDLESS

    @property
    def is_broken(self) -> bool:
        return self._fault is not None and self._fault.ended is None

    def __call__(self) -> Wire:
        if time.monotonic() > self._deadline:
            raise Wrong("your function never ends", f"it connected {self.connects} times in {ENDLESS:g} s, and I stopped it")
        wire = Wire(self._url, timeout=0.5)
        wire.confirms()
        self.connects += 1
        if self._path is not None and self._fault is None:
            self._fault = faults.black_hole(self._path)
            self._timer = threading.Timer(BROKEN, self._fault.heal)
            self._timer.start()
        return wire

    def heal(self) -> None:
        if self._fault is not None and self._timer is not None:
            self._timer.join()
            self._fault.heal()


def confirmed_and_lost(lesson: Lesson, function: Any) -> str:
    """A message that is confirmed, and in no queue."""
    require_answer(function)
    with Wire(lesson.broker.url) as wire:
        wire.exchange(EXCHANGE)
        wire.confirms()
        try:
            message_id = function(wire)
            if message_id is ...:
                raise NotYet("write the function first")
            if not wire.published:
                raise Wrong("publish one message with the wire that you get", "your function published nothing")
            wire.listen(5)
        except BrokerUnavailable:
            raise
        except ChatError as exc:
            raise Wrong("it must be confirmed; here the broker refused aloud, and a refusal is no loss", str(exc)) from exc
        if message_id not in wire.confirmed:
            raise Wrong(
                "return the id under which you published", f"{message_id!r} was not confirmed; these were: {sorted(wire.confirmed)}"
            )
        where = [queue for queue in _queues(lesson) if message_id in _look(lesson, queue)]
    if where:
        raise Wrong("the message is not lost", f"it waits in the queue {where[0]!r}")
    return (
        f"the broker confirmed {message_id!r}, and it is in no queue: "
        "no binding, no loss in its eyes. chatlib sets the flag `mandatory`, and hears of it"
    )


def _queues(lesson: Lesson) -> list[str]:
    with Management(lesson.broker.management_url, login=lesson.broker.url) as management:
        return [each["name"] for each in management.get(management.in_vhost("queues"), columns="name")]


def _look(lesson: Lesson, queue: str) -> list[str]:
    """The ids in a queue, which stay there."""
    if not lesson.depth(queue)[0]:
        return []
    question = {"count": 1000, "ackmode": "ack_requeue_true", "encoding": "auto"}
    with Management(lesson.broker.management_url, login=lesson.broker.url) as management:
        found = management._request("POST", management.in_vhost("queues", queue) + "/get", json=question)
    return [message["properties"].get("message_id", "") for message in found]


def _numbers(answers: Any, count: int) -> tuple[Any, ...]:
    answers = require_answer(answers)
    if not isinstance(answers, tuple | list) or len(answers) != count:
        raise Wrong(f"give {count} numbers")
    if any(answer is ... for answer in answers):
        raise NotYet("put your numbers in the place of the ..., run that cell, then this one")
    return tuple(answers)


CHECKS: dict[str, Callable[..., str]] = {"1": quiet_kill, "2": without_a_confirm, "3": safe_sender, "4": confirmed_and_lost}
