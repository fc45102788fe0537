"""What lies in a queue, as the bytes that travel: looked at through the management API, and left where it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from chatlib.lab.waiting import wait_until
from chatlib.management import Management

if TYPE_CHECKING:
    from chatlib.lab.lesson import Lesson

__all__ = ["on_the_wire"]


def on_the_wire(lesson: Lesson, queue: str, count: int = 1) -> list[dict[str, Any]]:
    """The first `count` messages in `queue`, decoded from JSON, oldest first; they stay there (and count as handed out once before).

    Waits until there are so many; raises NotInTime if they do not come.
    """
    wait_until(lambda: lesson.depth(queue)[0] >= count, 10, f"{count} messages in {queue}")
    question = {"count": count, "ackmode": "ack_requeue_true", "encoding": "auto"}
    with Management(lesson.broker.management_url, login=lesson.broker.url) as management:
        found = management._request("POST", management.in_vhost("queues", queue) + "/get", json=question)
    return [json.loads(message["payload"]) for message in found]
