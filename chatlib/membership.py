"""Who is a member of what and who is online while a transcript runs: what a replay has to carry out, record by record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chatlib.transcript import Record

__all__ = ["Change", "Membership"]

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Change:
    """What one record did, as `Membership.step` returns it; the fields stand in the order in which to carry them out.

    online, joined, left, offline: users, or (user, "#group") pairs, that changed; none that already were so.
    recipients: of a message, who gets it: the members at that moment, offline ones too, without the sender.
    A message goes out last, after all four.
    """

    online: tuple[str, ...] = ()
    joined: Pairs = ()
    left: Pairs = ()
    offline: tuple[str, ...] = ()
    recipients: frozenset[str] = frozenset()


class Membership:
    """Who is a member of what and who is online, record by record. Pure: it does nothing but remember.

    - join: online, and a member of that group from then on.
    - A message by somebody who is no member: joins first. Whoever writes in a group is in it, and logs begin in the middle.
    - part: no longer a member of that group; stays online.
    - quit: offline, yet still a member of all his groups. In IRC he would miss what is said; here his inbox collects it until
      he is back, since that is the point of store and forward.
    - nick: the new name joins the old one's groups (and the one where it was seen), the old name leaves them and goes offline.
    - Any other act of somebody offline brings him online first.
    - gap (seconds, None for never): a group of which the log was silent for longer is another excerpt of a longer log, and who
      is there now is not known: all its members leave it, but for the one who is seen, and who is then in no group goes offline.
      Without it a log of seven separate days over six years, without quits, ends with everybody who was ever there.

    `groups`: "#group" -> set of members. `online`: set of users. Read them, do not change them.
    """

    def __init__(self, *, gap: float | None = None) -> None:
        if gap is not None and not gap > 0:
            raise ValueError(f"gap must be a number of seconds above 0, or None, not {gap!r}")
        self.gap = gap
        self.groups: dict[str, set[str]] = {}
        self.online: set[str] = set()
        self._last: dict[str, float] = {}

    def members(self, group: str) -> frozenset[str]:
        """The members of `group` ("#team") now, online or not; empty for a group never seen."""
        return frozenset(self.groups.get(group, ()))

    def groups_of(self, user: str) -> list[str]:
        """The groups that `user` is a member of now, sorted."""
        return sorted(group for group, members in self.groups.items() if user in members)

    def step(self, record: Record) -> Change:
        """Take the next record; returns what it changed."""
        who, group = record.sender, record.group
        gone, away = self._silence(record)
        if record.event == "message":
            online, joined = self._appear(who), self._join(who, group)
            return Change(online, joined, gone, away, frozenset(self.groups[group] - {who}))
        if record.event == "part":
            return Change(self._appear(who), (), gone + self._leave(who, group), away)
        if record.event == "quit":
            return Change((), (), gone, away + self._vanish(who))
        if record.event == "nick" and record.new != who:
            old = self.groups_of(who)
            joined = tuple(pair for each in sorted({*old, group}) for pair in self._join(record.new, each))
            left = tuple(pair for each in old for pair in self._leave(who, each))
            return Change(self._appear(record.new), joined, gone + left, away + self._vanish(who))
        return Change(self._appear(who), self._join(who, group), gone, away)

    def _silence(self, record: Record) -> tuple[Pairs, tuple[str, ...]]:
        """Before the record counts: who left its group and went offline because the log was cut."""
        last = self._last.get(record.group, record.at)
        self._last[record.group] = record.at
        if self.gap is None or record.at - last <= self.gap:
            return (), ()
        seen = {record.sender} if record.event == "message" else {record.sender, record.new}
        left = tuple(pair for user in sorted(self.groups.get(record.group, set()) - seen) for pair in self._leave(user, record.group))
        still = set().union(*self.groups.values())
        return left, tuple(user for pair in left if pair[0] not in still for user in self._vanish(pair[0]))

    def _appear(self, user: str) -> tuple[str, ...]:
        if user in self.online:
            return ()
        self.online.add(user)
        return (user,)

    def _vanish(self, user: str) -> tuple[str, ...]:
        if user not in self.online:
            return ()
        self.online.remove(user)
        return (user,)

    def _join(self, user: str, group: str) -> Pairs:
        members = self.groups.setdefault(group, set())
        if user in members:
            return ()
        members.add(user)
        return ((user, group),)

    def _leave(self, user: str, group: str) -> Pairs:
        members = self.groups.get(group, set())
        if user not in members:
            return ()
        members.remove(user)
        return ((user, group),)
