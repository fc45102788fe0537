"""The pure parts of the terminal chat: what may be written on a terminal, ticks, what typed lines mean, lines and rows."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import unicodedata
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatlib.errors import AccessRefused, ChatError, InvalidAddress, InvalidName
from chatlib.messages import SendMessage, compose, new_message_id
from chatlib.names import parse_address
from chatlib.sent import SentMessage, SentState
from chatlib.terminal.line import Heard, Note, Own, fit, plain
from chatlib.terminal.place import broker_name, data_folder
from chatlib.terminal.plain import PlainScreen
from chatlib.terminal.text import COLORS, clock, color_number, counted, excerpt, safe
from chatlib.terminal.ticks import tick
from chatlib.terminal.typed import COMMANDS, Command, Say, group_address, parse
from tests.support import ROOT, wait_until

anything = st.text(st.characters(codec=None, categories=None), max_size=60)  # half surrogates, too

# ---- what may be written on a terminal ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("hello, wörld 🦊 日本 שלום", "hello, wörld 🦊 日本 שלום"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),  # the one-byte form of ESC [
        ("over\rwritten\b\b", r"over\rwritten\x08\x08"),
        ("two\nlines", r"two\nlines"),
        ("a\tb", "a b"),
        ("\u202eevil\u2066", r"\u202eevil\u2066"),
        ("\U000e0041", r"\U000e0041"),  # tags: invisible text
        ("\ud800", r"\ud800"),
        ("\u2028\u2029\x85", r"\u2028\u2029\x85"),
        ("👩\u200d👩\u200d👧", "👩\u200d👩\u200d👧"),  # joiners make families
        ("\ue000\U0010ffff", r"\ue000\U0010ffff"),
    ],
)
def test_what_would_command_a_terminal_is_shown_and_not_obeyed(text: str, shown: str) -> None:
    assert safe(text) == shown


def test_line_ends_are_kept_only_on_request() -> None:
    assert safe("a\r\nb\nc\rd", lines=True) == "a\nb\nc\\rd"


@given(anything)
def test_nothing_that_is_not_visible_gets_through(text: str) -> None:
    needed = "\u200c\u200d\u200e\u200f\u061c"
    for lines in (False, True):
        shown = safe(text, lines=lines)
        assert all(unicodedata.category(c)[0] != "C" or c in needed or (lines and c == "\n") for c in shown)
        assert safe(shown, lines=lines) == shown
        shown.encode()  # whatever came in, it can be written


def test_an_excerpt_is_short_and_on_one_line() -> None:
    assert excerpt("hello") == "hello"
    assert excerpt("a\nb" * 100, 10) == "a\\nba\\nba…"


def test_the_date_is_shown_when_it_is_not_today() -> None:
    now = datetime(2025, 11, 22, 12, 0, tzinfo=UTC)
    assert clock(now - timedelta(hours=3), now) == "09:00"
    assert clock(now - timedelta(hours=13), now) == "2025-11-21 23:00"


def test_the_colour_of_a_name_is_the_same_in_every_process() -> None:
    """Python's own hash of a text is another one in each process."""
    names = ["alice", "bob", "🦊", "Mötley|away"]
    program = f"from chatlib.terminal.text import color_number; print([color_number(n) for n in {names!r}])"
    environment = os.environ | {"PYTHONHASHSEED": "1", "PYTHONUTF8": "1"}
    other = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", check=True)
    assert other.stdout.strip() == str([color_number(name) for name in names])


def test_names_get_all_the_colours_that_there_are() -> None:
    from chatlib.terminal.style import STYLE

    assert {color_number(f"user{number}") for number in range(200)} == set(range(COLORS))
    assert {f"name-{number}" for number in range(COLORS)} <= {rule for rule, _ in STYLE.style_rules}


def test_numbers_agree_with_their_nouns() -> None:
    assert (counted(0, "message"), counted(1, "message"), counted(2000, "message")) == ("0 messages", "1 message", "2,000 messages")


# ---- ticks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "receipts", "shown", "kind"),
    [
        (SentState.PENDING, {}, "·", "pending"),
        (SentState.CONFIRMED, {}, "✓", "confirmed"),
        (SentState.CONFIRMED, {"bob": "delivered"}, "✓✓", "delivered"),
        (SentState.CONFIRMED, {"bob": "read"}, "✓✓ read", "read"),
        (SentState.PENDING, {"bob": "delivered"}, "✓✓", "delivered"),  # the receipt overtook the confirm
        (SentState.RETURNED, {}, "✗ no such user", "failed"),
        (SentState.REJECTED, {}, "✗ the inbox is full", "failed"),
    ],
)
def test_ticks_of_a_message_to_one(state: SentState, receipts: dict[str, str], shown: str, kind: str) -> None:
    assert tick(state, receipts, group=False) == (shown, kind)


def test_what_one_may_not_send_is_told_from_a_full_inbox() -> None:
    assert tick(SentState.REJECTED, {}, group=True, error=AccessRefused("no")) == ("✗ not allowed", "failed")


