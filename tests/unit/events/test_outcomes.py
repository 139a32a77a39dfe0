from __future__ import annotations

import numpy as np
import pyarrow as pa
from contracts.model_contract import catalogue

from matinee.events.outcomes import outcomes
from matinee.schema import TIMESTAMP


def events(*rows: tuple[int, str, str, str, str, float | None]) -> pa.Table:
    names = ("event_time", "type", "member_id", "session", "title_id", "value")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    table = pa.table({**columns, "value": pa.array(columns["value"], pa.float64())})
    return table.set_column(0, "event_time", table["event_time"].cast(TIMESTAMP))


LOG = events(
    (1, "impression", "m0", "s", "t3", None),
    (1, "impression", "m0", "s", "t4", None),
    (2, "click", "m0", "s", "t3", None),
    (3, "play", "m0", "s", "t3", None),
    (9, "stop", "m0", "s", "t3", 60.0),
    (20, "impression", "m1", "s2", "t3", None),
    (21, "click", "m1", "s2", "t3", None),
    (30, "play", "m1", "s3", "t3", None),
    (40, "stop", "m1", "s3", "t3", 120.0),
    (50, "impression", "stranger", "s4", "t3", None),
    (51, "impression", "m0", "s5", "not offered", None),
)


def test_a_row_tells_what_came_of_a_title_in_a_session() -> None:
    found = outcomes(LOG, catalogue(), ["m0", "m1"])
    np.testing.assert_array_equal(found.member, [0, 0, 1, 1])
    np.testing.assert_array_equal(found.title, [3, 4, 3, 3])
    np.testing.assert_array_equal(found.time, [1, 1, 20, 30])
    np.testing.assert_array_equal(found.ended, [9, 9, 21, 40])
    np.testing.assert_array_equal(found.click, np.float32([1, 0, 1, np.nan]))
    np.testing.assert_array_equal(found.play, np.float32([1, 0, 0, np.nan]))
    np.testing.assert_array_equal(found.completion, np.float32([0.5, np.nan, np.nan, 1]))


def test_no_events() -> None:
    assert len(outcomes(LOG.slice(0, 0), catalogue(), ["m0"])) == 0


def test_a_click_tells_whether_a_play_came_of_it_though_nobody_noted_the_title_as_shown() -> None:
    log = events(
        (1, "click", "m0", "s", "t3", None),
        (2, "click", "m0", "s", "t4", None),
        (3, "play", "m0", "s", "t4", None),
    )
    found = outcomes(log, catalogue(), ["m0"])
    np.testing.assert_array_equal(found.play, np.float32([0, 1]))
    np.testing.assert_array_equal(found.click, np.float32([np.nan, np.nan]))


def test_a_play_of_which_nothing_came_to_be_known_is_left_out() -> None:
    assert len(outcomes(events((1, "play", "m0", "s", "t3", None)), catalogue(), ["m0"])) == 0
