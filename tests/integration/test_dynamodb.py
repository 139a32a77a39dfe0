"""Feast's DynamoDB store behind ours, against a moto server."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from matinee.config import load_settings
from matinee.features.store import FeatureStore
from matinee.features.transforms import VIEWS
from matinee.schema import TIMESTAMP

pytest.importorskip("boto3")
moto_server = pytest.importorskip("moto.server")

pytestmark = pytest.mark.filterwarnings("ignore")


def test_features_are_written_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "none")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none")
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        options = {"region": "eu-west-1", "endpoint_url": f"http://{host}:{port}"}
        flags = {
            "home": str(tmp_path),
            "features.online_store": "dynamodb",
            "features.online_options": options,
        }
        store = FeatureStore(load_settings(flags, environment={}))
        store.apply()
        schema = VIEWS["member_watched"].schema
        columns = [
            pa.array(["m1", "m2"]),
            pa.array([["a", "b"], []], pa.list_(pa.string())),
            pa.array([[1, 2], []], pa.list_(pa.int64())),
            pa.array([10, 20]).cast(TIMESTAMP),
        ]
        store.write_online("member_watched", pa.table(columns, schema=schema))
        watched = {"watched_title_ids": ["a", "b"], "watched_times": [1, 2]}
        nothing = {"watched_title_ids": [], "watched_times": []}
        assert store.read_rows("member_watched", ["m2", "no", "m1"]) == [nothing, None, watched]
        assert store.read_one("serving", "m1") == watched
        assert store.generation() == "unknown"
    finally:
        server.stop()
