"""Feast's universal cases for offline stores, in our words, against ParquetOfflineStore.

Where a case of Feast's leaves the answer to the store, ours is said in the test's name. Left out: entities
from an SQL query (there is no SQL engine; refused, see below), the Great Expectations profilers and their
command line (the package is not a dependency; the hook they use is tested), remote offline servers,
BigQuery, Redshift, Snowflake, Delta and Iceberg sources (other stores' formats), and monitoring metrics
(Feast computes them itself where a store has none).
"""

from datetime import UTC, datetime, timedelta

import prometheus_client  # noqa: F401  before feast, which else makes every counter a file shared by name

# isort: split
import feast
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast.data_source import PushMode
from feast.dqm.errors import ValidationFailed
from feast.dqm.profilers.profiler import Profile, Profiler, ValidationReport
from feast.errors import RequestDataNotFoundInEntityDfException, SavedDatasetLocationAlreadyExists
from feast.feature_logging import LOG_TIMESTAMP_FIELD, FeatureServiceLoggingSource, LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination, SavedDatasetFileStorage
from feast.on_demand_feature_view import on_demand_feature_view
from feast.repo_config import MaterializationConfig, RepoConfig
from feast.types import Array, Bool, Float32, Float64, Int32, Int64, String, UnixTimestamp
from s3_server import BUCKET, s3_server

from matinee.errors import InvalidInput, NotFound, Unavailable
from matinee.features import offline
from matinee.features.store import ParquetOfflineStore

# Feast warns of what it will change in itself.
pytestmark = pytest.mark.filterwarnings("ignore")

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DRIVER = feast.Entity(name="driver", join_keys=["driver_id"], value_type=feast.ValueType.INT64)
CUSTOMER = feast.Entity(name="customer", join_keys=["customer_id"], value_type=feast.ValueType.INT64)
LOCATION = feast.Entity(name="location", join_keys=["location_id"], value_type=feast.ValueType.INT64)


@pytest.fixture
def open_store(tmp_path):
    """A Feast store with ours offline and its own SQLite online; arguments go to the offline settings."""

    def opened(**offline):
        settings = offline.pop("config", {})
        return feast.FeatureStore(
            config=RepoConfig(
                project="universal",
                provider="local",
                registry=str(tmp_path / "registry.db"),
                online_store={"type": "sqlite", "path": str(tmp_path / "online.db")},
                offline_store={"type": "matinee.features.store.ParquetOfflineStore", **offline},
                entity_key_serialization_version=3,
                repo_path=tmp_path,
                **settings,
            )
        )

    return opened


@pytest.fixture
def store(open_store):
    return open_store()


@pytest.fixture
def source(tmp_path):
    """Writes a frame and declares it as a source."""

    def declared(name, frame, **options):
        path = tmp_path / f"{name}.parquet"
        frame.to_parquet(path)
        options = {"timestamp_field": "event_timestamp", "created_timestamp_column": "created", **options}
        return feast.FileSource(name=name, path=str(path), **options)

    return declared


def hourly(keys, values, *, hours=48, seed=0):
    """A frame with a row an hour for each key."""
    draw = np.random.default_rng(seed)
    times = [NOW - HOUR * back for back in range(hours, 0, -1)]
    (name, members), rows = next(iter(keys.items())), []
    for member in members:
        for time in times:
            rows.append({name: member, "event_timestamp": time, "created": time + HOUR})
    frame = pd.DataFrame(rows)
    for value, kind in values.items():
        frame[value] = draw.integers(0, 1000, len(frame)).astype(kind)
    return frame


def as_of(entity, frame, keys, columns, *, ttl=None, time="event_timestamp", created="created"):
    """The rule, one row at a time. keys: column of the entity frame to column of the frame."""
    answer = []
    for _, asked in entity.iterrows():
        past = frame[frame[time] <= asked["event_timestamp"]]
        for key, held in keys.items():
            past = past[past[held] == asked[key]]
        if ttl is not None:
            past = past[past[time] >= asked["event_timestamp"] - ttl]
        past = past.sort_values([time, created] if created else [time], kind="stable")
        answer.append([past.iloc[-1][each] if len(past) else None for each in columns])
    return answer


def same(got, want):
    assert [list(row) for row in got] == [
        [None if each is None else pytest.approx(each) for each in row] for row in want
    ]


def values_of(frame, columns):
    return frame[columns].astype(object).where(frame[columns].notna(), None).to_numpy().tolist()


