"""Small writes as one, and a large one at once; on a fake of pika's transport, since only the calls matter here."""

from __future__ import annotations

from collections.abc import Callable

from chatlib.batching import LARGE, BatchingTransport


class Transport:
    """Notes what it is handed, and when it is told that the socket takes something now."""

    def __init__(self) -> None:
        self.calls: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.calls.append(data)

    def _on_socket_writable(self) -> None:
        self.calls.append("now")

    def get_write_buffer_size(self) -> int:
        return 7

    def abort(self) -> None:
        self.calls.append("abort")


class Loop:
    """Runs what is to come soon when it is told to."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def turn(self) -> None:
        soon, self.soon = self.soon, []
        for function in soon:
            function()


def made() -> tuple[BatchingTransport, Transport, Loop]:
    inner, loop = Transport(), Loop()
    return BatchingTransport(inner, lambda function: loop.soon.append(function)), inner, loop


def test_what_is_written_in_one_turn_is_one_write() -> None:
    batching, inner, loop = made()
    for piece in (b"a", b"b", b"c"):
        batching.write(piece)
    assert inner.calls == [] and len(loop.soon) == 1
    assert batching.get_write_buffer_size() == 3 + 7
    loop.turn()
    assert inner.calls == [b"abc"] and batching.get_write_buffer_size() == 7
    batching.write(b"d")
    loop.turn()
    assert inner.calls == [b"abc", b"d"]


def test_much_goes_out_within_the_turn_and_in_order() -> None:
    """The broker begins with it while the rest is made; what is left goes with the turn, which is asked for once."""
    batching, inner, loop = made()
    half = b"x" * (LARGE // 2)
    for piece in (b"1" + half, b"2" + half, b"3"):
        batching.write(piece)
    assert inner.calls == [b"1" + half + b"2" + half, "now"] and len(loop.soon) == 1
    loop.turn()
    assert inner.calls[2:] == [b"3"]


def test_a_turn_with_nothing_left_writes_nothing() -> None:
    batching, inner, loop = made()
    batching.write(b"x" * LARGE)
    loop.turn()
    assert inner.calls == [b"x" * LARGE, "now"]
    batching.write(b"y")
    loop.turn()
    assert inner.calls[2:] == [b"y"]


def test_abort_drops_what_waits() -> None:
    batching, inner, loop = made()
    batching.write(b"x")
    batching.abort()
    loop.turn()
    assert inner.calls == ["abort"] and batching.get_write_buffer_size() == 7
