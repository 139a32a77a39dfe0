"""The home's own views recomputed from a lake, where the stream's order of arrival is played out."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import served_home

from matinee.config import Settings
from matinee.events import lake
from matinee.features.history_rows import history_rows
from matinee.features.titles import genres_of
from matinee.features.transforms import VIEWS, rows_of, watches_of
from matinee.features.trust import served
from matinee.features.trust.consistency import Consistency
from matinee.features.trust.recompute import consistency, counted, recomputers
from matinee.schema import (
    LAKE_SCHEMA,
    TIMESTAMP,
    Aggregate,
    AggregateView,
    EventType,
    Expectation,
    Function,
    Window,
)

START = served_home.START
SECOND = 1_000_000
SETTLE = 5 * SECOND
HOUR = 3600 * SECOND

ENGAGEMENT = AggregateView(
    name="engagement",
    key="member_id",
    types=(EventType.PLAY, EventType.RATE, EventType.CLICK),
    lateness=timedelta(hours=1),
    aggregates=(
        Aggregate(
            name="plays",
            function=Function.COUNT,
            types=(EventType.PLAY,),
            window=Window.sliding(timedelta(days=1), timedelta(hours=1)),
            expect=Expectation(low=0),
        ),
        Aggregate(
            name="stars",
            function=Function.MEAN,
            column="value",
            types=(EventType.RATE,),
            window=Window.unbounded(),
        ),
        Aggregate(
            name="titles",
            function=Function.LAST_N,
            column="title_id",
            n=5,
            types=(EventType.PLAY,),
            window=Window.unbounded(),
        ),
    ),
)


def events(seed: int = 3, count: int = 400) -> pa.Table:
    """Events of ten members over a day, one in five arriving up to two hours after its time."""
    random = np.random.default_rng(seed)
    at = np.sort(START + random.integers(0, 24 * 3600, count) * SECOND)
    delay = np.where(random.random(count) < 0.2, random.integers(0, 7200, count), 1) * SECOND
    came = np.argsort(at + delay, kind="stable")
    at, ingest = at[came], (at + delay)[came]
    partition = random.integers(0, 2, count)
    kind = np.array(["play", "rate", "click", "search"])[random.integers(0, 4, count)]
    offset = np.zeros(count, dtype=np.int64)
    newest, late = {0: 0, 1: 0}, np.zeros(count, dtype=np.int64)
    for i in range(count):
        offset[i] = (partition[:i] == partition[i]).sum()
        newest[partition[i]] = max(newest[partition[i]], int(at[i]))
        late[i] = newest[partition[i]] - at[i]
    rows = [
        {
            "schema_version": 1,
            "event_id": f"e{i}",
            "type": kind[i],
            "member_id": f"m{2 * int(random.integers(0, 5)) + int(partition[i])}",
            "title_id": None if kind[i] == "search" else f"t{int(random.integers(0, 8))}",
            "value": float(random.integers(1, 6)) if kind[i] == "rate" else None,
        }
        for i in range(count)
    ]
    table = pa.Table.from_pylist(rows, schema=LAKE_SCHEMA.remove(LAKE_SCHEMA.get_field_index("late_by")))
    columns = {name: table[name] for name in table.column_names} | {
        "event_time": pa.array(at).cast(TIMESTAMP),
        "ingest_time": pa.array(ingest).cast(TIMESTAMP),
        "partition": pa.array(partition, pa.int32()),
        "offset": pa.array(offset),
        "late_by": pa.array(late),
    }
    return pa.table([columns[name] for name in LAKE_SCHEMA.names], schema=LAKE_SCHEMA)


def at_moment(table: pa.Table, moment: int) -> dict[str, pa.Table]:
    """Each view's latest rows, given what had arrived by a moment."""
    seen = table.filter(pa.array(table["ingest_time"].cast(pa.int64()).to_numpy() <= moment))
    genres = genres_of(served_home.catalogue())
    rows = {
        view.name: view.transform(watches_of(seen), rows_of(seen, view, latest=True), genres)
        for view in VIEWS.values()
    }
    return rows | {ENGAGEMENT.name: history_rows(ENGAGEMENT, seen, times="latest")}


