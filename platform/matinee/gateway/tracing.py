"""Traces by OpenTelemetry, one span a request. Imported only where `gateway.otlp_endpoint` is set.

A span holds the route's template, status and ids; nothing of the path, the query or the caller.
"""

from __future__ import annotations

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

EXPORT_TIMEOUT_S = 5


def provider(endpoint: str) -> TracerProvider:
    """Spans that go to `endpoint` in batches, beside the requests; close it with `shutdown()`."""
    made = TracerProvider(resource=Resource.create({"service.name": "matinee"}), shutdown_on_exit=False)
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint, timeout=EXPORT_TIMEOUT_S)))
    return made


class Traced:
    """ASGI middleware: a span around a request, the child of the caller's where `traceparent` names one."""

    def __init__(self, app: ASGIApp, *, provider: TracerProvider) -> None:
        self._app = app
        self._tracer = provider.get_tracer("matinee.gateway")
        self._propagator = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on inside a span."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        carrier = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in (b"traceparent", b"tracestate")
        }
        context = self._propagator.extract(carrier)
        with self._tracer.start_as_current_span(method, context, SpanKind.SERVER) as span:
            state = scope["state"]
            state["trace_id"] = f"{span.get_span_context().trace_id:032x}"

            async def watched(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_status(StatusCode.ERROR)
                await send(message)

            span.set_attribute("http.request.method", method)
            span.set_attribute("matinee.request_id", state["request_id"])
            try:
                await self._app(scope, receive, watched)
            finally:
                route = getattr(scope.get("route"), "path", "unmatched")
                span.update_name(f"{method} {route}")
                span.set_attribute("http.route", route)
