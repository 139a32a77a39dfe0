"""Collaborative filtering: iALS, EASE or a spectral graph filter, with members known by their history."""

from matinee.models.base import ModelSpec
from matinee.models.cf.config import default, gfcf, space, sparse, test
from matinee.models.cf.model import CollaborativeFiltering

SPEC = ModelSpec(
    name="cf",
    model=CollaborativeFiltering,
    presets={"default": default(), "sparse": sparse(), "gfcf": gfcf(), "test": test()},
    space=space(),
)
