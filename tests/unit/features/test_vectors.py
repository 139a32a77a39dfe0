"""Feature rows as vectors: names, order, and what is unknown."""

import datetime

import numpy as np
import pyarrow as pa

from matinee.features.vectors import TITLE_NUMBERS, member_vector, title_vector
from matinee.schema import CATALOGUE_SCHEMA, Catalogue


def test_member_vector_names_orders_and_marks_the_unknown():
    rows = pa.table(
        {
            "plays_1h": pa.array([1, None]),
            "plays_24h": pa.array([2, None]),
            "plays_7d": pa.array([3, None]),
            "genres": pa.array([["Drama", "Gone", "War"], None], pa.list_(pa.string())),
            "affinity": pa.array([[0.5, 9.0, 0.25], None], pa.list_(pa.float64())),
        }
    )
    vector = member_vector(rows, ["War", "Comedy", "Drama"])
    assert list(vector.names) == [
        *("plays_1h", "plays_24h", "plays_7d"),
        *("affinity[Comedy]", "affinity[Drama]", "affinity[War]"),
    ]
    assert vector.values.dtype == np.float32
    np.testing.assert_array_equal(vector.values[0], [1, 2, 3, 0, 0.5, 0.25])
    assert np.isnan(vector.values[1]).all()


def test_title_vector_follows_the_catalogue():
    n = 3
    columns = {"title_id": list("abc"), "name": list("ABC"), "genres": [[]] * n, "cast": [[]] * n}
    columns |= {"keywords": [[]] * n, "release_date": [datetime.date(2000, 1, 1)] * n}
    arrays = [
        pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(n, f.type)
        for f in CATALOGUE_SCHEMA
    ]
    catalogue = Catalogue(table=pa.table(arrays, schema=CATALOGUE_SCHEMA))
    rows = pa.table({"title_id": ["c", "a"], **{name: pa.array([7.0, None]) for name in TITLE_NUMBERS}})
    vector = title_vector(rows, catalogue)
    assert vector.names == TITLE_NUMBERS
    assert np.isnan(vector.values[:2]).all()
    np.testing.assert_array_equal(vector.values[2], [7.0] * len(TITLE_NUMBERS))
