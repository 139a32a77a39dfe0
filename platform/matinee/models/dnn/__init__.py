"""Two towers: a causal self-attentive encoder of the last titles, and titles with their content."""

from matinee.models.base import ModelSpec
from matinee.models.dnn.config import default, gsasrec, sasrec, space, test
from matinee.models.dnn.model import TwoTower

SPEC = ModelSpec(
    name="dnn",
    model=TwoTower,
    presets={"default": default(), "sasrec": sasrec(), "gsasrec": gsasrec(), "test": test()},
    space=space(),
    feature_service="dnn",
    distributed=True,
    shardable=True,
)
