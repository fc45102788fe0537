"""The topology map as its reader sees it, in JupyterLab: depth, dots, details, what is folded, two themes, a broker that is gone."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect

from tests.browser import live
from tests.browser.conftest import Lab, Watch

SETUP = """
import chatlib
from chatlib.lab.lesson import start_lesson
from chatlib.lab.widgets.topology_map import TopologyMap
from chatlib.monitor import Monitor
lesson = start_lesson("map")
chat, broker, monitor = lesson.chat, lesson.broker, Monitor(lesson.broker)
alice, bob, carol = chat.users(["alice", "bob", "carol"])
for user in (alice, bob, carol):
    user.join("#team")
    user.on_message(lambda message: message.mark_read())
"""
SHOW = "the_map = TopologyMap(monitor, chat)\nthe_map"
AWAY = 'bob.go_offline()\nfor word in ("one", "two", "three"):\n    alice.send("#team", word).wait(10)'
MANY = 'for user in chat.users([f"user{number}" for number in range(4, 51)], online=False):\n    user.join("#team")'
MORE = 'alice.send("#team", "four").wait(10)'
BUSY = """last = the_map.folded[-1]["id"].removeprefix("q:inbox.")
for _ in range(9):
    alice.send(f"@{last}", "busy")"""
KILL = 'broker.kill()\nheld = alice.send("@bob", "are you there?")'
BACK = "broker.start()\nheld.wait(30)"
CLOSE = "lesson.close()"
LIGHT, DARK = "JupyterLab Light", "JupyterLab Dark"
COLOURS = "box => ['rect', '.label'].map(part => box.querySelector(part)).map(part => getComputedStyle(part).fill)"
FOCUSED = "() => document.activeElement?.dataset?.id ?? null"


def box(the_map: Locator, name: str) -> Locator:
    """A box by its id."""
    return the_map.locator(f'[data-id="{name}"]')


def place(thing: Locator) -> tuple[float, float]:
    """Where something is within its output, whatever the notebook is scrolled to."""
    found = thing.evaluate(
        "each => [each, each.closest('.jp-Cell-outputArea')].map(every => every.getBoundingClientRect()).flatMap(({x, y}) => [x, y])"
    )
    return round(found[0] - found[2], 1), round(found[1] - found[3], 1)


def test_the_map_shows_what_happens_and_answers(page: Page, lab: Lab, watch: Watch) -> None:
    live.open_notebook(page, live.write(lab, "topology-map", SETUP, SHOW, AWAY, MANY, MORE, BUSY, KILL, BACK, CLOSE))
    live.run_cells(page, 0, 1)
    the_map = live.output(page, 1).locator(".topology-map")
    bob, details = box(the_map, "q:inbox.bob"), the_map.locator(".details")
    expect(bob.locator(".sub")).to_have_text("empty")
    expect(box(the_map, "u:inbox.bob").locator(".sub")).to_have_text("online")
    before = place(bob)

    # Bob is away: what is sent is seen to travel, and to wait for him
    live.run_cells(page, 2)
    expect(the_map.locator(".dot").first).to_be_attached()
    expect(bob.locator(".sub")).to_have_text("3 ready")
    expect(bob).to_have_attribute("aria-label", "inbox bob, 3 ready")
    expect(box(the_map, "u:inbox.bob").locator(".sub")).to_have_text("offline")
    expect(box(the_map, "s:alice").locator(".sub")).to_have_text("3 sent")
    expect(the_map.locator(".dot")).to_have_count(0)
    live.shoot(page, "map-light", the_map)

    # details: by pointer and by keyboard, in a place that does not move
    where = the_map.evaluate("each => each.getBoundingClientRect().height")
    bob.hover()
    expect(details).to_contain_text("queue: inbox.bob")
    expect(details).to_contain_text("chat.users ▸ bob")
    expect(details).to_contain_text("3 ready")
    expect(the_map.locator(".line.hot")).to_have_count(3)
    live.shoot(page, "map-pointed", the_map)
    page.mouse.move(5, 5)
    expect(details).to_contain_text("Point at anything")
    box(the_map, "s:alice").evaluate("each => each.focus()")
    for key, reached in (("ArrowRight", "x:chat.users"), ("ArrowRight", "k:chat.groups:team"), ("ArrowRight", "q:inbox.bob")):
        page.keyboard.press(key)
        assert page.evaluate(FOCUSED) == reached
    expect(details).to_contain_text("queue: inbox.bob")
    assert the_map.locator("[tabindex='0']").count() == 1, "one stop for Tab"
    assert the_map.evaluate("each => each.getBoundingClientRect().height") == where
    assert place(bob) == before

    # fifty users: folded, and unfolded by Enter
    live.run_cells(page, 3)
    more = box(the_map, "q:more")
    expect(more.locator(".label")).to_have_text("and 40 more")
    assert place(bob) == before
    live.run_cells(page, 4)
    expect(more.locator(".sub")).to_have_text("▸ 40 ready")
    expect(more).to_have_attribute("aria-expanded", "false")
    more.evaluate("each => each.focus()")
    page.keyboard.press("Enter")
    expect(more).to_have_attribute("aria-expanded", "true")
    expect(the_map.locator(".member")).to_have_count(40)
    expect(the_map.locator(".member .count").first).to_have_text("1")
    page.keyboard.press("ArrowDown")
    expect(details).to_contain_text("queue: inbox.user")
    live.shoot(page, "map-unfolded-light")
    light = bob.evaluate(COLOURS)
    live.theme(page, DARK)
    assert all(a != b for a, b in zip(light, bob.evaluate(COLOURS), strict=True)), "fill and text follow the theme"
    live.shoot(page, "map-unfolded-dark")

    # who has much to do gets a place of his own; if he is looked at by keyboard, the keyboard follows
    last = the_map.locator(".member").last
    name = str(last.get_attribute("data-id"))
    live.run_cells(page, 5)
    last.evaluate("each => each.focus()")
    expect(the_map.locator(f'.queue[data-id="{name}"] .sub')).to_have_text("10 ready")
    expect(the_map.locator(f'.member[data-id="{name}"]')).to_have_count(0)
    assert page.evaluate(FOCUSED) == name
    page.keyboard.press("ArrowDown")
    more.evaluate("each => each.focus()")
    page.keyboard.press("Escape")
    expect(the_map.locator(".member")).to_have_count(0)
    assert page.evaluate(FOCUSED) == "q:more"

    # the broker is killed: the map says so; what was typed meanwhile is pending, and then it is not
    live.run_cells(page, 6)
    expect(the_map.locator(".note")).to_contain_text("The broker does not answer")
    expect(box(the_map, "s:alice").locator(".sub")).to_have_text("1 pending")
    live.shoot(page, "map-gone-dark", the_map)
    live.theme(page, LIGHT)
    page.emulate_media(reduced_motion="reduce")
    flown = the_map.get_attribute("data-flown")
    live.run_cells(page, 7)
    expect(the_map.locator(".note")).to_be_empty()
    expect(box(the_map, "s:alice").locator(".sub")).to_have_text("14 sent")
    assert the_map.get_attribute("data-flown") == flown, "nothing moves for who asked for that"

    # run again there is one, not two; at the end its last picture stays
    live.run_cells(page, 1)
    expect(page.locator(".topology-map")).to_have_count(1)
    expect(bob).to_be_visible()
    live.run_cells(page, 8)
    expect(page.locator(".topology-map")).to_have_count(0)
    expect(live.output(page, 1).locator(".chatlib-still svg")).to_be_visible()
    live.shoot(page, "map-still", live.output(page, 1).locator(".chatlib-still"))
    assert watch.outside == []
    assert watch.problems == []
    live.close_notebook(page)
