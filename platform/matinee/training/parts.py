"""What the models learn from in each protocol: training sets that know nothing of what is tested.

Member features are point-in-time rows of the feature store, so a row before the cut knows nothing after
it. Title features are recomputed from a part's own training interactions: when each member has a cut of
their own there is no moment at which the store knew exactly those.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from matinee.features.transforms import VIEWS, WATCH_SCHEMA
from matinee.features.vectors import title_vector
from matinee.models.base import TrainingSet
from matinee.schema import Catalogue, Features, Interactions, Outcomes
from matinee.training.evaluate import Cases, Rows, Split, cases, replay


def protocol_set(
    split: Split,
    catalogue: Catalogue,
    member_features: Features | None,
    outcomes: Outcomes | None = None,
) -> tuple[TrainingSet, Cases]:
    """A split's training set, and the members it tests.

    Args:
        member_features: aligned with the interactions that were split.
        outcomes: of the same members; those known by each one's last training interaction are taken.
    """
    learned = TrainingSet(
        interactions=split.train,
        catalogue=catalogue,
        member_features=_rows(member_features, split.train_rows),
        title_features=title_features(split.train, catalogue),
        outcomes=outcomes and outcomes.known_from(split.train),
    )
    return learned, cases(split, member_features=_rows(member_features, split.test_rows))


def replay_set(split: Split, member_features: Features | None, *, limit: int, seed: int) -> Cases:
    """The events of a split in time, each asked about just before it happened; at most `limit` of them.

    Args:
        member_features: aligned with the interactions that were split.
    """
    return replay(split, member_features=_rows(member_features, split.test_rows), limit=limit, seed=seed)


def title_features(interactions: Interactions, catalogue: Catalogue) -> Features:
    """The title features that the store would hold had nothing but `interactions` happened."""
    view = VIEWS["title_popularity"]
    titles = np.unique(interactions.title)
    names = pa.array(interactions.title_ids, pa.string())
    latest = np.zeros(len(interactions.title_ids), np.int64)
    np.maximum.at(latest, interactions.title, interactions.time)
    asked = pa.table({"key": names.take(pa.array(titles)), "time": pa.array(latest[titles])})
    return title_vector(view.transform(_watches(interactions), asked, {}), catalogue)


def _watches(interactions: Interactions) -> pa.Table:
    count = len(interactions)
    order = np.arange(count)
    return pa.table(
        [
            pa.array(interactions.member_ids, pa.string()).take(pa.array(interactions.member)),
            pa.array(interactions.title_ids, pa.string()).take(pa.array(interactions.title)),
            pa.array(interactions.time),
            pa.array(np.zeros(count, np.int32)),
            pa.array(order),
            pa.array(order).cast(pa.string()),
            pa.array(interactions.value.astype(np.float64), from_pandas=True),
        ],
        schema=WATCH_SCHEMA,
    )


def _rows(features: Features | None, rows: Rows) -> Features | None:
    return None if features is None else Features(names=features.names, values=features.values[rows])
