"""Feast's promises of an online store, kept by ours: plain `feast` calls over packed SQLite and packed Redis.

The cases are those of Feast's universal online tests. Left out are those of other stores' own matters:
connection pools (PostgreSQL), credentials (DynamoDB), search of vectors and texts (pgvector, Elasticsearch,
Milvus), and the remote feature server, which is Feast's own.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import redis_server

from matinee.features.store import PackedRedisOnlineStore, PackedSqliteOnlineStore

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import feast
    from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType, types
    from feast.errors import FeatureNameCollisionError
    from feast.repo_config import RegistryConfig, RepoConfig

pytestmark = pytest.mark.filterwarnings("ignore")

SQLITE = "matinee.features.store.PackedSqliteOnlineStore"
REDIS = "matinee.features.store.PackedRedisOnlineStore"

NOW = datetime.now(UTC).replace(microsecond=0)
DRIVER = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
CUSTOMER = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING)
LOCATION = Entity(name="location", join_keys=["location_id"], value_type=ValueType.INT64)
DRIVERS = list(range(5001, 5021))
CUSTOMERS = [f"c{i}" for i in range(20)]


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with redis_server.running(tmp_path_factory.mktemp("redis")) as port:
        yield port


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=redis_server.needs_redis)])
def online(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "sqlite":
        return {"type": SQLITE, "path": "online.db"}
    port = request.getfixturevalue("redis_port")
    return {"type": REDIS, "connection_string": f"127.0.0.1:{port}"}


@pytest.fixture
def store(tmp_path: Path, online: dict[str, Any]) -> Iterator[feast.FeatureStore]:
    opened = feast.FeatureStore(
        config=RepoConfig(
            project=f"p{random.randrange(1 << 60)}",
            provider="local",
            registry=RegistryConfig(path=str(tmp_path / "registry.db"), cache_ttl_seconds=0),
            online_store=online,
            offline_store={"type": "file"},
            entity_key_serialization_version=3,
            repo_path=tmp_path,
        )
    )
    assert isinstance(opened._get_provider().online_store, PackedSqliteOnlineStore | PackedRedisOnlineStore)
    yield opened
    opened.teardown()


def source(folder: Path, frame: pd.DataFrame, **options: Any) -> FileSource:
    path = folder / f"{random.randrange(1 << 60)}.parquet"
    frame.to_parquet(path)
    return FileSource(path=str(path), **{"timestamp_field": "event_timestamp", **options})


def driver_frame() -> pd.DataFrame:
    """Some rows a driver, an hour apart, the latest an hour ago."""
    rows = [
        {
            "driver_id": driver,
            "conv_rate": np.float32(driver % 7 / 10 + hour),
            "acc_rate": np.float32(driver % 3 / 10 + hour),
            "avg_daily_trips": np.int32(driver % 100 + hour),
            "event_timestamp": pd.Timestamp(NOW - timedelta(hours=1 + hour)),
            "created": pd.Timestamp(NOW),
            "driver_metadata": {"made": "up"},
            "driver_config": '{"turns": [1, 2]}',
            "driver_profile": {"name": "n", "age": "9"},
        }
        for driver in DRIVERS
        for hour in range(3)
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def driver_view(folder: Path, name: str = "driver_stats") -> FeatureView:
    return FeatureView(
        name=name,
        entities=[DRIVER],
        schema=[
            Field(name="conv_rate", dtype=types.Float32),
            Field(name="acc_rate", dtype=types.Float32),
            Field(name="avg_daily_trips", dtype=types.Int32),
            Field(name="driver_id", dtype=types.Int64),
            Field(name="driver_metadata", dtype=types.Map),
            Field(name="driver_config", dtype=types.Json),
            Field(name="driver_profile", dtype=types.Struct({"name": types.String, "age": types.String})),
        ],
        source=source(folder, driver_frame(), created_timestamp_column="created"),
        ttl=timedelta(hours=2),
    )


def simple_view(folder: Path, name: str, field: Field, frame: pd.DataFrame, **options: Any) -> FeatureView:
    settings = {"entities": [DRIVER], "ttl": timedelta(days=5), **options}
    return FeatureView(name=name, schema=[field], source=source(folder, frame), **settings)


def one_row(**values: Any) -> pd.DataFrame:
    moment = pd.Timestamp(NOW)
    return pd.DataFrame(
        {"event_timestamp": [moment], "created": [moment], **{k: [v] for k, v in values.items()}}
    )


def filled(store: feast.FeatureStore, folder: Path) -> None:
    """`driver_stats` with a row each of the drivers 1 and 2."""
    store.apply([DRIVER, driver_view(folder)])
    frame = pd.DataFrame(
        {
            "driver_id": [1, 2],
            "conv_rate": [0.5, 0.3],
            "acc_rate": [0.6, 0.4],
            "avg_daily_trips": [4, 5],
            **{name: [None, None] for name in ("driver_metadata", "driver_config", "driver_profile")},
            "event_timestamp": pd.to_datetime([1646263500, 1646263600], utc=True, unit="s"),
            "created": pd.to_datetime([1646263500, 1646263600], unit="s"),
        }
    )
    store.write_to_online_store("driver_stats", frame)


STATS = ["driver_stats:avg_daily_trips", "driver_stats:acc_rate", "driver_stats:conv_rate"]


def check_stats(answer: Any) -> None:
    frame = answer.to_df(include_event_timestamps=True)
    assert frame["driver_id"].tolist() == [1, 2]
    assert frame["avg_daily_trips"].tolist() == [4, 5]
    np.testing.assert_allclose(frame["acc_rate"], [0.6, 0.4], rtol=1e-6)
    for name in ("avg_daily_trips", "acc_rate", "conv_rate"):
        assert frame[f"{name}__ts"].tolist() == [1646263500, 1646263600]


def test_what_is_written_is_read(store: feast.FeatureStore, tmp_path: Path) -> None:
    store.apply([DRIVER, driver_view(tmp_path)])
    row = one_row(
        driver_id=123,
        conv_rate=0.85,
        acc_rate=0.91,
        avg_daily_trips=14,
        driver_metadata={"a": "b"},
        driver_config=None,
        driver_profile={"name": "n", "age": "9"},
    )
    store.write_to_online_store("driver_stats", row)
    features = [
        *STATS,
        "driver_stats:driver_metadata",
        "driver_stats:driver_config",
        "driver_stats:driver_profile",
    ]
    got = store.get_online_features(features=features, entity_rows=[{"driver_id": 123}]).to_dict()
    assert got["avg_daily_trips"] == [14]
    np.testing.assert_allclose([*got["acc_rate"], *got["conv_rate"]], [0.91, 0.85], rtol=1e-6)
    assert got["driver_metadata"] == [{"a": "b"}]
    assert got["driver_config"] == [None]
    assert got["driver_profile"] == [{"name": "n", "age": "9"}]


def test_event_timestamps_come_with_the_values(store: feast.FeatureStore, tmp_path: Path) -> None:
    filled(store, tmp_path)
    check_stats(store.get_online_features(features=STATS, entity_rows=[{"driver_id": 1}, {"driver_id": 2}]))
    assert len(store.list_all_feature_views()) == 1


def test_asynchronous_reads_answer_the_same(store: feast.FeatureStore, tmp_path: Path) -> None:
    filled(store, tmp_path)

    async def read() -> Any:
        await store.initialize()
        rows = [{"driver_id": 1}, {"driver_id": 2}]
        try:
            return await store.get_online_features_async(features=STATS, entity_rows=rows)
        finally:
            await store.close()

    check_stats(asyncio.run(read()))


def test_a_row_of_an_earlier_time_replaces_nothing(store: feast.FeatureStore, tmp_path: Path) -> None:
    hour_ago, later = NOW - timedelta(hours=1), NOW + timedelta(seconds=1)
    times = [pd.Timestamp(each) for each in (hour_ago, NOW, NOW)]
    batch = {"driver_id": [1, 2, 3], "text": ["old", "batch 2", "batch 3"], "event_timestamp": times}
    field = Field(name="text", dtype=types.String)
    store.apply([DRIVER, simple_view(tmp_path, "texts", field, pd.DataFrame(batch))])

    def write(drivers: list[int], texts: list[str], moment: datetime) -> None:
        moments = [pd.Timestamp(moment)] * len(drivers)
        frame = {"driver_id": drivers, "text": texts, "event_timestamp": moments}
        store.write_to_online_store("texts", pd.DataFrame(frame))

    def read() -> list[str]:
        rows = [{"driver_id": driver} for driver in (1, 2, 3)]
        return store.get_online_features(features=["texts:text"], entity_rows=rows).to_dict()["text"]

    write([1], ["now"], NOW)
    write([1, 2, 3], ["ago", "ago 2", "ago 3"], hour_ago)
    assert read() == ["now", "ago 2", "ago 3"]
    write([1], ["later"], later)
    assert read() == ["later", "ago 2", "ago 3"]
    store.materialize(NOW - timedelta(hours=12), NOW + timedelta(minutes=1))
    assert read() == ["later", "batch 2", "batch 3"]


@redis_server.needs_redis
def test_redis_forgets_after_its_time(tmp_path: Path, redis_port: int) -> None:
    config = {"type": REDIS, "connection_string": f"127.0.0.1:{redis_port}", "key_ttl_seconds": 1}
    opened = feast.FeatureStore(
        config=RepoConfig(
            project="forgets",
            provider="local",
            registry=str(tmp_path / "registry.db"),
            online_store=config,
            entity_key_serialization_version=3,
        )
    )
    filled(opened, tmp_path)
    rows = [{"driver_id": 1}]
    assert opened.get_online_features(features=STATS, entity_rows=rows).to_dict()["avg_daily_trips"] == [4]
    time.sleep(1.1)
    got = opened.get_online_features(features=STATS, entity_rows=rows).to_dict()
    assert [got[name] for name in ("avg_daily_trips", "acc_rate", "conv_rate")] == [[None]] * 3


def test_views_that_share_a_source_keep_their_own_features(store: feast.FeatureStore, tmp_path: Path) -> None:
    shared = source(tmp_path, driver_frame())
    trips = Field(name="avg_daily_trips", dtype=types.Int32)
    first = FeatureView(name="first", entities=[DRIVER], schema=[trips], source=shared)
    rate = Field(name="conv_rate", dtype=types.Float32)
    second = FeatureView(name="second", entities=[DRIVER], schema=[trips, rate], source=shared)
    store.apply([DRIVER, first, second])
    store.write_to_online_store("first", one_row(driver_id=1, avg_daily_trips=4))
    store.write_to_online_store("second", one_row(driver_id=1, avg_daily_trips=5, conv_rate=0.5))
    rows = [{"driver_id": 1}]
    with pytest.raises(KeyError):
        store.get_online_features(features=["first:conv_rate"], entity_rows=rows)
    got = store.get_online_features(
        features=["first:avg_daily_trips", "second:avg_daily_trips"],
        entity_rows=rows,
        full_feature_names=True,
    ).to_dict()
    assert (got["first__avg_daily_trips"], got["second__avg_daily_trips"]) == ([4], [5])


def test_deleting_a_view_leaves_the_others(store: feast.FeatureStore, tmp_path: Path) -> None:
    values = np.random.default_rng(0).random(len(DRIVERS))
    frame = pd.DataFrame(
        {"driver_id": DRIVERS, "value": values, "event_timestamp": [pd.Timestamp(NOW)] * len(DRIVERS)}
    )
    simple = simple_view(tmp_path, "simple", Field(name="value", dtype=types.Float64), frame)
    stats = driver_view(tmp_path)
    store.apply([DRIVER, simple, stats])
    store.materialize(NOW - timedelta(days=1), NOW + timedelta(days=1))

    def read() -> list[float | None]:
        rows = [{"driver_id": driver} for driver in DRIVERS]
        return store.get_online_features(features=["simple:value"], entity_rows=rows).to_dict()["value"]

    assert read() == values.tolist()
    store.apply([simple], objects_to_delete=[stats], partial=False)
    assert read() == values.tolist()
    store.apply([], objects_to_delete=[simple], partial=False)
    store.apply([simple])
    assert read() == [None] * len(DRIVERS)


def customer_frame() -> pd.DataFrame:
    moments = [pd.Timestamp(NOW - timedelta(hours=1))] * 20
    balances = np.arange(20, dtype=np.float32) / 3
    return pd.DataFrame({"customer_id": CUSTOMERS, "balance": balances, "event_timestamp": moments})


def order_frame() -> pd.DataFrame:
    moments = [pd.Timestamp(NOW - timedelta(hours=1))] * 20
    won = np.arange(20, dtype=np.int32) % 2
    return pd.DataFrame(
        {"customer_id": CUSTOMERS, "driver_id": DRIVERS, "won": won, "event_timestamp": moments}
    )


def location_frame() -> pd.DataFrame:
    moments = [pd.Timestamp(NOW - timedelta(hours=1))] * 6
    temperatures = np.arange(10, 16, dtype=np.int32)
    return pd.DataFrame({"location_id": range(6), "temperature": temperatures, "event_timestamp": moments})


def all_views(folder: Path) -> dict[str, FeatureView]:
    """One key, two keys, no key, and a view that is read under two names."""
    moments = [pd.Timestamp(NOW - timedelta(hours=hour)) for hour in (2, 1)]
    rides = pd.DataFrame({"num_rides": np.int32([7, 8]), "event_timestamp": moments})
    balance = Field(name="balance", dtype=types.Float32)
    won, temperature = Field(name="won", dtype=types.Int32), Field(name="temperature", dtype=types.Int32)
    return {
        "driver": driver_view(folder),
        "customer": simple_view(folder, "customer", balance, customer_frame(), entities=[CUSTOMER]),
        "order": simple_view(folder, "order", won, order_frame(), entities=[CUSTOMER, DRIVER]),
        "location": simple_view(folder, "location", temperature, location_frame(), entities=[LOCATION]),
        "global": simple_view(
            folder, "global", Field(name="num_rides", dtype=types.Int32), rides, entities=[]
        ),
    }


@pytest.mark.parametrize("full", [True, False])
def test_views_of_several_entities_and_of_none_are_read_together(
    store: feast.FeatureStore, tmp_path: Path, full: bool
) -> None:
    views = all_views(tmp_path)
    service = FeatureService(
        name="all",
        features=[views["driver"][["conv_rate"]], views["customer"], views["order"], views["global"]],
    )
    store.apply([DRIVER, CUSTOMER, LOCATION, *views.values(), service])
    store.materialize(NOW - timedelta(days=1), NOW)
    pairs = list(zip(DRIVERS, CUSTOMERS, strict=True))
    draw = random.Random(0)
    chosen = draw.choices(pairs, k=12)  # some twice
    rows = [{"driver_id": driver, "customer_id": customer} for driver, customer in chosen]
    rows.append({"driver_id": 0, "customer_id": "nobody"})
    refs = ["driver_stats:conv_rate", "customer:balance", "order:won", "global:num_rides"]
    places = [DRIVERS.index(driver) for driver, _ in chosen]
    latest = driver_frame().sort_values("event_timestamp").groupby("driver_id").last()["conv_rate"]
    want = {
        "driver_stats__conv_rate": [latest[driver].item() for driver, _ in chosen],
        "customer__balance": customer_frame()["balance"].iloc[places].tolist(),
        "order__won": order_frame()["won"].iloc[places].tolist(),
        "global__num_rides": [8] * 12,
    }
    for asked in (refs, store.get_feature_service("all")):
        got = store.get_online_features(features=asked, entity_rows=rows, full_feature_names=full).to_dict()
        assert len(got) == 6
        for name, values in want.items():
            missing = 8 if name == "global__num_rides" else None
            assert got[name if full else name.split("__")[1]] == [*values, missing]


def test_one_view_is_read_under_two_names(store: feast.FeatureStore, tmp_path: Path) -> None:
    location = all_views(tmp_path)["location"]
    service = FeatureService(
        name="journey",
        features=[
            location.with_name(name).with_join_key_map({"location_id": f"{name}_id"})
            for name in ("origin", "destination")
        ],
    )
    store.apply([LOCATION, location, service])
    store.materialize(NOW - timedelta(days=1), NOW)
    rows = [{"origin_id": i % 6, "destination_id": (i + 2) % 6} for i in range(8)]
    got = store.get_online_features(features=service, entity_rows=rows, full_feature_names=True).to_dict()
    assert got["origin__temperature"] == [10 + row["origin_id"] for row in rows]
    assert got["destination__temperature"] == [10 + row["destination_id"] for row in rows]
    with pytest.raises(FeatureNameCollisionError):
        store.get_online_features(features=service, entity_rows=rows)


@pytest.mark.parametrize("inferred", [True, False])
def test_online_and_offline_agree_over_two_materializations(
    store: feast.FeatureStore, tmp_path: Path, inferred: bool
) -> None:
    hours = (4, 3, 2, 1)
    frame = pd.DataFrame(
        {
            "driver_id": [1, 2, 1, 3],
            "value": [0.1, None, 0.3, 4.0],
            "event_timestamp": [pd.Timestamp(NOW - timedelta(hours=hour)) for hour in hours],
            "created": [pd.Timestamp(NOW)] * 4,
        }
    )
    fields = [] if inferred else [Field(name="value", dtype=types.Float64)]
    view = FeatureView(
        name="consistent",
        entities=[DRIVER],
        schema=[Field(name="driver_id", dtype=types.Int64), *fields],
        ttl=timedelta(days=5),
        source=source(tmp_path, frame, created_timestamp_column="created"),
    )
    store.apply([DRIVER, view])

    def check(driver: int, moment: datetime, want: float | None) -> None:
        asked = {"features": ["consistent:value"], "full_feature_names": True}
        online = store.get_online_features(entity_rows=[{"driver_id": driver}], **asked).to_dict()
        entity = pd.DataFrame({"driver_id": [driver], "event_timestamp": [pd.Timestamp(moment)]})
        offline = store.get_historical_features(entity_df=entity, **asked).to_df()["consistent__value"]
        found = offline.tolist()[0] if len(offline) else None
        missing = found is None or math.isnan(found)
        assert online["consistent__value"] == [want]
        assert (None if missing else found) == want

    middle = NOW - timedelta(hours=2, minutes=30)
    store.materialize(NOW - timedelta(hours=5), middle, feature_views=["consistent"])
    for driver, want in ((1, 0.1), (2, None), (3, None)):
        check(driver, middle, want)
    store.materialize_incremental(NOW, feature_views=["consistent"])
    for driver, want in ((1, 0.3), (2, None), (3, 4.0)):
        check(driver, NOW, want)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_pushed_features_are_read(store: feast.FeatureStore, tmp_path: Path, asynchronous: bool) -> None:
    pushed = feast.PushSource(name="pushes", batch_source=source(tmp_path, location_frame()))
    view = feast.StreamFeatureView(
        name="pushed",
        entities=[LOCATION],
        schema=[Field(name="temperature", dtype=types.Int32), Field(name="location_id", dtype=types.Int64)],
        source=pushed,
        ttl=timedelta(days=2),
    )
    store.apply([LOCATION, view])
    asked = {"features": ["pushed:temperature"], "entity_rows": [{"location_id": 1}]}
    row = one_row(location_id=1, temperature=4)

    async def push_and_read() -> Any:
        await store.push_async("pushes", row)
        return await store.get_online_features_async(**asked)

    if asynchronous:
        got = asyncio.run(push_and_read()).to_dict()
    else:
        store.push("pushes", row)
        got = store.get_online_features(**asked).to_dict()
    assert (got["location_id"], got["temperature"]) == ([1], [4])


MOMENT = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
VALUES = {
    "Int32": [1, 2, 3],
    "Int64": [1, 2**40, 3],
    "Float32": [1.5, 2.5, 3.5],
    "Float64": [0.1, 2.0, 3.0],
    "String": ["a", "b", "c"],
    "Bool": [True, False, True],
    "UnixTimestamp": [MOMENT, MOMENT + timedelta(days=1), MOMENT],
    "Bytes": [b"a", b"c", b"\0b"],
}
PYTHON = {"Int": int, "Floa": float, "Str": str, "Boo": bool, "Unix": datetime, "Byt": bytes}


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("name", sorted(VALUES))
def test_values_keep_their_type(
    store: feast.FeatureStore, tmp_path: Path, name: str, listed: bool, empty: bool
) -> None:
    values: list[Any] = [[each] * 2 for each in VALUES[name]] if listed else list(VALUES[name])
    if empty and listed:
        values[-1] = []
    moments = [pd.Timestamp(NOW - timedelta(hours=3 - hour)) for hour in range(3)]
    frame = pd.DataFrame({"driver_id": [1, 1, 1], "value": values, "event_timestamp": moments})
    base = getattr(types, name)
    view = simple_view(
        tmp_path, "typed", Field(name="value", dtype=types.Array(base) if listed else base), frame
    )
    store.apply([DRIVER, view])
    if name == "UnixTimestamp" or (listed and empty):
        store.write_to_online_store("typed", frame)
    else:
        store.materialize(NOW - timedelta(days=1), NOW)
    (got,) = store.get_online_features(features=["typed:value"], entity_rows=[{"driver_id": 1}]).to_dict()[
        "value"
    ]
    assert got == values[-1]
    (kind,) = (kind for prefix, kind in PYTHON.items() if name.startswith(prefix))
    for each in got if listed else [got]:
        assert type(each) is kind


OTHERS: list[tuple[Any, Any]] = [
    (types.Map, {"a": {"b": "c"}}),
    (types.Json, '{"a": [1, 2]}'),
    (types.Set(types.Int64), {1, 2}),
    (types.Struct({"a": types.String}), {"a": "b"}),
    (types.Array(types.Array(types.Int64)), [[1], [2, 3]]),
    (types.PdfBytes, b"%PDF"),
]


@pytest.mark.parametrize(("dtype", "value"), OTHERS, ids=[str(dtype) for dtype, _ in OTHERS])
def test_other_types_come_back_as_they_do_from_feasts_own_store(
    store: feast.FeatureStore, tmp_path: Path, dtype: Any, value: Any
) -> None:
    own = feast.FeatureStore(
        config=RepoConfig(
            project="own",
            provider="local",
            registry=str(tmp_path / "own.db"),
            online_store={"type": "sqlite", "path": str(tmp_path / "own-online.db")},
            entity_key_serialization_version=3,
        )
    )
    got = []
    for opened in (store, own):
        frame = pd.DataFrame({"driver_id": [1], "event_timestamp": [pd.Timestamp(NOW)]})
        opened.apply([DRIVER, simple_view(tmp_path, "typed", Field(name="value", dtype=dtype), frame)])
        opened.write_to_online_store("typed", one_row(driver_id=1, value=value))
        rows = [{"driver_id": 1}, {"driver_id": 2}]
        got.append(opened.get_online_features(features=["typed:value"], entity_rows=rows).to_dict()["value"])
    assert got[0] == got[1]
    assert got[0][0] is not None
    assert got[0][1] is None


def test_a_changed_view_serves_what_is_left_of_older_rows(store: feast.FeatureStore, tmp_path: Path) -> None:
    fields = {name: Field(name=name, dtype=types.Int64) for name in ("kept", "gone", "new")}
    frame = one_row(driver_id=1, kept=1, gone=2, new=3)

    def view(*names: str) -> FeatureView:
        schema = [fields[name] for name in names]
        return FeatureView(name="v", entities=[DRIVER], schema=schema, source=source(tmp_path, frame))

    store.apply([DRIVER, view("kept", "gone")])
    store.write_to_online_store("v", frame[["driver_id", "kept", "gone", "event_timestamp"]])
    store.apply([view("new", "kept")])

    def read() -> dict[str, Any]:
        asked = ["v:new", "v:kept"]
        return store.get_online_features(features=asked, entity_rows=[{"driver_id": 1}]).to_dict()

    assert read() == {"driver_id": [1], "new": [None], "kept": [1]}
    store.write_to_online_store("v", frame[["driver_id", "kept", "new", "event_timestamp"]])
    assert read() == {"driver_id": [1], "new": [3], "kept": [1]}


def test_the_names_asked_for_are_left_as_they_are(store: feast.FeatureStore, tmp_path: Path) -> None:
    filled(store, tmp_path)
    provider = store._get_provider()
    view = store.get_feature_view("driver_stats")
    key = feast.protos.feast.types.EntityKey_pb2.EntityKey(
        join_keys=["driver_id"],
        entity_values=[feast.protos.feast.types.Value_pb2.Value(int64_val=1)],
    )
    names = ["acc_rate"]
    ((moment, values),) = provider.online_read(store.config, view, [key], names)
    assert names == ["acc_rate"] == list(values)
    assert moment == datetime.fromtimestamp(1646263500, UTC)
    ((_, everything),) = provider.online_read(store.config, view, [key])
    assert set(everything) == {field.name for field in view.features}
    assert provider.online_read(store.config, view, []) == []


def test_teardown_deletes_everything(store: feast.FeatureStore, tmp_path: Path) -> None:
    filled(store, tmp_path)
    rows = store._get_provider().online_store.rows(store.config)
    assert rows.generation() is not None
    store.teardown()
    assert rows.generation() is None
    with suppress(FileNotFoundError):
        assert not (tmp_path / "online.db").exists()
    filled(store, tmp_path)
    check_stats(store.get_online_features(features=STATS, entity_rows=[{"driver_id": 1}, {"driver_id": 2}]))
