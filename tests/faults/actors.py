"""The processes that `test_promises` kills: ``python -m tests.faults.actors sender|receiver OPTIONS`` (JSON).

They write what they know at once, by one `write` each: SIGKILL leaves nothing of it behind in a buffer.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import chatlib
from chatlib import ReceivedMessage, Settings
from chatlib.recorder import Recorder

PATIENT = Settings(connect_timeout=120.0, request_timeout=120.0, send_timeout=120.0, prefetch=50)
LARGE = "x" * 6_000  # the broker keeps bodies above 4 kB in another file than small ones


def appending(path: str) -> int:
    """A file whose every write is whole or not at all, also beside other writers."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def send(options: dict[str, Any]) -> None:
    """Say so many things, to "@bob" and to the group in turn; a line in `accepted` for each, when it was accepted."""
    accepted = appending(options["accepted"])
    recorder = Recorder(options["history"], keep=0, flush_every=0)
    with chatlib.connect(options["url"], data_dir=options["data_dir"], settings=PATIENT, on_event=recorder) as chat:
        user = chat.user(options["name"])
        for number in range(options["count"]):
            to = options["to"][number % len(options["to"])]
            sent = user.send(to, LARGE if number % 25 == 0 else f"{options['life']}.{number}")
            os.write(accepted, f"{sent.message_id} {to}\n".encode())
        assert chat.flush(120), f"{chat.unconfirmed} messages are not confirmed (the link is {chat.state})"
    recorder.close()


def receive(options: dict[str, Any]) -> None:
    """Handle everything until standard input ends; the handler's effect is a line in `effects`."""
    effects, life = appending(options["effects"]), options["life"]
    recorder = Recorder(options["history"], keep=0, flush_every=0)

    def handler(message: ReceivedMessage) -> None:
        os.write(effects, f"{life} {message.message_id} {message.conversation}\n".encode())

    with chatlib.connect(options["url"], data_dir=options["data_dir"], settings=PATIENT, on_event=recorder) as chat:
        chat.user(options["name"]).on_message(handler)
        sys.stdin.read()
    recorder.close()


if __name__ == "__main__":
    {"sender": send, "receiver": receive}[sys.argv[1]](json.loads(sys.argv[2]))
