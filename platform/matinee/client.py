"""The API's client for applications, blocking and asyncio. It needs httpx, and of the platform its errors.

    with Client("https://api.example", token=key) as api:
        page = api.recommend("m42", k=10)
        api.events([{"type": "play", "member_id": "m42", "title_id": "t7", "event_time": now_us}])

A call that can be repeated without harm is repeated while the service is away or busy. Every answer is the
decoded JSON that /openapi.json describes.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx

from matinee.errors import InvalidInput, MatineeError, Unavailable

Answer = dict[str, Any]
Value = str | int | float | Sequence[str]
R = TypeVar("R")

BUSY = frozenset((429, 502, 503, 504))
"""Statuses after which the same request may succeed."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A problem document (RFC 9457); its text is empty where something else answered."""

    status: int
    type: str = "about:blank"
    title: str = ""
    detail: str = ""
    instance: str = ""
    errors: Sequence[Mapping[str, str]] = ()


class ApiError(MatineeError):
    """The service answered, and not what was asked for."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.status} {problem.title}: {problem.detail}")
        self.problem = problem


class Refused(ApiError):
    """The request cannot succeed as it is (4xx)."""


class Denied(Refused):
    """The credential is not accepted, or not for this (401, 403)."""


class Missing(Refused):
    """What is asked about does not exist (404)."""


class Failed(ApiError):
    """No answer, also after the repeats: the service failed or is too busy (429, 5xx), or sent no JSON."""


class Unreachable(Unavailable):
    """The service does not answer, also after the repeats there were."""


@dataclass(frozen=True, kw_only=True)
class Retry:
    """How calls are repeated: at random within a bound that doubles, so that callers do not come at once.

    Args:
        attempts: most requests of one call.
        base_s: bound of the first wait.
        most_s: longest wait; where the service asks for a longer one, the call fails at once.
    """

    attempts: int = 4
    base_s: float = 0.1
    most_s: float = 10.0

    def wait(self, attempt: int, asked_s: float, fraction: float) -> float | None:
        """Seconds until the next request; None: there is none.

        Args:
            attempt: requests so far, from 1.
            asked_s: what `Retry-After` says, or 0; it is never undercut.
            fraction: at random from [0, 1).
        """
        if attempt >= self.attempts or asked_s > self.most_s:
            return None
        return min(asked_s + fraction * self.base_s * 2.0 ** (attempt - 1), self.most_s)


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request, before it is sent; all its repeats bear one id."""

    method: str
    path: str
    body: object = None
    query: Mapping[str, Value] = field(default_factory=dict)
    repeatable: bool = True
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)


def bearer(credential: str) -> dict[str, str]:
    """The header that shows a token or an API key; none for "". White space around it is left out.

    Raises:
        InvalidInput: no header can hold it. The text does not tell it, as what a HTTP library raises would.
    """
    text = credential.strip()
    if not (text.isascii() and text.isprintable()):
        raise InvalidInput("the token holds characters that no header may: it is not shown here")
    return {"authorization": f"Bearer {text}"} if text else {}


