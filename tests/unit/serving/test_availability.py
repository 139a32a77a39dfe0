"""What is on offer, against the rule spelled out for one title at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matinee.errors import InvalidInput
from matinee.serving.availability import WINDOW_SCHEMA, Listed, Offers, checked, country_of

TITLES = [f"t{i}" for i in range(5)]
Window = tuple[str, str | None, int | None, int | None]

times = st.one_of(st.none(), st.integers(0, 20))
rows = st.tuples(st.sampled_from([*TITLES, "t9"]), st.sampled_from([None, "SE", "FR"]), times, times)


def listed(windows: list[Window], number: int = 1) -> Listed:
    return Listed(number=number, windows=pa.table(list(zip(*windows, strict=True)), schema=WINDOW_SCHEMA))


def shown(windows: list[Window], title: str, country: str | None, now: int) -> bool:
    """The rule, for one title."""
    own = [window for window in windows if window[0] == title]
    return not own or any(
        place in (None, country) and (begin is None or begin <= now) and (end is None or now < end)
        for _, place, begin, end in own
    )


@given(
    st.lists(rows, min_size=1, max_size=12),
    st.lists(
        st.tuples(st.sampled_from([None, "SE", "FR", "US"]), st.integers(0, 21)), min_size=1, max_size=8
    ),
)
def test_a_title_is_on_offer_where_and_when_a_window_says(
    windows: list[Window], asked: list[tuple[str | None, int]]
) -> None:
    offers = Offers(listed(windows), TITLES)
    known: dict[tuple[str | None, str], list[bool]] = {}
    for country, now in asked:
        offer = offers.at(country, now)
        expected = [shown(windows, title, country, now) for title in TITLES]
        assert offer.mask.tolist() == expected
        assert offer.since <= now < offer.until
        assert known.setdefault((country, offer.key), expected) == expected


def test_one_offer_stands_until_a_window_turns() -> None:
    offers = Offers(listed([("t0", "SE", 10, 20)]), ["t0"])
    assert offers.at("SE", 10) is offers.at("SE", 19)
    keys = [offers.at("SE", now).key for now in (9, 10, 20)]
    assert len(set(keys)) == 3
    assert offers.at("FR", 10) is offers.at("US", 15)
    assert Offers(listed([("t0", "SE", 10, 20)], number=2), ["t0"]).at("SE", 20).key not in keys


def test_nothing_decided_is_everything_on_offer() -> None:
    assert Offers(Listed(), ["t0", "t1"]).at(None, 5).mask.all()


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"country": ["SE"]}, "columns"),
        ({"title_id": ["t0"], "land": ["SE"]}, "columns"),
        ({"title_id": ["t0"], "country": ["Sweden"]}, "country 'Sweden'"),
        ({"title_id": [""]}, "no title"),
        ({"title_id": [None]}, "no title"),
        ({"title_id": ["t0"], "available_from": [5], "available_until": [5]}, "title 't0'"),
        ({"title_id": ["t0"], "available_from": [[5]]}, "available_from"),
    ],
)
def test_windows_that_say_nothing_are_refused(columns: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        checked(pa.table(columns))


def test_columns_that_may_be_null_may_be_missing() -> None:
    found = checked(pa.table({"title_id": ["t0"]}))
    assert found.schema == WINDOW_SCHEMA
    assert np.all([found[name].null_count == 1 for name in WINDOW_SCHEMA.names[1:]])


@pytest.mark.parametrize(
    ("context", "country"), [({"country": "SE"}, "SE"), ({"country": "sweden"}, None), ({}, None)]
)
def test_a_request_names_its_country_by_a_code(context: dict[str, str], country: str | None) -> None:
    assert country_of(context) == country
