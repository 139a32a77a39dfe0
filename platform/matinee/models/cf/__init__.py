"""Collaborative filtering: implicit-feedback matrix factorisation (iALS) with members folded in."""

from matinee.models.base import ModelSpec
from matinee.models.cf.config import default, space, test
from matinee.models.cf.model import CollaborativeFiltering

SPEC = ModelSpec(
    name="cf", model=CollaborativeFiltering, presets={"default": default(), "test": test()}, space=space()
)
