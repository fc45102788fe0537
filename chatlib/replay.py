"""Replay a transcript through a broker, among its real users, and judge what arrived: `chatlib replay` as a function.

Each sender sends as himself; everybody who is a member of the group at that line receives in an inbox of his own. Who is a member
and who is online follows `chatlib.membership`: join, part, quit and nick are carried out on the broker, so a message to somebody
who is away waits in his inbox. At the end everybody comes online, and `chatlib.checker` compares who had to get what, which the
transcript says, with who got what.

Membership is a binding of a queue, and bindings are made on another connection than messages. So before somebody joins or leaves
a group, what was sent to that group is confirmed: then it has been routed to exactly those who were in at the time.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from os import PathLike
from pathlib import Path
from threading import Event as Pause
from typing import Final

from chatlib.chat import Chat, HasUrl, connect
from chatlib.checker import check
from chatlib.compact import CompactHistory
from chatlib.errors import BrokerUnavailable, ChatError, OutcomeUnknown, PublishRejected, Unroutable
from chatlib.membership import Membership
from chatlib.messages import check_content
from chatlib.names import check_user_name, inbox_queue
from chatlib.received import ReceivedMessage
from chatlib.replayed import Progress, ReplayResult
from chatlib.sent import SentMessage
from chatlib.settings import Settings
from chatlib.transcript import Record, Transcript, TranscriptError, group_address, read_transcript
from chatlib.user import ChatUser

__all__ = ["GAP", "Leftovers", "Progress", "ReplayResult", "playable", "replay"]

GAP: Final = 30 * 86_400.0
"""Seconds: a group silent for longer is another excerpt of a longer log, and who was there then is not there now."""
BACKLOG: Final = 20_000
"""Deliveries to users who are online that may be under way: more would pile up on the broker's disk and make it slower."""
PATIENCE: Final = 60.0
"""Seconds without any progress after which a replay gives up: a broker that is killed and started is away for 5 to 15."""
QUIET: Final = 0.5
"""Seconds without news after which nothing more is taken to come, once all that must come has come."""
STEP: Final = 0.1  # seconds between two reports of progress

_log = logging.getLogger("chatlib.replay")


class Leftovers(ChatError):
    """Messages wait in inboxes that the replay would use: it would mix them with its own, or take them from their owners."""


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
        player = _Player(chat, script, Membership(gap=gap), on_progress)
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