class _Api(ABC, Generic[R]):
    """The calls; what they return is an answer, or an awaitable of one.

    Args:
        url: where the API is.
        token: a token or an API key, or what gives the current one; "": none.
        timeout_s: longest wait for an answer of one request.
        retry: how calls are repeated.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | Callable[[], str] = "",
        timeout_s: float = 10.0,
        retry: Retry | None = None,
    ) -> None:
        self._token = token
        self._retry = retry or Retry()
        self._connect(base_url=url.rstrip("/"), timeout=timeout_s, follow_redirects=False)

    @abstractmethod
    def _connect(self, **options: Any) -> None:
        """Make the HTTP client with these options."""

    @abstractmethod
    def call(self, call: Call) -> R:
        """Make any call.

        Raises:
            InvalidInput: the token is none.
            Refused: it cannot succeed as it is (`Denied`: 401, 403; `Missing`: 404).
            Failed: the service could not answer.
            Unreachable: nothing answers.
        """

    def recommend(
        self, member_id: str, *, k: int = 20, surface: str = "home", filters: Mapping[str, Any] | None = None
    ) -> R:
        """The best `k` titles for a member on a surface."""
        body = {"member_id": member_id, "k": k, "surface": surface}
        return self._post("/v1/recommendations", body if filters is None else body | {"filters": filters})

    def home(self, member_id: str, **query: Value) -> R:
        """A member's page, in rows; `query` is the route's: surface, max_maturity, languages, ..."""
        return self._get(f"/v1/members/{_quoted(member_id)}/home", **query)

    def similar(self, title_id: str, **query: Value) -> R:
        """The titles most like a title; `query` is the route's: k, max_maturity, languages, ..."""
        return self._get(f"/v1/titles/{_quoted(title_id)}/similar", **query)

    def events(self, events: Sequence[Mapping[str, Any]]) -> R:
        """Post up to 1,000 events. Those without an `event_id` get one, so a repeat counts none twice."""
        return self._post("/v1/events", [{"event_id": str(uuid.uuid4())} | dict(event) for event in events])

    def features(self, member_id: str) -> R:
        """What the online store holds of a member."""
        return self._get(f"/v1/members/{_quoted(member_id)}/features")

    def split(self, surface: str = "home") -> R:
        """How a surface's members are shared among versions."""
        return self._get(f"/v1/splits/{_quoted(surface)}")

    def set_split(self, surface: str, weights: Mapping[str, float], *, who: str, why: str) -> R:
        """Change a split. It is not repeated: a repeat that comes late would undo what others did since."""
        body = {"weights": weights, "who": who, "why": why}
        path = f"/v1/splits/{_quoted(surface)}"
        return self.call(Call(method="PUT", path=path, body=body, repeatable=False))

    def _get(self, path: str, **query: Value) -> R:
        return self.call(Call(method="GET", path=path, query=query))

    def _post(self, path: str, body: object) -> R:
        return self.call(Call(method="POST", path=path, body=body))

    def _request(self, client: httpx.Client | httpx.AsyncClient, call: Call) -> httpx.Request:
        token = self._token() if callable(self._token) else self._token
        headers = {"x-request-id": call.request_id} | bearer(token)
        return client.build_request(
            call.method, call.path, params=dict(call.query) or None, json=call.body, headers=headers
        )

    def _wait(self, call: Call, attempt: int, result: httpx.Response | httpx.TransportError) -> float | None:
        """Seconds until the request is repeated; None: `result` is what the call comes to."""
        if isinstance(result, httpx.Response) and result.status_code not in BUSY:
            return None
        if not call.repeatable:
            return None
        asked = _retry_after(result) if isinstance(result, httpx.Response) else 0.0
        return self._retry.wait(attempt, asked, random.random())


class Client(_Api[Answer]):
    """The blocking client; threads may share it."""

    def _connect(self, **options: Any) -> None:
        self._client = httpx.Client(**options)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def call(self, call: Call) -> Answer:
        """Make any call."""
        for attempt in range(1, self._retry.attempts + 1):
            result: httpx.Response | httpx.TransportError
            try:
                result = self._client.send(self._request(self._client, call))
            except httpx.TransportError as failure:
                result = failure
            wait = self._wait(call, attempt, result)
            if wait is None:
                break
            time.sleep(wait)
        return _answer(call, result)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class AsyncClient(_Api[Awaitable[Answer]]):
    """The asyncio client."""

    def _connect(self, **options: Any) -> None:
        self._client = httpx.AsyncClient(**options)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.close()

    async def call(self, call: Call) -> Answer:
        """Make any call."""
        for attempt in range(1, self._retry.attempts + 1):
            result: httpx.Response | httpx.TransportError
            try:
                result = await self._client.send(self._request(self._client, call))
            except httpx.TransportError as failure:
                result = failure
            wait = self._wait(call, attempt, result)
            if wait is None:
                break
            await asyncio.sleep(wait)
        return _answer(call, result)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _answer(call: Call, result: httpx.Response | httpx.TransportError) -> Answer:
    if isinstance(result, httpx.TransportError):
        raise Unreachable(f"{call.method} {call.path}: {type(result).__name__}: {result}") from result
    if result.is_success:
        try:
            answer: Answer = result.json()
        except ValueError:
            raise Failed(_problem(result)) from None
        return answer
    problem = _problem(result)
    if result.status_code in BUSY or result.status_code >= 500:
        raise Failed(problem)
    kinds: dict[int, type[ApiError]] = {401: Denied, 403: Denied, 404: Missing}
    raise kinds.get(result.status_code, Refused)(problem)


def _problem(answer: httpx.Response) -> Problem:
    """The document of an answer; what stands before the service may have answered in its place."""
    try:
        document = answer.json()
        known = {name: document[name] for name in Problem.__dataclass_fields__ if name in document}
        return Problem(**known | {"status": answer.status_code})
    except (ValueError, TypeError):
        return Problem(status=answer.status_code, title=answer.reason_phrase, detail=answer.text[:200])


def _retry_after(answer: httpx.Response) -> float:
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdecimal() else 0.0
