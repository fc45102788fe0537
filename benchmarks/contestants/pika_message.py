"""What both pika contestants publish."""

from __future__ import annotations

import time

import pika

__all__ = ["properties"]


def properties(number: int) -> pika.BasicProperties:
    """The same properties as chatlib sets."""
    return pika.BasicProperties(
        content_type="application/json", delivery_mode=2, message_id=f"{number:026d}", timestamp=int(time.time()), type="SEND_MESSAGE"
    )
