import pyarrow as pa
import pytest

from matinee.schema import EVENT_SCHEMA
from matinee.training.snapshot import COLUMNS, describe

ROWS = [
    {"event_id": "e1", "type": "rate", "member_id": "m", "title_id": "t", "event_time": 5, "value": 4.0},
    {"event_id": "e2", "type": "search", "member_id": "m", "title_id": None, "event_time": 9, "value": None},
    {"event_id": "e3", "type": "play", "member_id": "n", "title_id": "", "event_time": 9, "value": 0.0},
]


def table(rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=pa.schema([EVENT_SCHEMA.field(name) for name in COLUMNS]))


def test_it_counts_and_bounds():
    found = describe(table(ROWS))
    assert (found.events, found.first, found.last) == (3, 5, 9)
    assert found.name == f"3-{found.digest[:16]}"


def test_the_order_of_arrival_and_chunks_do_not_count():
    chunked = pa.concat_tables([table(ROWS[2:]), table(ROWS[:2])])
    assert describe(chunked) == describe(table(ROWS))


@pytest.mark.parametrize(
    "change", [{"value": 3.0}, {"value": None}, {"title_id": None}, {"member_id": "mt"}, {"event_time": 6}]
)
def test_any_change_counts(change: dict):
    assert describe(table([{**ROWS[0], **change}, *ROWS[1:]])).digest != describe(table(ROWS)).digest


def test_text_does_not_flow_from_row_to_row():
    first = table([{**ROWS[0], "title_id": "ab"}, {**ROWS[2], "title_id": "c"}])
    second = table([{**ROWS[0], "title_id": "a"}, {**ROWS[2], "title_id": "bc"}])
    assert describe(first).digest != describe(second).digest


def test_an_empty_lake_has_a_snapshot():
    assert (describe(table([])).events, describe(table([])).last) == (0, 0)
