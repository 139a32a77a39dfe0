"""Ensemble: the member models' scores, weighed by what held-out watches say they are worth."""

from matinee.models.base import ModelSpec
from matinee.models.ensemble.config import default, space, test
from matinee.models.ensemble.model import Ensemble

SPEC = ModelSpec(
    name="ensemble",
    model=Ensemble,
    presets={"default": default(), "test": test()},
    space=space(),
    members=("popularity", "cf", "dnn", "gnn"),
)
