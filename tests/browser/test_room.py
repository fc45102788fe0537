"""The chat room in JupyterLab, as people use it: typed, clicked, by keyboard alone, through a fall of the broker, in both themes."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Lab, Watch
from tests.browser.live import begin_cell, close_notebook, open_notebook, output, run_cells, shoot, theme, wait_idle, write
from tests.browser.rooms import bubble, pane, say, told

SETUP = """import time
import chatlib
from chatlib.lab.widgets.room import Room
broker = chatlib.LocalBroker()
broker.start()
chat = chatlib.connect(broker)"""
BUSY = """import pathlib, threading, time
pause = threading.Event()
deadline = time.monotonic() + 120
while not pathlib.Path('stop-busy').exists() and time.monotonic() < deadline:
    chat.user('bob').send('#team', 'tick')
    pause.wait(0.3)"""
END = "chat.close()\nbroker.close()"


@pytest.fixture
def room(lab: Lab, page: Page, watch: Watch, request: pytest.FixtureRequest) -> Iterator[Locator]:
    """The room of a notebook with these cells: the broker, the room, those of the test, the end. Nothing may be wrong with the page."""
    show, *cells = request.param
    open_notebook(page, write(lab, request.node.name.partition("[")[0], SETUP, show, *cells, END))
    run_cells(page, 0, 1)
    yield output(page, 1).locator(".chatlib.room")
    wait_idle(page)
    run_cells(page, len(cells) + 2)
    close_notebook(page)
    assert watch.outside == []
    assert watch.problems == []


def notebook(show: str, *cells: str) -> pytest.MarkDecorator:
    """A notebook with a room, and more cells: the first of them is cell 2."""
    return pytest.mark.parametrize("room", [(f"room = {show}\nroom", *cells)], indirect=True, ids=[""])


@pytest.mark.timeout(180)
@notebook("Room(chat, ['alice', 'bob', 'carol'], ['#team'])", "chat.user('bob').send('#team', 'from a cell')", "room")
def test_alice_types_and_bob_has_it(room: Locator, page: Page) -> None:
    """1 a word to the group, read by all; 2 a word to bob alone, unread until he opens it; 3 bob is away, and comes back; 4 a word
    to nobody; 5 a cell's word; 6 the cell of the room is run again: one widget, not two.
    """
    alice, bob, carol = (pane(room, name) for name in ("alice", "bob", "carol"))
    # 1
    say(alice, "deploy at five?")
    expect(bubble(bob, "deploy at five?").locator(".who")).to_have_text("alice")
    told(alice, "deploy at five?", "read by 2 of 2")
    # 2
    alice.get_by_role("tab", name="person bob").click()
    say(alice, "psst")
    told(alice, "psst", "delivered")
    unread = bob.get_by_role("tab", name="person alice, 1 unread")
    expect(unread.locator(".badge")).to_have_text("1")
    unread.click()
    expect(bubble(bob, "psst")).to_be_visible()
    told(alice, "psst", "read")
    # 3
    bob.get_by_role("switch").click()
    expect(bob.get_by_role("switch")).to_have_attribute("aria-checked", "false")
    say(alice, "are you there?")
    told(alice, "are you there?", "confirmed")
    expect(bob.locator(".status")).to_have_text("away: 1 message in the inbox")
    expect(bubble(bob, "are you there?")).to_have_count(0)
    bob.get_by_role("switch").click()
    expect(bubble(bob, "are you there?")).to_be_visible()
    told(alice, "are you there?", "read")
    # 4
    carol.locator(".plus").click()
    page.keyboard.type("@nobody")
    page.keyboard.press("Enter")
    page.keyboard.type("hello?")
    page.keyboard.press("Enter")
    told(carol, "hello?", "returned: there is no user @nobody")
    # 5
    alice.get_by_role("tab", name="group team").click()
    run_cells(page, 2)
    expect(bubble(alice, "from a cell")).to_be_visible()
    shoot(page, "room-light", room)
    theme(page, "JupyterLab Dark")
    shoot(page, "room-dark", room)
    theme(page, "JupyterLab Light")
    # 6
    run_cells(page, 1)
    expect(page.locator(".chatlib.room")).to_have_count(1)
    say(pane(room, "alice"), "again")
    told(pane(room, "alice"), "again", "read by 2 of 2")


@pytest.mark.timeout(240)
@notebook("Room(chat, ['alice', 'bob'], ['#team'])", "broker.kill()", "broker.start()", BUSY)
def test_the_room_lives_through_a_fall_of_the_broker_and_beside_a_busy_kernel(room: Locator, page: Page, lab: Lab) -> None:
    """1 the broker is killed: what is typed is pending; 2 it is back: what was typed arrives; 3 a cell runs: what others say is shown,
    what is typed waits, says so, and goes when the cell has ended.
    """
    alice, bob, lamp = pane(room, "alice"), pane(room, "bob"), room.locator(".lamp")
    # 1
    say(alice, "before")
    told(alice, "before", "read by 1 of 1")
    run_cells(page, 2)
    expect(lamp).to_have_attribute("data-state", "recovering")
    say(alice, "typed while it is dead")
    told(alice, "typed while it is dead", "pending")
    expect(room.locator(".note")).to_have_text("1 pending")
    expect(bubble(bob, "typed while it is dead")).to_have_count(0)
    shoot(page, "room-dead-light", room)
    # 2
    run_cells(page, 3)
    expect(bubble(bob, "typed while it is dead")).to_be_visible()
    told(alice, "typed while it is dead", "read by 1 of 1")
    expect(lamp).to_have_attribute("data-state", "connected")
    expect(room.locator(".note")).to_have_text("1 reconnect")
    # 3
    begin_cell(page, 4)
    expect(bubble(alice, "tick").nth(2)).to_be_visible()
    say(alice, "typed meanwhile")
    expect(bubble(alice, "typed meanwhile").locator(".words")).to_have_text(re.compile("waiting for the kernel|read by 1 of 1"))
    expect(bubble(alice, "tick").nth(6)).to_be_visible()
    (lab.folder / "stop-busy").touch()
    told(alice, "typed meanwhile", "read by 1 of 1")
    expect(bubble(alice, "typed meanwhile")).to_have_count(1)


@pytest.mark.timeout(180)
@notebook("Room(chat, ['Mötley|{}[]^', '🦊', '<b>al</b>', 'שלום', 'x' * 200, '李'], ['#<i>|{}^🦊', '#' + 'y' * 150])", "room.close()")
def test_by_keyboard_alone_and_with_hard_names(room: Locator, page: Page) -> None:
    """1 Tab reaches everything in turn, arrows change the conversation, Space switches, JupyterLab takes no key away; 2 six panes
    fit; 3 nothing that is said is code; 4 a closed room leaves its picture.
    """
    first, last, press = room.locator(".pane").first, room.locator(".pane").last, page.keyboard.press
    cells = page.locator(".jp-Notebook .jp-Cell").count()
    # 1
    switch, group, fox = first.get_by_role("switch"), first.get_by_role("tab").first, first.get_by_role("tab", name="person 🦊")
    switch.focus()
    press("Tab")
    expect(group).to_be_focused()
    press("ArrowRight")
    press("ArrowRight")
    expect(fox).to_be_focused()
    expect(fox).to_have_attribute("aria-selected", "true")
    press("Tab")
    press("Enter")  # the plus
    expect(first.locator(".other input")).to_be_focused()
    page.keyboard.type("fox")
    press("Enter")
    expect(first.locator(".notice")).to_contain_text("an address is @person or #group")
    press("Escape")
    expect(first.locator(".plus")).to_be_focused()
    press("Tab")
    expect(first.locator(".talk")).to_be_focused()
    press("b")  # in JupyterLab: a new cell
    press("Tab")
    page.keyboard.type("by keys")
    expect(first.locator(".notice")).to_be_empty()
    press("Enter")
    told(first, "by keys", "delivered")
    for state in ("false", "true"):
        expect(switch).to_be_enabled()
        switch.focus()
        press("Space")
        expect(switch).to_have_attribute("aria-checked", state)
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells
    first.locator(".plus").click()
    page.keyboard.type("fox")
    press("Enter")
    expect(first.locator(".notice")).to_contain_text("an address is @person or #group")
    last.locator(".talk").click()  # who goes elsewhere has read it, and has no use for the form
    expect(first.locator(".other")).to_be_hidden()
    expect(first.locator(".notice")).to_be_empty()
    # 2
    assert page.evaluate("element => element.scrollWidth <= element.clientWidth + 1", room.element_handle())
    # 3
    group.click()
    words = "<img src=x onerror=document.title=1><b>x</b> $$x^2$$ " + "w" * 300
    say(first, words)
    expect(bubble(last, words)).to_be_visible()
    told(first, words, "read by 5 of 5")
    assert room.locator("b, i, img, script").count() == 0
    shoot(page, "room-names-light", room)
    theme(page, "JupyterLab Dark")
    shoot(page, "room-names-dark", room)
    theme(page, "JupyterLab Light")
    # 4
    run_cells(page, 2)
    expect(output(page, 1).locator(".chatlib-still")).to_be_visible()
    expect(page.locator(".chatlib.room")).to_have_count(0)
    shoot(page, "room-still", output(page, 1))
    assert page.title() != "1"