class World:
    """The universal data: drivers, customers, orders of both, places, figures of all, a renamed column."""

    def __init__(self, source):
        draw = np.random.default_rng(5)
        self.drivers = hourly({"driver_id": [5001, 5002, 5003]}, {"conv_rate": "float32", "trips": "int32"})
        self.customers = hourly({"customer_id": [1001, 1002]}, {"balance": "float32"}, seed=1)
        self.places = hourly({"location_id": [1, 2, 3]}, {"temperature": "int32"}, seed=2)
        self.totals = hourly({"all": [0]}, {"rides": "int32"}, seed=3).drop(columns="all")
        self.renamed = hourly({"all": [0]}, {"column_name": "float64"}, seed=4).drop(columns="all")
        self.orders = pd.DataFrame(
            {
                "order_id": range(12),
                "driver_id": draw.choice([5001, 5002, 5003, 9999], 12),
                "customer_id": draw.choice([1001, 1002], 12),
                "origin_id": draw.choice([1, 2, 3], 12),
                "destination_id": draw.choice([1, 2, 3], 12),
                "order_is_success": draw.choice([0, 1], 12).astype("int32"),
                "event_timestamp": [NOW - HOUR * 60 * share for share in draw.random(12)],
            }
        )
        self.entity = self.orders.drop(columns="order_is_success").sample(frac=1, random_state=1)
        self.entity = pd.concat([self.entity, self.entity.head(3)], ignore_index=True)
        self.entity["val_to_add"] = range(len(self.entity))
        ttl = timedelta(days=1)
        self.driver_view = feast.FeatureView(
            name="driver_stats",
            entities=[DRIVER],
            schema=[feast.Field(name="conv_rate", dtype=Float32), feast.Field(name="trips", dtype=Int32)],
            ttl=ttl,
            source=source("drivers", self.drivers),
        )
        self.customer_view = feast.FeatureView(
            name="customer_profile",
            entities=[CUSTOMER],
            schema=[feast.Field(name="balance", dtype=Float32)],
            ttl=ttl,
            source=source("customers", self.customers),
        )
        self.order_view = feast.FeatureView(
            name="order",
            entities=[DRIVER, CUSTOMER],
            schema=[feast.Field(name="order_is_success", dtype=Int32)],
            ttl=ttl,
            source=source("orders", self.orders, created_timestamp_column=""),
        )
        self.place_view = feast.FeatureView(
            name="location_stats",
            entities=[LOCATION],
            schema=[feast.Field(name="temperature", dtype=Int32)],
            ttl=ttl,
            source=source("places", self.places),
        )
        self.total_view = feast.FeatureView(
            name="global_stats",
            entities=[],
            schema=[feast.Field(name="rides", dtype=Int32)],
            ttl=ttl,
            source=source("totals", self.totals),
        )
        self.renamed_view = feast.FeatureView(
            name="field_mapping",
            entities=[],
            schema=[feast.Field(name="feature_name", dtype=Float64)],
            ttl=ttl,
            source=source("renamed", self.renamed, field_mapping={"column_name": "feature_name"}),
        )
        request = feast.RequestSource(name="request", schema=[feast.Field(name="val_to_add", dtype=Int32)])

        @on_demand_feature_view(
            name="conv_rate_plus",
            sources=[self.driver_view[["conv_rate"]], request],
            schema=[
                feast.Field(name="plus_100", dtype=Float64),
                feast.Field(name="plus_val_to_add", dtype=Float64),
                feast.Field(name="plus_100_rounded", dtype=Int32),
            ],
            mode="pandas",
        )
        def conv_rate_plus(frame: pd.DataFrame) -> pd.DataFrame:
            plus = frame["conv_rate"] + 100
            return pd.DataFrame(
                {
                    "plus_100": plus.astype("float64"),
                    "plus_val_to_add": (frame["conv_rate"] + frame["val_to_add"]).astype("float64"),
                    "plus_100_rounded": plus.fillna(0).round().astype("int32"),
                }
            )

        self.on_demand = conv_rate_plus
        self.objects = [
            DRIVER,
            CUSTOMER,
            LOCATION,
            self.driver_view,
            self.customer_view,
            self.order_view,
            self.place_view,
            self.total_view,
            self.renamed_view,
            self.on_demand,
        ]

    def expected(self, entity, *, ttl=timedelta(days=1)):
        """Per view the values that the rule gives."""
        both = {"driver_id": "driver_id", "customer_id": "customer_id"}
        return {
            "driver_stats": as_of(
                entity, self.drivers, {"driver_id": "driver_id"}, ["conv_rate", "trips"], ttl=ttl
            ),
            "customer_profile": as_of(
                entity, self.customers, {"customer_id": "customer_id"}, ["balance"], ttl=ttl
            ),
            "order": as_of(entity, self.orders, both, ["order_is_success"], ttl=ttl, created=None),
            "global_stats": as_of(entity, self.totals, {}, ["rides"], ttl=ttl),
            "field_mapping": as_of(entity, self.renamed, {}, ["column_name"], ttl=ttl),
        }


FEATURES = {
    "driver_stats": ["conv_rate", "trips"],
    "customer_profile": ["balance"],
    "order": ["order_is_success"],
    "global_stats": ["rides"],
    "field_mapping": ["feature_name"],
}
REFS = [f"{view}:{name}" for view, names in FEATURES.items() for name in names]


@pytest.fixture
def world(source):
    return World(source)


