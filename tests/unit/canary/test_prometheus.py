"""The Prometheus door, against a server that speaks its HTTP API."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from matinee.canary.prometheus import query_range
from matinee.errors import InvalidInput, Unavailable

S = 1_000_000


class Answers(BaseHTTPRequestHandler):
    """`up` counts from 1, with a gap and a NaN; `two` has two series; all else is no PromQL."""

    def do_GET(self) -> None:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        start, step = float(asked["start"]), float(asked["step"])
        values = [[start + i * step, v] for i, v in enumerate(["1", "NaN", "3"])]
        series: list[dict[str, Any]] = {
            "up": [{"metric": {}, "values": values}],
            "two": [{"metric": {}, "values": values}] * 2,
            "none": [],
        }.get(asked["query"], [])
        known = asked["query"] in ("up", "two", "none")
        body = {"status": "success", "data": {"resultType": "matrix", "result": series}}
        payload = json.dumps(body if known else {"status": "error", "error": "parse error"}).encode()
        self.send_response(200 if known else 400)
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *given: Any) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def ask(address: str, query: str, count: int = 4) -> list[float]:
    return query_range(address, query, start=1_000 * S, interval_us=15 * S, count=count).tolist()


def test_a_value_for_each_interval(address: str) -> None:
    np.testing.assert_array_equal(ask(address, "up"), [1.0, np.nan, 3.0, np.nan])
    np.testing.assert_array_equal(ask(address, "none", 2), [np.nan, np.nan])
    assert ask(address, "up", 0) == []


def test_what_cannot_be_judged_says_so(address: str) -> None:
    with pytest.raises(InvalidInput, match="gives 2 series"):
        ask(address, "two")
    with pytest.raises(InvalidInput, match="parse error"):
        ask(address, "sum(")
    with pytest.raises(Unavailable, match="Prometheus at http"):
        ask("http://127.0.0.1:9", "up")