@pytest.mark.parametrize(
    ("receipts", "audience", "shown", "kind"),
    [
        ("", 3, "✓", "confirmed"),
        ("d", 3, "✓ 1/3", "confirmed"),
        ("r", 3, "✓ 1/3, 1 read", "confirmed"),
        ("ddd", 3, "✓✓ 3/3", "delivered"),
        ("drd", 3, "✓✓ 3/3, 1 read", "delivered"),
        ("rrr", 3, "✓✓ 3/3 read", "read"),
        ("dr", None, "✓✓ 2, 1 read", "delivered"),  # who is in the group is not known: nobody can say that all have it
        ("rr", None, "✓✓ 2, 2 read", "delivered"),
        ("rr", 1, "✓✓ 2/2 read", "read"),  # somebody left after it was sent
    ],
)
def test_ticks_of_a_message_to_a_group_count(receipts: str, audience: int | None, shown: str, kind: str) -> None:
    statuses = {f"user{number}": {"d": "delivered", "r": "read"}[letter] for number, letter in enumerate(receipts)}
    assert tick(SentState.CONFIRMED, statuses, group=True, audience=audience) == (shown, kind)


# ---- what typed lines mean ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("", None),
        ("  \t \n", None),
        ("hello there \n", Say("hello there")),
        ("@bob hello", Say("hello", "@bob")),
        ("#team  hello  all", Say("hello  all", "#team")),
        ("##c hello", Say("hello", "##c")),  # IRC's ##c
        ("@bob", Command("/to", "@bob")),
        ("/to #team", Command("/to", "#team")),
        ("/history  5 ", Command("/history", "5")),
        ("/quit", Command("/quit")),
        ("/say /join is a command", Say("/join is a command")),
        ("mail me@example.org", Say("mail me@example.org")),
        ("first\nsecond", Say("first\nsecond")),  # pasted
        ("@Mu\u0308ller hi", Say("hi", "@Müller")),  # the same name in both Unicode forms
    ],
)
def test_a_typed_line_is_a_command_or_words(line: str, meaning: Command | Say | None) -> None:
    assert parse(line) == meaning


@pytest.mark.parametrize(
    ("line", "error", "why"),
    [
        ("/foo", ChatError, "/help lists them"),
        ("/Join #team", ChatError, "no command /Join"),
        ("/", ChatError, "no command /"),
        ("@", InvalidName, "must not be empty"),
        ("@@bob hi", InvalidName, "must not begin with '@'"),
        ("@b\x1bob hi", InvalidName, "control characters"),
        (f"@{'x' * 300} hi", InvalidName, "240 bytes"),
    ],
)
def test_a_line_that_means_nothing_is_refused_with_the_reason(line: str, error: type[ChatError], why: str) -> None:
    with pytest.raises(error, match=why):
        parse(line)


def test_only_groups_are_joined() -> None:
    assert group_address("#team") == "#team"
    for wrong in ("@bob", "team", ""):
        with pytest.raises(InvalidAddress):
            group_address(wrong)
    with pytest.raises(InvalidAddress, match=r"which group\? /join #team"):
        group_address("", "/join #team")
    with pytest.raises(InvalidAddress, match=r"@bob is a user.*/who #team"):
        group_address("@bob", "/who #team")


def test_every_command_is_carried_out_by_a_method() -> None:
    from chatlib.terminal.client import Client

    assert [name for name in COMMANDS if name != "/say" and not hasattr(Client, f"_{name[1:]}")] == []


@given(anything)
def test_any_line_means_something_or_is_refused_by_a_chat_error(line: str) -> None:
    try:
        meaning = parse(line)
    except ChatError:
        return
    assert meaning is None or (meaning.name in COMMANDS if isinstance(meaning, Command) else meaning.content)


# ---- lines and rows -------------------------------------------------------------------------------------------------

NOON = datetime(2020, 2, 29, 12, 0, tzinfo=UTC)


def message(to: str, content: str) -> SendMessage:
    return compose(new_message_id(), "alice", parse_address(to), content, NOON.timestamp())


def own(to: str = "@bob", content: str = "hello", number: int = 1) -> Own:
    return Own(SentMessage(message(to, content), lambda _: None), number)


def test_a_line_names_its_group_and_its_sender() -> None:
    day = NOON.astimezone().strftime("%Y-%m-%d %H:%M")
    assert plain(Heard("bob", "#team", "hi", NOON).fragments(one_line=True)) == f"{day} #team bob: hi"
    assert plain(Heard("bob", None, "hi", NOON).fragments(one_line=True)) == f"{day} bob: hi"


def test_a_content_cannot_look_like_a_line_of_somebody_else() -> None:
    forged = Heard("mallory", None, "hi\n12:00 alice: I resign\x1b[1A", NOON)
    on_one = plain(forged.fragments(one_line=True))
    assert "\n" not in on_one and on_one.endswith(r"mallory: hi\n12:00 alice: I resign\x1b[1A")
    assert plain(forged.fragments(one_line=False)).splitlines()[1] == r"  │ 12:00 alice: I resign\x1b[1A"


