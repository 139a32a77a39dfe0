"""The layers put together: CORS, deadlines, traces, each by its setting."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from matinee.config import load_settings
from matinee.gateway import problems
from matinee.gateway.guard import allow
from matinee.gateway.layers import Layers
from matinee.gateway.metrics import Metrics


@pytest.fixture
def client(tmp_path: Path, call: Any) -> Iterator[Callable[..., Any]]:
    """Make a client of a small application behind all layers."""
    clients: list[Any] = []

    def make(**flags: object) -> Any:
        given = {name.replace("__", "."): value for name, value in flags.items()}
        layers = Layers(load_settings({"home": str(tmp_path)} | given, environment={}))

        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            yield
            await layers.close()

        app = FastAPI(lifespan=lifespan)
        problems.install(app)

        @app.get("/members/{member_id}/x", openapi_extra=allow("member"))
        async def answer(member_id: str) -> str:
            if member_id == "slow":
                await asyncio.sleep(30)
            if member_id == "late":
                raise TimeoutError("not the deadline's")
            return member_id

        metrics = Metrics(exposures=lambda: (0, 0), splits=dict)
        layers.install(app, metrics=metrics)
        clients.append(call(app))
        return clients[-1]

    yield make
    for each in clients:
        each.close()


def test_a_request_that_takes_too_long_is_answered_503(client: Any) -> None:
    api = client(gateway__request_s=0.1)
    answer = api.get("/members/slow/x")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["detail"] == "the request took more than 0.1 s"
    assert api.get("/members/late/x").status_code == 500


def test_pages_of_named_origins_may_call(client: Any) -> None:
    def preflight(api: Any, origin: str) -> Any:
        headers = {"origin": origin, "access-control-request-method": "POST"}
        return api.request("OPTIONS", "/members/m1/x", headers=headers)

    api = client(gateway__cors_origins=("https://app.example",), auth__keys=True)
    answer = preflight(api, "https://app.example")
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://app.example")
    assert "access-control-allow-origin" not in preflight(api, "https://evil.example").headers
    refused = api.request("GET", "/members/m1/x", headers={"origin": "https://app.example"})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (
        401,
        "https://app.example",
    )
    assert preflight(client(), "https://app.example").status_code == 405


class Collector(ThreadingHTTPServer):
    """Takes spans as an OTLP collector does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Export)
        self.bodies: list[bytes] = []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()


class Export(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


def test_spans_go_to_the_collector_without_what_was_asked(tmp_path: Path, client: Any) -> None:
    collector = Collector()
    endpoint = f"http://127.0.0.1:{collector.server_port}/v1/traces"
    api = client(gateway__otlp_endpoint=endpoint)
    trace, parent = "a" * 32, "b" * 16
    headers = {"traceparent": f"00-{trace}-{parent}-01", "x-request-id": "find-me"}
    api.request("GET", "/members/hidden/x?q=hidden", headers=headers)
    api.get("/members/late/x")
    api.close()
    collector.shutdown()
    collector.server_close()
    request = ExportTraceServiceRequest()
    request.ParseFromString(b"".join(collector.bodies))
    spans = [span for each in request.resource_spans for scope in each.scope_spans for span in scope.spans]
    first, second = sorted(spans, key=lambda span: span.start_time_unix_nano)
    assert first.name == second.name == "GET /members/{member_id}/x"
    assert (first.trace_id.hex(), first.parent_span_id.hex()) == (trace, parent)
    attributes = {each.key: each.value.string_value or each.value.int_value for each in first.attributes}
    assert attributes["matinee.request_id"] == "find-me"
    assert attributes["http.response.status_code"] == 200
    assert second.status.code == 2
    assert "hidden" not in str(request)
    (log,) = (tmp_path / "logs").iterdir()
    assert json.loads(log.read_text().splitlines()[0])["trace_id"] == trace


def test_without_an_endpoint_nothing_of_tracing_is_imported() -> None:
    code = (
        "import sys, matinee.gateway.app; off = ('opentelemetry.sdk', 'opentelemetry.exporter'); "
        "sys.exit(any(name.startswith(off) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
