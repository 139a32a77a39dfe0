"""Popularity: how many members watched a title. Knows nothing of the member; every model must beat it."""

from matinee.models.base import ModelSpec
from matinee.models.popularity.config import default, space, test
from matinee.models.popularity.model import Popularity

SPEC = ModelSpec(
    name="popularity", model=Popularity, presets={"default": default(), "test": test()}, space=space()
)
