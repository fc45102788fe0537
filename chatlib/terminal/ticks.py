"""Ticks: what is known of a sent message, in a few characters. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from chatlib.errors import AccessRefused, ChatError
from chatlib.sent import SentState

__all__ = ["Tick", "tick"]

PENDING: Final = "·"
CONFIRMED: Final = "✓"
DELIVERED: Final = "✓✓"
FAILED: Final = "✗"


class Tick(NamedTuple):
    """`text` to show, and what it says: "pending", "confirmed", "delivered", "read" or "failed"; `read` only if all have read."""

    text: str
    kind: str


def tick(
    state: SentState, receipts: Mapping[str, str], *, group: bool, audience: int | None = None, error: ChatError | None = None
) -> Tick:
    """The tick of a message to a user or (`group`) to a group.

    receipts, error: as those of a `SentMessage`. audience: how many members it was for, without the sender; None if not known.
    One user: · ✓ ✓✓ "✓✓ read". A group of 3: ✓, "✓ 1/3", "✓✓ 3/3", "✓✓ 3/3, 1 read", "✓✓ 3/3 read". The word says what
    the colour says, for those who see no colours. The two ticks come when *all* have it, or when all is not known.
    """
    if state is SentState.RETURNED:
        return Tick(f"{FAILED} nobody in this group" if group else f"{FAILED} no such user", "failed")
    if isinstance(error, AccessRefused):
        return Tick(f"{FAILED} not allowed", "failed")
    if state is SentState.REJECTED:
        return Tick(f"{FAILED} an inbox is full" if group else f"{FAILED} the inbox is full", "failed")
    reached, read = len(receipts), sum(status == "read" for status in receipts.values())
    if not reached:
        return Tick(PENDING, "pending") if state is SentState.PENDING else Tick(CONFIRMED, "confirmed")
    if not group:
        return Tick(f"{DELIVERED} read", "read") if read else Tick(DELIVERED, "delivered")
    audience = None if audience is None else max(audience, reached)  # somebody joined or left meanwhile
    all_have_it = audience is None or reached == audience
    text = f"{DELIVERED if all_have_it else CONFIRMED} {reached}{'' if audience is None else f'/{audience}'}"
    if not read:
        return Tick(text, "delivered" if all_have_it else "confirmed")
    if read == audience:
        return Tick(f"{text} read", "read")
    return Tick(f"{text}, {read} read", "delivered" if all_have_it else "confirmed")
