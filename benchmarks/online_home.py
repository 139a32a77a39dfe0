"""The same features in our online stores and in Feast's own, for `online_read` and `online_read_http`."""

from __future__ import annotations

import runpy
import shutil
import socket
import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from matinee.config import Settings, load_settings
from matinee.local.cluster import free_port

VIEW = "wide"
SERVICE = "bench"
START = 1_700_000_000_000_000
BATCH = 1_000

_DEFINITIONS = """
from datetime import timedelta
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64, String

member = Entity(name="member", join_keys=["member_id"], value_type=ValueType.STRING)
wide = FeatureView(
    name="wide", entities=[member], ttl=timedelta(0),
    schema=[Field(name=name, dtype=dtype) for name, dtype in {fields}],
    source=FileSource(name="wide", path="wide", timestamp_field="event_timestamp"),
)
bench = FeatureService(name="bench", features=[wide])
"""


def features(count: int) -> dict[str, str]:
    """Feast's type by feature name: of ten features, five are floats, four ints, one a text."""
    kinds = ["Float64"] * 5 + ["Int64"] * 4 + ["String"]
    return {f"f{place}": kinds[place % 10] for place in range(count)}


def table(entities: int, count: int) -> pa.Table:
    """A row for each of the members m0, m1, ..."""
    random = np.random.default_rng(7)
    columns: dict[str, pa.Array] = {"member_id": pa.array([f"m{i}" for i in range(entities)])}
    for name, kind in features(count).items():
        if kind == "Float64":
            columns[name] = pa.array(random.normal(size=entities))
        elif kind == "Int64":
            columns[name] = pa.array(random.integers(0, 1_000_000, entities))
        else:
            columns[name] = pa.array([f"text {i}" for i in random.integers(0, 1_000, entities)])
    times = pa.array(np.full(entities, START)).cast(pa.timestamp("us", "UTC"))
    return pa.table({**columns, "event_timestamp": times})


def definitions(folder: Path, count: int) -> Path:
    """A folder of Feast definitions of the view and the service."""
    folder.mkdir(parents=True)
    fields = ", ".join(f'("{name}", {kind})' for name, kind in features(count).items())
    (folder / "definitions.py").write_text(_DEFINITIONS.replace("{fields}", f"[{fields}]"))
    return folder


def ours(folder: Path, rows: pa.Table, count: int, *, redis: int | None = None) -> tuple[Settings, Any]:
    """Settings and a FeatureStore of ours that holds `rows`, on SQLite or on the Redis at a port."""
    from matinee.features.store import FeatureStore

    flags: dict[str, object] = {
        "home": str(folder / "home"),
        "features.repository": str(definitions(folder / "definitions", count)),
    }
    if redis is not None:
        flags |= {"features.online_store": "redis", "features.redis": f"127.0.0.1:{redis}"}
    settings = load_settings(flags, environment={})
    store = FeatureStore(settings)
    store.apply()
    store.write_online(VIEW, rows)
    return settings, store


def feasts(folder: Path, rows: pa.Table, count: int, online: str) -> Any:
    """A feast.FeatureStore that holds `rows`, opened from a repository of its own at `folder`.

    Args:
        online: the store's settings, as YAML for feature_store.yaml.
    """
    definitions(folder, count)
    (folder / "feature_store.yaml").write_text(
        "project: bench\nprovider: local\n"
        f"registry: {{path: {folder}/registry.db, cache_ttl_seconds: 3600}}\n"
        f"online_store: {online}\noffline_store: {{type: file}}\nentity_key_serialization_version: 3\n"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import feast

        declared = runpy.run_path(str(folder / "definitions.py"))
        store = feast.FeatureStore(repo_path=str(folder))
        store.apply([declared[name] for name in ("member", VIEW, SERVICE)])
        frame = rows.to_pandas()
        for start in range(0, len(frame), BATCH):
            store.write_to_online_store(VIEW, frame.iloc[start : start + BATCH])
    return store


@dataclass(frozen=True, kw_only=True)
class Redis:
    """A running Redis on loopback."""

    port: int
    pid: int


@contextmanager
def redis_server(folder: Path) -> Iterator[Redis | None]:
    """A Redis of our own, which keeps nothing; None where this machine has no redis-server."""
    if shutil.which("redis-server") is None:
        yield None
        return
    port = free_port()
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
    server = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield Redis(port=port, pid=server.pid)
    finally:
        server.terminate()
        server.wait()


def wait_for(port: int, seconds: float = 120.0) -> None:
    """Until somebody listens on the port; raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nobody listens on port {port} after {seconds} s")
