"""How a peer's script and its benchmark talk: the request in argv, one JSON line back, tables in Parquet."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def request() -> dict[str, Any]:
    """What the benchmark asks."""
    asked: dict[str, Any] = json.loads(sys.argv[1])
    return asked


def answer(**found: Any) -> None:
    """Print the answer; nothing may be printed after it. The peak of resident memory, in MiB, is added.

    It is that of this process and of those it started that still run: a JVM, ...
    """
    peak = sum(_peak_kib(process) for process in ["self", *_children()])
    sys.stderr.flush()
    print("\n" + json.dumps({**found, "peak_mib": round(peak / 1024)}), flush=True)


def _children() -> list[str]:
    tasks = Path("/proc/self/task").glob("*/children")
    return [process for children in tasks for process in children.read_text().split()]


def _peak_kib(process: str) -> int:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    peaks = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return int(peaks[0]) if peaks else 0


def write_windows(
    path: str, key: Sequence[str], start: Sequence[int], count: Sequence[int], total: Sequence[float]
) -> None:
    """Write a row a key and window: key, window_start (us), count, sum. Nothing where `path` is empty."""
    if path:
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = [
            pa.array(key, pa.string()),
            pa.array(start, pa.int64()),
            pa.array(count, pa.int64()),
            pa.array(total, pa.float64()),
        ]
        pq.write_table(pa.table(columns, names=["key", "window_start", "count", "sum"]), path)
