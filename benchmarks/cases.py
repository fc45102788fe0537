"""What is measured, who takes part, how much each does, and what is to be reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["CASES", "Case", "Contestant", "Goal", "chosen"]

Kind = Literal["publish", "receive", "latency", "fanout", "recovery", "signup", "memory", "lab"]


@dataclass(frozen=True, slots=True)
class Contestant:
    """One who does the work. module: of `benchmarks.contestants`, or "native". share: of the case's count (slow ones do less; a rate
    needs no more). disk: chatlib with a data_dir. note: where it does less than chatlib, or what is special."""

    name: str
    module: str
    options: dict[str, Any] = field(default_factory=dict)
    share: float = 1.0
    disk: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Goal:
    """The ratio `of` to `to`, by names of contestants, of one metric, and what it shall be (None: told, not demanded)."""

    of: str
    to: str
    metric: str
    at_least: float | None = None
    at_most: float | None = None
    source: str = ""

    def met(self, value: float) -> bool | None:
        """Whether `value` reaches it; None where nothing is demanded."""
        if self.at_least is not None:
            return value >= self.at_least
        return value <= self.at_most if self.at_most is not None else None


@dataclass(frozen=True, slots=True)
class Case:
    """metrics: name -> unit, the first is the one that is drawn. count: messages, users or seconds a round, full and quick.
    limit: a bound on the first metric of chatlib itself, instead of a ratio."""

    name: str
    kind: Kind
    title: str
    what: str
    metrics: dict[str, str]
    higher_is_better: bool
    contestants: tuple[Contestant, ...]
    count: int
    quick_count: int
    goals: tuple[Goal, ...] = ()
    limit: float | None = None
    members: int = 0


CHATLIB = Contestant("chatlib", "chatlib_client")
ON_DISK = Contestant("chatlib on disk", "chatlib_client", disk=True, note="outbox and handled ids in SQLite (WAL), committed at each call")
BLOCKING = Contestant("pika blocking", "pika_blocking", share=0.15, note="a round trip for each message")
SELECT = Contestant("pika select", "pika_select", note="window of 1,000, callbacks on the loop's thread")
C = Contestant("C", "native", note="librabbitmq, window of 1,000: the limit")

PUBLISH = Case(
    "publish",
    "publish",
    "Confirmed durable publish",
    "Messages to one inbox (a durable classic queue on a durable direct exchange), persistent, mandatory, until the last is confirmed.",
    {"messages/s": "", "client CPU": "µs a message", "broker CPU": "µs a message"},
    higher_is_better=True,
    count=20_000,
    quick_count=3_000,
    contestants=(
        CHATLIB,
        ON_DISK,
        BLOCKING,
        SELECT,
        Contestant("kombu", "kombu_client", share=0.15, note="a round trip for each message; what was returned is not told"),
        Contestant("aio-pika await", "aio_pika_client", share=0.15, note="a round trip for each message"),
        Contestant("aio-pika gather", "aio_pika_client", {"gather": 1000}, note="1,000 at once, then the next 1,000"),
        Contestant("amqpstorm", "amqpstorm_client", share=0.01, note="a round trip for each message, looked for every 10 ms"),
        C,
    ),
    goals=(
        Goal("chatlib", "pika blocking", "messages/s", at_least=10),
        Goal("chatlib on disk", "pika blocking", "messages/s", at_least=8),
        Goal("chatlib", "aio-pika gather", "messages/s", at_least=2),
        Goal("chatlib", "C", "messages/s", at_least=0.6),
        Goal("chatlib", "pika select", "messages/s"),
        Goal("chatlib", "pika select", "client CPU"),
        Goal("chatlib", "pika blocking", "messages/s", at_least=6, source="the first demand"),
    ),
)

RECEIVE = Case(
    "receive",
    "receive",
    "Receive and ack",
    "A full inbox is emptied with a prefetch of 100: chatlib decodes each message, drops duplicates by id, shows it and acks it when "
    "told so; the peers take the bytes, note the id and ack. Until the broker has the last ack.",
    {"messages/s": "", "client CPU": "µs a message", "broker CPU": "µs a message"},
    higher_is_better=True,
    count=20_000,
    quick_count=3_000,
    contestants=(
        CHATLIB,
        ON_DISK,
        Contestant("chatlib with receipts", "chatlib_client", {"receipts": True}, note="and publishes a confirmed receipt for each"),
        Contestant("pika blocking", "pika_blocking", note="ack each"),
        Contestant("pika select", "pika_select", note="ack each"),
        Contestant("pika select, acks of 50", "pika_select", {"every": 50}, note='one ack with "multiple" for 50'),
        Contestant("kombu", "kombu_client", note="ack each"),
        Contestant("aio-pika", "aio_pika_client", note="ack each"),
        Contestant("amqpstorm", "amqpstorm_client", note="ack each"),
        Contestant("C", "native", note="ack each"),
    ),
    goals=(
        Goal("chatlib", "pika blocking", "messages/s", at_least=1),
        Goal("chatlib on disk", "pika blocking", "messages/s"),
        Goal("chatlib with receipts", "pika blocking", "messages/s"),
        Goal("chatlib", "C", "messages/s"),
        Goal("chatlib", "pika select", "client CPU"),
    ),
)

LATENCY = Case(
    "latency",
    "latency",
    "End-to-end latency at 1,000 messages/s",
    "One process sends a message each millisecond, another receives; from when a message was due to when the receiver has it (open loop: "
    "who falls behind counts it). kombu and amqpstorm are left out: they cannot confirm 1,000 messages/s one after the other.",
    {"p50": "ms", "p99": "ms", "p99.9": "ms"},
    higher_is_better=False,
    count=10_000,
    quick_count=1_000,
    contestants=(
        CHATLIB,
        ON_DISK,
        SELECT,
        Contestant("aio-pika", "aio_pika_client", note="a task for each message"),
        Contestant("pika blocking", "pika_blocking", note="a round trip for each message"),
        Contestant("C", "native"),
    ),
    goals=(
        Goal("chatlib", "pika select", "p99", at_most=2),
        Goal("chatlib on disk", "pika select", "p99"),
        Goal("chatlib", "pika select", "p50"),
        Goal("chatlib", "aio-pika", "p99"),
    ),
)


def _fanout(members: int, count: int, quick_count: int) -> Case:
    return Case(
        f"fanout-{members}",
        "fanout",
        f"Fan-out to {members:,} members",
        f"Messages to a group of {members:,} absent members, until the last is confirmed: the broker has each in {members:,} inboxes then.",
        {"deliveries/s": ""},
        higher_is_better=True,
        count=count,
        quick_count=quick_count,
        members=members,
        contestants=(CHATLIB, SELECT, C),
        goals=(
            Goal("chatlib", "C", "deliveries/s", at_least=0.95 if members == 1000 else None),
            Goal("chatlib", "pika select", "deliveries/s"),
        ),
    )


RECOVERY = Case(
    "recovery",
    "recovery",
    "First delivery after SIGKILL of the broker",
    "From the first TCP connection that the new node accepts until a message that waited is with the application. All clients wait "
    "for the same restart. pika polling is no recovery but a loop that connects every 20 ms: the earliest possible.",
    {"s": "s"},
    higher_is_better=False,
    count=1,
    quick_count=1,
    contestants=(
        Contestant("chatlib", "chatlib_client"),
        Contestant("kombu", "kombu_client", note="ConsumerMixin, its defaults: waits 2, 4, 6 ... s"),
        Contestant("aio-pika", "aio_pika_client", note="connect_robust, its defaults: every 5 s"),
        Contestant("pika polling", "pika_blocking", note="not a recovery: connects every 20 ms"),
    ),
    goals=(Goal("chatlib", "pika polling", "s"),),
    limit=1.0,
)

SIGNUP = Case(
    "signup",
    "signup",
    "Sign-up",
    "Users a second that come to exist: two durable queues and two bindings each, the same for all. The users of all rounds stay.",
    {"users/s": ""},
    higher_is_better=True,
    count=2_000,
    quick_count=100,
    contestants=(
        Contestant("chatlib", "chatlib_client", note="chat.users(names); brings them online, too"),
        Contestant("pika blocking", "pika_blocking", note="one declare after the other, nobody online"),
        Contestant("pika select", "pika_select", {"channels": 32}, note="declares pipelined over 32 channels, nobody online"),
    ),
    goals=(Goal("chatlib", "pika blocking", "users/s", at_least=3), Goal("chatlib", "pika select", "users/s")),
)

MEMORY = Case(
    "memory",
    "memory",
    "Memory of a user who is online",
    "Resident memory that each more user takes, in the broker (his queues and what serves him) and in the client's process.",
    {"broker": "KiB", "client": "KiB"},
    higher_is_better=False,
    count=500,
    quick_count=50,
    contestants=(
        Contestant("chatlib", "chatlib_client", note="all on one link"),
        Contestant("pika blocking", "pika_blocking", note="a connection for each user"),
    ),
    goals=(Goal("chatlib", "pika blocking", "broker"), Goal("chatlib", "pika blocking", "client")),
)

LAB = Case(
    "lab",
    "lab",
    "Live widgets",
    "Processor time of the Jupyter kernel that shows them, with 50 queues (and chatlib's own, some 20), 4 samples a second, and 20 "
    "messages a second on their way into them.",
    {"kernel CPU": "% of a core"},
    higher_is_better=False,
    count=30,
    quick_count=2,
    contestants=(
        Contestant("chatlib", "lab_cpu", {"widgets": ["chart", "map"]}, note="queue chart and topology map"),
        Contestant("the chart", "lab_cpu", {"widgets": ["chart"]}),
        Contestant("the map", "lab_cpu", {"widgets": ["map"]}),
        Contestant("no widget", "lab_cpu", {"widgets": []}, note="an idle kernel"),
    ),
    limit=10.0,
)

CASES = (PUBLISH, RECEIVE, LATENCY, _fanout(10, 2_000, 300), _fanout(100, 200, 30), _fanout(1000, 20, 3), RECOVERY, LAB, MEMORY, SIGNUP)
"""In the order of a run: what fills the node comes last."""


def chosen(names: Sequence[str]) -> list[Case]:
    """Return the cases that `names` mean, in the order of a run: exact names, else beginnings; all for none. Raises ValueError."""
    found: set[str] = set()
    for name in names:
        matches = {case.name for case in CASES if case.name == name} or {case.name for case in CASES if case.name.startswith(name)}
        if not matches:
            raise ValueError(f"there is no case {name!r}; there are: {', '.join(case.name for case in CASES)}")
        found |= matches
    return [case for case in CASES if not names or case.name in found]
