from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from matinee.errors import Unavailable
from matinee.local.clients import Client, load, wait_ready


class Handler(BaseHTTPRequestHandler):
    """Answers every third ranking with 500, and is never ready."""

    protocol_version = "HTTP/1.1"
    count = 0
    lock = threading.Lock()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        with Handler.lock:
            Handler.count += 1
            status = 500 if Handler.count % 3 == 0 else 200
        self._answer(status, {"items": []})

    def do_GET(self) -> None:
        self._answer(503, {"detail": "no model"})

    def _answer(self, status: int, body: object) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_every_request_is_counted_and_a_refused_one_failed(url: str) -> None:
    Handler.count = 0
    ticks: list[None] = []
    with Client(url) as client:
        found = load(client, ["1", "2"], requests=30, clients=4, tick=lambda: ticks.append(None))
    assert (found.count, found.failed, len(ticks)) == (30, 10, 30)
    assert 0 < found.p50_ms <= found.p95_ms


def test_an_api_that_is_gone_fails_every_request_but_raises_nothing() -> None:
    found = load(Client("http://127.0.0.1:9"), ["1"], requests=5, clients=2)
    assert (found.count, found.failed) == (5, 5)


def test_waiting_for_an_api_that_is_never_ready_says_what_it_answers(url: str) -> None:
    with Client(url) as client, pytest.raises(Unavailable, match="no model"):
        wait_ready(client, timeout_s=0.5)
