"""The live chart without a broker: its lines, what it picks, its axes, its marks, and what is written into the figure."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatlib.lab.flow import flow_figure
from chatlib.lab.marks import ROWS, notes, placed, shapes, spans_of
from chatlib.lab.tracks import HOLE, LEADS, MOST, Line, Tracks, pick, thinned, total
from chatlib.lab.widgets import queue_figure
from chatlib.lab.widgets.queue_view import ALL, WINDOWS, View, axis, counted_by, left_out, logarithmic, short, status, ticks, top, view_of

NAN = math.nan
UNKNOWN = dict.fromkeys(("ready", "unacked", "consumers", "publish_rate", "deliver_rate", "ack_rate", "age"), NAN)


def row(at: float, queue: str = "q", *, up: bool = True, **figures: float) -> dict[str, Any]:
    return UNKNOWN | figures | {"at": at, "queue": queue, "up": up}


def sample(at: float, *, age: float = 0.0, **depths: float) -> list[dict[str, Any]]:
    return [row(at, name, ready=ready, unacked=1, consumers=2, publish_rate=3, deliver_rate=4, ack_rate=5, age=age)
            for name, ready in depths.items()]  # fmt: skip


def view(tracks: Tracks, places: tuple[str, ...] = ("q",), *, window: str = ALL, now: float = 110.0, **how: Any) -> View:
    return view_of(tracks, how.pop("faults", []), places, window=window, now=now, log=how.pop("log", False), **how)


# ---- lines -----------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0, 5), st.sampled_from([None, 0.0, 1.0, 2.0])), min_size=1))
def test_a_line_says_at_each_moment_what_was_said_last(steps: list[tuple[float, float | None]]) -> None:
    line, now, last = Line(), 0.0, {}
    for wait, value in steps:
        now += wait
        line.add(now, value)
        last[now] = value
    moments = sorted(last)
    assert line.at(moments) == [last[moment] for moment in moments]
    assert all(a <= b for a, b in pairwise(line.times))


def test_of_a_level_only_the_ends_are_kept_and_gaps_stay() -> None:
    line = Line()
    for at, value in enumerate([NAN, 1, 1, 1, 1, NAN, NAN, 1, 1, 1, 2]):
        line.add(at, value)
    assert (line.times, line.values) == ([1, 4, 5, 7, 9, 10], [1, 1, None, 1, 1, 2])


def test_times_that_go_back_stand_still() -> None:
    line = Line()
    for at, value in ((5.0, 1.0), (4.9, 2.0), (6.0, 3.0)):
        line.add(at, value)
    assert line.times == [5.0, 5.0, 6.0]


def test_a_window_begins_with_what_held_then() -> None:
    line = Line()
    for at, value in ((0, 7), (10, 8), (20, None), (30, 9)):
        line.add(at, value)
    assert line.since(5) == ([5, 10, 20, 30], [7, 8, None, 9])
    assert line.since(25) == ([30], [9]), "nothing is held through a gap"
    assert line.since() == ([0, 10, 20, 30], [7, 8, None, 9])


def test_a_line_is_bounded_and_its_extremes_stay() -> None:
    line = Line()
    for at in range(5 * MOST):
        line.add(at, 1_000_000.0 if at == 1234 else float(at % 7))
    assert len(line.times) <= MOST
    assert max(value for value in line.values if value is not None) == 1_000_000.0
    assert (line.times[0], line.times[-1]) == (0, 5 * MOST - 1)


@given(st.lists(st.one_of(st.none(), st.floats(0, 100)), min_size=30, max_size=400))
def test_thinned_points_keep_the_ends_the_extremes_and_some_gap(values: list[float | None]) -> None:
    times, kept = thinned([float(n) for n in range(len(values))], values, 20)
    known, kept_known = [v for v in values if v is not None], [v for v in kept if v is not None]
    assert len(times) <= 40
    assert (times[0], times[-1]) == (0, len(values) - 1)
    assert max(known, default=0) == max(kept_known, default=0) and min(known, default=0) == min(kept_known, default=0)
    assert (None in values) == (None in kept)


# ---- tracks ----------------------------------------------------------------------------------------------------------------


def test_a_broker_that_is_away_is_a_gap_in_every_line() -> None:
    tracks = Tracks([*sample(1, a=1, b=2), row(2, "a", up=False), row(2, "b", up=False)])
    assert tracks.away_since == 2
    tracks.add([row(3, "a", up=False)])
    assert tracks.away_since == 2, "since the first sample without an answer"
    for line in (tracks.queues["a"].ready, tracks.queues["b"].unacked, tracks.consumers, *tracks.rates.values()):
        assert line.values[-1] is None
    tracks.add(sample(4, a=1))
    assert tracks.away_since is None and tracks.present == ("a",)


def test_a_queue_that_is_deleted_ends_and_the_others_go_on() -> None:
    tracks = Tracks([*sample(1, a=1, b=2), *sample(2, a=1)])
    assert tracks.queues["b"].ready.values == [2, None]
    assert tracks.queues["a"].ready.values == [1, 1]


def test_a_broker_without_queues_is_there() -> None:
    tracks = Tracks([row(1, "", up=False), row(2, "")])
    assert tracks.away_since is None and tracks.present == () and tracks.queues == {}


def test_where_nothing_was_sampled_for_long_there_is_a_gap() -> None:
    tracks = Tracks([*sample(1, a=1), *sample(1 + HOLE + 1, a=1)])
    assert tracks.queues["a"].ready.values == [1, None, 1]


def test_rates_and_consumers_are_those_of_all_queues_at_the_time_when_the_broker_counted() -> None:
    tracks = Tracks([*sample(10, age=2.0, a=0, b=0), row(11, "c", ready=0)])
    assert (tracks.rates["publish_rate"].times, tracks.rates["publish_rate"].values) == ([8.0, 11], [6, None])
    assert tracks.consumers.values[0] == 4


def test_a_total_is_of_what_is_known() -> None:
    assert total([1, NAN, 2]) == 3
    assert total([NAN]) is None


def test_busy_is_who_holds_and_who_moves() -> None:
    tracks = Tracks()
    for at in range(11):
        tracks.add([row(at, "full", ready=50), row(at, "quick", ready=0, publish_rate=10, deliver_rate=10), row(at, "idle", ready=0)])
    assert tracks.busiest((), 2) == ("quick", "full"), "200 messages in and out in 10 s, 50 that lie there"
    assert tracks.busiest((), 5) == ("quick", "full", "idle")


def test_who_is_shown_keeps_its_place_until_another_is_much_busier() -> None:
    assert pick(("b", "a"), {"a": 5, "b": 4, "c": 4.5}, 2) == ("b", "a")
    assert pick(("b", "a"), {"a": 5, "b": 4, "c": 4 * LEADS + 1}, 2) == ("c", "a"), "in the place that became free"
    assert pick(("", "a"), {"a": 0, "b": 0}, 3) == ("b", "a")
    assert pick(("gone", "a"), {"a": 1}, 2) == ("", "a")


# ---- marks -----------------------------------------------------------------------------------------------------------------


def test_marks_are_cut_to_the_axis_and_one_that_goes_on_reaches_now() -> None:
    found = [("old", 100.0, 105.0), ("cut", 105.0, 115.0), ("on", 125.0, None), ("later", 141.0, None)]
    marks = placed(found, 100.0, 10, 40, now=130.0)
    assert [(mark.name, mark.begin, mark.end) for mark in marks] == [("cut", 10, 15), ("on", 25, 30)]


def test_names_of_neighbours_stand_in_rows_and_a_name_alone_in_the_lowest() -> None:
    marks = placed([("kill", at, at + 0.1) for at in (0.0, 0.1, 0.2, 20.0)], 0.0, 0, 30)
    assert [mark.row for mark in marks] == [0, 1, 2, 0]
    crowd = placed([("memory alarm", 0.1 * n, None) for n in range(20)], 0.0, 0, 30)
    assert {mark.row for mark in crowd} == set(range(ROWS))


def test_a_mark_is_a_span_with_its_name_over_all_panels() -> None:
    (mark,) = placed([("memory_alarm", 1.0, 3.0)], 0.0, 0, 10)
    (shape,), (note,) = shapes([mark]), notes([mark])
    assert (shape["x0"], shape["x1"], shape["yref"], shape["y0"], shape["y1"]) == (1, 3, "paper", 0, 1)
    assert (note["text"], note["x"]) == ("memory alarm", 1)


# ---- what is shown ---------------------------------------------------------------------------------------------------------


@given(st.floats(0, 100_000), st.sampled_from(list(WINDOWS.values())))
def test_the_axis_of_time_holds_now_and_moves_in_steps(elapsed: float, length: float) -> None:
    begin, end = axis(elapsed, length)
    assert begin <= max(elapsed, begin) <= end
    assert axis(math.floor(elapsed / 5) * 5 + 4.99, 30.0) == axis(math.floor(elapsed / 5) * 5 + 0.01, 30.0)
    if length != math.inf:
        assert end - begin == length


@given(st.floats(0, 1e7), st.floats(0, 1e7))
def test_a_panel_holds_its_values_and_stays_as_it_is_for_values_like_the_last(highest: float, before: float) -> None:
    last = top(before, 0)
    height = top(highest, last)
    assert height >= highest
    assert top(highest, height) == height, "it does not jitter"
    assert top(highest * 0.9, top(highest, 0)) == top(highest, 0)


def test_the_logarithmic_axis_has_a_place_for_nothing() -> None:
    assert logarithmic(0) == 0 and logarithmic(9) == 1
    places, names = ticks(top(logarithmic(5000), 0, log=True))
    assert names == ["0", "1", "10", "100", "1,000", "10,000"] and places == [logarithmic(float(name.replace(",", ""))) for name in names]


@given(st.integers(0, 1_000_000))
def test_who_points_at_the_logarithmic_axis_reads_the_number(number: int) -> None:
    assert counted_by(logarithmic(number)) == number


def test_the_numbers_are_told_on_the_logarithmic_axis_and_only_there() -> None:
    tracks = Tracks(sample(100, q=41) + sample(101, q=1_234))
    figure = queue_figure.empty(1)
    queue_figure.draw(figure, view(tracks, log=True), None, log=True)
    assert figure.data[0].text[-1] == "1,234" and "%{text}" in figure.data[0].hovertemplate and figure.data[2].hovertemplate is None
    queue_figure.draw(figure, view(tracks), None, log=False)
    assert figure.data[0].text is None and figure.data[0].hovertemplate is None


def test_a_view_is_of_the_window_and_in_seconds_since_the_first_sample() -> None:
    tracks = Tracks()
    for second in range(100):
        tracks.add(sample(1000.0 + second, q=second))
    shown = view(tracks, window="30 s", now=1099.0)
    assert shown.x == (70, 100)
    ready, unacked, publish, deliver, ack, consumers = shown.lines
    assert (ready[0][0], ready[0][-1], ready[1][-1]) == (70, 99, 99)
    assert [line[1][-1] for line in (unacked, publish, deliver, ack, consumers)] == [1, 3, 4, 5, 2]
    assert view(tracks, window=ALL, now=1099.0).x == (0, 120)
    assert view(tracks, log=True, now=1099.0).lines[0][1][-1] == 2


def test_a_paused_view_shows_nothing_that_came_later() -> None:
    tracks = Tracks([*sample(100, q=1), *sample(105, q=2), *sample(109, q=3)])
    shown = view(tracks, now=108.0, faults=[("kill", 104.0, 109.0), ("freeze", 109.0, 110.0)])
    assert shown.lines[0] == ([0, 5], [1, 2])
    assert [(mark.name, mark.begin, mark.end) for mark in shown.marks] == [("kill", 4, 8)], "it still went on then"


def test_a_free_place_has_no_line() -> None:
    shown = view(Tracks(sample(100, q=1)), ("", "q"))
    assert shown.lines[0] == ([], []) and shown.lines[1][1] == [1]


def test_before_the_first_sample_there_is_an_empty_view() -> None:
    shown = view(Tracks(), ("",))
    assert shown.x == (0, 30) and all(line == ([], []) for line in shown.lines)


def test_the_status_says_how_it_is_and_since_when() -> None:
    tracks = Tracks()
    assert status(tracks, 5.0)[1] == "waiting"
    tracks.add(sample(10.0, q=1))
    assert status(tracks, 10.5) == ("● Live, 4 samples a second.", "live")
    assert status(tracks, 100.0)[1] == "waiting", "it is sampled no more"
    tracks.add([row(11.0, up=False)])
    assert status(tracks, 23.9) == ("▲ The broker does not answer, for 12 s now: the lines have a gap.", "away")
    assert "not answered for 2 min 29 s" in status(tracks, 160.0, paused_at="12:00:00")[0]
    tracks.add([row(12.0, "")])
    assert status(tracks, 12.5)[0] == "… There is no queue to show."


def test_what_is_left_out_is_named_and_counted() -> None:
    assert left_out(["a", "b"], ("b", "a", "")) == ("", "")
    line, names = left_out([f"q{number:03}" for number in range(300)], ("q000", "q299"))
    assert line == "The 2 busiest of 300 queues. Left out: 298 (q001, q002, q003, q004, q005, q006, …)."
    assert names.count(",") == 297


@pytest.mark.parametrize(("name", "shown"), [("<b>", "&lt;b&gt;"), ("inbox." + "x" * 40 + "tail", "inbox.xxxxxxxx…xxxtail")])
def test_names_in_the_legend_are_short_and_no_html(name: str, shown: str) -> None:
    assert short(name) == shown


# ---- figures ---------------------------------------------------------------------------------------------------------------


def test_each_message_to_the_browser_has_a_value_for_every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plotly's widget takes away, in the browser, what a message gives for some lines only: the rates lost their names."""
    figure, sent = queue_figure.empty(2), []
    monkeypatch.setattr(figure, "_send_update_msg", lambda restyle_data, relayout_data, **_: sent.append((restyle_data, relayout_data)))
    tracks = Tracks(sample(100, a=1))
    first = view(tracks, ("a", ""))
    assert queue_figure.draw(figure, first, None, log=False)
    tracks.add(sample(101, a=2, b=7))
    second = view(tracks, ("a", "b"), faults=[("kill", 100.5, None)])
    assert queue_figure.draw(figure, second, first, log=False)
    tracks.add(sample(102, a=2, b=8))
    third = view(tracks, ("a", "b"), faults=[("kill", 100.5, None)], tops=second.tops)
    assert not queue_figure.draw(figure, third, second, log=False)
    assert [sorted(style) for style, _ in sent] == [["name", "selectedpoints", "visible", "x", "y"]] * 2 + [["selectedpoints", "x", "y"]]
    for style, _ in sent:
        for name, values in style.items():
            assert len(values) == len(figure.data), name
            assert name == "selectedpoints" or None not in values, name
    assert [bool(layout) for _, layout in sent] == [True, True, False], "an axis at rest is not sent"
    assert [trace.name for trace in figure.data][:2] == ["a", "b"] and figure.data[-1].name == "consumers"
    assert figure.to_plotly_json()["layout"]["annotations"][0]["text"] == "kill"
    queue_figure.draw(figure, third, third, log=False)
    assert len(sent) == 3, "nothing new: nothing is sent"


