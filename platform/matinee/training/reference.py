"""The reference of a version: what its inputs and scores look like, for drift to be measured against.

One row a member of the training data. Columns: the member's latest features as the online store holds
them, then `score_top` and `score_mean` of the list the member would be answered now, watched titles left
out: the score of its first title, and the mean over its first 20.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from matinee.config import Settings
from matinee.features import batch
from matinee.features.titles import genre_names
from matinee.features.vectors import MEMBER_COUNTS, member_vector
from matinee.models.base import Model, Query
from matinee.schema import Catalogue, Features, Interactions
from matinee.training import evaluate

SCORE_COLUMNS = ("score_top", "score_mean")


def latest_features(settings: Settings, catalogue: Catalogue, interactions: Interactions) -> Features:
    """Every member's latest feature vector, aligned with `interactions.member_ids`."""
    views = batch.latest(settings)
    asked = pa.table({"member_id": pa.array(interactions.member_ids, pa.string())})
    for view, columns in (
        ("member_activity", [*MEMBER_COUNTS]),
        ("member_affinity", ["genres", "affinity"]),
    ):
        place = pc.index_in(asked["member_id"], views[view]["member_id"].combine_chunks())
        taken = views[view].select(columns).take(place)
        for column in columns:
            asked = asked.append_column(column, taken[column])
    return member_vector(asked, genre_names(catalogue))


def reference(model: Model, interactions: Interactions, features: Features, *, now: int) -> pa.Table:
    """The reference table, float64 columns.

    Args:
        features: aligned with `interactions.member_ids`.
        now: microseconds, the moment the lists are asked for.
    """
    members = len(interactions.member_ids)
    query = Query(
        histories=interactions.histories(),
        times=evaluate.times(interactions),
        now=np.full(members, now, np.int64),
        member_features=features,
    )
    scores = np.full((members, len(SCORE_COLUMNS)), np.nan)
    for start in range(0, members, 1024):
        part = evaluate.subset(query, np.arange(start, min(start + 1024, members)))
        found = model.score(part)
        lists = evaluate.top(found, part.histories)
        listed = np.where(lists >= 0, np.take_along_axis(found, np.maximum(lists, 0), 1), np.nan)
        shown = ~np.isnan(listed[:, 0])
        rows = np.arange(start, start + len(part))[shown]
        scores[rows, 0] = listed[shown, 0]
        scores[rows, 1] = np.nanmean(listed[shown].astype(np.float64), axis=1)
    columns = [features.values[:, i].astype(np.float64) for i in range(len(features.names))]
    names = [*features.names, *SCORE_COLUMNS]
    return pa.table([pa.array(column) for column in (*columns, scores[:, 0], scores[:, 1])], names=names)
