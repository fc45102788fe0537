"""What the lessons use beside chatlib itself: a ground to stand on, live widgets, predictions, evidence, pictures, exercises, quizzes.

Optional: needs the extra ``chatlib[lab]``. A lesson's first cell imports from here what it uses.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from chatlib.lab.amqp import Wire
from chatlib.lab.attempts import attempts, story, wait_settled
from chatlib.lab.bank import Bank
from chatlib.lab.book import Book
from chatlib.lab.checks import check
from chatlib.lab.clerk import Clerk, open_book
from chatlib.lab.flow import flow_chart, sample
from chatlib.lab.ladder import ladder
from chatlib.lab.lesson import Lesson, LessonCannotStart, start_lesson
from chatlib.lab.machine import machine
from chatlib.lab.network import BadPayment, Network, NetworkBusy, NetworkDown
from chatlib.lab.outages import outages
from chatlib.lab.people import heard_by, people_verdict
from chatlib.lab.pictures import depth_chart, heard, till_chart, topology
from chatlib.lab.predictions import predict
from chatlib.lab.quiz import quiz
from chatlib.lab.samples import watch
from chatlib.lab.tables import first_lines
from chatlib.lab.till import Till
from chatlib.lab.waiting import wait_until
from chatlib.lab.ways import Ways
from chatlib.lab.wire import on_the_wire
from chatlib.lab.work_charts import book_chart, calls_chart

if TYPE_CHECKING:
    from chatlib.lab.widgets.broker_panel import BrokerPanel
    from chatlib.lab.widgets.dashboard import Dashboard
    from chatlib.lab.widgets.message_trace import MessageTrace
    from chatlib.lab.widgets.queue_chart import QueueChart
    from chatlib.lab.widgets.room import Room
    from chatlib.lab.widgets.topology_map import TopologyMap

__all__ = [
    "BadPayment",
    "Bank",
    "Book",
    "BrokerPanel",
    "Clerk",
    "Dashboard",
    "Lesson",
    "LessonCannotStart",
    "MessageTrace",
    "Network",
    "NetworkBusy",
    "NetworkDown",
    "QueueChart",
    "Room",
    "Till",
    "TopologyMap",
    "Ways",
    "Wire",
    "attempts",
    "book_chart",
    "calls_chart",
    "check",
    "depth_chart",
    "first_lines",
    "flow_chart",
    "heard",
    "heard_by",
    "ladder",
    "machine",
    "on_the_wire",
    "open_book",
    "outages",
    "people_verdict",
    "predict",
    "quiz",
    "sample",
    "start_lesson",
    "story",
    "till_chart",
    "topology",
    "wait_settled",
    "wait_until",
    "watch",
]

_LIVE = {  # by the module; they import ipywidgets and plotly, which takes half a second that not every program here wants to wait
    "BrokerPanel": "broker_panel",
    "Dashboard": "dashboard",
    "MessageTrace": "message_trace",
    "QueueChart": "queue_chart",
    "Room": "room",
    "TopologyMap": "topology_map",
}


def __getattr__(name: str) -> Any:
    if name in _LIVE:
        return getattr(import_module(f"chatlib.lab.widgets.{_LIVE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