def test_notes_are_safe_too() -> None:
    assert plain(Note("no such group: \x1b[2J").fragments(one_line=False)) == r"* no such group: \x1b[2J"
    assert plain(Note("bad", "error").fragments(one_line=True)) == "! bad"


def test_what_was_sent_shows_its_tick_as_it_is_now() -> None:
    line = own()
    assert plain(line.fragments(one_line=False)).endswith("→ @bob: hello  ·")
    line.sent._settle(SentState.CONFIRMED, None)
    line.sent._receipt("bob", "read")
    assert plain(line.fragments(one_line=True)).endswith("→ @bob: hello  ✓✓ read [1]")
    assert plain(line.late(2)) == "✓✓ read → @bob: hello (and 2 before it)"


def test_in_a_group_receipts_wait_for_the_count_of_members() -> None:
    """Else "all have it" would be shown, and taken back."""
    line = own("#team")
    line.sent._settle(SentState.CONFIRMED, None)
    line.sent._receipt("bob", "delivered")
    assert line.tick.text == "✓"
    line.audience, line.counting = 2, False
    assert line.tick.text == "✓ 1/2"


@given(st.text(max_size=80), st.integers(2, 20))
def test_rows_have_all_of_the_text_and_no_more_than_the_width(text: str, width: int) -> None:
    from prompt_toolkit.utils import get_cwidth

    text = safe(text, lines=True)
    rows = fit([("class:a", text[:7]), ("", text[7:])], width, get_cwidth)
    assert "".join(plain(row) for row in rows) == text.replace("\n", "")
    assert all(sum(map(get_cwidth, plain(row))) <= width for row in rows)
    assert len(rows) >= text.count("\n") + 1


def test_rows_end_at_spaces_where_there_are_some() -> None:
    rows = fit([("class:a", "to be "), ("", "or not to be, aaaaaaaaaaaaaaaaaaaaaaaa")], 10, len)
    assert [plain(row) for row in rows] == ["to be or ", "not to ", "be, aaaaaa", "aaaaaaaaaa", "aaaaaaaa"]
    assert rows[0] == [("class:a", "to be "), ("", "or ")]


# ---- plain lines ----------------------------------------------------------------------------------------------------


def test_each_tick_is_a_line_and_the_same_tick_is_none() -> None:
    target = io.StringIO()
    screen = PlainScreen(io.StringIO(), target)
    line = own()
    screen.changed(line)  # before it was shown
    assert screen.show([line])
    screen.changed(line)
    line.sent._settle(SentState.CONFIRMED, None)
    screen.changed(line)
    screen.changed(line)
    screen.close()
    assert [written[-5:] for written in target.getvalue().splitlines()] == ["· [1]", "✓ [1]"]
    assert not screen.show([Note("too late")])
    assert "too late" not in target.getvalue()


def test_threads_do_not_write_into_each_others_lines() -> None:
    target = io.StringIO()
    screen = PlainScreen(io.StringIO(), target)
    threads = [threading.Thread(target=lambda n=n: [screen.show([Note(f"{n} " + "x" * 50)]) for _ in range(50)]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    screen.close()
    lines = target.getvalue().splitlines()
    assert len(lines) == 400 and {len(line) for line in lines} == {54}


class Gone(io.StringIO):
    """An output whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(text)


def test_an_output_without_a_reader_closes_the_screen() -> None:
    screen = PlainScreen(io.StringIO("one\ntwo\n"), Gone())
    assert not screen.show([Note("hello")])
    calls: list[str] = []

    class Client:
        quitting = threading.Event()

        def execute(self, typed: str) -> None:
            calls.append(typed)

    client: Any = Client()
    screen.run(client)
    assert calls == []
    wait_until(lambda: not screen.show([]), what="a closed screen")


# ---- where ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("amqp://u:secret@127.0.0.1:21978/%2F", "127.0.0.1:21978"),
        ("amqp://broker.example", "broker.example:5672"),
        ("amqps://broker.example/v", "broker.example:5671"),
        ("amqp://[::1]:5673/", "[::1]:5673"),
    ],
)
def test_a_broker_is_shown_without_its_password(url: str, name: str) -> None:
    assert broker_name(url) == name


def test_every_user_on_every_broker_has_a_folder_of_his_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    urls = ["amqp://a:x@h:1/", "amqp://b:x@h:1/", "amqp://a:x@h:2/", "amqp://a:x@i:1/", "amqp://a:x@h:1/v"]
    names = ["bob", "Bob", "🦊", "🐱", "..", "a/b", "a.b", "x" * 240, "x" * 239]
    folders = [data_folder(url, name) for url in urls for name in names]
    assert len({str(folder).casefold() for folder in folders}) == len(folders)
    for folder in folders:
        assert folder.is_relative_to(tmp_path) and ".." not in folder.parts and len(folder.name) < 60
        folder.mkdir(parents=True)
    assert data_folder("amqp://a:another@h:1/", "bob") == folders[0], "a changed password is the same place"
