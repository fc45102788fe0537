"""What the lessons use beside chatlib itself: a ground to stand on, predictions, evidence, pictures, exercises, quizzes.

Optional: needs the extra ``chatlib[lab]``. A lesson's first cell imports from here what it uses.
"""

from chatlib.lab.amqp import Wire
from chatlib.lab.bank import Bank
from chatlib.lab.checks import check
from chatlib.lab.flow import flow_chart, sample
from chatlib.lab.lesson import Lesson, LessonCannotStart, start_lesson
from chatlib.lab.machine import machine
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

__all__ = [
    "Bank",
    "Lesson",
    "LessonCannotStart",
    "Till",
    "Ways",
    "Wire",
    "check",
    "depth_chart",
    "first_lines",
    "flow_chart",
    "heard",
    "heard_by",
    "machine",
    "on_the_wire",
    "outages",
    "people_verdict",
    "predict",
    "quiz",
    "sample",
    "start_lesson",
    "till_chart",
    "topology",
    "wait_until",
    "watch",
]