def labels(view, names, full):
    return [f"{view}__{name}" if full else name for name in names]


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("as_arrow", [True, False])
def test_views_of_all_kinds_join_at_once_and_no_entity_row_is_dropped(store, world, full, as_arrow):
    store.apply(world.objects)
    refs = [*REFS, "conv_rate_plus:plus_100", "conv_rate_plus:plus_val_to_add"]
    job = store.get_historical_features(entity_df=world.entity, features=refs, full_feature_names=full)
    got = job.to_arrow().to_pandas() if as_arrow else job.to_df()
    pd.testing.assert_frame_equal(got[world.entity.columns], world.entity, check_dtype=False)
    for view, want in world.expected(world.entity).items():
        same(values_of(got, labels(view, FEATURES[view], full)), want)
    (plus, add) = labels("conv_rate_plus", ["plus_100", "plus_val_to_add"], full)
    rates = got[labels("driver_stats", ["conv_rate"], full)[0]]
    np.testing.assert_allclose(got[plus], rates + 100)
    np.testing.assert_allclose(got[add], rates + got["val_to_add"])
    assert labels("conv_rate_plus", ["plus_100_rounded"], full)[0] not in got
    assert got[plus].notna().any()


@pytest.mark.parametrize("full", [True, False])
def test_a_feature_service_gives_what_its_references_give(store, world, full):
    service = feast.FeatureService(name="both", features=[world.driver_view[["conv_rate"]], world.on_demand])
    store.apply([*world.objects, service])
    got = store.get_historical_features(
        entity_df=world.entity, features=store.get_feature_service("both"), full_feature_names=full
    ).to_df()
    refs = ["driver_stats:conv_rate", *(f"conv_rate_plus:{each.name}" for each in world.on_demand.features)]
    want = store.get_historical_features(world.entity, refs, full_feature_names=full).to_df()
    pd.testing.assert_frame_equal(got[sorted(got)], want[sorted(want)])


@pytest.mark.parametrize("full", [True])
def test_one_view_joins_under_two_names_by_two_keys(store, world, full):
    service = feast.FeatureService(
        name="trip",
        features=[
            world.place_view.with_name("origin").with_join_key_map({"location_id": "origin_id"}),
            world.place_view.with_name("destination").with_join_key_map({"location_id": "destination_id"}),
        ],
    )
    store.apply([*world.objects, service])
    got = store.get_historical_features(world.entity, service, full_feature_names=full).to_df()
    for end in ("origin", "destination"):
        want = as_of(
            world.entity, world.places, {f"{end}_id": "location_id"}, ["temperature"], ttl=timedelta(days=1)
        )
        same(values_of(got, [f"{end}__temperature"]), want)


def test_a_feature_that_a_view_of_the_same_source_has_is_not_this_views(store, source):
    held = source("drivers", hourly({"driver_id": [1]}, {"conv_rate": "float32", "trips": "int32"}))
    one = feast.FeatureView(
        name="one", entities=[DRIVER], schema=[feast.Field(name="trips", dtype=Int32)], source=held
    )
    two = feast.FeatureView(
        name="two",
        entities=[DRIVER],
        schema=[feast.Field(name="trips", dtype=Int32), feast.Field(name="conv_rate", dtype=Float32)],
        source=held,
    )
    store.apply([DRIVER, one, two])
    entity = pd.DataFrame({"driver_id": [1], "event_timestamp": [NOW]})
    with pytest.raises(KeyError):
        store.get_historical_features(entity, ["one:conv_rate"]).to_df()


def test_missing_request_data_is_named(store, world):
    store.apply(world.objects)
    with pytest.raises(RequestDataNotFoundInEntityDfException, match="val_to_add"):
        store.get_historical_features(
            world.entity.drop(columns="val_to_add"), ["conv_rate_plus:plus_val_to_add"]
        )


def test_entities_from_a_query_are_refused_with_what_is_accepted(store, world):
    store.apply(world.objects)
    with pytest.raises(InvalidInput, match=r"SELECT.*accepted: a pandas DataFrame or an Arrow table"):
        store.get_historical_features("SELECT driver_id FROM orders", ["driver_stats:trips"])


@pytest.mark.parametrize("full", [True, False])
def test_a_persisted_answer_reads_back_as_it_was(store, world, tmp_path, full):
    store.apply(world.objects)
    entity = world.entity.drop(columns=["order_id", "origin_id", "destination_id", "val_to_add"])
    job = store.get_historical_features(entity, REFS, full_feature_names=full)
    saved = store.create_saved_dataset(
        from_=job, name="saved", storage=SavedDatasetFileStorage(path=str(tmp_path / "saved"))
    )
    want, got = job.to_df(), saved.to_df()
    pd.testing.assert_frame_equal(got[want.columns.tolist()], want)
    again = store.create_saved_dataset(
        from_=job,
        name="saved",
        storage=SavedDatasetFileStorage(path=str(tmp_path / "saved")),
        allow_overwrite=True,
    )
    assert len(again.to_df()) == len(want)


