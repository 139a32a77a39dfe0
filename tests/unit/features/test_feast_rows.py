"""Feast's own online stores behind our interface, shown on Feast's SQLite."""

import warnings

import numpy as np
import pyarrow as pa
import pytest

from matinee.features import packed
from matinee.features.entity_keys import entity_keys
from matinee.features.packed import Decoder
from matinee.features.store.feast_rows import FeastRows
from matinee.features.store.online_store import layout_of, python_opaque

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import feast
    from feast import types
    from feast.repo_config import RepoConfig

KEYS = entity_keys("thing_id", pa.chunked_array([[f"t{i}" for i in range(250)]]))
FIELDS = {
    "n": types.Int64,
    "texts": types.Array(types.String),
    "seen": types.UnixTimestamp,
    "map": types.Map,
}


@pytest.fixture
def view():
    thing = feast.Entity(name="thing", join_keys=["thing_id"], value_type=feast.ValueType.STRING)
    schema = [feast.Field(name=name, dtype=dtype) for name, dtype in FIELDS.items()]
    source = feast.FileSource(name="things", path="things", timestamp_field="event_timestamp")
    return feast.FeatureView(name="things", entities=[thing], schema=schema, source=source), thing


@pytest.fixture
def rows(tmp_path, view):
    store = feast.FeatureStore(
        config=RepoConfig(
            project="p",
            provider="local",
            registry=str(tmp_path / "registry.db"),
            online_store={"type": "sqlite", "path": str(tmp_path / "online.db")},
            entity_key_serialization_version=3,
        )
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store.apply(list(view))
    return FeastRows(lambda: store, store.get_feature_view)


def test_rows_pass_through_feasts_store(rows, view):
    layout = layout_of(view[0])
    decoder = Decoder(layout, layout.names, opaque=python_opaque)
    value = feast.protos.feast.types.Value_pb2.Value()
    value.map_val.val["a"].string_val = "b"
    seen = pa.array([1_700_000_000_000_000, None]).cast(packed.arrow_type("timestamp"))
    table = pa.table(
        {"n": [3, None], "texts": [["a", ""], []], "seen": seen, "map": [value.SerializeToString(), None]}
    )
    times = np.array([1_000_000, 2_000_000])
    rows.put("things", KEYS[:2], packed.encode(layout, table, time=times, created=None), layout)
    ((first, second, *rest),) = rows.get(["things"], KEYS)
    assert set(rest) == {None}
    assert list(decoder.decode(first)) == [3, ["a", ""], 1_700_000_000_000_000, {"a": "b"}]
    assert list(decoder.decode(second)) == [None, [], None, None]
    assert [packed.event_time(each) for each in (first, second)] == times.tolist()
    cursor, held, whole = rows.changed("things", KEYS, None)
    assert (set(held), whole) == (set(KEYS[:2]), True)
    assert rows.changed("things", KEYS, cursor)[2]
    assert rows.layout(layout.fingerprint) is None
