"""Online read in process: one entity x 50 features, beside the Feast SDK on its own SQLite and Redis stores.

Latency of single calls, p50 and p99, one thread. Ours returns a dict of Python values by name; Feast's
`get_online_features(...).to_dict()` the same. Values are compared before anything is measured.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import online_home
from benchmarks.common import arguments, compare, skipped

NAME = "online_read"
FEATURES = 50


def main(quick: bool) -> None:
    """Fill the stores, compare what they answer, measure."""
    entities = 2_000 if quick else 20_000
    calls, slow_calls = (4_000, 400) if quick else (20_000, 2_000)
    rows = online_home.table(entities, FEATURES)
    keys = random.Random(1).choices([f"m{i}" for i in range(entities)], k=calls)
    refs = [f"{online_home.VIEW}:{name}" for name in online_home.features(FEATURES)]
    with tempfile.TemporaryDirectory() as scratch, online_home.redis_server(Path(scratch)) as redis:
        folder = Path(scratch)
        for peer in ("sqlite", "redis"):
            if peer == "redis" and redis is None:
                skipped(NAME, "feast, redis", "no redis-server on this machine")
                continue
            port = redis.port if redis is not None and peer == "redis" else None
            _, store = online_home.ours(folder / f"ours-{peer}", rows, FEATURES, redis=port)
            online = (
                f"{{type: sqlite, path: {folder}/feast.db}}"
                if peer == "sqlite"
                else f'{{type: redis, connection_string: "127.0.0.1:{port}"}}'
            )
            feasts = online_home.feasts(folder / f"feast-{peer}", rows, FEATURES, online)

            def read(key: str, store: Any = store) -> Mapping[str, Any]:
                found: Mapping[str, Any] = store.read_one(online_home.SERVICE, key)
                return found

            def feast_read(key: str, feasts: Any = feasts) -> Mapping[str, Any]:
                answer = feasts.get_online_features(features=refs, entity_rows=[{"member_id": key}])
                found: Mapping[str, Any] = answer.to_dict()
                return found

            def check(read: Any = read, feast_read: Any = feast_read) -> None:
                for key in keys[:50]:
                    own, other = read(key), feast_read(key)
                    assert {**own, "member_id": key} == {name: value for name, (value,) in other.items()}

            for percentile in (50, 99):
                compare(
                    name=NAME,
                    peer=f"feast SDK, {peer}",
                    metric=f"p{percentile} of one entity x {FEATURES} features",
                    unit="us",
                    ours=lambda read=read, percentile=percentile: latency(read, keys, percentile),
                    theirs=lambda read=feast_read, percentile=percentile: latency(
                        read, keys[:slow_calls], percentile
                    ),
                    higher_is_better=False,
                    sizes={
                        "entities": entities,
                        "features": FEATURES,
                        "calls": calls,
                        "peer_calls": slow_calls,
                        "threads": 1,
                        "store": peer,
                    },
                    versions={each: version(each) for each in ("feast", "redis", "hiredis")},
                    check=check,
                )


def latency(read: Callable[[str], Any], keys: list[str], percentile: int) -> float:
    """A percentile of single calls, microseconds."""
    for key in keys[:50]:
        read(key)
    clock = time.perf_counter
    taken = np.empty(len(keys))
    for place, key in enumerate(keys):
        start = clock()
        read(key)
        taken[place] = clock() - start
    return float(np.percentile(taken, percentile) * 1e6)


if __name__ == "__main__":
    main(arguments(__doc__).quick)