def test_what_lies_there_is_not_overwritten_unasked(store, world):
    store.apply(world.objects)
    job = store.get_historical_features(world.entity, ["customer_profile:balance"])
    there = SavedDatasetFileStorage(path=world.customer_view.batch_source.path)
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        store.create_saved_dataset(from_=job, name="mine", storage=there)
    assert len(pd.read_parquet(there.file_options.uri)) == len(world.customers)


def test_without_a_time_to_live_no_row_is_too_old(store, world):
    for view in (world.customer_view, world.order_view, world.total_view, world.renamed_view):
        view.ttl = timedelta(0)
    store.apply(world.objects)
    got = store.get_historical_features(world.entity, REFS).to_df()
    want = world.expected(world.entity, ttl=None)
    for view in ("customer_profile", "order", "global_stats", "field_mapping"):
        same(values_of(got, FEATURES[view]), want[view])


TIES = pd.DataFrame(
    {
        "driver_id": [1001, 1001, 1002, 1002, 1003, 1003],
        "trips": [10, 20, 30, 40, 50, 60],
        "event_timestamp": [NOW, NOW, NOW, NOW + 24 * HOUR, NOW, NOW],
        "created": [NOW, NOW + 24 * HOUR, NOW + 24 * HOUR, NOW, NOW + HOUR, NOW],
    }
)


def trips_view(held):
    return feast.FeatureView(
        name="driver_stats", entities=[DRIVER], schema=[feast.Field(name="trips", dtype=Int32)], source=held
    )


def test_a_backfill_wins_by_its_created_time_at_equal_event_times_alone(store, source):
    store.apply([DRIVER, trips_view(source("ties", TIES))])
    entity = pd.DataFrame({"driver_id": [1003, 1001, 1002], "event_timestamp": [NOW + 48 * HOUR] * 3})
    got = store.get_historical_features(entity, ["driver_stats:trips"]).to_df()
    assert got["trips"].tolist() == [50, 20, 40]


def test_rows_created_after_the_entity_rows_time_can_be_left_out(store, source):
    store.apply([DRIVER, trips_view(source("ties", TIES))])
    entity = pd.DataFrame(
        {
            "driver_id": [1001, 1001, 1002, 1002, 1003],
            "event_timestamp": [NOW + HOUR, NOW + 25 * HOUR, NOW + HOUR, NOW + 25 * HOUR, NOW + HOUR / 2],
        }
    )
    job = store.get_historical_features(entity, ["driver_stats:trips"], filter_by_created_timestamp=True)
    assert values_of(job.to_df(), ["trips"]) == [[10], [20], [None], [40], [60]]


@pytest.mark.parametrize("declared", [True, False])
def test_a_join_key_may_have_another_name_at_the_source(store, source, declared):
    held = source("renamed", TIES.rename(columns={"driver_id": "id"}), field_mapping={"id": "driver_id"})
    key = [feast.Field(name="driver_id", dtype=Int64)] if declared else []
    view = feast.FeatureView(
        name="driver_stats",
        entities=[DRIVER],
        schema=[*key, feast.Field(name="trips", dtype=Int32)],
        source=held,
    )
    store.apply([DRIVER, view])
    entity = pd.DataFrame({"driver_id": [1001, 1002], "event_timestamp": [NOW + 48 * HOUR] * 2})
    got = store.get_historical_features(entity, ["driver_stats:trips"]).to_df()
    assert got["trips"].tolist() == [20, 40]
    if declared:
        store.materialize(NOW - HOUR, NOW + 48 * HOUR)
        drivers = [{"driver_id": 1001}, {"driver_id": 1002}]
        assert store.get_online_features(["driver_stats:trips"], drivers).to_dict()["trips"] == [20, 40]


def test_dates_instead_of_entity_rows_give_a_row_for_each_change(store, source):
    frame = pd.DataFrame(
        {
            "driver_id": [1001, 1001, 1001, 1002, 1002, 1003],
            "trips": [10, 20, 30, 100, 200, 7],
            "event_timestamp": [NOW - 50 * HOUR, NOW - 24 * HOUR, NOW, NOW - 24 * HOUR, NOW - 24 * HOUR, NOW],
            "created": [NOW, NOW, NOW, NOW, NOW + HOUR, NOW],
        }
    )
    store.apply([DRIVER, trips_view(source("drivers", frame))])
    got = store.get_historical_features(
        entity_df=None,
        features=["driver_stats:trips"],
        start_date=NOW - 48 * HOUR,
        end_date=NOW + HOUR,
    ).to_df()
    rows = set(got[["driver_id", "event_timestamp", "trips"]].itertuples(index=False, name=None))
    assert rows == {
        (1001, pd.Timestamp(NOW - 24 * HOUR), 20),
        (1001, pd.Timestamp(NOW), 30),
        (1002, pd.Timestamp(NOW - 24 * HOUR), 200),
        (1003, pd.Timestamp(NOW), 7),
    }
    assert len(got) == 4