class _Player:
    """One replay."""

    def __init__(self, chat: Chat, script: Transcript, membership: Membership, on_progress: Callable[[Progress], None] | None) -> None:
        self.chat, self.script, self.membership = chat, script, membership
        self.history = CompactHistory(script.users)
        self.users: dict[str, ChatUser] = {}
        self.due: defaultdict[str, int] = defaultdict(int)  # messages for each user so far
        self.done: defaultdict[str, int] = defaultdict(int)  # messages that each has taken
        self.expected = self.sent = self.records = 0
        self.unconfirmed: defaultdict[str, list[SentMessage]] = defaultdict(list)
        self.on_progress = on_progress
        self.phase = "signing up"
        self.told = 0.0
        self.pause = Pause()

    def run(self, speed: float, idle_limit: float | None, *, purge: bool, fresh: bool) -> ReplayResult:
        for message in self.script.messages:  # before anything is sent: what is refused later would leave half a replay behind
            try:
                check_content(message.text, self.chat.settings.max_content_bytes)
            except ChatError as exc:
                raise TranscriptError(f"the message of id {message.id} cannot be sent: {exc}", source=self.script.source) from exc
        began, reconnects = time.monotonic(), self.chat.reconnects
        self._sign_up(purge=purge, fresh=fresh)
        signed_up = time.monotonic()
        stop = self.chat.on_event(self.history)
        complete = False
        try:
            self._play(speed, idle_limit)
            ended = self._drain()
            complete = True
        finally:
            stop()
            for user in self.users.values():
                user.on_message(None)
            if not fresh:
                self._tidy_up(complete)
        self._tell("judging")
        judging = time.monotonic()
        verdict = replace(check(self.history), receipts=self.history.receipts)
        return ReplayResult(
            source=self.script.source,
            messages=self.sent,
            expected=self.expected,
            users=len(self.users),
            senders=len({message.sender for message in self.script.messages}),
            groups=len(self.script.groups),
            verdict=verdict,
            seconds=ended - signed_up,
            sign_up_seconds=signed_up - began,
            check_seconds=time.monotonic() - judging,
            reconnects=self.chat.reconnects - reconnects,
        )

    # ---- before ----------------------------------------------------------------------------------------------------------

    def _sign_up(self, *, purge: bool, fresh: bool) -> None:
        self._tell("signing up")
        users = self.chat.users(self.script.users, online=False)
        self.users = {user.name: user for user in users}
        if not fresh:
            self._leave_all()
            self._look(purge)
        for user in users:
            user.go_offline()
            user.on_message(self._handler(user.name))

    def _look(self, purge: bool) -> None:
        """Nobody's inbox may hold messages of another day."""
        waiting = {name: count for name, user in self.users.items() if (count := user.waiting)}
        if waiting and not purge:
            most = ", ".join(f"{name} {count:,}" for name, count in sorted(waiting.items(), key=lambda item: -item[1])[:3])
            raise Leftovers(
                f"{sum(waiting.values()):,} messages already wait for {len(waiting):,} of these users on this broker ({most}): "
                "replay among other names (prefix), or throw them away first (purge)"
            )
        for name in waiting:
            self.chat._link.purge(inbox_queue(name))

    def _leave_all(self) -> None:
        """Nobody is a member of anything: a replay that was killed may have left memberships behind."""
        membership = Membership(gap=self.membership.gap)
        for name, group in {pair for record in self.script for pair in membership.step(record).joined}:
            self.users[name].leave(group)
            self._tell()

    def _handler(self, name: str) -> Callable[[ReceivedMessage], None]:
        done = self.done

        def handle(_: ReceivedMessage) -> None:
            done[name] += 1

        return handle

    # ---- the play --------------------------------------------------------------------------------------------------------

    def _play(self, speed: float, idle_limit: float | None) -> None:
        self._tell("playing")
        began, played, clock = time.monotonic(), 0.0, self.script.records[0].at
        for record in self.script:
            if speed:
                silence = max(0.0, record.at - clock) / speed
                clock = max(clock, record.at)
                played += silence if idle_limit is None else min(silence, idle_limit)
                self._wait_for(began + played)
            self._step(record)
            self.records += 1
            self._tell()

    def _step(self, record: Record) -> None:
        change = self.membership.step(record)
        for name in change.online:
            self.users[name]._go_online(wait=False)  # the answer would wait behind all deliveries that are under way
        for group in {group for _, group in change.joined + change.left}:
            self._confirmed(group)
        for name, group in change.joined:
            self.users[name].join(group)
        for name, group in change.left:
            self.users[name].leave(group)
        for name in change.offline:
            self.users[name].go_offline()
        if record.event == "message":
            self._make_room()
            self.history.recipients = change.recipients
            sent = self.users[record.sender].send(record.group, record.text)
            self.history.recipients = None
            self.unconfirmed[record.group].append(sent)
            self.sent += 1
            self.expected += len(change.recipients)
            for name in change.recipients:
                self.due[name] += 1

    def _wait_for(self, moment: float) -> None:
        while (left := moment - time.monotonic()) > 0:
            self.pause.wait(min(left, STEP))
            self._tell()

    def _confirmed(self, group: str) -> None:
        """Return when all that was sent to `group` has its outcome."""
        for sent in self.unconfirmed.pop(group, ()):
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    sent.wait(STEP)
                except (PublishRejected, Unroutable) as exc:
                    _log.warning("%s", exc)  # counted by the checker
                except OutcomeUnknown:
                    if time.monotonic() > deadline:
                        raise BrokerUnavailable(
                            f"no confirm for {PATIENCE:g} s (the link is {self.chat.state.value}): is the broker up?"
                        ) from None
                    self._tell()
                    continue
                break

    def _make_room(self) -> None:
        """Wait while too much is under way to users who are online. What waits for absent users is theirs, and does not count."""
        last, since = -1, 0.0
        while self.expected - self.history.handled > BACKLOG:
            under_way = sum(self.due[name] - self.done[name] for name in self.membership.online)
            if under_way <= BACKLOG:
                return
            if self.history.handled != last:
                last, since = self.history.handled, time.monotonic()
            elif time.monotonic() - since > PATIENCE:
                raise BrokerUnavailable(
                    f"nothing was delivered for {PATIENCE:g} s (the link is {self.chat.state.value}): is the broker up?"
                )
            self.pause.wait(0.005)
            self._tell()

    # ---- after -----------------------------------------------------------------------------------------------------------

    def _drain(self) -> float:
        """Bring everybody online and wait for what is still to come; returns the moment of the last delivery.

        What has not come after a minute without news is lost, and for the checker to say.
        """
        self._tell("draining")
        for group in list(self.unconfirmed):
            self._confirmed(group)
        for user in self.users.values():
            user._go_online(wait=False)
            self._tell()
        seen, news = len(self.history), time.monotonic()
        while True:
            self.pause.wait(0.01)
            self._tell()
            now = time.monotonic()
            if len(self.history) != seen:
                seen, news = len(self.history), now
            elif now - news > (QUIET if self.history.handled >= self.expected else PATIENCE):
                return news

    def _tidy_up(self, complete: bool) -> None:
        """Nobody stays in the transcript's groups, and what an interrupted replay sent waits in nobody's inbox."""
        try:
            for group in self.membership.groups:
                for name in self.membership.members(group):
                    self.users[name].leave(group)
            if not complete:
                for name, user in self.users.items():
                    user.go_offline()
                    self.chat._link.purge(inbox_queue(name))
        except ChatError as exc:
            _log.warning("the replay could not tidy up behind itself: %s", exc)

    def _tell(self, phase: str = "") -> None:
        now = time.monotonic()
        if self.on_progress is None or (not phase and now - self.told < STEP):
            return
        self.phase, self.told = phase or self.phase, now
        self.on_progress(
            Progress(
                self.phase, self.records, len(self.script), self.sent, self.expected, self.history.handled, len(self.membership.online)
            )
        )  # fmt: skip
