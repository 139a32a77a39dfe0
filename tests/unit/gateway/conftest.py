"""A blocking client that calls an ASGI application in this process; a home and a broker to serve from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
import served_home

from matinee.config import Settings, load_settings
from matinee.events.broker import LocalBroker
from matinee.events.kafka import ensure_topics


class Client:
    """One event loop, one application."""

    def __init__(self, app: Any) -> None:
        self._closed = False
        self._runner = asyncio.Runner()
        self._transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self._lifespan = app.router.lifespan_context(app) if hasattr(app, "router") else None
        if self._lifespan:
            self._runner.run(self._lifespan.__aenter__())

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._lifespan:
            self._runner.run(self._lifespan.__aexit__(None, None, None))
        self._runner.close()

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._runner.run(self._request(method, path, **options))

    def get(self, path: str) -> httpx.Response:
        return self.request("GET", path)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)

    def put(self, path: str, **options: Any) -> httpx.Response:
        return self.request("PUT", path, **options)

    async def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        if isinstance(options.get("content"), Iterator):
            options["content"] = _async(options["content"])
        async with httpx.AsyncClient(transport=self._transport, base_url="http://test") as client:
            return await client.request(method, path, **options)


async def _async(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


@pytest.fixture(scope="session")
def call() -> Iterator[Callable[[Any], Client]]:
    """Make a client of an application; it is closed with the session."""
    clients: list[Client] = []

    def make(app: Any) -> Client:
        clients.append(Client(app))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = load_settings({"home": str(tmp_path_factory.mktemp("home"))}, environment={})
    served_home.make(settings)
    return settings


@pytest.fixture(scope="module")
def bootstrap(home: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with LocalBroker(tmp_path_factory.mktemp("broker") / "log") as broker:
        ensure_topics(home.kafka, broker.bootstrap)
        yield broker.bootstrap
