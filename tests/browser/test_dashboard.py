"""The dashboard in JupyterLab: the whole story in one widget, by clicks and keys alone."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Lab, Watch
from tests.browser.live import close_notebook, open_notebook, output, run_cells, shoot, theme, write
from tests.browser.rooms import bubble, pane, say, told

SETUP = """import chatlib
from chatlib.lab import Dashboard
broker = chatlib.LocalBroker()
broker.start()
chat = chatlib.connect(broker)"""
SHOW = 'dashboard = Dashboard(broker, chat, ["alice", "bob"], ["#team"])\ndashboard'
END = "dashboard.close()\nchat.close()\nbroker.close()"
DEPTH = """name => { const plot = [...document.querySelectorAll('.js-plotly-plot')].pop();
    const line = plot && plot.data.find(each => each.name === name && each.visible !== false);
    return line ? [...line.y].filter(each => each !== null).pop() : undefined; }"""


def waits(page: Page, dashboard: Locator, count: int) -> None:
    """As many messages wait for bob, on the chart and on the map."""
    page.wait_for_function(f"() => ({DEPTH})('inbox.bob') === {count}")
    ready = f"{count} ready" if count else "empty"
    expect(dashboard.locator(".topology-map [data-id='q:inbox.bob'] .sub")).to_have_text(ready)


@pytest.mark.timeout(300)
def test_a_message_outlives_the_broker_that_a_button_kills(lab: Lab, page: Page, watch: Watch) -> None:
    """1 alice types, bob has it; 2 bob is switched off: what she types is seen waiting on chart and map; 3 the broker is killed by its
    button: what she types is pending; 4 started: it is confirmed, and all of it waits; 5 the chart has the mark; 6 bob is switched on:
    all is delivered, the chart and the map are empty; 7 both themes; 8 the cell is run again: one dashboard, not two; 9 it is closed.
    """
    open_notebook(page, write(lab, "dashboard", SETUP, SHOW, END))
    run_cells(page, 0, 1)
    dashboard = output(page, 1)
    alice, bob = pane(dashboard, "alice"), pane(dashboard, "bob")
    panel, online = dashboard.locator(".broker-panel"), bob.get_by_role("switch")
    # 1
    say(alice, "first")
    expect(bubble(bob, "first")).to_be_visible()
    told(alice, "first", "read by 1 of 1")
    # 2
    online.click()
    expect(online).to_have_attribute("aria-checked", "false")
    for word in ("second", "third"):
        say(alice, word)
        told(alice, word, "confirmed")
    waits(page, dashboard, 2)
    # 3
    panel.get_by_role("button", name="Kill", exact=True).click()
    expect(panel.locator(".row[data-state='stopped']")).to_be_visible()
    expect(dashboard.locator(".lamp[data-state='recovering']").first).to_be_visible()
    say(alice, "typed while it is dead")
    told(alice, "typed while it is dead", "pending")
    shoot(page, "dashboard-dead-light")
    # 4
    panel.get_by_role("button", name="Start", exact=True).click()
    expect(panel.locator(".row[data-state='running']")).to_be_visible()
    told(alice, "typed while it is dead", "confirmed")
    waits(page, dashboard, 3)
    # 5
    expect(dashboard.locator(".chatlib-queues .annotation-text")).to_have_text(["kill"])
    # 6
    online.click()
    for word in ("second", "third", "typed while it is dead"):
        expect(bubble(bob, word)).to_have_count(1)
        told(alice, word, "read by 1 of 1")
    waits(page, dashboard, 0)
    # 7
    shoot(page, "dashboard-back-light")
    theme(page, "JupyterLab Dark")
    shoot(page, "dashboard-back-dark")
    theme(page, "JupyterLab Light")
    # 8
    run_cells(page, 1)
    for part in (".broker-panel", ".chatlib.room", ".topology-map", ".chatlib-queues"):
        expect(page.locator(part)).to_have_count(1)
    # 9
    run_cells(page, 2)
    close_notebook(page)
    assert watch.outside == []
    assert watch.problems == []
