"""What people do in a chat room on a page, and what they see."""

from __future__ import annotations

from playwright.sync_api import Locator, expect

__all__ = ["bubble", "pane", "say", "told"]


def pane(room: Locator, name: str) -> Locator:
    return room.locator(".pane").filter(has=room.page.locator(f".name:text-is('{name}')"))


def say(pane: Locator, text: str) -> None:
    pane.locator(".say input").fill(text)
    pane.locator(".say input").press("Enter")


def bubble(pane: Locator, text: str) -> Locator:
    return pane.locator(".bubble").filter(has=pane.page.locator(f".text:text-is('{text}')"))


def told(pane: Locator, text: str, words: str) -> None:
    """What was sent has this tick."""
    expect(bubble(pane, text).locator(".words")).to_have_text(words)
