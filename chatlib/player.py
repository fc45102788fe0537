"""The player of a transcript: carries out its records on a broker, one after the other, and has what happened judged."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from threading import Event as Pause
from typing import Final

from chatlib.chat import Chat
from chatlib.checker import check
from chatlib.compact import CompactHistory
from chatlib.errors import BrokerUnavailable, ChatError, OutcomeUnknown, PublishRejected, Unroutable
from chatlib.link import LinkState
from chatlib.membership import Membership
from chatlib.messages import check_content
from chatlib.names import inbox_queue
from chatlib.received import ReceivedMessage
from chatlib.replayed import Progress, ReplayResult
from chatlib.sent import SentMessage
from chatlib.transcript import Record, Transcript, TranscriptError
from chatlib.user import ChatUser

__all__ = ["PATIENCE", "Leftovers", "Player", "silences"]

BACKLOG: Final = 20_000
"""Deliveries to users who are online that may be under way: more would pile up on the broker's disk and make it slower."""
PATIENCE: Final = 60.0
"""Seconds without any progress after which a replay gives up: a broker that is killed and started is away for 5 to 15."""
QUIET: Final = 0.5
"""Seconds without news after which nothing more is taken to come, once all that must come has come."""
SILENCE: Final = 3.0
"""Seconds without news after which to look whether what is missing still waits somewhere."""
STEP: Final = 0.1  # seconds between two reports of progress

_log = logging.getLogger("chatlib.replay")


class Leftovers(ChatError):
    """Messages wait in inboxes that the replay would use: it would mix them with its own, or take them from their owners."""


def silences(script: Transcript, speed: float, idle_limit: float | None = None) -> Iterator[float]:
    """Seconds to wait before each record: as in the transcript at `speed` 1, half of it at 2, none at 0; at most `idle_limit`."""
    clock = script.records[0].at
    for record in script:
        silence = max(0.0, record.at - clock) / speed if speed else 0.0
        clock = max(clock, record.at)
        yield silence if idle_limit is None else min(silence, idle_limit)


class Player:
    """One replay of `script` on `chat`. `history` has what happened."""

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
        """Play it from sign-up to verdict; the arguments and the errors are those of `chatlib.replay.replay`."""
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
            self.chat._link.queues.purge(inbox_queue(name))

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
        began, played = time.monotonic(), 0.0
        for record, silence in zip(self.script, silences(self.script, speed, idle_limit), strict=True):
            if speed:
                played += silence
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

        What has not come when all inboxes are empty, or after a minute without news, is lost, and for the checker to say.
        """
        self._tell("draining")
        for group in list(self.unconfirmed):
            self._confirmed(group)
        for user in self.users.values():
            user._go_online(wait=False)
            self._tell()
        seen, news = len(self.history), time.monotonic()
        looked = news
        while True:
            self.pause.wait(0.01)
            self._tell()
            now = time.monotonic()
            if len(self.history) != seen:
                seen, news = len(self.history), now
            elif self.history.handled >= self.expected:
                if now - news > QUIET:
                    return news
            elif now - news > PATIENCE:
                return news
            elif now - max(news, looked) > SILENCE:
                if self._empty():
                    return news
                looked = time.monotonic()

    def _empty(self) -> bool:
        """Nothing is under way: the link is up, all is confirmed, and nobody's inbox holds anything."""
        try:
            return (
                self.chat.state is LinkState.CONNECTED
                and not self.chat.unconfirmed
                and not any(user.waiting for user in self.users.values())
            )
        except BrokerUnavailable:
            return False

    def _tidy_up(self, complete: bool) -> None:
        """Nobody stays in the transcript's groups, and what an interrupted replay sent waits in nobody's inbox."""
        if self.chat.state is not LinkState.CONNECTED:
            _log.warning("the link is %s: what the replay left on the broker stays there", self.chat.state.value)
            return
        try:
            for group in self.membership.groups:
                for name in self.membership.members(group):
                    self.users[name].leave(group)
            if not complete:
                for name, user in self.users.items():
                    user.go_offline()
                    self.chat._link.queues.purge(inbox_queue(name))
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
