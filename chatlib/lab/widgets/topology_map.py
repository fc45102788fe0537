"""A live map of what exists on a broker: exchanges, bindings, queues and how full they are, users, and messages on their way."""

from __future__ import annotations

import operator
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final, Protocol

import anywidget
import traitlets

from chatlib.errors import ChatError
from chatlib.events import Event
from chatlib.lab.widgets import assets, map_layout, map_lines, map_svg, map_words
from chatlib.lab.widgets.live import Live
from chatlib.lab.widgets.map_layout import Box, Places
from chatlib.lab.widgets.map_model import Scene, Structure, read_rates, read_structure, scene_of
from chatlib.lab.widgets.map_traffic import Traffic
from chatlib.management import Management
from chatlib.monitor import HasManagement, Monitor, client_of, depths_of

__all__ = ["TopologyMap"]

TIMEOUT: Final = 1.5  # seconds for one answer: a frozen broker never gives it
EVERY: Final = 1.0  # seconds between two looks at what exists
LATELY: Final = 2.0  # seconds: what a queue had to do in them decides which are drawn
HERE: Final = 4.0  # whoever is online is not folded for the sake of a few messages elsewhere
GONE: Final = "The broker does not answer: this is what was there last."
WAITING: Final = "The broker has not answered yet."


class Source(Protocol):
    """A chat, or whatever else tells every hop of every message."""

    def on_event(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call `listener` with every hop; returns what stops it."""


class TopologyMap(Live, anywidget.AnyWidget):
    """What exists on the broker now, and what is on its way. Shown, it keeps itself up to date.

    monitor: a Monitor, a broker or a URL as `Monitor` takes it. chat: whose messages travel over the map, or several; without one
    nobody is known to send, and no dot moves. hz: looks a second at how full the queues are, up to 4; what exists is looked at once
    a second. rows: queues that have a place of their own; of more the busiest have one, and the others are folded into a box.
    everything: also the broker's own exchanges (the default exchange, amq.*) and what chatlib keeps for itself.
    """

    _esm = assets.esm("topology_map")
    _css = assets.css("topology_map")

    boxes: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    lines: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    folded: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    figures = traitlets.Dict().tag(sync=True)
    rates = traitlets.Dict().tag(sync=True)
    frame = traitlets.Dict().tag(sync=True)
    note = traitlets.Unicode(WAITING).tag(sync=True)
    error = traitlets.Unicode("").tag(sync=True)

    def __init__(
        self,
        monitor: Monitor | HasManagement | str,
        chat: Source | Iterable[Source] | None = None,
        *,
        hz: float = 4.0,
        rows: int = 10,
        everything: bool = False,
    ) -> None:
        if not 0 < hz <= 4:
            raise ValueError(f"hz is looks a second, more than 0 and at most 4, got {hz!r}")
        if operator.index(rows) < 1:
            raise ValueError(f"rows is how many queues have a place of their own, at least 1, got {rows!r}")
        super().__init__()
        self.hz = hz
        self._target = monitor._broker if isinstance(monitor, Monitor) else monitor
        self._everything = everything
        self._management: Management | None = None
        self._lost = False  # there was no answer to the last question
        self._traffic = Traffic()
        sources = [] if chat is None else list(chat) if isinstance(chat, Iterable) else [chat]
        self._with_senders = bool(sources)
        self._scene, self._places = Scene(), Places(rows=rows)
        self._drawn: tuple[Any, ...] = ()
        self._boxes: dict[str, Box] = {}
        self._due = 0.0
        self._depths: Mapping[str, tuple[float, float]] = {}
        self._lately: deque[Mapping[str, tuple[float, float]]] = deque(maxlen=max(1, round(LATELY * hz)))
        with ExitStack() as made:
            for source in sources:
                made.callback(source.on_event(self._traffic))
            self._listening = made.pop_all()
        self._begin()

    # ---- one round -------------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        hops = self._traffic.drain()
        try:
            management = self._client()
            depths = map_words.known(depths_of(management), self._depths)
            if self._is_due(depths):
                self._structure(read_structure(management))
        except ChatError:
            self._due = 0.0  # look at everything as soon as it is back
            self._lost, note = True, GONE if self._depths else WAITING
        else:
            self._lost, self._depths, note = False, depths, ""
            self._lately.append(depths)
        self._draw()
        self._put(note=note, figures=map_words.figures_of(self._scene, self._boxes, self._depths) | self._traffic.figures())
        flights = self._traffic.flights(hops, self._scene, self._boxes)
        if flights:
            self.send({"type": "fly", "flights": [each.trait() for each in flights]})

    def _client(self) -> Management:
        if self._management is None:
            self._management = client_of(self._target, TIMEOUT)
        return self._management

    def _is_due(self, depths: Mapping[str, object]) -> bool:
        now = time.monotonic()
        if now < self._due and not self._traffic.stirred and depths.keys() == self._depths.keys():
            return False
        self._due, self._traffic.stirred = now + EVERY, False
        return True

    def _structure(self, structure: Structure) -> None:
        if structure != self._scene.structure:
            self._scene = scene_of(structure, everything=self._everything)
        self._put(rates=map_words.figures_of(self._scene, self._boxes, read_rates(structure)))

    def _draw(self) -> None:
        """Lay the map out, if anything that it shows is new."""
        crowded = len(self._scene.queues) > self._places.rows
        places = map_layout.arrange(
            self._places, self._scene, senders=self._traffic.senders, worth=self._worth if crowded else lambda _: (0.0, 0.0)
        )
        sent = self._traffic.sent
        if (drawn := (self._scene, places, sent)) == self._drawn:
            return
        boxes = map_layout.boxes_of(self._scene, places)
        self._drawn, self._places, self._boxes = drawn, places, boxes
        lines = map_lines.lines_of(self._scene, places, boxes, sent)
        shown = [each.trait() | {"about": map_words.about(self._scene, places, each, sent)} for each in boxes.values()]
        with self.hold_sync():
            self._put(
                boxes=shown,
                lines=[each.trait() for each in lines],
                folded=map_words.members_of(self._scene, places),
                frame=self._frame(boxes),
            )

    def _frame(self, boxes: Mapping[str, Box]) -> dict[str, Any]:
        return {
            "left": 0 if self._with_senders else map_layout.X["exchange"] - 8,
            "width": map_layout.WIDTH,
            "height": map_layout.height_of(boxes.values()),
            "heads": map_layout.heads_of(boxes.values(), senders=self._with_senders),
            "summary": map_words.summary(self._scene),
        }

    def _worth(self, queue: str) -> tuple[float, float]:
        """The least and the most that this queue had to do lately; to be consumed counts as `HERE` messages."""
        found = [sum(each.get(queue, (0.0, 0.0))) for each in self._lately]
        return min(found, default=0.0), max(found, default=0.0) + (HERE if self._scene.consumers(queue) else 0.0)

    def _put(self, **traits: Any) -> None:
        """Write what differs: each trait that is written is sent."""
        for name, value in traits.items():
            if getattr(self, name) != value:
                setattr(self, name, value)

    # ---- the rest --------------------------------------------------------------------------------------------------------------

    def _show_error(self, text: str) -> None:
        self.error = text

    def _end(self) -> None:
        self._listening.close()
        if self._management is not None:
            self._management.close()

    def svg(self) -> str:
        """The map as it is now, as one SVG with its looks in it."""
        return map_svg.svg(self._boxes.values(), self._lines(), self.figures, self._frame(self._boxes), note=self.note)

    def _lines(self) -> Sequence[map_lines.Line]:
        return map_lines.lines_of(self._scene, self._places, self._boxes, self._traffic.sent)

    def still(self) -> dict[str, Any]:
        """The picture of now, for where there is no kernel."""
        return assets.still(self.svg(), width=1000, title=map_words.summary(self._scene))
