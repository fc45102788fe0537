"""What exists on the broker: this module, and no other, says which exchanges, queues and bindings there are.

::

    chat.users     direct   key = user    -> inbox.<user>       SEND_MESSAGE to one user
    chat.groups    direct   key = group   -> inbox.<member> ..  SEND_MESSAGE to a group; a membership is a binding
                   direct   key = group   -> history.<group>    what was said there (a stream), if it is kept
    chat.receipts  direct   key = sender  -> receipts.<sender>  RECEIVE_MESSAGE
    retry.<ms>     fanout                 -> retry.<ms>         waits there (a quorum queue), then goes on to retries.<user>
    chat.dead      fanout                 -> dead-letters       what failed for good or could not be read
    chat.histories direct   key = group   -> histories          which groups keep a history; what gets there is thrown away

Everything is durable. RabbitMQ does the fan-out, in one hop: a message to a group is published once.
Direct exchanges, because a group's key is matched exactly and they fan out faster than topic exchanges.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, Literal

from chatlib.names import DEAD_LETTERS, check_size, escape, history_queue, inbox_queue, receipts_queue, retries_queue, retry_queue

__all__ = [
    "BASE",
    "DEAD",
    "GROUPS",
    "HISTORIES",
    "IN_ORDER",
    "LAST_WORD",
    "RECEIPTS",
    "SETTLING",
    "USERS",
    "Binding",
    "Declaration",
    "Exchange",
    "Queue",
    "QueueType",
    "base",
    "check_history_name",
    "is_replicated",
    "mark_of",
    "mark_of_retries",
    "membership",
    "of_history",
    "of_retries",
    "of_retry",
    "of_user",
    "registration",
]

QueueType = Literal["classic", "quorum", "stream"]

RECEIPTS_LIMIT: Final = 100_000
"""Receipts kept for an absent sender. The oldest go first: they are advice, and "read" is cumulative."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange; `kind` is direct, fanout or topic."""

    name: str
    kind: str = "direct"


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue; `arguments` as sorted pairs, so that two equal queues are equal values."""

    name: str
    arguments: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Binding:
    """`source` (an exchange) hands messages with routing key `key` to `queue`."""

    source: str
    queue: str
    key: str = ""


Declaration = Exchange | Queue | Binding

SETTLING: Final = 2.0
"""Seconds before a new replicated queue may be relied on. A quorum queue or stream declared less than about 1 s before SIGKILL of
its node is lost with the confirmed messages in it (measured on RabbitMQ 3.10 and 4.0; classic queues are not affected)."""


IN_ORDER: Final = 32
"""The most messages that a quorum queue takes back in order. What a client gives back RabbitMQ 3.10 may collect, and then it goes over
an Erlang map, which has an order up to 32 keys: of 100 messages given back the last 67 came out shuffled (measured)."""


def mark_of(queue: str) -> Exchange:
    """The exchange whose existence says that a replicated queue has settled. It routes nothing."""
    return Exchange(f"ready.{queue}", "fanout")


def is_replicated(queue: Queue) -> bool:
    """Whether `queue` is a quorum queue or a stream."""
    return dict(queue.arguments).get("x-queue-type") in ("quorum", "stream")


USERS: Final = Exchange("chat.users")
GROUPS: Final = Exchange("chat.groups")
RECEIPTS: Final = Exchange("chat.receipts")
DEAD: Final = Exchange("chat.dead", "fanout")
HISTORIES: Final = Exchange("chat.histories")
REGISTER: Final = "histories"  # a queue without room: to be bound to it says something, to be in it is impossible


DELIVERIES: Final = 2**31 - 1
"""How often a quorum queue delivers a message, at least. RabbitMQ 4 throws it out after 20 unless told otherwise, and a mere loss of
the connection counts: 21 of those, and a message in an absent-minded user's inbox was gone (measured on 4.0). 3.10 refuses the -1 that
switches it off in 4.x. With a limit 3.10 also puts back what is returned where it was, instead of at the end."""


def _queue(name: str, queue_type: QueueType, **arguments: Any) -> Queue:
    if queue_type == "quorum":
        arguments["delivery_limit"] = DELIVERIES
    pairs = {"x-queue-type": queue_type, **{"x-" + key.replace("_", "-"): value for key, value in arguments.items()}}
    return Queue(name, tuple(sorted(pairs.items())))


LAST_WORD: Final = Binding(DEAD.name, DEAD_LETTERS, "last-word")
"""A binding without effect (a fanout exchange ignores its key), made and removed after what matters was declared.

