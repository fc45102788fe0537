"""Exceptions of pika, told apart by name."""

import socket

import pytest
from pika import exceptions, spec
from pika.adapters.utils import connection_workflow

from chatlib.errors import AccessRefused, BrokerUnavailable, ChatError, QueueDown, TopologyMismatch, UnknownHost
from chatlib.explain import PIKA_NAMES, explain

URL = "amqp://bob:secret@broker.example:5672/team"


@pytest.mark.parametrize("name", PIKA_NAMES)
def test_every_name_is_a_class_of_pika(name: str) -> None:
    """A class that pika renames would no longer be recognised."""
    assert hasattr(exceptions, name) or hasattr(connection_workflow, name)


def closed_by_broker(code: int, text: str = "why") -> exceptions.ChannelClosedByBroker:
    return exceptions.ChannelClosedByBroker(code, text)


@pytest.mark.parametrize(
    ("exc", "kind", "says"),
    [
        (exceptions.ProbableAuthenticationError("ConnectionClosedByBroker: (403) 'REFUSED'"), AccessRefused, "'bob' or the password"),
        (exceptions.ProbableAccessDeniedError("ConnectionClosedByBroker: (530) 'NOT_ALLOWED'"), AccessRefused, "virtual host 'team'"),
        (exceptions.ProbableAuthenticationError("StreamLostError: gone"), BrokerUnavailable, "middle of the handshake"),
        (exceptions.ConnectionClosedByBroker(530, "NOT_ALLOWED"), AccessRefused, "virtual host 'team'"),
        (closed_by_broker(spec.ACCESS_REFUSED), AccessRefused, "lacks a permission"),
        (closed_by_broker(spec.PRECONDITION_FAILED, "inequivalent arg"), TopologyMismatch, "inequivalent arg"),
        (closed_by_broker(spec.NOT_FOUND, "no queue 'x'"), ChatError, "missing on the broker"),
        (closed_by_broker(spec.NOT_FOUND, "queue 'x' is down or inaccessible"), QueueDown, "not up"),
        (socket.gaierror(-2, "unknown"), UnknownHost, "'broker.example'"),
        (ConnectionRefusedError(111, "refused"), BrokerUnavailable, "nothing listens"),
        (connection_workflow.AMQPConnectorStackTimeout("slow"), BrokerUnavailable, "in time"),
        (TimeoutError(), BrokerUnavailable, "in time"),
        (exceptions.AMQPHeartbeatTimeout("late"), BrokerUnavailable, "no heartbeat"),
        (exceptions.ConnectionBlockedTimeout("alarm"), BrokerUnavailable, "memory or disk alarm"),
        (exceptions.ConnectionClosedByBroker(320, "CONNECTION_FORCED"), BrokerUnavailable, "320 CONNECTION_FORCED"),
        (exceptions.StreamLostError("gone"), BrokerUnavailable, "lost the connection"),
    ],
)
def test_each_cause_has_its_error(exc: Exception, kind: type[ChatError], says: str) -> None:
    """The class says what happened, the text what to do; the password is in neither."""
    error = explain(exc, URL)
    assert type(error) is kind
    assert says in str(error)
    assert "secret" not in str(error)
    assert error.__cause__ is exc


def test_the_cause_is_found_inside_the_connection_workflow() -> None:
    """Pika wraps what went wrong in the exceptions of its connection workflow."""
    phase = connection_workflow.AMQPConnectorSocketConnectError(ConnectionRefusedError(111, "refused"))
    assert "nothing listens" in str(explain(connection_workflow.AMQPConnectionWorkflowFailed([phase]), URL))
