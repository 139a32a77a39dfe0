"""A peer's side of `benchmarks.point_in_time`: one engine, once to warm up and once measured.

Request: engine (duckdb, polars, file or feast_duckdb), read (true: from the Parquet files each time), rows,
asked, features, repository (a folder for Feast), threads, answer (a Parquet path, or null).
Answer: seconds, versions.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> None:
    request = json.loads(sys.argv[1])
    engine = {"duckdb": duckdb, "polars": polars, "file": feast, "feast_duckdb": feast}[request["engine"]]
    packages = {"duckdb": ["duckdb"], "polars": ["polars"], "file": ["feast", "dask"]}
    run, write = engine(request)
    run()
    begun = time.perf_counter()
    answer = run()
    seconds = time.perf_counter() - begun
    if request["answer"]:
        write(answer, request["answer"])
    names = packages.get(request["engine"], ["feast", "duckdb"])
    versions = {name: importlib.metadata.version(name) for name in names}
    print(json.dumps({"seconds": seconds, "versions": versions}))


Engine = tuple[Callable[[], Any], Callable[[Any, str], None]]


def duckdb(request: dict[str, Any]) -> Engine:
    import duckdb
    import pyarrow.parquet as pq

    connection = duckdb.connect()
    connection.execute(f"SET threads = {request['threads']}")
    tables = {name: f"read_parquet('{request[name]}')" for name in ("rows", "asked")}
    if not request["read"]:
        for name, path in tables.items():
            connection.execute(f"CREATE TABLE {name} AS FROM {path}")
            tables[name] = name
    features = ", ".join(f"r.{name}" for name in request["features"])
    query = f"""
        SELECT a.*, {features} FROM {tables["asked"]} a ASOF LEFT JOIN {tables["rows"]} r
        ON a.member_id = r.member_id AND a.event_timestamp >= r.event_timestamp
    """
    return lambda: connection.sql(query).to_arrow_table(), lambda answer, path: pq.write_table(answer, path)


def polars(request: dict[str, Any]) -> Engine:
    import polars as pl

    warnings.simplefilter("ignore")

    def join(rows: pl.LazyFrame, asked: pl.LazyFrame) -> pl.DataFrame:
        rows = rows.select("member_id", "event_timestamp", *request["features"]).sort("event_timestamp")
        return asked.sort("event_timestamp").join_asof(rows, on="event_timestamp", by="member_id").collect()

    def read() -> pl.DataFrame:
        return join(pl.scan_parquet(request["rows"]), pl.scan_parquet(request["asked"]))

    if request["read"]:
        return read, lambda answer, path: answer.write_parquet(path)
    rows, asked = pl.read_parquet(request["rows"]), pl.read_parquet(request["asked"])
    return lambda: join(rows.lazy(), asked.lazy()), lambda answer, path: answer.write_parquet(path)


def feast(request: dict[str, Any]) -> Engine:
    os.environ["FEAST_USAGE"] = "False"
    warnings.simplefilter("ignore")
    import pandas as pd
    import pyarrow.parquet as pq

    if request["engine"] == "file":
        import dask

        dask.config.set(num_workers=request["threads"])
        store = {"type": "file"}
    else:
        store = {"type": "duckdb"}
    run = feast_run(Path(request["repository"]), store, request)
    asked = pd.read_parquet(request["asked"])
    return lambda: run(asked), lambda answer, path: pq.write_table(answer, path)


def feast_run(folder: Path, offline_store: dict[str, Any], request: dict[str, Any]) -> Callable[[Any], Any]:
    """The same view declared to Feast, on any of its offline stores; entity rows in, an Arrow table out."""
    import feast
    from feast.repo_config import RepoConfig
    from feast.types import Float64, String

    folder.mkdir(parents=True, exist_ok=True)
    store = feast.FeatureStore(
        config=RepoConfig(
            project="bench",
            provider="local",
            registry=str(folder / "registry.db"),
            online_store={"type": "sqlite", "path": str(folder / "online.db")},
            offline_store=offline_store,
            entity_key_serialization_version=3,
            repo_path=folder,
        )
    )
    member = feast.Entity(name="member", join_keys=["member_id"], value_type=feast.ValueType.STRING)
    view = feast.FeatureView(
        name="view",
        entities=[member],
        schema=[
            feast.Field(name="member_id", dtype=String),
            *(feast.Field(name=name, dtype=Float64) for name in request["features"]),
        ],
        source=feast.FileSource(name="rows", path=request["rows"], timestamp_field="event_timestamp"),
    )
    store.apply([member, view])
    refs = [f"view:{name}" for name in request["features"]]
    return lambda asked: store.get_historical_features(entity_df=asked, features=refs).to_arrow()


if __name__ == "__main__":
    main()
