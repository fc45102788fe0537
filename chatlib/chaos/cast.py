"""Who takes part in a chaos run: users in processes, and groups. Pure: the same numbers give the same cast."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

__all__ = ["Cast", "Role", "cast_for"]

KINDS: Final = ("sender", "receiver", "both")
GROUPS: Final = 4


@dataclass(frozen=True, slots=True)
class Role:
    """One process: its name ("sender-1"), who sends in it and who receives in it."""

    name: str
    senders: tuple[str, ...]
    receivers: tuple[str, ...]

    @property
    def users(self) -> tuple[str, ...]:
        """Everybody in it."""
        return tuple(dict.fromkeys(self.senders + self.receivers))


@dataclass(frozen=True, slots=True)
class Cast:
    """roles: the processes. members: group address -> who is in it when the run begins."""

    roles: tuple[Role, ...]
    members: dict[str, tuple[str, ...]]

    @property
    def users(self) -> tuple[str, ...]:
        """Everybody."""
        return tuple(user for role in self.roles for user in role.users)

    @property
    def receivers(self) -> tuple[str, ...]:
        """Everybody who receives."""
        return tuple(user for role in self.roles for user in role.receivers)

    @property
    def senders(self) -> tuple[str, ...]:
        """Everybody who sends."""
        return tuple(user for role in self.roles for user in role.senders)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Whom the senders write to."""
        return (*(f"@{user}" for user in self.receivers), *self.members)

    def role(self, name: str) -> Role:
        """The process of that name."""
        return next(role for role in self.roles if role.name == name)


def cast_for(users: int, processes: int, seed: int) -> Cast:
    """So many users in so many processes: one only sends, the next only receives, the third does both, and so on.

    The first group has everybody who receives; each other one about half of them. Raises ValueError for fewer than 2 processes,
    or fewer users than processes.
    """
    if processes < 2:
        raise ValueError(f"a chaos run needs at least 2 processes, one that sends and one that receives, not {processes}")
    if users < processes:
        raise ValueError(f"{users} users cannot be in {processes} processes: ask for at least as many users as processes")
    rng = random.Random(f"cast {seed}")
    names = [f"user-{number:02}" for number in range(1, users + 1)]
    counts = dict.fromkeys(KINDS, 0)
    roles = []
    for number in range(processes):
        kind = KINDS[number % len(KINDS)]
        counts[kind] += 1
        mine = tuple(names[number::processes])
        roles.append(Role(f"{kind}-{counts[kind]}", mine if kind != "receiver" else (), mine if kind != "sender" else ()))
    receivers = [user for role in roles for user in role.receivers]
    members = {"#everybody": tuple(receivers)}
    for number in range(1, GROUPS):
        members[f"#group-{number}"] = tuple(rng.sample(receivers, max(1, len(receivers) // 2)))
    return Cast(tuple(roles), members)
