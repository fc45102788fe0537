"""Replay a transcript through a broker, among its real users, and judge what arrived: `chatlib replay` as a function.

Each sender sends as himself; everybody who is a member of the group at that line receives in an inbox of his own. Who is a member
and who is online follows `chatlib.membership`: join, part, quit and nick are carried out on the broker, so a message to somebody
who is away waits in his inbox. At the end everybody comes online, and `chatlib.checker` compares who had to get what, which the
transcript says, with who got what.

Membership is a binding of a queue, and bindings are made on another connection than messages. So before somebody joins or leaves
a group, what was sent to that group is confirmed: then it has been routed to exactly those who were in at the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Final

from chatlib.chat import Chat, HasUrl, connect
from chatlib.membership import Membership
from chatlib.names import check_user_name
from chatlib.player import PATIENCE, Leftovers, Player
from chatlib.replayed import Progress, ReplayResult
from chatlib.settings import Settings
from chatlib.transcript import Record, Transcript, TranscriptError, group_address, read_transcript

__all__ = ["GAP", "Leftovers", "Progress", "ReplayResult", "playable", "replay"]

GAP: Final = 30 * 86_400.0
"""Seconds: a group silent for longer is another excerpt of a longer log, and who was there then is not there now."""


def replay(
    transcript: Transcript | str | PathLike[str],
    chat_or_broker: Chat | HasUrl | str | Sequence[str],
    *,
    speed: float = 0.0,
    gap: float | None = GAP,
    idle_limit: float | None = None,
    prefix: str = "",
    purge: bool = False,
    fresh: bool = False,
    receipts: bool = False,
    history_file: str | PathLike[str] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> ReplayResult:
    """Replay `transcript` (or the file of that name) and return the result with its verdict.

    chat_or_broker: a running broker or its URL; or a Chat, whose users then take part (those of the transcript need no handler).
    speed: 0 plays as fast as it goes, 1 in real time, 60 a minute in a second. idle_limit: a silence that would last longer is
    cut to so many seconds. gap: as `chatlib.membership.Membership` takes it, None for never.
    prefix: put before the names of all users and groups, to keep them apart from others on the same broker. Without one, the
    transcript decides on a shared broker who is in the groups that it names: its users leave them before the start and at the end.
    purge: throw away what waits in the inboxes of these users first; without it a replay refuses to begin (Leftovers), since
    messages of another day would be taken from their owners. fresh: nobody else used this broker, so do not look.
    receipts: whether recipients tell senders "delivered", which doubles the traffic (of a Chat, its own settings count).
    history_file: where to write the history, for `chatlib.recorder.load` and `chatlib.checker.check`.
    on_progress: called about ten times a second on this thread.
    Raises TranscriptError, Leftovers, BrokerUnavailable (no progress for 60 s), and whatever `connect` and `send` raise.
    """
    if not speed >= 0:
        raise ValueError(f"speed must be 0 (as fast as it goes) or more, got {speed!r}")
    if idle_limit is not None and not idle_limit >= 0:
        raise ValueError(f"idle_limit must be 0 seconds or more, or None, got {idle_limit!r}")
    script = playable(transcript, prefix)
    with nullcontext(chat_or_broker) if isinstance(chat_or_broker, Chat) else _connect(chat_or_broker, receipts) as chat:
        player = Player(chat, script, Membership(gap=gap), on_progress)
        result = player.run(speed, idle_limit, purge=purge, fresh=fresh)
        if history_file is not None:
            player.history.write(Path(history_file))
        return result


def _connect(broker: HasUrl | str | Sequence[str], receipts: bool) -> Chat:
    settings = Settings(
        receipts=receipts,
        request_timeout=PATIENCE,  # a join waits for a broker that is being started
        handled_limit=1_000_000,  # a killed broker may hand out again what was acked long before
        handler_threads=2,  # they only count: more of them would take turns on one lock
    )
    return connect(broker, settings=settings, name="chatlib replay")


def playable(transcript: Transcript | str | PathLike[str], prefix: str = "") -> Transcript:
    """The transcript as it will be played: read if need be, with `prefix` before the names of users and groups.

    Raises TranscriptError for a file that is none, or has no messages; InvalidName for a prefix that no name can begin with.
    """
    script = transcript if isinstance(transcript, Transcript) else read_transcript(transcript)
    if not script.messages:
        raise TranscriptError("has no messages to replay", source=script.source)
    return _renamed(script, prefix) if prefix else script


def _renamed(script: Transcript, prefix: str) -> Transcript:
    """The same among users and groups with other names. Raises InvalidName."""

    def renamed(record: Record) -> Record:
        who, group = check_user_name(prefix + record.sender), group_address(prefix + record.group[1:])
        if record.event == "message":
            return replace(record, sender=who, group=group)
        return replace(record, sender=who, group=group, new=check_user_name(prefix + record.new) if record.new else "")

    return Transcript(tuple(renamed(record) for record in script), script.source)