def test_dates_alone_need_views_of_equal_keys(store, world):
    store.apply(world.objects)
    with pytest.raises(InvalidInput, match=r"driver_stats \(driver_id\), customer_profile \(customer_id\)"):
        store.get_historical_features(
            None, ["driver_stats:trips", "customer_profile:balance"], end_date=NOW
        ).to_df()
    got = store.get_historical_features(
        None, ["driver_stats:trips", "global_stats:rides"], start_date=NOW - 2 * HOUR, end_date=NOW
    ).to_df()
    assert len(got) == 6
    assert got[["trips", "rides"]].notna().all(axis=None)


TYPES = {
    "int32": (Int32, pa.types.is_signed_integer, [1, 2, 3]),
    "int64": (Int64, pa.types.is_signed_integer, [2**40, 2, 3]),
    "float": (Float64, pa.types.is_float64, [0.5, 1.5, -2.0]),
    "string": (String, pa.types.is_string, ["1", "zwei", ""]),
    "bool": (Bool, pa.types.is_boolean, [True, False, True]),
    "datetime": (UnixTimestamp, pa.types.is_timestamp, [NOW, NOW + HOUR, NOW - HOUR]),
}


@pytest.mark.parametrize("of", TYPES)
@pytest.mark.parametrize("lists", ["no", "filled", "empty"])
def test_values_keep_their_types(store, source, of, lists):
    declared, right, values = TYPES[of]
    if lists != "no":
        values = [[] if lists == "empty" and i == 1 else [each, each] for i, each in enumerate(values)]
    kind = pa.int32() if of == "int32" else None
    frame = pa.table(
        {
            "driver_id": pa.array([1, 2, 3]),
            "event_timestamp": pa.array([NOW - 5 * HOUR] * 3),
            "created": pa.array([NOW] * 3),
            "value": pa.array(values, None if kind is None else (kind if lists == "no" else pa.list_(kind))),
        }
    )
    held = source("typed", pd.DataFrame({"event_timestamp": [NOW]}))
    pq.write_table(frame, held.path)
    view = feast.FeatureView(
        name="typed",
        entities=[DRIVER],
        schema=[feast.Field(name="value", dtype=declared if lists == "no" else Array(declared))],
        source=held,
    )
    store.apply([DRIVER, view])
    entity = pd.DataFrame({"driver_id": [3, 1], "event_timestamp": [NOW, NOW]})
    table = store.get_historical_features(entity, ["typed:value"]).to_arrow()
    kind = table.schema.field("value").type
    assert kind == frame.schema.field("value").type
    assert right(kind.value_type if lists != "no" else kind)
    assert table["value"].to_pylist() == [values[2], values[0]]


@pytest.mark.parametrize(("kind", "declared"), [("int32", Int32), ("int64", Int64), (str, String)])
def test_the_type_of_an_entity_is_inferred_from_the_source(store, source, kind, declared):
    frame = hourly({"driver_id": [1, 2]}, {"value": "int32"})
    frame["driver_id"] = frame["driver_id"].astype(kind)
    driver = feast.Entity(name="driver", join_keys=["driver_id"])
    view = feast.FeatureView(
        name="inferred",
        entities=[driver],
        schema=[feast.Field(name="value", dtype=Int32)],
        source=source("inferred", frame),
    )
    store.apply([driver, view])
    (column,) = view.entity_columns
    assert column.dtype in ({String} if declared is String else {Int32, Int64})


def test_written_columns_are_reordered_and_wrong_ones_refused(store, world):
    store.apply(world.objects)
    rows = world.drivers.head(2)
    store.write_to_offline_store("driver_stats", rows[rows.columns[::-1]], allow_registry_cache=False)
    assert len(pd.read_parquet(world.driver_view.batch_source.path)) == len(world.drivers) + 2
    wrong = rows.rename(columns={"trips": "other"})
    with pytest.raises(ValueError, match=r"missing_expected_columns: .'trips'.*extra_unexpected.*'other'"):
        store.write_to_offline_store("driver_stats", wrong, allow_registry_cache=False)
    with pytest.raises(InvalidInput, match=r"have columns driver_id.*accepted: driver_id.*trips"):
        ParquetOfflineStore.offline_write_batch(
            store.config, world.driver_view, pa.Table.from_pandas(wrong), None
        )


@pytest.mark.parametrize("folder", [True, False])
def test_rows_written_one_after_the_other_are_all_seen(store, source, tmp_path, folder):
    frame = hourly({"driver_id": [1001]}, {"trips": "int32"})
    held = source("drivers", frame)
    if folder:
        (tmp_path / "folder").mkdir()
        (tmp_path / "drivers.parquet").rename(tmp_path / "folder" / "drivers.parquet")
        held = feast.FileSource(
            name="drivers",
            path=str(tmp_path / "folder"),
            timestamp_field="event_timestamp",
            created_timestamp_column="created",
        )
    view = trips_view(held)
    view.ttl = timedelta(minutes=10)
    store.apply([DRIVER, view])
    times = [NOW + HOUR * ahead for ahead in range(3, 7)]
    entity = pd.DataFrame({"driver_id": [1001] * 4, "event_timestamp": times})
    seen = []
    for part in ([], times[:2], times[2:]):
        if part:
            rows = pd.DataFrame({"driver_id": [1001] * 2, "event_timestamp": part, "created": [NOW] * 2})
            rows["trips"] = np.arange(2, dtype="int32") + 10 * len(seen)
            written = rows[frame.columns.tolist()]
            store.write_to_offline_store("driver_stats", written, allow_registry_cache=False)
        job = store.get_historical_features(entity, ["driver_stats:trips"])
        seen.append([row[0] for row in values_of(job.to_df(), ["trips"])])
    assert seen == [[None] * 4, [10, 11, None, None], [10, 11, 20, 21]]


