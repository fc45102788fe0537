"""A chat room. What the answers are held against is done on the learner's own broker, with fresh names each time."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from chatlib.lab.exercises import NotYet, Wrong, require_answer
from chatlib.lab.lesson import Lesson
from chatlib.lab.waiting import NotInTime, wait_until
from chatlib.management import Management
from chatlib.names import unescape
from chatlib.sent import SentMessage, SentState
from chatlib.topology import GROUPS
from chatlib.user import ChatUser

__all__ = ["CHECKS"]

LOOP = 8  # letters between two machines from which on it is taken for endless: three are right


def _people(lesson: Lesson, *names: str) -> tuple[str, list[ChatUser]]:
    """A mark that nobody had before, and users with that mark in their names."""
    mark = uuid.uuid4().hex[:6]
    return mark, lesson.chat.users([f"{name}-{mark}" for name in names])


def count_queues(lesson: Lesson, answers: Any) -> str:
    """Five people, all in #all, two of them in #cooks: inboxes, bindings, deliveries."""
    answers = require_answer(answers)
    if not isinstance(answers, (tuple, list)) or len(answers) != 3:
        raise Wrong("give three numbers, such as (1, 2, 3)")
    if any(answer is ... for answer in answers):
        raise NotYet("put your three numbers in the place of the ..., run that cell, then this one")
    mark, people = _people(lesson, "ann", "ben", "cem", "dana", "eva")
    for user in people:
        user.join(f"#all-{mark}")
    for user in people[:2]:
        user.join(f"#cooks-{mark}")
    for user in people:
        user.go_offline()
    with Management(lesson.broker.management_url, login=lesson.broker.url) as management:
        found = management.get(management.in_vhost("exchanges", GROUPS.name) + "/bindings/source")
    bindings = [each for each in found if unescape(each["routing_key"]).endswith(mark)]
    people[0].send(f"#all-{mark}", "soup is ready").wait()
    facts = (len({each["destination"] for each in bindings}), len(bindings), sum(user.waiting for user in people))
    for what, said, saw in zip(("inboxes", "bindings of groups", "deliveries"), answers, facts, strict=True):
        if said != saw:
            raise Wrong(f"there are not {said} {what}", f"I built it on your broker and counted {saw} {what}")
    return f"I built it on your broker and counted {facts[0]} inboxes, {facts[1]} bindings and {facts[2]} deliveries"


def late_and_gone(lesson: Lesson, answer: Any) -> str:
    """Three messages: dana joins after the first and leaves before the third."""
    answer = require_answer(answer)
    mark, (ann, dana) = _people(lesson, "ann", "dana")
    group = f"#room-{mark}"
    ann.join(group)
    ben = lesson.chat.user(f"ben-{mark}")
    ben.join(group)  # so that the group is never empty
    ben.go_offline()
    ann.send(group, "1").wait()
    dana.join(group)
    ann.send(group, "2").wait()
    dana.leave(group)
    ann.send(group, "3").wait()
    got = []
    for message in dana.receive(timeout=0.5):
        got.append(int(message.content))
        message.ack()
    said = [answer] if isinstance(answer, int | str) else answer
    if not isinstance(said, list | tuple | set) or sorted(map(str, said)) != [str(number) for number in got]:
        raise Wrong(f"she does not get {answer!r}", f"I did it on your broker, and dana got {got}")
    return f"I did it on your broker, and dana got {got}: a membership is a binding, from when it is made until it is removed"


def answering_machine(lesson: Lesson, function: Any) -> str:
    """Answers each sender of a direct message once, groups never, and two machines do not talk for ever."""
    require_answer(function)
    mark, (ann, ben, cem) = _people(lesson, "ann", "ben", "cem")
    group = f"#room-{mark}"
    for user in (ann, ben):
        user.join(group)
    if function(ben) is ...:
        raise NotYet("write the function first")
    try:
        return _try_machine(lesson, function, group, ann, ben, cem)
    finally:
        for user in (ann, ben, cem):
            user.on_message(None)


def _try_machine(lesson: Lesson, function: Callable[[ChatUser], Any], group: str, ann: ChatUser, ben: ChatUser, cem: ChatUser) -> str:
    ann.send(ben.address, "are you there?").wait()
    first = next(iter(ann.receive(limit=1, timeout=6)), None)
    if first is None:
        raise Wrong("a direct message gets an answer", f"ann wrote to {ben.name} and heard nothing within 3 s")
    first.ack()
    if first.group_id is not None:
        raise Wrong("the answer goes to the person who wrote, not to the group", f"the answer came in {first.conversation}")
    ann.send(group, "who is in the room?").wait()
    ann.send(ben.address, "really?").wait()
    more = [f"{each.conversation}: {each.content}" for each in ann.receive(limit=1, timeout=1)]
    if more:
        raise Wrong(
            "one answer for each sender, and none to what is said in a group",
            f"ann wrote in the group and once more to ben, and got another: {more[0]}",
        )
    function(cem)
    before = _letters(lesson, ben, cem)
    ben.send(cem.address, "hello, this is ben").wait()
    try:
        wait_until(lambda: _letters(lesson, ben, cem) - before > LOOP, 1.5)
    except NotInTime:
        letters = _letters(lesson, ben, cem) - before
        return f"each sender got one answer, the group none, and two of your machines fell silent after {letters} letters"
    raise Wrong(
        "two of your machines write to each other for ever: remember whom you have answered",
        f"{_letters(lesson, ben, cem) - before} letters went between {ben.name} and {cem.name} before I stopped them",
    )


def _letters(lesson: Lesson, one: ChatUser, other: ChatUser) -> int:
    """How many messages were accepted between these two."""
    pairs = {(one.name, other.address), (other.name, one.address)}
    return sum(event["hop"] == "outbox.stored" and (event["user"], event["to"]) in pairs for event in lesson.history)


def returned(lesson: Lesson, sent: Any) -> str:
    """A message that nobody can get: the broker returns it."""
    require_answer(sent)
    if not isinstance(sent, SentMessage):
        raise Wrong("give me what send() returned", f"you gave me {sent!r:.60}")
    wait_until(lambda: sent.state is not SentState.PENDING, 10, "the broker has answered")
    if sent.state is not SentState.RETURNED:
        raise Wrong(
            f"the broker took it: its state is {sent.state.value!r}",
            f"your message to {sent.to} lies in at least one inbox, or somebody read it",
        )
    return f"your message to {sent.to} came back ({sent.error}): nothing disappears silently"


CHECKS: dict[str, Callable[..., str]] = {"1": count_queues, "2": late_and_gone, "3": answering_machine, "4": returned}
