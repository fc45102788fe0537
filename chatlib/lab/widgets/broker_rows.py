"""How a broker panel shows what its model knows: pure functions, model in, traits and HTML out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape
from typing import Any, Final

from chatlib.lab.widgets.broker_model import ALARM, NO_MAJORITY, STOPPED_SAID, WHOLE, Note, Part

__all__ = ["LABELS", "card", "lines_of", "rows_of"]

LINES: Final = 60  # of the log that are shown
LABELS: Final = {
    "start": ("Start", "bring it up; returns when a client can connect"),
    "stop": ("Stop", "shut it down gracefully: clients are told"),
    "restart": ("Restart", "stop it and start it again"),
    "kill": ("Kill", "SIGKILL, as in a crash"),
    "freeze": ("Freeze", "take its processor time away: connections hang"),
    "thaw": ("Thaw", "give it its processor time back"),
    "alarm_on": ("Raise alarm", "make it believe that it is out of memory: nobody can publish"),
    "alarm_off": ("Clear alarm", "put the limit of its memory back"),
}
SIGNS: Final = {"running": "●", "starting": "◔", "frozen": "❄", "stopped": "✕", ALARM: "▲", "": "…"}
WORDS: Final = {"": "looking", "stopped": STOPPED_SAID}
MARKS: Final = {"did": "▸", "failed": "✗", "seen": "◦", "fault": "ϟ"}
COLOURS: Final = {"running": "#2e7d46", "starting": "#b06a00", "frozen": "#2b6cb0", "stopped": "#c62828", ALARM: "#b06a00", "": "#5f5f5f"}


def rows_of(parts: Sequence[Part], *, remote: bool) -> list[dict[str, Any]]:
    """The rows of the panel: key, name, state (for the lamp), sign, word, since, busy, buttons (None: there are none)."""
    return [_row(part, is_cluster=len(parts) > 1, remote=remote) for part in parts]


def _row(part: Part, *, is_cluster: bool, remote: bool) -> dict[str, Any]:
    whole = is_cluster and part.key == WHOLE
    word = WORDS.get(part.state, part.state)
    if part.alarms:
        word = f"{' and '.join(part.alarms)} alarm"
    elif whole and part.state == "starting" and not part.busy:
        word = NO_MAJORITY
    elif remote and part.state == "stopped":
        word = "no answer"
    actions = [action for action in LABELS if not action.startswith("alarm")]
    if not whole:
        actions.append("alarm_off" if part.alarms else "alarm_on")
    buttons = [
        {
            "action": action,
            "label": LABELS[action][0],
            "hint": LABELS[action][1],
            "enabled": action in part.can,
            "busy": part.busy == action,
        }
        for action in actions
    ]
    return {
        "key": part.key,
        "name": part.name,
        "state": part.state or "unknown",
        "sign": SIGNS[part.state],
        "word": word,
        "since": f"since {_clock(part.since)}" if part.since else "",
        "busy": LABELS[part.busy][0] if part.busy else "",
        "buttons": [] if remote else buttons,
    }


def lines_of(notes: Sequence[Note]) -> list[dict[str, Any]]:
    """The last lines of the log, newest first."""
    shown = [{"number": n.number, "at": _clock(n.at), "kind": n.kind, "mark": MARKS[n.kind], "text": n.text} for n in notes[-LINES:]]
    return shown[::-1]


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def card(title: str, parts: Sequence[Part], notes: Sequence[Note], *, remote: bool) -> str:
    """The panel as HTML with its looks in it, for where there is no kernel."""
    lamps = "".join(
        f'<div style="padding:3px 0"><span style="color:{COLOURS[part.state]};font-weight:700">{row["sign"]} {escape(row["word"])}</span> '
        f'&nbsp;{escape(row["name"])} <span style="color:#5f5f5f">{row["since"]}</span></div>'
        for part, row in zip(parts, rows_of(parts, remote=remote), strict=True)
    )
    log = "".join(
        f'<div><span style="color:#5f5f5f">{line["at"]}</span> {line["mark"]} {escape(line["text"])}</div>' for line in lines_of(notes)[:12]
    )
    return (
        '<div style="font:13px/1.5 system-ui,-apple-system,Segoe UI,Helvetica,Arial,sans-serif;color:#1f1f1f;background:#fff;'
        f'border:1px solid #c4c4c4;border-radius:8px;padding:10px 14px"><b>{escape(title)}</b>{lamps}'
        f'<div style="border-top:1px solid #e0e0e0;margin-top:6px;padding-top:6px">{log or "nothing happened yet"}</div></div>'
    )