RabbitMQ 3.10 forgets the very last thing that was declared before a SIGKILL in about 1 of 25 kills, even a second later, although it
is in its log on disk; what was followed by another declaration never got lost (measured: 3 of 74 against 0 of 67 kills)."""


def base(queue_type: QueueType = "classic") -> tuple[Declaration, ...]:
    """What every chat needs, declared when the link comes up; queue_type as in `of_user`.

    That the dead letters are of this type on a broker says that everybody's queues there are.
    """
    return (
        USERS,
        GROUPS,
        RECEIPTS,
        DEAD,
        HISTORIES,
        _queue(DEAD_LETTERS, queue_type),
        _queue(REGISTER, queue_type, max_length=0),
        Binding(DEAD.name, DEAD_LETTERS),
    )


BASE: Final = base()
"""`base` of a broker of one node."""


def of_user(user: str, *, inbox_limit: int, queue_type: QueueType = "classic") -> tuple[Declaration, ...]:
    """The inbox and the receipts of `user`, with their bindings; of replicated ones also his retries, and the mark of all.

    inbox_limit: messages that may wait; beyond it the broker refuses (nack) instead of dropping, and the sender is told.
    queue_type: classic on one node, quorum on a cluster (the broker's documentation advises against quorum queues for
    instant messaging on one node; they are what replicates). A quorum inbox is emptied by one consumer at a time, the others stand
    by: after the end of a node a quorum queue goes on to hand out to the consumer that was connected there, takes that back when it
    notices, and so whoever consumes beside it, such as the same chat that has moved on, gets later messages first (35 of 1,700 in the
    worst of 6 kills, none in 12 with a single active consumer; RabbitMQ 3.10).
    """
    alone = {"single_active_consumer": True} if queue_type == "quorum" else {}
    limits = {"max_length": inbox_limit, "overflow": "reject-publish"}
    inbox = _queue(inbox_queue(user), queue_type, **limits, dead_letter_exchange=DEAD.name, **alone)
    receipts = _queue(receipts_queue(user), queue_type, max_length=RECEIPTS_LIMIT)
    key = escape(user)
    # The inbox first: of what was declared within milliseconds of a SIGKILL, RabbitMQ 3.10 forgot the very last in 1 of 25 tries.
    queues = (inbox, Binding(USERS.name, inbox.name, key), receipts, Binding(RECEIPTS.name, receipts.name, key))
    return queues if queue_type == "classic" else (*queues, *of_retries(user, queue_type), mark_of(inbox.name))


def membership(user: str, group: str) -> Binding:
    """The binding that makes `user` a member of `group` (bare names)."""
    return Binding(GROUPS.name, inbox_queue(user), escape(group))


def of_retry(milliseconds: int, number: int = 0) -> tuple[Declaration, ...]:
    """A place to wait `milliseconds`, of set `number`. One queue for each delay: a TTL acts at the head of a queue only,
    so mixed delays in one queue would wait for the longest (measured: 0.2 s behind 3 s took 3 s).

    A quorum queue, since only these dead-letter at least once: they keep a message until the next queue has confirmed it.
    """
    name = retry_queue(milliseconds, number)
    queue = _queue(
        name,
        "quorum",
        message_ttl=milliseconds,
        dead_letter_exchange="",  # the key names the queue
        dead_letter_strategy="at-least-once",
        overflow="reject-publish",  # needed for that; there is no limit
    )
    return (Exchange(name, "fanout"), queue, Binding(name, name))


def mark_of_retries(number: int, longest: int) -> Exchange:
    """The exchange whose existence says that the retry queues of set `number`, up to `longest` milliseconds, have settled."""
    return Exchange(f"retry.settled.{number}.{longest}", "fanout")


def of_retries(user: str, queue_type: QueueType = "classic") -> tuple[Declaration, ...]:
    """Where retried messages of `user` come back. Not the inbox: that has a limit, and a full one would keep them out
    although they were taken in before. Made when somebody begins to handle his messages.
    """
    return (_queue(retries_queue(user), queue_type),)


_AGE = re.compile(r"[1-9][0-9]{0,8}[YMDhms]")


def of_history(group: str, *, max_age: str, max_bytes: int) -> tuple[Declaration, ...]:
    """The stream that keeps what is said in `group` (bare name).

    max_age: RabbitMQ's notation, "7D", "12h", "30m", "3600s". max_bytes: whole segments go when it grows beyond; a segment holds
    a tenth of that, at most 50 MB, so that retention by size works for small histories too.
    """
    age: object = max_age  # whatever was given; at some of it the broker would close the connection, or pika break it, for everybody
    size: object = max_bytes
    if not isinstance(age, str) or not _AGE.fullmatch(age):
        raise ValueError(f'max_age is a number and one of Y M D h m s, such as "7D" or "12h", got {max_age!r}')
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size < 2**53:
        raise ValueError(f"max_bytes is a whole number of bytes, at least 1 and below 2**53, got {max_bytes!r}")
    segment = max(1_000_000, min(50_000_000, max_bytes // 10))
    stream = _queue(history_queue(group), "stream", max_age=max_age, max_length_bytes=max_bytes, stream_max_segment_size_bytes=segment)
    return (stream, Binding(GROUPS.name, stream.name, escape(group)), registration(group), mark_of(stream.name))


def check_history_name(group: str, vhost: str) -> None:
    """Raise InvalidName if `group` (bare name) is too long for a history in this virtual host.

    The broker keeps a stream in a folder "<vhost>_<queue>_<19 digits>", whose name has at most 255 bytes. With a longer one it declares
    the stream, routes messages to it and never answers (measured on RabbitMQ 3.10 and 4.0: 225 bytes work in "/", 226 do not).
    """
    room = 255 - len(f"{vhost}_{history_queue('')}_".encode()) - 19
    check_size(group, f"the name of a group that keeps a history in the virtual host {vhost!r}", room)


def registration(group: str) -> Binding:
    """The binding that says that `group` (bare name) keeps a history: see `chatlib.gate`."""
    return Binding(HISTORIES.name, REGISTER, escape(group))
