"""Point-in-time joins: ours beside DuckDB's ASOF JOIN, Polars' join_asof and Feast's own offline stores.

One view of ten float features keyed by a text; entity rows ask for the latest row of their key at or before
their time. Twice, with tables in memory and from Parquet files (reading included), against the engines; and
through Feast's `get_historical_features`, from Parquet, against Feast's stores. Two threads on each side.
Times are distinct, and so are entity rows: Feast's file store drops those that repeat, and those that no
row precedes (`rows_lost_by_peer`; what it gives must be right).
"""

from __future__ import annotations

import importlib.metadata
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.common import (
    PeerFailed,
    PeerMissing,
    arguments,
    compare,
    peer_venv,
    pinned,
    run_peer,
    skipped,
)
from benchmarks.peers.point_in_time import feast_run
from matinee.features import asof, offline
from matinee.schema import TIMESTAMP

NAME = "point_in_time"
THREADS = 2
FEATURES = [f"f{number}" for number in range(10)]
BEGIN = 1_767_225_600_000_000
SPAN = 90 * 86_400_000_000
TIMEOUT_S = 600.0
REQUIREMENTS = {
    "duckdb": ["duckdb", "pyarrow", "pandas"],
    "feast": ["feast[duckdb]==0.67.0"],
    "feast_duckdb": ["feast[duckdb]==0.67.0", "duckdb<1.4", "ibis-framework[duckdb]<11"],
}


def main() -> None:
    args = arguments(__doc__)
    asked = 200_000 if args.quick else 1_000_000
    pa.set_cpu_count(THREADS)
    with tempfile.TemporaryDirectory(prefix="matinee-asof-") as scratch, pinned(THREADS):
        for order in ("time",) if args.quick else ("time", "shuffled"):
            data = Data(Path(scratch) / order, asked=asked, rows=5 * asked, order=order)
            beside_engine(data, "DuckDB ASOF JOIN", "duckdb")
            beside_engine(data, "Polars join_asof", "polars")
        sizes = [20_000] if args.quick else [100_000, 1_000_000]
        for size in sizes:
            data = Data(Path(scratch) / f"feast-{size}", asked=size, rows=5 * size, order="time")
            beside_feast(data, "Feast file store", "file", "feast")
            beside_feast(data, "Feast duckdb store", "feast_duckdb", "feast_duckdb")


class Data:
    """Feature rows and entity rows in two Parquet files: fifty and ten of each key on average."""

    def __init__(self, folder: Path, *, asked: int, rows: int, order: str) -> None:
        draw = np.random.default_rng(7)
        folder.mkdir(parents=True)
        self.folder = folder
        self.rows, self.asked = folder / "rows.parquet", folder / "asked.parquet"
        members = asked // 10
        names = pa.array([f"m{number:07d}" for number in range(members)])
        times = spread(draw, rows)
        if order == "shuffled":
            draw.shuffle(times)
        table = {"member_id": names.take(pa.array(draw.integers(0, members, rows)))}
        table["event_timestamp"] = pa.array(times).cast(TIMESTAMP)
        table |= {name: pa.array(draw.normal(size=rows)) for name in FEATURES}
        pq.write_table(pa.table(table), self.rows)
        entity = {
            "row": pa.array(np.arange(asked)),
            "member_id": names.take(pa.array(draw.integers(0, members, asked))),
            "event_timestamp": pa.array(draw.permutation(spread(draw, asked))).cast(TIMESTAMP),
        }
        pq.write_table(pa.table(entity), self.asked)
        self.sizes: dict[str, Any] = {
            "entity_rows": asked,
            "feature_rows": rows,
            "features": len(FEATURES),
            "keys": members,
            "order": order,
            "threads": THREADS,
        }

    def request(self, engine: str, *, read: bool, answer: Path | None) -> dict[str, Any]:
        return {
            "engine": engine,
            "read": read,
            "rows": str(self.rows),
            "asked": str(self.asked),
            "features": FEATURES,
            "repository": str(self.folder / engine),
            "threads": THREADS,
            "answer": str(answer) if answer else None,
        }