def test_pushed_rows_reach_the_offline_store(store, source):
    frame = hourly({"driver_id": [1]}, {"trips": "int32"})
    push = feast.PushSource(name="push", batch_source=source("drivers", frame))
    store.apply([DRIVER, trips_view(push)])
    row = pd.DataFrame(
        {
            "driver_id": [1],
            "event_timestamp": [NOW + HOUR],
            "created": [NOW],
            "trips": np.array([77], "int32"),
        }
    )
    store.push("push", row, to=PushMode.OFFLINE)
    entity = pd.DataFrame({"driver_id": [1, 1], "event_timestamp": [NOW, NOW + HOUR]})
    got = store.get_historical_features(entity, ["driver_stats:trips"]).to_df()
    assert got["trips"].tolist() == [frame["trips"].iloc[-1], 77]


@pytest.mark.parametrize("pull_latest", [True, False])
def test_online_and_offline_agree_after_a_materialization(open_store, source, pull_latest):
    store = open_store(config={"materialization": MaterializationConfig(pull_latest_features=pull_latest)})
    frame = pd.concat([hourly({"driver_id": [1, 2, 3]}, {"trips": "int32"}), TIES])
    frame = frame.astype({"trips": "int32"}).rename(columns={"event_timestamp": "ts_1"})
    held = source("drivers", frame, timestamp_field="ts", field_mapping={"ts_1": "ts"})
    store.apply([DRIVER, trips_view(held)])
    for end in (NOW - 10 * HOUR, NOW + 24 * HOUR):
        store.materialize(NOW - 100 * HOUR, end)
        drivers = [3, 1, 2, 1001, 1002, 404]
        online = store.get_online_features(
            ["driver_stats:trips"], [{"driver_id": driver} for driver in drivers]
        ).to_dict()["trips"]
        entity = pd.DataFrame({"driver_id": drivers, "event_timestamp": [end] * 6})
        offline = store.get_historical_features(entity, ["driver_stats:trips"]).to_df()
        assert [[each] for each in online] == values_of(offline, ["trips"])


def test_all_rows_between_two_dates_can_be_pulled(store, source):
    frame = hourly({"driver_id": [1, 2]}, {"trips": "int32"})
    job = ParquetOfflineStore.pull_all_from_table_or_query(
        store.config,
        source("drivers", frame),
        ["driver_id"],
        ["trips"],
        "event_timestamp",
        start_date=NOW - 3 * HOUR,
        end_date=NOW - 2 * HOUR,
    )
    inside = frame[frame["event_timestamp"].between(NOW - 3 * HOUR, NOW - 2 * HOUR)]
    pd.testing.assert_frame_equal(
        job.to_df(),
        inside[["driver_id", "trips", "event_timestamp"]].reset_index(drop=True),
        check_dtype=False,
    )
    with pytest.raises(NotImplementedError, match="accepted: to_df"):
        job.to_sql()


@pytest.mark.parametrize("as_path", [True, False])
@pytest.mark.parametrize("partition_by", [None, ["driver_id"]])
def test_logs_of_served_features_are_written_in_turns_and_read_between_dates(
    store, world, tmp_path, as_path, partition_by
):
    to = FileLoggingDestination(path=str(tmp_path / "logs"), partition_by=partition_by)
    service = feast.FeatureService(
        name="logged", features=[world.driver_view], logging_config=LoggingConfig(destination=to)
    )
    store.apply([*world.objects, service])
    schema = FeatureServiceLoggingSource(service, store.project).get_schema(store.registry)
    times = [NOW - HOUR * back for back in range(6)]
    filled = {
        "driver_id": [1, 2, 1, 2, 1, 2],
        "driver_stats__trips": list(range(6)),
        LOG_TIMESTAMP_FIELD: times,
        "__log_date": [time.date() for time in times],
        "__request_id": [f"r{i}" for i in range(6)],
    }
    logs = pa.table(
        [pa.array(filled.get(field.name, [None] * 6)).cast(field.type) for field in schema], schema=schema
    )
    for turn, part in enumerate((logs.slice(0, 4), logs.slice(4))):
        given = part
        if as_path:
            given = tmp_path / f"turn-{turn}"
            given.mkdir()
            pq.write_table(part, given / "0.parquet")
        store.write_logged_features(given, service)
    got = (
        store._get_provider()
        .retrieve_feature_service_logs(
            feature_service=service,
            start_date=NOW - 4 * HOUR,
            end_date=NOW,
            config=store.config,
            registry=store.registry,
        )
        .to_df()
        .sort_values("__request_id")
    )
    assert got["__request_id"].tolist() == [f"r{i}" for i in range(5)]
    assert got["driver_stats__trips"].tolist() == [0, 1, 2, 3, 4]


