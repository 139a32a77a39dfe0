"""Feature rows as the dense vectors models read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from matinee.schema import Catalogue, Features

MEMBER_COUNTS = ("plays_1h", "plays_24h", "plays_7d")
TITLE_NUMBERS = (
    "plays_1d",
    "plays_7d",
    "plays_30d",
    "plays_all",
    "rating_mean_30d",
    "rating_mean_all",
    "ratings_all",
)


def member_vector(rows: pa.Table, genres: Sequence[str]) -> Features:
    """Counts and genre affinities of members.

    Args:
        rows: with the columns MEMBER_COUNTS, `genres` and `affinity`; nulls where the store has no row.
        genres: the catalogue's genres; a genre outside it is left out.

    Returns:
        float32 [rows, 3 + genres]: MEMBER_COUNTS, then "affinity[<genre>]" by name. NaN where the store
        knows nothing of the member; affinity 0 for a genre that a known member never watched.
    """
    names = sorted(set(genres))
    values = np.full((rows.num_rows, len(MEMBER_COUNTS) + len(names)), np.nan, dtype=np.float32)
    for column, name in enumerate(MEMBER_COUNTS):
        values[:, column] = _numbers(rows[name])
    listed, weights = rows["genres"].combine_chunks(), rows["affinity"].combine_chunks()
    known = np.flatnonzero(listed.is_valid().to_numpy(zero_copy_only=False))
    block = values[:, len(MEMBER_COUNTS) :]
    block[known] = 0.0
    row = np.repeat(np.arange(rows.num_rows), pc.fill_null(pc.list_value_length(listed), 0).to_numpy())
    place = pc.fill_null(pc.index_in(listed.flatten(), pa.array(names, pa.string())), -1).to_numpy()
    inside = place >= 0
    block[row[inside], place[inside]] = weights.flatten().to_numpy()[inside]
    return Features(names=(*MEMBER_COUNTS, *(f"affinity[{name}]" for name in names)), values=values)


def title_vector(rows: pa.Table, catalogue: Catalogue) -> Features:
    """Popularity numbers aligned with the catalogue; NaN for a title without a row.

    Args:
        rows: with `title_id`, unique, and the columns TITLE_NUMBERS, in any order.
    """
    place = pc.index_in(pa.array(catalogue.title_ids, pa.string()), rows["title_id"].combine_chunks())
    aligned = rows.select(list(TITLE_NUMBERS)).take(place)
    values = np.column_stack([_numbers(aligned[name]) for name in TITLE_NUMBERS]).astype(np.float32)
    return Features(names=TITLE_NUMBERS, values=values)


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(pc.fill_null(column.cast(pa.float64()), float("nan")).to_numpy(), dtype=np.float32)
