"""The queue chart and the broker panel in JupyterLab: a broker is broken by buttons, and the chart shows what that does; both themes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Lab, Watch
from tests.browser.live import begin_cell, close_notebook, open_notebook, output, run_cells, shoot, theme, wait_idle, write

PANEL = """import threading
import chatlib
from chatlib.lab.widgets.broker_panel import BrokerPanel
from chatlib.lab.widgets.queue_chart import QueueChart
from chatlib.monitor import Monitor
broker = chatlib.LocalBroker(name="mine")
panel = BrokerPanel(broker)
panel"""
CHAT = """chat = chatlib.connect(broker)
alice, bob = chat.user("alice"), chat.user("bob")
bob.go_offline()"""
CHART = "chart = QueueChart(Monitor(broker))\nchart"
SEND = "for _ in range(8): alice.send('@bob', 'while you were away').wait(30)"
END = "chat.close()\npanel.close()\nchart.close()\nbroker.kill()\nbroker.close()"
DEPTH = """name => { const all = [...document.querySelectorAll('.js-plotly-plot')].pop().data;
    const found = all.find(each => each.name === name && each.visible !== false); return found ? [...found.y].pop() : undefined; }"""
RANGE = "() => [...document.querySelectorAll('.js-plotly-plot')].pop().layout.xaxis.range"
FILL = "selector => getComputedStyle(document.querySelector(selector)).fill"
MARKS = ".chatlib-queues .annotation-text"
LONG = 90_000  # ms: a start takes 5 s, and more on a machine that does other things


@pytest.fixture
def notebook(lab: Lab, page: Page, watch: Watch, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page with a notebook of the cells above and those of the test; nothing may be wrong with it."""
    page.set_default_timeout(LONG)
    expect.set_options(timeout=LONG)
    name = request.node.name.partition("[")[0]
    open_notebook(page, write(lab, name, PANEL, CHAT, CHART, SEND, *request.param, END))
    yield page
    close_notebook(page)
    assert watch.outside == []
    assert watch.problems == []


def button(page: Page, name: str) -> Locator:
    return page.locator(".broker-panel").first.get_by_role("button", name=name, exact=True)


def state(page: Page, name: str) -> None:
    """Wait until the lamp says this and nothing is under way."""
    expect(page.locator(f".broker-panel .row[data-state='{name}']").first).to_be_visible()
    expect(page.locator(".broker-panel [aria-busy='true']")).to_have_count(0)


def waiting(page: Page, count: int | None) -> None:
    """Wait until the chart's line for bob's inbox ends at this height; None: in a gap."""
    page.wait_for_function(f"name => ({DEPTH})(name) === {'null' if count is None else count}", arg="inbox.bob")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("notebook", [("panel", "chart", "chart.close()")], indirect=True, ids=[""])