def test_a_page_that_is_opened_again_gets_what_is_shown_now() -> None:
    figure = queue_figure.empty(1)
    queue_figure.draw(figure, view(Tracks(sample(100, q=41)), log=True), None, log=True)
    queue_figure.keep(figure)
    state = figure.get_state()
    assert state["_widget_data"][0]["name"] == "q" and state["_widget_data"][0]["y"] == [logarithmic(41)]
    assert "1" in state["_widget_layout"]["yaxis"]["ticktext"]


def test_nothing_in_the_live_chart_leads_off_this_machine() -> None:
    assert "sendChartToCloud" in queue_figure.empty(1)._config["modeBarButtonsToRemove"]


def test_the_picture_of_a_run_has_gaps_marks_and_all_panels_and_is_small() -> None:
    rows = [each for at in range(4000) if not 1000 < at < 1500 for each in sample(at, a=at % 90, b=0)]
    tracks = Tracks(rows)
    figure = flow_figure(tracks, [("kill", 1000.5, 1499.0)], "t", queues=["a", "b"], unacked=True, consumers=True)
    of_a = [trace for trace in figure.data if trace.name == "a"]
    assert len(of_a) == 2 and sum(trace.showlegend is not False for trace in of_a) == 1, "before the gap and after it, one entry"
    assert {trace.name for trace in figure.data} == {"a", "b", "a, unacked", "b, unacked", "publish", "deliver", "ack", "consumers"}
    assert [note.text for note in figure.layout.annotations] == ["kill"]
    assert len(figure.to_json()) < 60_000


def test_gaps_make_no_room_for_names_in_the_legend() -> None:
    whole, broken = Tracks(sample(100, q=1)), Tracks(sample(100, q=1))
    for at in range(101, 121):
        whole.add(sample(at, q=1))
        broken.add(sample(at, q=1) if at % 2 else [row(at, up=False)])
    heights = {flow_figure(tracks, [], "Run", queues=["q"], unacked=True, consumers=True).layout.height for tracks in (whole, broken)}
    assert len(heights) == 1


def test_layers_have_their_points_at_the_same_moments() -> None:
    """Plotly takes a missing point of a layer for 0."""
    tracks = Tracks([*sample(0, a=1, b=5), *sample(1, a=2, b=5), *sample(2, a=2, b=5), *sample(3, a=2, b=6)])
    figure = flow_figure(tracks, [], "t", queues=["a", "b"], rates={}, stacked=True)
    assert figure.data[0].x == figure.data[1].x
    assert figure.data[1].y == (5, 5, 5, 6)


def test_faults_are_spans() -> None:
    class Fault:
        name, target, began, ended = "kill", "broker", 1.0, None

    assert spans_of([Fault()]) == [("kill", 1.0, None)]
