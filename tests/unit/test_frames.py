"""The frames that we pack ourselves are, to the byte, those that pika packs."""

from __future__ import annotations

from typing import Any

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatlib.envelope import Outgoing
from chatlib.frames import publish_frames

shorts = st.text(st.characters(codec="utf-8"), max_size=60)


def outgoing(**fields: Any) -> Outgoing:
    plain = {"exchange": "exchange", "key": "key", "body": b"body", "message_id": "id", "kind": "TYPE", "timestamp": 5}
    return Outgoing(**{**plain, "on_outcome": lambda *_: None, **fields})


def by_pika(channel: int, what: Outgoing) -> bytes:
    properties = pika.BasicProperties(
        content_type=what.content_type, delivery_mode=2, message_id=what.message_id, timestamp=what.timestamp, type=what.kind
    )
    frames = [
        pika.frame.Method(channel, pika.spec.Basic.Publish(exchange=what.exchange, routing_key=what.key, mandatory=True)),
        pika.frame.Header(channel, len(what.body), properties),
    ]
    if what.body:
        frames.append(pika.frame.Body(channel, what.body))
    return b"".join(frame.marshal() for frame in frames)


messages = st.fixed_dictionaries(
    {
        "exchange": shorts,
        "key": shorts,
        "body": st.binary(max_size=5000),
        "content_type": shorts,
        "message_id": shorts,
        "timestamp": st.integers(0, 2**63 - 1),
        "kind": st.sampled_from(["SEND_MESSAGE", "RECEIVE_MESSAGE"]),
    }
)


@given(st.integers(1, 65_535), messages)
def test_as_pika(channel: int, fields: dict[str, Any]) -> None:
    assert publish_frames(channel, outgoing(**fields)) == by_pika(channel, outgoing(**fields))


def test_longest_short_strings() -> None:
    longest = "ö" * 127 + "x"
    what = outgoing(exchange=longest, key=longest, message_id=longest, kind=longest, content_type=longest)
    assert publish_frames(1, what) == by_pika(1, what)


@pytest.mark.parametrize("name", ["exchange", "key", "message_id", "kind", "content_type"])
def test_what_is_too_long_for_a_short_string_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="255 bytes"):
        publish_frames(1, outgoing(**{name: "x" * 256}))


@pytest.mark.parametrize(("name", "value"), [("key", "\ud800"), ("message_id", "\udfff"), ("timestamp", -1), ("timestamp", 2**64)])
def test_what_is_no_text_or_no_time_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError):
        publish_frames(1, outgoing(**{name: value}))
