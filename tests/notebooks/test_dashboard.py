"""The dashboard: four widgets that live and end together."""

from __future__ import annotations

from collections.abc import Callable

import chatlib
from chatlib.brokers import LocalBroker
from chatlib.lab import Dashboard
from tests.support import wait_until

Unique = Callable[[str], str]


def test_room_map_chart_and_panel_live_and_end_together(broker: LocalBroker, unique: Unique) -> None:
    """1 what is said is in the room, its queue on the map and in the chart; 2 stopped, none looks any more, started all do; 3 closed, all
    are, and a picture is left.
    """
    a, b, team = unique("alice"), unique("bob"), "#" + unique("team")
    with chatlib.connect(broker) as chat:
        board = Dashboard(broker, chat, [a, b], [team])
        # 1
        assert [type(part).__name__ for part in board.parts] == ["BrokerPanel", "Room", "TopologyMap", "QueueChart"]
        chat.user(b).go_offline()
        chat.user(a).send(team, "hello").wait(10)
        wait_until(lambda: "hello" in str(board.room.still()), 20, "it is in the room")
        wait_until(lambda: board.chart.sampler.latest("ready").get(f"inbox.{b}") == 1, 20, "it waits, by the chart")
        wait_until(lambda: b in board.map.svg(), 20, "bob is on the map")
        # 2
        board.stop()
        assert not any(part.is_running for part in (board, *board.parts))
        board.start()
        assert all(part.is_running for part in (board, *board.parts))
        # 3
        picture = board.still()["text/html"]
        assert "hello" in picture and "<svg" in picture
        board.close()
        board.close()
        assert not any(part.is_running for part in (board, *board.parts))
        assert repr(board) == "<Dashboard>"