def spread(draw: np.random.Generator, count: int) -> npt.NDArray[np.int64]:
    """Ascending times, all different, over the span."""
    step = SPAN // count
    return BEGIN + np.arange(count) * step + draw.integers(0, step, count)


def beside_engine(data: Data, peer: str, engine: str) -> None:
    for read in (False, True):
        ours = from_parquet if read else in_memory(data)
        try:
            python = Path(sys.executable) if engine == "polars" else peer_venv(engine, REQUIREMENTS[engine])
            measure(data, peer, engine, python, partial(ours, data), read=read)
        except (PeerMissing, PeerFailed) as reason:
            skipped(NAME, peer, str(reason))


def beside_feast(data: Data, peer: str, engine: str, venv: str) -> None:
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import matinee.features.store  # noqa: F401  Feast finds the store by its class path

        store = {"type": "matinee.features.store.ParquetOfflineStore"}
        request = data.request("ours", read=True, answer=None)
        run = feast_run(data.folder / f"ours-{engine}", store, request)
        frame = pd.read_parquet(data.asked)
        try:
            measure(data, peer, engine, peer_venv(venv, REQUIREMENTS[venv]), lambda: run(frame), read=True)
        except (PeerMissing, PeerFailed) as reason:
            skipped(NAME, peer, f"{data.sizes['entity_rows']} entity rows: {reason}")


def in_memory(data: Data) -> Callable[[Data], pa.Table]:
    rows, asked = pq.read_table(data.rows), pq.read_table(data.asked)
    return lambda _: joined(asked, rows)


def from_parquet(data: Data) -> pa.Table:
    files, path = offline.opened(data.rows)
    rows = offline.parquet_parts(files, path).read(["member_id", "event_timestamp", *FEATURES])
    return joined(pq.read_table(data.asked), rows)


def joined(asked: pa.Table, rows: pa.Table) -> pa.Table:
    found = asof.join(asked, rows, keys=["member_id"], columns=FEATURES)
    for name in found.column_names:
        asked = asked.append_column(name, found[name])
    return asked


def measure(
    data: Data, peer: str, engine: str, python: Path, ours: Callable[[], pa.Table], *, read: bool
) -> None:
    """Check that both sides answer the same, then compare rows a second."""
    written = data.folder / f"{engine}-{read}.parquet"
    variables = {"POLARS_MAX_THREADS": str(THREADS), "OMP_NUM_THREADS": str(THREADS)}

    def ask(answer: Path | None) -> dict[str, Any]:
        request = data.request(engine, read=read, answer=answer)
        return run_peer(
            python, "point_in_time", request, cores=THREADS, timeout_s=TIMEOUT_S, environment=variables
        )

    versions = ask(written)["versions"]
    answered = pq.read_table(written).sort_by("row")
    lost = data.sizes["entity_rows"] - answered.num_rows

    def check() -> None:
        mine = ours()
        if lost:
            given = pc.is_in(mine["row"], value_set=answered["row"].combine_chunks())
            if engine != "file" or not given.equals(pc.is_valid(mine[FEATURES[0]])):
                raise AssertionError(f"{peer}: {lost} entity rows are missing")
            mine = mine.filter(given)
        for name in ("row", "member_id", *FEATURES):
            right = mine[name].combine_chunks()
            if not answered[name].combine_chunks().cast(right.type).equals(right):
                raise AssertionError(f"{peer}: {name} differs")

    def own() -> float:
        begun = time.perf_counter()
        ours()
        return data.sizes["entity_rows"] / (time.perf_counter() - begun)

    compare(
        name=NAME,
        peer=peer,
        metric="entity rows joined " + ("from Parquet, reading included" if read else "in memory"),
        unit="rows/s",
        ours=own,
        theirs=lambda: data.sizes["entity_rows"] / ask(None)["seconds"],
        higher_is_better=True,
        sizes={**data.sizes, "rows_lost_by_peer": lost},
        versions={
            **versions,
            **{name: importlib.metadata.version(name) for name in ("numpy", "pyarrow", "scipy")},
        },
        check=check,
    )


if __name__ == "__main__":
    main()
