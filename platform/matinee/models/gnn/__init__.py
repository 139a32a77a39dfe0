"""Graph network: members, titles and what the catalogue says of titles, propagated relation by relation."""

from matinee.models.base import ModelSpec
from matinee.models.gnn.config import default, space, test
from matinee.models.gnn.model import GraphNetwork

SPEC = ModelSpec(
    name="gnn",
    model=GraphNetwork,
    presets={"default": default(), "test": test()},
    space=space(),
    feature_service="gnn",
    distributed=True,
)
