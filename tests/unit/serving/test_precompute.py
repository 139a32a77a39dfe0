"""Pages made ahead lie where the same request looks for them."""

from __future__ import annotations

import orjson
import pyarrow as pa
import pytest
import served_home

from matinee.config import Settings
from matinee.errors import ConfigError
from matinee.serving.page_cache import slot_of
from matinee.serving.page_stores import page_store
from matinee.serving.pages import HomeRequest
from matinee.serving.precompute import Pages
from matinee.serving.rank import Filters
from matinee.serving.splits import Splits


def test_pages_are_those_of_the_cell_that_the_request_would_be_in(settings: Settings) -> None:
    served_home.make(settings)
    splits = Splits(settings)
    splits.set_segment("home", "country=SE", "v2", who="test", why="Sweden tries version 2")
    splits.close()
    request = HomeRequest(member_id="", filters=Filters(country="SE"), context={"country": "SE"})
    pages = Pages(settings, request)
    assert pages(pa.table({"member_id": ["m1", "m2"]}))["kept"].to_pylist() == [2]
    cell, version = pages._recommender.assigned("m1", "home", request.context)
    assert (cell, version.name) == ("forced:v2", "recommender/2")
    store = page_store(settings)
    assert store is not None
    held = store.get("m1", slot_of(request, version, cell, now=0))
    assert held is not None
    assert orjson.loads(held.partition(b"\n")[0])["cell"] == "forced:v2"
    store.close()
    pages.close()


def test_without_a_place_to_keep_them_none_is_made(settings: Settings) -> None:
    serving = settings.serving.model_copy(update={"page_cache": "none"})
    with pytest.raises(ConfigError, match="page_cache is none"):
        Pages(settings.model_copy(update={"serving": serving}), HomeRequest(member_id=""))
