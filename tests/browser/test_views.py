"""One notebook in two places: every view of a widget works, and a kernel that is restarted leaves pages that can go on."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.browser.conftest import Lab, Watch
from tests.browser.live import close_notebook, open_notebook, output, run_cells, wait_idle, write

SETUP = """from chatlib.brokers import LocalBroker
from chatlib.lab import BrokerPanel
broker = LocalBroker()
panel = BrokerPanel(broker)
panel"""
CLICK = "button => { button.setAttribute('aria-disabled', 'false'); button.click(); }"


def test_two_views_of_a_panel_hear_each_other(page: Page, lab: Lab, watch: Watch) -> None:
    """A click in one and then in the other, of a broker that is never started: both are answered, and so is the next one."""
    open_notebook(page, write(lab, "views", SETUP, "panel"))
    run_cells(page, 0, 1)
    try:
        views = [output(page, index).locator(".broker-panel") for index in (0, 1)]
        for index in (0, 1, 0, 1):
            view = views[index]
            expect(view.locator(".row")).to_have_attribute("data-state", "stopped")
            # what makes no sense is not sent: the page is made to send it all the same
            view.locator("button[data-action=kill]").evaluate(CLICK)
            expect(view.locator("button[data-action=kill]")).to_have_attribute("aria-busy", "false")
    finally:
        close_notebook(page)
    assert watch.problems == []


def test_a_widget_whose_kernel_was_started_again_says_so(page: Page, lab: Lab, watch: Watch) -> None:
    """It cannot know how the broker is now; a click does no harm, and the cell makes a new one."""
    open_notebook(page, write(lab, "gone", SETUP))
    run_cells(page, 0)
    try:
        panel, error = output(page, 0).locator(".broker-panel"), output(page, 0).locator(".broker-panel .chatlib-error")
        expect(error).to_be_hidden()
        page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
        expect(error).to_have_text("The kernel that made this is gone: run its cell again.")
        panel.locator("button[data-action=kill]").evaluate(CLICK)
        wait_idle(page)
        run_cells(page, 0)
        expect(error).to_be_hidden()
    finally:
        close_notebook(page)
    assert watch.problems == []