class AtMost(Profile):
    def validate(self, dataset):
        high = dataset["trips"].max()
        failed = [] if high <= 5000 else [f"trips up to {high}"]

        class Report(ValidationReport):
            is_success = not failed
            errors = failed

        return Report()

    def to_proto(self):
        raise NotImplementedError

    @classmethod
    def from_proto(cls, proto):
        raise NotImplementedError


class AtMostProfiler(Profiler):
    def analyze_dataset(self, df):
        return AtMost()

    def to_proto(self):
        raise NotImplementedError

    @classmethod
    def from_proto(cls, proto):
        raise NotImplementedError


@pytest.mark.parametrize("scale", [1, 100])
def test_an_answer_is_validated_against_a_saved_dataset(store, world, tmp_path, scale):
    store.apply(world.objects)
    job = store.get_historical_features(world.entity, ["driver_stats:trips"])
    saved = store.create_saved_dataset(
        from_=job, name="saved", storage=SavedDatasetFileStorage(path=str(tmp_path / "saved"))
    )
    reference = saved.as_reference(name="reference", profiler=AtMostProfiler())
    frame = world.drivers.assign(trips=world.drivers["trips"] * scale)
    frame.to_parquet(world.driver_view.batch_source.path)
    if scale == 1:
        assert len(job.to_df(validation_reference=reference)) == len(world.entity)
    else:
        with pytest.raises(ValidationFailed):
            job.to_df(validation_reference=reference)


@pytest.mark.parametrize("empty", [True, False])
def test_entity_rows_may_be_none_or_ask_twice(store, world, empty):
    store.apply(world.objects)
    entity = world.entity.head(0) if empty else pd.concat([world.entity, world.entity])
    got = store.get_historical_features(entity, REFS).to_df()
    assert len(got) == len(entity)
    assert set(got) == set(entity) | {name for names in FEATURES.values() for name in names}


def test_the_only_column_of_times_is_the_time_whatever_its_name_and_zone(store, source):
    store.apply([DRIVER, trips_view(source("ties", TIES))])
    times = pd.to_datetime([NOW + 48 * HOUR] * 2, utc=True).tz_convert("Asia/Tokyo")
    entity = pd.DataFrame({"driver_id": [1002, 1001], "when": times})
    got = store.get_historical_features(entity, ["driver_stats:trips"]).to_df()
    assert got["trips"].tolist() == [40, 20]
    text = pd.DataFrame({"driver_id": [1002], "event_timestamp": ["2026-03-11T12:00:00"]})
    assert store.get_historical_features(text, ["driver_stats:trips"]).to_df()["trips"].tolist() == [40]
    with pytest.raises(InvalidInput, match="accepted: a column 'event_timestamp'"):
        store.get_historical_features(pd.DataFrame({"driver_id": [1]}), ["driver_stats:trips"])
    with pytest.raises(InvalidInput, match="lacks the join keys driver_id"):
        store.get_historical_features(pd.DataFrame({"event_timestamp": [NOW]}), ["driver_stats:trips"])
    with pytest.raises(InvalidInput, match="called like features: trips"):
        store.get_historical_features(entity.assign(trips=1), ["driver_stats:trips"])


def test_sources_of_other_kinds_are_refused_and_missing_ones_named(store, tmp_path):
    entity = pd.DataFrame({"driver_id": [1], "event_timestamp": [NOW]})
    gone = feast.FileSource(name="gone", path=str(tmp_path / "gone"), timestamp_field="event_timestamp")
    view = trips_view(gone)
    store.apply([DRIVER])
    with pytest.raises(NotFound, match="gone: none"):
        ParquetOfflineStore.get_historical_features(
            store.config, [view], ["driver_stats:trips"], entity, store.registry, store.project
        ).to_df()
    view.batch_source = feast.RequestSource(name="asked", schema=[])
    with pytest.raises(InvalidInput, match="accepted: FileSource"):
        ParquetOfflineStore.get_historical_features(
            store.config, [view], ["driver_stats:trips"], entity, store.registry, store.project
        )


def test_a_join_on_ray_gives_what_one_process_gives(open_store, source, world, ray_cluster):
    alone = open_store()
    alone.apply(world.objects)
    spread = open_store(one_process_rows=10)
    for refs in (REFS, ["order:order_is_success", "driver_stats:trips"]):
        want = alone.get_historical_features(world.entity, refs).to_arrow()
        assert spread.get_historical_features(world.entity, refs).to_arrow().equals(want)


