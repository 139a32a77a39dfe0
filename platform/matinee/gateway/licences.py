"""The routes of licences: which titles are on offer, where and when."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
from fastapi import Depends, FastAPI
from pydantic import BaseModel, Field

from matinee.config import Settings
from matinee.events.encode import rfc3339
from matinee.gateway.bodies import json_only
from matinee.gateway.guard import allow
from matinee.gateway.messages import Body, MemberId, Name, Why
from matinee.gateway.problems import documented
from matinee.serving.availability import WINDOW_SCHEMA, time_of
from matinee.serving.licences import Change, Licences

Time = Annotated[str | None, Field(None, description="RFC 3339; a date is its first moment, UTC.")]


class Window(Body):
    """Where and when a title is on offer."""

    country: str | None = Field(
        None, pattern="^[A-Z]{2}$", description="ISO 3166-1 alpha-2; null: everywhere."
    )
    available_from: Time
    available_until: Time


class TitleWindow(Window):
    """A window of a list."""

    title_id: MemberId


class ListRequest(Body):
    """A list that takes the place of the one in force; a title it does not name is on offer everywhere."""

    windows: list[TitleWindow]
    who: Name
    why: Why


class TitleRequest(Body):
    """What is decided about one title, whatever the list says."""

    windows: list[Window] | None = Field(
        description="Empty: it is on offer nowhere; null: what was decided about it alone is taken back."
    )
    who: Name
    why: Why


class WindowState(BaseModel):
    """A window in force."""

    country: str | None
    available_from: str | None
    available_until: str | None


class ChangeState(BaseModel):
    """One change."""

    windows: int | None = Field(description="How many; null: taken back.")
    who: str
    why: str
    time: str


class ListState(BaseModel):
    """The lists."""

    windows: int = Field(description="How many are in force, those of single titles too.")
    history: list[ChangeState] = Field(description="Of the list, newest first.")


class TitleState(BaseModel):
    """Where and when a title is on offer; without a window: everywhere, at any time."""

    title_id: str
    windows: list[WindowState]
    history: list[ChangeState] = Field(description="Of this title alone, newest first.")


def install(app: FastAPI, settings: Settings) -> None:
    """Add the routes to an application."""

    @app.get(
        "/v1/licences", response_model=ListState, responses=documented(503), openapi_extra=allow("operator")
    )
    def licences() -> dict[str, Any]:
        """What was decided about all titles."""
        with closing(Licences(settings)) as store:
            return _list_state(store)

    @app.put(
        "/v1/licences",
        response_model=ListState,
        responses=documented(400, 413, 415, 422, 503),
        openapi_extra=allow("operator"),
        dependencies=[Depends(json_only)],
    )
    def set_licences(body: ListRequest) -> dict[str, Any]:
        """Put another list in force, whole; replicas follow within a second."""
        windows = _table([each.title_id for each in body.windows], body.windows)
        with closing(Licences(settings)) as store:
            store.replace(windows, who=body.who, why=body.why)
            return _list_state(store)

    @app.get(
        "/v1/licences/{title_id:path}",
        response_model=TitleState,
        responses=documented(503),
        openapi_extra=allow("operator"),
    )
    def licence(title_id: str) -> dict[str, Any]:
        """Where and when a title is on offer."""
        with closing(Licences(settings)) as store:
            return _title_state(store, title_id)

    @app.put(
        "/v1/licences/{title_id:path}",
        response_model=TitleState,
        responses=documented(400, 413, 415, 422, 503),
        openapi_extra=allow("operator"),
        dependencies=[Depends(json_only)],
    )
    def set_licence(title_id: str, body: TitleRequest) -> dict[str, Any]:
        """Decide about one title; replicas follow within a second."""
        with closing(Licences(settings)) as store:
            if body.windows is None:
                store.clear(title_id, who=body.who, why=body.why)
            else:
                windows = _table([title_id] * len(body.windows), body.windows)
                store.set(title_id, windows, who=body.who, why=body.why)
            return _title_state(store, title_id)


def _table(title_ids: Sequence[str], windows: Sequence[Window]) -> pa.Table:
    columns = [
        title_ids,
        [each.country for each in windows],
        [time_of(each.available_from) for each in windows],
        [time_of(each.available_until) for each in windows],
    ]
    return pa.table(columns, schema=WINDOW_SCHEMA)


def _list_state(store: Licences) -> dict[str, Any]:
    changes = [change for change in store.history() if change.title_id is None]
    return {"windows": len(store.listed().windows), "history": _changes(changes)}


def _title_state(store: Licences, title_id: str) -> dict[str, Any]:
    windows = store.listed().windows
    own = windows.filter(pc.equal(windows["title_id"], title_id)).drop_columns("title_id")
    rows = [
        {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in row.items()}
        for row in own.to_pylist()
    ]
    return {"title_id": title_id, "windows": rows, "history": _changes(store.history(title_id))}


def _changes(changes: Sequence[Change]) -> list[dict[str, Any]]:
    return [
        {"windows": each.windows, "who": each.who, "why": each.why, "time": rfc3339(each.time)}
        for each in changes
    ]
