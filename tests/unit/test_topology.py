"""What exists on the broker: durable, equal where equal, never lost by an argument."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from chatlib.names import check_user_name, inbox_queue, receipts_queue
from chatlib.retry import GRID
from chatlib.topology import BASE, DEAD, GROUPS, RECEIPTS, USERS, Binding, Exchange, Queue, membership, of_history, of_retry, of_user
from tests.unit.test_names import names


def queues(declarations: tuple[object, ...]) -> dict[str, dict[str, object]]:
    return {item.name: dict(item.arguments) for item in declarations if isinstance(item, Queue)}


@given(names)
def test_a_user_has_an_inbox_that_refuses_and_receipts_that_forget(name: str) -> None:
    user = check_user_name(name)
    declared = of_user(user, inbox_limit=7)
    found = queues(declared)
    assert set(found) == {inbox_queue(user), receipts_queue(user)}
    inbox = found[inbox_queue(user)]
    assert inbox["x-max-length"] == 7
    assert inbox["x-overflow"] == "reject-publish"  # never drop: the sender is told
    assert inbox["x-dead-letter-exchange"] == DEAD.name
    assert "x-overflow" not in found[receipts_queue(user)]
    bound = {(item.source, item.queue) for item in declared if isinstance(item, Binding)}
    assert bound == {(USERS.name, inbox_queue(user)), (RECEIPTS.name, receipts_queue(user))}
    assert all(len(item.key.encode()) <= 255 for item in declared if isinstance(item, Binding))


def test_declarations_are_values() -> None:
    """The link declares each once, and knows it by value."""
    assert of_user("bob", inbox_limit=5) == of_user("bob", inbox_limit=5)
    assert len({*of_user("bob", inbox_limit=5), *of_user("bob", inbox_limit=5)}) == 4
    assert of_user("bob", inbox_limit=5) != of_user("bob", inbox_limit=6)
    assert membership("bob", "team") != membership("Bob", "team")


def test_queues_come_before_their_bindings() -> None:
    """They are declared in this order, without waiting in between."""
    for declarations in (BASE, of_user("bob", inbox_limit=5), of_retry(1000)):
        seen: set[str] = {USERS.name, GROUPS.name, RECEIPTS.name, DEAD.name}
        for item in declarations:
            if isinstance(item, Binding):
                assert item.source in seen and item.queue in seen
            else:
                seen.add(item.name)


def test_a_retry_queue_waits_and_hands_on_to_the_user() -> None:
    for milliseconds in (GRID[0], GRID[-1]):
        exchange, queue, binding = of_retry(milliseconds)
        assert isinstance(exchange, Exchange) and isinstance(queue, Queue) and isinstance(binding, Binding)
        arguments = dict(queue.arguments)
        assert arguments["x-message-ttl"] == milliseconds
        assert arguments["x-dead-letter-exchange"] == ""
        assert "x-dead-letter-routing-key" not in arguments  # the key names the user's queue, it is kept
        assert arguments["x-queue-type"] == "quorum"  # a classic queue loses what it dead-letters to a SIGKILL in that moment
        assert (arguments["x-dead-letter-strategy"], arguments["x-overflow"]) == ("at-least-once", "reject-publish")
        assert "x-expires" not in arguments  # an expired queue would take its messages with it


def test_the_queue_type_is_said_and_can_be_chosen() -> None:
    for kind in ("classic", "quorum"):
        assert {arguments["x-queue-type"] for arguments in queues(of_user("bob", inbox_limit=5, queue_type=kind)).values()} == {kind}
    assert membership("bob", "a.b") == Binding(GROUPS.name, "inbox.bob", "a%2Eb")


@pytest.mark.parametrize(
    "limits",
    [
        *({"max_bytes": value} for value in (1.5, 5e8, True, "1000", None, 0, -1, 2**53)),
        *({"max_age": value} for value in (7, 7.0, None, True, b"7D", "", "7", "7X", "0D", "7D ", "7D\x00", "-7D", "9999999999Y", "٧D")),
    ],
    ids=str,
)
def test_a_limit_of_a_history_that_is_none_is_refused_before_the_broker_hears_of_it(limits: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(limits))} is a .*got "):
        of_history("team", **{"max_age": "7D", "max_bytes": 1_000_000, **limits})


@pytest.mark.parametrize(
    ("limits", "argument"),
    [
        ({"max_bytes": 1}, {"x-max-length-bytes": 1}),
        ({"max_bytes": 2**53 - 1}, {"x-max-length-bytes": 2**53 - 1}),
        ({"max_age": "1s"}, {"x-max-age": "1s"}),
        ({"max_age": "999999999Y"}, {"x-max-age": "999999999Y"}),
    ],
)
def test_the_limits_of_a_history_reach_as_far_as_they_say(limits: dict[str, Any], argument: dict[str, object]) -> None:
    arguments = queues(of_history("team", **{"max_age": "7D", "max_bytes": 1_000_000, **limits}))["history.team"]
    assert argument.items() <= arguments.items()
