"""The gateway around an application's routes, put together from the settings, and released with it."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware.cors import CORSMiddleware

from matinee.config import Settings
from matinee.gateway import guard
from matinee.gateway.auth import Authenticator
from matinee.gateway.bodies import BodyLimit
from matinee.gateway.envelope import Envelope, access_log
from matinee.gateway.limits import Limits
from matinee.gateway.metrics import Metrics
from matinee.gateway.pages import HOME
from matinee.gateway.shortcut import Shortcut
from matinee.serving.surfaces import Surfaces


class Layers:
    """From the outside in: envelope, traces, CORS, shortcut, bodies; then, before each route, its guard.

    Args:
        settings: `auth`, `gateway` and `serving`.

    Raises:
        ConfigError: the settings are not safe.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._auth = Authenticator(settings)
        self._limits = Limits(settings.gateway)
        self._log = access_log(settings)
        self._tracer = None
        if endpoint := settings.gateway.otlp_endpoint:
            from matinee.gateway import tracing

            self._tracer = tracing.provider(endpoint)

    def install(self, app: FastAPI, *, metrics: Metrics, surfaces: Surfaces | None = None) -> None:
        """Wrap the application; call it once all routes are declared.

        Args:
            surfaces: whose pages at hand are answered before routing; None: the application has no pages.

        Raises:
            ValueError: a route does not say whom it lets in.
        """
        gateway = self._settings.gateway
        guard.install(app, gateway, self._auth, self._limits)
        app.add_middleware(BodyLimit, limit=self._settings.serving.max_body_bytes, seconds=gateway.body_s)
        if surfaces is not None:
            (home,) = (route for route in app.routes if isinstance(route, APIRoute) and route.path == HOME)
            app.add_middleware(Shortcut, route=home, surfaces=surfaces)
        if gateway.cors_origins:
            app.add_middleware(
                CORSMiddleware,
                allow_origins=gateway.cors_origins,
                allow_methods=("GET", "POST"),
                allow_headers=("authorization", "content-type", "x-request-id", "traceparent"),
                expose_headers=("retry-after", "x-request-id"),
            )
        if self._tracer is not None:
            from matinee.gateway.tracing import Traced

            app.add_middleware(Traced, provider=self._tracer)
        app.add_middleware(
            Envelope,
            metrics=metrics,
            log=self._log,
            max_header_bytes=gateway.max_header_bytes,
            max_path_bytes=gateway.max_path_bytes,
        )

    async def close(self) -> None:
        """Release what the layers hold."""
        self._auth.close()
        await self._limits.close()
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.shutdown)
        if self._log is not None:
            self._log.close()
