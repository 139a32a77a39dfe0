"""Graph network: members, titles and what the catalogue says of titles, propagated relation by relation."""

from matinee.models.base import ModelSpec
from matinee.models.gnn.config import default, test
from matinee.models.gnn.model import GraphNetwork

SPEC = ModelSpec(
    name="gnn",
    model=GraphNetwork,
    presets={"default": default(), "test": test()},
    feature_service="gnn",
    distributed=True,
)
