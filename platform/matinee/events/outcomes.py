"""What members made of the titles they were shown, from their events. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from matinee.schema import Catalogue, EventType, Outcomes

_KEY = ("member_id", "session", "title_id")


def outcomes(events: pa.Table, catalogue: Catalogue, member_ids: Sequence[str]) -> Outcomes:
    """One row for each title in each session of a member, in time order; others than these are left out.

    A click is known where the title was shown, a play where it was shown or clicked, completion where it
    was played and stopped: the seconds watched over the longest that anyone here watched the title.

    Args:
        events: with type, member_id, session, title_id, event_time and value of `EVENT_SCHEMA`.
        member_ids: of the interactions that the outcomes go with.
    """
    here = pc.and_(
        pc.is_in(events["member_id"], pa.array(member_ids, pa.string())),
        pc.is_in(events["title_id"], catalogue.table["title_id"].combine_chunks()),
    )
    events = events.filter(here)
    columns = {name: events[name] for name in _KEY}
    columns["time"] = events["event_time"].cast(pa.int64())
    for kind in (EventType.IMPRESSION, EventType.CLICK, EventType.PLAY):
        columns[kind] = pc.equal(events["type"], str(kind)).cast(pa.int8())
    stopped = pc.equal(events["type"], str(EventType.STOP))
    columns["watched"] = pc.if_else(stopped, events["value"], None)
    found = (
        pa.table(columns)
        .group_by(_KEY)
        .aggregate(
            [("time", "min"), ("impression", "max"), ("click", "max"), ("play", "max"), ("watched", "max")]
        )
    )
    found = found.sort_by([("time_min", "ascending"), *((name, "ascending") for name in _KEY)])
    shown, clicked, played = (found[f"{name}_max"].to_numpy() > 0 for name in ("impression", "click", "play"))
    title = pc.index_in(found["title_id"], pa.array(catalogue.title_ids, pa.string())).to_numpy()
    watched = found["watched_max"].fill_null(np.nan).to_numpy()
    longest = np.zeros(len(catalogue))
    np.fmax.at(longest, title, watched)
    return Outcomes(
        member=pc.index_in(found["member_id"], pa.array(member_ids, pa.string())).to_numpy(),
        title=title,
        time=found["time_min"].to_numpy(),
        click=np.where(shown, clicked, np.nan).astype(np.float32),
        play=np.where(shown | clicked, played, np.nan).astype(np.float32),
        completion=np.where(played, watched / np.maximum(longest[title], 1.0), np.nan).astype(np.float32),
    )
