"""Which cell of a notebook a widget belongs to: so that a cell that is run again replaces its widgets and does not add to them."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Any, Final, Protocol
from weakref import WeakSet

__all__ = ["claim"]


class _Closable(Protocol):
    def halt(self) -> None: ...
    def close(self) -> None: ...


_lock: Final = threading.Lock()
_widgets: Final[dict[str, tuple[str, WeakSet[Any]]]] = {}  # by cell: the run that made them, and they
_shells: Final[WeakSet[Any]] = WeakSet()  # that tell us when a cell begins


def claim(widget: _Closable) -> None:
    """Note that this widget is of the cell that runs now; those of an earlier run of it are closed. Outside a notebook nothing happens."""
    cell, run = _running()
    if not cell:
        return
    _listen()
    with _lock:
        last, theirs = _widgets.get(cell, ("", WeakSet()))
        old = list(theirs) if last != run else []
        _widgets[cell] = (run, WeakSet() if last != run else theirs)
        _widgets[cell][1].add(widget)
    for each in old:
        each.halt()
    with ExitStack() as closing:  # all of them, also if the cell is interrupted meanwhile: nobody else knows them
        for each in old:
            closing.callback(each.close)


def _listen() -> None:
    """Hear from now on when a cell begins."""
    try:
        from IPython.core.getipython import get_ipython

        shell: Any = get_ipython()
        if shell not in _shells:
            shell.events.register("pre_run_cell", _begins)
            _shells.add(shell)
    except (AttributeError, TypeError, ImportError):
        return


def _begins(_: object) -> None:
    """A cell begins: the page has taken down what it showed. What is sent to those views from now on ends on the browser's console."""
    cell, run = _running()
    with _lock:
        last, theirs = _widgets.get(cell, ("", WeakSet()))
        old = list(theirs) if last != run else []
    for each in old:
        each.halt()


def _running() -> tuple[str, str]:
    """(the cell, this run of it), or empty outside a kernel. Frontends that do not name the cell are told apart by its code."""
    try:
        from IPython.core.getipython import get_ipython

        shell: Any = get_ipython()
        parent = shell.kernel.get_parent()
        cell = parent.get("metadata", {}).get("cellId") or parent.get("content", {}).get("code", "")
        return str(cell), str(parent["header"]["msg_id"])
    except (AttributeError, KeyError, ImportError):
        return "", ""
