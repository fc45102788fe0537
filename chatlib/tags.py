"""Accounting of delivery tags: what was published and not yet confirmed, what was handed out and not yet acked.

Pure data structures, used by the link on its I/O thread. Tags are numbers that count up within one channel.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Generic, TypeVar

__all__ = ["Acks", "Confirms"]

T = TypeVar("T")


class Confirms(Generic[T]):
    """What waits for a publisher confirm, by tag. Confirms may come out of order and may cover many tags at once."""

    def __init__(self) -> None:
        self._next = 1
        self._waiting: dict[int, T] = {}  # in the order of publishing

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, item: T) -> int:
        """The tag of the publish that is about to be written."""
        tag = self._next
        self._next += 1
        self._waiting[tag] = item
        return tag

    def take_back(self, tag: int) -> None:
        """`tag`, the last one given, was not written after all."""
        if self._waiting.pop(tag, None) is not None:
            self._next = tag

    def settle(self, tag: int, multiple: bool) -> list[T]:
        """Take out what a confirm (or nack) speaks about, in the order of publishing; empty for an unknown tag."""
        if not multiple:
            item = self._waiting.pop(tag, None)
            return [] if item is None else [item]
        tags = []
        for waiting in self._waiting:
            if waiting > tag:
                break
            tags.append(waiting)
        return [self._waiting.pop(settled) for settled in tags]

    def drain(self) -> list[T]:
        """Take out everything, in the order of publishing, and count from 1 again: the channel is gone."""
        items = list(self._waiting.values())
        self._waiting.clear()
        self._next = 1
        return items


class Acks:
    """Turns settled deliveries into as few acks as possible.

    A run of settled tags with nothing open before it becomes one ack with `multiple`; tags behind an open one are acked singly,
    so that somebody who is slow to ack does not hold up the others on the channel.
    """

    def __init__(self) -> None:
        self._open: dict[int, bool] = {}  # tag -> settled, in order of delivery

    def delivered(self, tag: int) -> None:
        """The broker handed out `tag`."""
        self._open[tag] = False

    @property
    def open_count(self) -> int:
        """Deliveries that are neither acked nor given back."""
        return len(self._open)

    def requeued(self, tag: int) -> bool:
        """`tag` goes back to the queue; False if it was not open (never settle a tag twice: the broker closes the channel)."""
        return self._open.pop(tag, None) is not None

    def settle(self, tags: Iterable[int]) -> list[tuple[int, bool]]:
        """The acks to write for `tags`: pairs (tag, multiple). Unknown and settled tags are left out."""
        singles = []
        for tag in tags:
            if self._open.get(tag) is False:
                self._open[tag] = True
                singles.append(tag)
        run = 0
        count = 0
        for tag, settled in self._open.items():
            if not settled:
                break
            run, count = tag, count + 1
        acks = []
        if count > 1:
            for tag in list(islice(self._open, count)):
                del self._open[tag]
            acks.append((run, True))
        return acks + [(tag, False) for tag in singles if self._open.pop(tag, None)]

    def clear(self) -> None:
        """Forget everything: the channel is gone, the broker hands out again what was open."""
        self._open.clear()