@pytest.fixture
def built(tmp_path, open_store):
    """A store over builds of ours, with a view of two keys in several parts, ties across them."""
    root = tmp_path / "offline"
    draw = np.random.default_rng(11)
    times = NOW.timestamp() * 1_000_000 + draw.integers(0, 20, 300)
    rows = pa.table(
        {
            "driver_id": pa.array(draw.integers(0, 6, 300), pa.int32()),
            "customer_id": pa.array(draw.choice(["a", "b", None], 300)),
            "event_timestamp": pa.array(times.astype("int64")).cast(pa.timestamp("us", "UTC")),
            "made": pa.array((times + draw.integers(0, 4, 300)).astype("int64")).cast(
                pa.timestamp("us", "UTC")
            ),
            "trips": pa.array(range(300), pa.int64()),
        }
    )
    for start in range(0, 300, 60):
        offline.append(root, "pairs", rows.slice(start, 60))
    held = feast.FileSource(
        name="pairs", path="pairs", timestamp_field="event_timestamp", created_timestamp_column="made"
    )
    customer = feast.Entity(name="client", join_keys=["customer_id"], value_type=feast.ValueType.STRING)
    view = feast.FeatureView(
        name="pairs",
        entities=[DRIVER, customer],
        schema=[feast.Field(name="trips", dtype=Int64)],
        ttl=timedelta(microseconds=7),
        source=held,
    )
    entity = pa.table(
        {
            "driver_id": pa.array(draw.integers(0, 7, 200)),
            "customer_id": pa.array(draw.choice(["a", "b", "c", None], 200)),
            "event_timestamp": pa.array(
                (NOW.timestamp() * 1_000_000 + draw.integers(-3, 30, 200)).astype("int64")
            ).cast(pa.timestamp("us", "UTC")),
        }
    )

    def opened(**options):
        store = open_store(path=str(root), **options)
        store.apply([DRIVER, customer, view])
        return store

    return opened, entity, rows, view


def test_views_of_our_builds_are_found_by_their_folder(built):
    opened, entity, rows, view = built
    store = opened()
    frame, asked = rows.to_pandas(), entity.to_pandas()
    want = as_of(
        asked,
        frame,
        {"driver_id": "driver_id", "customer_id": "customer_id"},
        ["trips"],
        ttl=timedelta(microseconds=7),
        created="made",
    )
    for given in (asked, entity):
        got = store.get_historical_features(given, ["pairs:trips"]).to_df()
        assert values_of(got, ["trips"]) == want
    assert any(row == [None] for row in want)
    written = rows.slice(0, 1).set_column(4, "trips", pa.array([999], pa.int64()))
    store.write_to_offline_store("pairs", written.to_pandas(), allow_registry_cache=False)
    assert ParquetOfflineStore.pull_all_from_table_or_query(
        store.config, view.batch_source, ["driver_id", "customer_id"], ["trips"], "event_timestamp"
    ).to_df()["trips"].tolist() == [*range(300), 999]


@pytest.mark.parametrize("known", [False, True])
def test_many_parts_with_ties_join_on_ray_as_in_one_process(built, ray_cluster, known):
    opened, entity, *_ = built
    refs, options = ["pairs:trips"], {"filter_by_created_timestamp": known}
    want = opened().get_historical_features(entity, refs, **options).to_arrow()
    spread = opened(one_process_rows=299)
    assert spread.get_historical_features(entity, refs, **options).to_arrow().equals(want)
    assert 0 < want["trips"].null_count < len(want)


def test_a_join_that_needs_ray_says_so_where_none_is_connected(built, monkeypatch):
    opened, entity, *_ = built
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(Unavailable, match=r"300 rows.*one_process_rows.*connect one"):
        opened(one_process_rows=299).get_historical_features(entity, ["pairs:trips"]).to_df()


def test_a_source_on_an_s3_service_of_ones_own_is_read_written_and_saved_to(store, monkeypatch):
    with s3_server(monkeypatch) as endpoint:
        frame = hourly({"driver_id": [1, 2]}, {"trips": "int32"})
        held = feast.FileSource(
            name="drivers",
            path=f"s3://{BUCKET}/drivers.parquet",
            timestamp_field="event_timestamp",
            created_timestamp_column="created",
            s3_endpoint_override=endpoint,
        )
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        files, path = offline.opened(held.path)
        offline.write_parquet(files, path, pa.Table.from_pandas(frame))
        monkeypatch.delenv("AWS_ENDPOINT_URL")
        store.apply([DRIVER, trips_view(held)])
        row = frame.tail(1).assign(event_timestamp=NOW, trips=np.array([77], "int32"))
        store.write_to_offline_store("driver_stats", row, allow_registry_cache=False)
        entity = pd.DataFrame({"driver_id": [2, 1], "event_timestamp": [NOW, NOW]})
        job = store.get_historical_features(entity, ["driver_stats:trips"])
        assert job.to_df()["trips"].tolist() == [77, frame["trips"][47]]
        storage = SavedDatasetFileStorage(path=f"s3://{BUCKET}/saved", s3_endpoint_override=endpoint)
        saved = store.create_saved_dataset(from_=job, name="saved", storage=storage)
        assert saved.to_df()["trips"].tolist() == [77, frame["trips"][47]]
        with pytest.raises(SavedDatasetLocationAlreadyExists):
            job.persist(storage)