def test_a_broker_is_broken_by_buttons_and_the_chart_shows_it(notebook: Page) -> None:
    """1 a broker that is down is started by keyboard, the button shows it; 2 what is sent to bob, who is away, is seen waiting;
    3 killed by a double click: once, the chart has a gap and a mark and says so; 4 started again: the same messages wait;
    5 pause, window, scale; 6 both themes; 7 cells run again: one widget each; a second view is whole; 8 closed, a picture stays.
    """
    page = notebook
    # 1
    run_cells(page, 0)
    expect(page.locator(".broker-panel .word")).to_have_text("down")
    expect(button(page, "Kill")).to_be_disabled()
    button(page, "Start").focus()
    page.keyboard.press("Enter")
    expect(button(page, "Start")).to_have_attribute("aria-busy", "true")
    expect(button(page, "Start")).to_be_focused()
    state(page, "running")
    expect(button(page, "Start")).to_be_disabled()
    # 2
    run_cells(page, 1, 2, 3)
    expect(page.locator(".chatlib-queues .legendtext", has_text="inbox.bob")).to_be_visible()
    waiting(page, 8)
    # 3
    button(page, "Kill").dblclick()
    state(page, "stopped")
    expect(page.locator(".chatlib-queues .queue-status")).to_contain_text("The broker does not answer")
    expect(page.locator(MARKS)).to_have_text(["kill"])
    waiting(page, None)
    expect(page.locator(".broker-panel .log .text", has_text="kill: done")).to_have_count(1)
    # 4
    button(page, "Start").click()
    state(page, "running")
    waiting(page, 8)
    expect(page.locator(".chatlib-queues .queue-status")).to_contain_text("Live")
    expect(page.locator(MARKS)).to_have_text(["kill"])
    # 5
    chart = page.locator(".chatlib-queues").first
    chart.get_by_role("button", name="2 min").click()
    page.wait_for_function(f"() => ({RANGE})()[1] === 120")
    chart.get_by_role("button", name="Pause").click()
    expect(chart.locator(".queue-status")).to_contain_text("Paused at")
    chart.get_by_role("button", name="Log scale").click()
    expect(chart.locator(".yaxislayer-above .ytick text", has_text="10")).to_be_visible()
    chart.get_by_role("button", name="Pause").click()
    expect(chart.locator(".queue-status")).to_contain_text("Live")
    # 6
    shoot(page, "chart-and-panel-light")
    light = page.evaluate(FILL, ".chatlib-queues .legendtext")
    theme(page, "JupyterLab Dark")
    page.wait_for_function(f"before => ({FILL})('.chatlib-queues .legendtext') !== before", arg=light)
    shoot(page, "chart-and-panel-dark")
    theme(page, "JupyterLab Light")
    # 7
    run_cells(page, 0)
    expect(output(page, 0).locator(".broker-panel")).to_have_count(1)
    expect(output(page, 0).locator(".word")).to_have_text("down")  # a broker of its own, never started: the other one is not ours any more
    expect(button(page, "Start")).to_be_enabled()
    run_cells(page, 4, 5)
    again = output(page, 5).locator(".chatlib-queues")
    expect(again).to_have_count(1)
    for name in ("inbox.bob", "publish", "deliver"):
        expect(again.locator("[class^=legend] text", has_text=name)).to_be_visible()
    # 8
    run_cells(page, 6)
    expect(output(page, 2).locator(".jp-RenderedPlotly .plot-container")).to_be_visible()
    expect(page.locator(".chatlib-queues")).to_have_count(0)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "notebook", [("threading.Event().wait(8)", "BrokerPanel(chatlib.brokers.RemoteBroker(broker.url))")], indirect=True, ids=[""]
)
def test_a_click_waits_for_a_busy_kernel_and_is_done_once(notebook: Page) -> None:
    """1 while a cell runs, clicks wait, and the panel says so; 2 afterwards it is frozen, once; 3 thawed; 4 an alarm, raised and cleared;
    5 a broker that somebody else runs has no buttons.
    """
    page = notebook
    run_cells(page, 0)
    button(page, "Start").click()
    state(page, "running")
    run_cells(page, 1, 2)
    expect(page.locator(".chatlib-queues .queue-status")).to_contain_text("Live")
    # 1
    begin_cell(page, 4)
    expect(page.locator(".jp-Notebook .jp-Cell").nth(4).locator(".jp-InputPrompt")).to_contain_text("*")
    button(page, "Freeze").click()
    button(page, "Freeze").click(force=True)
    expect(button(page, "Freeze")).to_have_attribute("aria-busy", "true")
    expect(page.locator(".broker-panel .hint", has_text="The kernel is busy with a cell")).to_be_visible()
    wait_idle(page)
    # 2
    state(page, "frozen")
    expect(page.locator(".broker-panel .hint", has_text="The kernel is busy with a cell")).to_have_count(0)
    expect(page.locator(".broker-panel .log .text", has_text="freeze: done")).to_have_count(1)
    expect(page.locator(MARKS)).to_have_text(["freeze"])
    # 3
    button(page, "Thaw").click()
    state(page, "running")
    # 4
    button(page, "Raise alarm").click()
    state(page, "alarm")
    expect(page.locator(".broker-panel .word").first).to_have_text("memory alarm")
    shoot(page, "panel-alarm", page.locator(".broker-panel").first)
    button(page, "Clear alarm").click()
    state(page, "running")
    expect(page.locator(MARKS)).to_have_text(["freeze", "memory alarm"])
    # 5
    run_cells(page, 5)
    remote = output(page, 5).locator(".broker-panel")
    expect(remote.locator(".word")).to_have_text("running")
    expect(remote.locator("button")).to_have_count(0)
    expect(remote.locator(".hint", has_text="Somebody else runs this broker")).to_be_visible()
    shoot(page, "panel-remote", remote)
