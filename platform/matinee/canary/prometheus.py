"""The Prometheus door: a query over time as the judge's samples."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.parse
import urllib.request

import numpy as np
import numpy.typing as npt

from matinee.errors import InvalidInput, Unavailable

TIMEOUT_S = 5.0


def query_range(
    address: str, query: str, *, start: int, interval_us: int, count: int, timeout_s: float = TIMEOUT_S
) -> npt.NDArray[np.float64]:
    """A query's value at the end of each interval, float64 [count]; NaN where Prometheus has none.

    Args:
        address: of Prometheus, "http://host:9090".
        query: PromQL that gives one series.
        start: microseconds since the epoch: where the first interval begins.

    Raises:
        InvalidInput: the query is refused, or gives more than one series.
        Unavailable: Prometheus does not answer.
    """
    values = np.full(count, np.nan)
    if not count:
        return values
    step = interval_us / 1e6
    first = start / 1e6 + step
    asked = {
        "query": query,
        "start": f"{first:.3f}",
        "end": f"{first + step * (count - 1):.3f}",
        "step": step,
    }
    url = f"{address.rstrip('/')}/api/v1/query_range?{urllib.parse.urlencode(asked)}"
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:
            found = json.load(answer)
    except urllib.error.HTTPError as failure:
        with failure:
            raise InvalidInput(f"query {query!r}: {failure.read(500).decode(errors='replace')}") from None
    except (OSError, ValueError) as failure:
        raise Unavailable(f"Prometheus at {address}: {failure}") from None
    series = found["data"]["result"]
    if len(series) > 1:
        raise InvalidInput(f"query {query!r} gives {len(series)} series; one is needed, as of sum(...)")
    for time, value in series[0]["values"] if series else ():
        place = round((float(time) - first) / step)
        if 0 <= place < count and math.isfinite(float(value)):
            values[place] = float(value)
    return values
