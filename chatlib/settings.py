"""Every number that can be set, with its unit, its default and why that is the default."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from chatlib.retry import RetryPolicy

__all__ = ["Settings"]


MOST: Final = 2**31 - 1
# 16-bit numbers in AMQP; RabbitMQ 4 takes 16 MiB a message and ends the connection over a larger one, and JSON may write a byte in six
LIMITS: Final = {"prefetch": 65_535, "heartbeat": 65_535, "max_content_bytes": 2**21}
LONGEST: Final = 1_000_000  # seconds, eleven days


@dataclass(frozen=True, slots=True)
class Settings:
    """How a `Chat` behaves. Immutable; pass it to `connect(..., settings=Settings(prefetch=10))`.

    Raises ValueError, naming the setting, for a number that makes no sense.
    """

    prefetch: int = 100
    """Messages handed to one user before he acks (per consumer). About 100 is the knee of the curve (RabbitMQ blog, 2020-05-14).
    At most 32 of a quorum queue: see `chatlib.topology.IN_ORDER`."""
    window: int = 1000
    """Publishes in flight without a confirm; 500 to 1,000 gives the full rate (measured)."""
    heartbeat: int = 15
    """Seconds; 5 to 20 s is what the broker's guide advises. pika looks every heartbeat + 5 s, so a peer that fell silent is noticed
    after 20 to 40 s; one that died or closed is noticed at once."""
    blocked_timeout: float = 300.0
    """Seconds that a memory or disk alarm may block publishing before the connection is made anew; the outbox keeps everything."""
    connect_timeout: float = 10.0
    """Seconds that the first connect keeps trying while no broker answers. A wrong password is raised at once."""
    attempt_timeout: float = 5.0
    """Seconds for one attempt at TCP and AMQP handshake; a frozen broker accepts TCP and never answers."""
    request_timeout: float = 15.0
    """Seconds that join, leave and sign-up wait for the broker before BrokerUnavailable."""
    recovery_base: float = 0.05
    """Seconds: the first wait of recovery is random in [0, base], doubled at each failure (full jitter) ..."""
    recovery_cap: float = 1.0
    """... up to this many seconds."""
    outbox_limit: int = 100_000
    """Messages that may wait for a confirm. Beyond it `send` waits (back-pressure), then raises OutboxFull. Receipts come on top: while
    an alarm blocks publishing, one for each message that is received."""
    send_timeout: float = 10.0
    """Seconds that `send` waits for room in a full outbox."""
    sync: bool = False
    """Wait for the disk at each `send` (with a `data_dir`): also against power loss, for a disk write each; `send_many` pays one."""
    queue_type: Literal["auto", "classic", "quorum"] = "auto"
    """Of inboxes and all else that waits. "quorum" is replicated: it survives the loss of a node of a cluster, and is slower. "auto" is
    what the broker has already, else quorum where there is more than one URL (a cluster), classic where there is one."""
    inbox_limit: int = 100_000
    """Messages that may wait for an absent user; beyond it the sender is told (InboxFull)."""
    max_content_bytes: int = 64 * 1024
    """Largest content in UTF-8, at most 2 MiB: a chat is not a file store."""
    handler_threads: int = 8
    """Threads that run `on_message` handlers, shared by all users of the chat; one user's messages stay in order."""
    receipts: bool = True
    """Tell senders "delivered" and "read" (RECEIVE_MESSAGE). Off, a user keeps his reading to himself."""
    handled_limit: int = 100_000
    """Message ids remembered per chat, to drop what was handled already; the oldest are forgotten first ..."""
    handled_age: float = 30 * 86_400.0
    """... and those that were handled more than so many seconds ago (30 days). What comes again later than that is handled again."""
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    """When and how often a message whose handler failed comes back."""

    def __post_init__(self) -> None:
        for name in (
            "prefetch",
            "window",
            "heartbeat",
            "outbox_limit",
            "inbox_limit",
            "max_content_bytes",
            "handler_threads",
            "handled_limit",
        ):
            value = getattr(self, name)
            limit = LIMITS.get(name, MOST)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limit:
                raise ValueError(f"Settings.{name} must be a whole number from 1 to {limit:,}, got {value!r}")
        for name in (
            "blocked_timeout",
            "connect_timeout",
            "attempt_timeout",
            "request_timeout",
            "recovery_base",
            "recovery_cap",
            "handled_age",
            "send_timeout",
        ):
            value, may_be_0 = getattr(self, name), name == "send_timeout"  # to be refused at once is a choice
            longest = MOST if name == "handled_age" else LONGEST
            if not isinstance(value, int | float) or not (0 < value <= longest or (may_be_0 and value == 0)):
                least = "0 seconds or more" if may_be_0 else "more than 0 seconds"
                raise ValueError(f"Settings.{name} must be {least}, and at most {longest:,}, got {value!r}")
        if not isinstance(self.retry, RetryPolicy):
            raise ValueError(f"Settings.retry must be a RetryPolicy, got {self.retry!r}; one with attempts=1 never retries")  # noqa: TRY004
        if self.queue_type not in ("auto", "classic", "quorum"):
            raise ValueError(f'Settings.queue_type is "auto", "classic" or "quorum", got {self.queue_type!r}')
