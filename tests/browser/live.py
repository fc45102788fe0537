r"""What tests of widgets do in JupyterLab: write a notebook of given cells, open it, run cells, change the theme, look.

::

    notebook = write(lab, "room", SETUP, "room = Room(chat, ['alice'])\nroom")
    open_notebook(page, notebook)
    run_cells(page, 0, 1)                       # returns when they have run; fails with their traceback
    expect(output(page, 1).locator(".chatlib")).to_have_count(1)
    begin_cell(page, 2)                         # returns at once: the kernel is busy from here on
    shoot(page, "room-light", output(page, 1))
"""

from __future__ import annotations

from pathlib import Path

import nbformat
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import SHOTS, Lab

__all__ = [
    "address",
    "begin_cell",
    "close_notebook",
    "command",
    "errors",
    "open_notebook",
    "output",
    "run_cells",
    "shoot",
    "theme",
    "wait_idle",
    "write",
]

WIDTH, HEIGHT = 1280, 900
PATIENCE = 60_000  # milliseconds: for a machine that does other things, too

expect.set_options(timeout=PATIENCE)
IDLE = """() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'
    && ![...document.querySelectorAll('.jp-Notebook .jp-InputPrompt')].some(each => each.textContent.includes('*'))"""
RUN = """async ([index, wait]) => {
    const app = window.jupyterapp, notebook = app.shell.currentWidget.content;
    notebook.deselectAll();
    notebook.activeCellIndex = index;
    const done = app.commands.execute('notebook:run-cell');
    if (wait) await done;
}"""
ERRORS = """() => window.jupyterapp.shell.currentWidget.content.model.sharedModel.cells.flatMap((cell, index) =>
    (cell.toJSON().outputs ?? []).filter(output => output.output_type === 'error')
        .map(output => `cell ${index} raised ${output.ename}: ${output.evalue}\\n${output.traceback.join('\\n')}`))"""


def write(lab: Lab, name: str, *cells: str) -> str:
    """Put a notebook of these code cells, never run, into the folder that `lab` shows; returns its address."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, Path(lab.folder) / f"{name}.ipynb")
    return address(lab, f"{name}.ipynb")


def address(lab: Lab, file: str) -> str:
    """Where JupyterLab shows this file of its folder, in a workspace of its own."""
    return f"{lab.url}lab/workspaces/{Path(file).stem}/tree/{file}?reset"


def open_notebook(page: Page, url: str) -> None:
    """Open it and wait for its kernel; the file browser is folded away."""
    page.goto(url)
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    wait_idle(page)
    command(page, "application:toggle-left-area")


def close_notebook(page: Page) -> None:
    """End its kernel, and what runs in it: widgets, chats, brokers."""
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")


def wait_idle(page: Page, seconds: float = 60) -> None:
    """Wait until the kernel has nothing to do."""
    page.wait_for_function(IDLE, timeout=seconds * 1000)


def command(page: Page, name: str) -> None:
    """Run a command of JupyterLab; returns when JupyterLab says that it is done."""
    page.evaluate("name => window.jupyterapp.commands.execute(name)", name)


def run_cells(page: Page, *indexes: int) -> None:
    """Run these cells, one after the other (0 is the first); fails with the traceback of one that raises."""
    for index in indexes:
        page.evaluate(RUN, [index, True])
        raised = errors(page)
        assert not raised, raised[0]


def errors(page: Page) -> list[str]:
    """What cells raised, with the tracebacks; on the page an error looks like any text on stderr."""
    return [str(each) for each in page.evaluate(ERRORS)]


def begin_cell(page: Page, index: int) -> None:
    """Have this cell run, and do not wait for it: `wait_idle` does."""
    page.evaluate(RUN, [index, False])


def output(page: Page, index: int) -> Locator:
    """The output area of a cell (0 is the first)."""
    return page.locator(".jp-Notebook .jp-Cell").nth(index).locator(".jp-Cell-outputArea")


def theme(page: Page, name: str) -> None:
    """Change the theme: "JupyterLab Light" or "JupyterLab Dark"."""
    page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", name)
    page.wait_for_selector(f"body[data-jp-theme-name='{name}']", state="attached")


def shoot(page: Page, name: str, what: Locator | None = None) -> None:
    """A picture for people to look at: of the whole notebook, or of one thing in it (an output, a widget)."""
    SHOTS.mkdir(exist_ok=True)
    if what is not None:
        expect(what).to_be_visible()
        what.screenshot(path=SHOTS / f"{name}.png", animations="disabled")
        return
    height = page.evaluate("() => Math.max(...[...document.querySelectorAll('.jp-WindowedPanel-outer')].map(each => each.scrollHeight))")
    page.set_viewport_size({"width": WIDTH, "height": min(int(height) + 150, 16_000)})
    page.evaluate("() => document.querySelectorAll('.jp-WindowedPanel-outer').forEach(each => { each.scrollTop = 0; })")
    page.screenshot(path=SHOTS / f"{name}.png")
    page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
