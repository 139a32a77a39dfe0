"""Training rows: what the feature store knew just before each interaction."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from matinee.config import Settings
from matinee.features.titles import genre_names, read_catalogue
from matinee.features.vectors import TITLE_NUMBERS, member_vector, title_vector
from matinee.schema import TIMESTAMP, Features, Interactions

MEMBER_SERVICE = "dnn"
"""The feature service that pins the member features of training."""


def training_rows(settings: Settings, interactions: Interactions) -> tuple[Features, Features]:
    """Point-in-time features of interactions, from the offline store (`batch.build` writes it).

    Args:
        interactions: in time order, titles in the order of the home's catalogue.

    Returns:
        Member features aligned with the interactions, as of one microsecond before each; title features
        aligned with the catalogue, as of the last interaction. NaN where nothing was known.

    Raises:
        NotFound: the offline store is empty, or the home has no catalogue.
    """
    from matinee.features.store import FeatureStore

    store = FeatureStore(settings)
    catalogue = read_catalogue(settings)
    genres = genre_names(catalogue)
    members = pa.array(interactions.member_ids, pa.string()).take(pa.array(interactions.member))
    asked = pa.table(
        {"member_id": members, "event_timestamp": pa.array(interactions.time - 1).cast(TIMESTAMP)}
    )
    member_rows = store.historical(MEMBER_SERVICE, asked)
    end = int(interactions.time.max(initial=0))
    titles = pa.table(
        {
            "title_id": pa.array(catalogue.title_ids, pa.string()),
            "event_timestamp": pa.array(np.full(len(catalogue), end)).cast(TIMESTAMP),
        }
    )
    title_rows = store.historical([f"title_popularity:{name}" for name in TITLE_NUMBERS], titles)
    return member_vector(member_rows, genres), title_vector(title_rows, catalogue)
