"""What members made of the titles they were shown, from their events. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from matinee.schema import Catalogue, EventType, Outcomes

TYPES = (EventType.IMPRESSION, EventType.CLICK, EventType.PLAY, EventType.STOP)
COLUMNS = ("type", "member_id", "session", "title_id", "event_time", "value")

_SESSION = ("member_id", "session")
_KEY = (*_SESSION, "title_id")


def outcomes(events: pa.Table, catalogue: Catalogue, member_ids: Sequence[str]) -> Outcomes:
    """One row for each title in each session of a member, in time order; others than these are left out.

    A click is known where the title was shown, a play where it was shown or clicked, completion where it
    was played and stopped: the seconds watched over the longest that anyone here watched the title. Rows of
    which nothing is known are left out too.

    Args:
        events: with `COLUMNS`, of the types `TYPES`; others tell nothing.
        member_ids: of the interactions that the outcomes go with.
    """
    here = pc.and_(
        pc.is_in(events["member_id"], pa.array(member_ids, pa.string())),
        pc.is_in(events["title_id"], catalogue.table["title_id"].combine_chunks()),
    )
    events = events.filter(here)
    columns = {name: events[name] for name in _KEY}
    columns["time"] = events["event_time"].cast(pa.int64())
    for kind in TYPES[:-1]:
        columns[kind] = pc.equal(events["type"], str(kind)).cast(pa.int8())
    stopped = pc.equal(events["type"], str(EventType.STOP))
    columns["watched"] = pc.if_else(stopped, events["value"], None)
    found = (
        pa.table(columns)
        .group_by(_KEY)
        .aggregate(
            [
                ("time", "min"),
                ("time", "max"),
                *((name, "max") for name in ("impression", "click", "play", "watched")),
            ]
        )
    )
    found = found.sort_by([("time_min", "ascending"), *((name, "ascending") for name in _KEY)])
    shown, clicked, played = (found[f"{name}_max"].to_numpy() > 0 for name in ("impression", "click", "play"))
    member = _positions(found["member_id"], pa.array(member_ids, pa.string()))
    title = _positions(found["title_id"], pa.array(catalogue.title_ids, pa.string()))
    watched = found["watched_max"].fill_null(np.nan).to_numpy()
    longest = np.zeros(len(catalogue))
    np.fmax.at(longest, title, watched)
    with np.errstate(invalid="ignore"):
        completion = np.where(played, watched / longest[title], np.nan)
    made = Outcomes(
        member=member,
        title=title,
        time=found["time_min"].to_numpy(),
        ended=_ends(found, member),
        click=np.where(shown, clicked, np.nan).astype(np.float32),
        play=np.where(shown | clicked, played, np.nan).astype(np.float32),
        completion=completion.astype(np.float32),
    )
    return made.take(np.isfinite(made.play) | np.isfinite(made.completion))


def _ends(found: pa.Table, member: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """When the session of each row had its last event."""
    session = _positions(found["session"], pc.unique(found["session"]))
    sessions, row = np.unique(np.stack([member, session]), axis=1, return_inverse=True)
    last = np.zeros(sessions.shape[1], np.int64)
    np.maximum.at(last, row, found["time_max"].to_numpy())
    return last[row]


def _positions(values: pa.ChunkedArray, among: pa.Array) -> npt.NDArray[np.int32]:
    found: npt.NDArray[np.int32] = pc.index_in(values, among).to_numpy()
    return found