def serve(settings: Settings, table: pa.Table, moments: list[int], **wrong: Any) -> None:
    """Log a read of every key of every view at each moment, as a store a second behind would give it."""
    known = recomputers(settings, [ENGAGEMENT])
    for number, moment in enumerate(moments):
        for name, rows in at_moment(table, moment - number % 5 * SECOND).items():
            key = known[name].key
            features = {
                c: rows.schema.field(c).type for c in rows.column_names if c not in (key, served.TIME)
            }
            reads = [
                served.Served(
                    request_id=f"{moment}-{i}",
                    view=name,
                    key=row.pop(key),
                    read_time=moment,
                    event_timestamp=stamp.value,
                    values={k: v for k, v in row.items() if k != served.TIME} | wrong.get(name, {}),
                )
                for i, (row, stamp) in enumerate(zip(rows.to_pylist(), rows[served.TIME], strict=True))
            ]
            if reads:
                served.write(settings.paths.served, name, served.table(reads, key, features))


@pytest.fixture
def home(settings: Settings) -> Settings:
    served_home.catalogue().write(settings.paths.catalogue)
    lake.write_part(settings.paths.events, events(), cluster="c")
    return settings


MOMENTS = [START + hours * HOUR + 7 * SECOND for hours in (2, 5, 9, 14, 20, 30)]
NOW = START + 40 * HOUR


def look(settings: Settings) -> dict[str, Consistency]:
    found = consistency(settings, aggregates=[ENGAGEMENT], settle_s=SETTLE / SECOND, now=NOW)
    return {each.view: each for each in found}


def test_what_a_stream_served_agrees_however_events_came(home: Settings) -> None:
    serve(home, events(), MOMENTS)
    found = look(home)
    assert found.keys() == {*VIEWS, "engagement"}
    for view in found.values():
        assert view.compared > 20
        assert view.compared + view.unsettled + view.empty == view.rows
        assert view.agreement["equal"].to_pylist() == [view.compared] * view.agreement.num_rows


def test_one_wrong_feature_is_found_in_its_view_alone(home: Settings) -> None:
    serve(home, events(), MOMENTS, engagement={"plays": 1_000}, member_affinity={"affinity": [0.5]})
    found = look(home)
    shares = {
        name: dict(zip(*view.agreement.select(["feature", "share"]), strict=True))
        for name, view in found.items()
    }
    wrong = {
        (name, feature.as_py())
        for name, held in shares.items()
        for feature, share in held.items()
        if share.as_py() < 1
    }
    assert wrong == {("engagement", "plays"), ("member_affinity", "affinity")}


def test_reads_the_lake_may_not_know_yet_are_left_out(home: Settings) -> None:
    serve(home, events(), [MOMENTS[0], NOW - SECOND])
    times = {view.newest for view in look(home).values()}
    assert times == {MOMENTS[0]}


def test_without_a_log_there_is_nothing_to_say(settings: Settings) -> None:
    assert consistency(settings) == []


def test_late_events_and_other_types_make_no_rows() -> None:
    table = events()
    kept = counted(ENGAGEMENT, table)
    assert 0 < kept.num_rows < table.num_rows
    assert set(kept["type"].to_pylist()) == {"play", "rate", "click"}
    assert max(kept["late_by"].to_pylist()) <= HOUR
    assert set(kept["event_time"].to_pylist()) == set(
        history_rows(ENGAGEMENT, table)[served.TIME].to_pylist()
    )


def test_a_lake_that_forgot_when_events_came_disagrees(settings: Settings) -> None:
    """The same reads are wrong once late events seem to have been there all along: arrival matters."""
    served_home.catalogue().write(settings.paths.catalogue)
    table = events()
    early = pa.array(np.full(table.num_rows, START)).cast(TIMESTAMP)
    place = table.schema.get_field_index("ingest_time")
    lake.write_part(
        settings.paths.events, table.set_column(place, table.schema.field(place), early), cluster="c"
    )
    serve(settings, table, MOMENTS)
    for view in look(settings).values():
        assert min(view.agreement["share"].to_pylist()) < 1
