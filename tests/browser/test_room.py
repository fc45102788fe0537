"""The chat room in JupyterLab, as people use it: typed, clicked, by keyboard alone, through a fall of the broker, in both themes."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Lab, Watch
from tests.browser.live import begin_cell, close_notebook, open_notebook, output, run_cells, shoot, theme, wait_idle, write

SETUP = """import time
import chatlib
from chatlib.lab.widgets.room import Room
broker = chatlib.LocalBroker()
broker.start()
chat = chatlib.connect(broker)"""
END = "chat.close()\nbroker.close()"
PATIENCE = 60_000  # ms: a machine that does other things, too

expect.set_options(timeout=PATIENCE)


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


@pytest.mark.timeout(180)
@notebook("Room(chat, ['alice', 'bob'], ['#team'])", "broker.kill()", "broker.start()")
def test_what_is_typed_while_the_broker_is_dead_arrives(room: Locator, page: Page) -> None:
    alice, bob, lamp = pane(room, "alice"), pane(room, "bob"), room.locator(".lamp")
    say(alice, "before")
    told(alice, "before", "read by 1 of 1")
    run_cells(page, 2)
    expect(lamp).to_have_attribute("data-state", "recovering")
    say(alice, "typed while it is dead")
    told(alice, "typed while it is dead", "pending")
    expect(room.locator(".note")).to_have_text("1 pending")
    expect(bubble(bob, "typed while it is dead")).to_have_count(0)
    shoot(page, "room-dead-light", room)
    run_cells(page, 3)
    expect(bubble(bob, "typed while it is dead")).to_be_visible()
    told(alice, "typed while it is dead", "read by 1 of 1")
    expect(lamp).to_have_attribute("data-state", "connected")
    expect(room.locator(".note")).to_have_text("1 reconnect")


@pytest.mark.timeout(180)
@notebook(
    "Room(chat, ['alice', 'bob'], ['#team'])",
    """deadline = time.monotonic() + 120
while not stop.exists() and time.monotonic() < deadline:
    chat.user('bob').send('#team', 'tick')
    time.sleep(0.3)""",
    "import pathlib\nstop = pathlib.Path('stop-busy')",
)
def test_a_busy_kernel_keeps_the_room_alive_and_what_is_typed(room: Locator, page: Page, lab: Lab) -> None:
    """While a cell runs, what others say is shown; what is typed waits, says so, and goes when the cell has ended."""
    alice = pane(room, "alice")
    run_cells(page, 3)
    begin_cell(page, 2)
    expect(bubble(alice, "tick").nth(2)).to_be_visible()
    say(alice, "typed meanwhile")
    expect(bubble(alice, "typed meanwhile").locator(".words")).to_have_text(re.compile("waiting for the kernel|read by 1 of 1"))
    expect(bubble(alice, "tick").nth(6)).to_be_visible()
    (lab.folder / "stop-busy").touch()
    told(alice, "typed meanwhile", "read by 1 of 1")
    expect(bubble(alice, "typed meanwhile")).to_have_count(1)


@pytest.mark.timeout(180)
@notebook("Room(chat, ['alice', 'bob'], ['#team'])")
def test_all_of_it_works_by_keyboard(room: Locator, page: Page) -> None:
    """Tab reaches everything in turn; arrows change the conversation; Space switches; JupyterLab takes no key away."""
    alice, bob, press = pane(room, "alice"), pane(room, "bob"), page.keyboard.press
    cells = page.locator(".jp-Notebook .jp-Cell").count()
    alice.get_by_role("switch").focus()
    press("Tab")
    expect(alice.get_by_role("tab", name="group team")).to_be_focused()
    press("ArrowRight")
    expect(alice.get_by_role("tab", name="person bob")).to_be_focused()
    expect(alice.get_by_role("tab", name="person bob")).to_have_attribute("aria-selected", "true")
    press("Tab")
    press("Enter")  # the plus
    expect(alice.locator(".other input")).to_be_focused()
    press("Escape")
    expect(alice.locator(".plus")).to_be_focused()
    press("Tab")
    expect(alice.locator(".talk")).to_be_focused()
    press("b")  # in JupyterLab: a new cell
    press("Tab")
    page.keyboard.type("by keys")
    press("Enter")
    told(alice, "by keys", "delivered")
    bob.get_by_role("switch").focus()
    press("Space")
    expect(bob.get_by_role("switch")).to_have_attribute("aria-checked", "false")
    expect(bob.get_by_role("switch")).to_be_enabled()
    bob.get_by_role("switch").focus()
    press("Space")
    expect(bob.get_by_role("switch")).to_have_attribute("aria-checked", "true")
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells


@pytest.mark.timeout(180)
@notebook("Room(chat, ['Mötley|{}[]^', '🦊', '<b>al</b>', 'שלום', 'x' * 200, '李'], ['#<i>|{}^🦊', '#' + 'y' * 150])", "room.close()")
def test_hard_names_and_words_stay_words(room: Locator, page: Page) -> None:
    """1 six panes fit side by side without a scrollbar; 2 nothing that is said is code; 3 a closed room leaves its picture."""
    first, last = room.locator(".pane").first, room.locator(".pane").last
    # 1
    assert page.evaluate("element => element.scrollWidth <= element.clientWidth + 1", room.element_handle())
    # 2
    words = "<img src=x onerror=document.title=1><b>x</b> $$x^2$$ " + "w" * 300
    say(first, words)
    expect(bubble(last, words)).to_be_visible()
    told(first, words, "read by 5 of 5")
    assert room.locator("b, i, img, script").count() == 0
    shoot(page, "room-names-light", room)
    theme(page, "JupyterLab Dark")
    shoot(page, "room-names-dark", room)
    theme(page, "JupyterLab Light")
    # 3
    run_cells(page, 2)
    expect(output(page, 1).locator(".chatlib-still")).to_be_visible()
    expect(page.locator(".chatlib.room")).to_have_count(0)
    shoot(page, "room-still", output(page, 1))
    assert page.title() != "1"
