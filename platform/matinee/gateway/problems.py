"""Errors as RFC 9457 problem documents: every answer from 400 up is one, and none shows a stack trace."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from matinee.errors import Forbidden, InvalidInput, MatineeError, NotFound, StorageError, Unavailable

MEDIA_TYPE = "application/problem+json"

_STATUS: tuple[tuple[type[MatineeError], int], ...] = (
    (InvalidInput, 422),
    (NotFound, 404),
    (Forbidden, 403),
    (Unavailable, 503),
    (StorageError, 503),
)

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="-")
"""Of the request that is worked on, for what is logged meanwhile."""

logger = logging.getLogger(__name__)


class Fault(BaseModel):
    """One thing that is wrong with a request."""

    field: str = Field(description="Where: the field's path, or the event's place in the list.")
    detail: str = Field(description="What is wrong: the value, and what is accepted.")


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = Field(description="A stable name of the kind of problem.")
    title: str
    status: int
    detail: str = Field(description="The thing, its value, and what is accepted or the remedy.")
    instance: str = Field(description="The path that was asked for.")
    errors: list[Fault] | None = Field(None, description="Each fault, where there can be several.")


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Statuses that a route answers with a problem, as OpenAPI is told."""
    return {status: {"model": Problem} for status in statuses}


def problem(
    path: str,
    status: int,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    errors: Sequence[tuple[str, str]] = (),
) -> Response:
    """A problem document as a response.

    Args:
        path: the path that was asked for.
        errors: (field, detail) of each fault.
    """
    title = HTTPStatus(status).phrase
    document: dict[str, Any] = {
        "type": "urn:matinee:problem:" + title.lower().replace(" ", "-"),
        "title": title,
        "status": status,
        "detail": detail,
        "instance": path,
    }
    if errors:
        document["errors"] = [{"field": field, "detail": text} for field, text in errors]
    return Response(_json(document), status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Make every error of `app` a problem document."""
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(MatineeError, _on_failure)
    app.add_exception_handler(Exception, _on_failure)


def shown(value: object) -> str:
    """A value as an error may quote it: short, printable, on one line."""
    text = ascii(value) if not isinstance(value, str) or not value.isprintable() else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _json(document: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(document)
    except TypeError:  # lone surrogates in what the client sent
        return orjson.dumps({key: _clean(value) for key, value in document.items()})


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    return value


async def _on_invalid(request: Request, failure: Exception) -> Response:
    assert isinstance(failure, RequestValidationError)
    faults = failure.errors()
    path = request.url.path
    if faults[0]["type"] == "json_invalid":
        reason = faults[0].get("ctx", {}).get("error", "not JSON")
        return problem(path, 400, f"the body is not JSON: {reason}")
    errors = [(_field(fault), _fault(fault)) for fault in faults]
    return problem(path, 422, "; ".join(detail for _, detail in errors), errors=errors)


async def _on_http(request: Request, failure: Exception) -> Response:
    assert isinstance(failure, HTTPException)
    path = request.url.path
    detail = str(failure.detail)
    if failure.status_code == 404 and detail == "Not Found":
        detail = f"nothing is at {shown(path)}; /openapi.json lists the routes"
    elif failure.status_code == 405:
        allowed = (failure.headers or {}).get("allow") or (failure.headers or {}).get("Allow", "")
        detail = f"{request.method} is not accepted at {shown(path)}; accepted: {allowed}"
    elif failure.status_code == 400 and detail == "There was an error parsing the body":
        detail = "the body is not JSON"
    return problem(path, failure.status_code, detail, headers=failure.headers)


def of_failure(method: str, path: str, failure: Exception) -> Response:
    """The problem document of what a route raised; what the caller cannot mend is logged as well."""
    if not isinstance(failure, MatineeError):
        logger.error("request %s: %s %s failed", REQUEST_ID.get(), method, path, exc_info=failure)
        return problem(path, 500, "the request failed inside the service; its log says why")
    status = next((status for kind, status in _STATUS if isinstance(failure, kind)), 500)
    headers = {}
    if status == 503:
        wait = failure.retry_after_s if isinstance(failure, Unavailable) else 30.0
        headers["retry-after"] = str(max(1, math.ceil(wait)))
    if status == 500:
        logger.error("request %s: %s %s: %s", REQUEST_ID.get(), method, path, failure)
    return problem(path, status, str(failure), headers=headers)


async def _on_failure(request: Request, failure: Exception) -> Response:
    return of_failure(request.method, request.url.path, failure)


def _field(fault: Mapping[str, Any]) -> str:
    return ".".join(str(part) for part in fault["loc"][1:]) or "body"


def _fault(fault: Mapping[str, Any]) -> str:
    field = _field(fault)
    if fault["type"] == "missing":
        return f"{field} is missing" if field != "body" else "the body is empty; a JSON object is needed"
    if fault["type"] == "extra_forbidden":
        return f"{field} is not a known field"
    message = fault["msg"][0].lower() + fault["msg"][1:]
    return f"{field} is {shown(fault['input'])}: {message}"
