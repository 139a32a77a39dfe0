"""A seeded, simulated streaming service whose truth is known: it writes history or tries a recommender."""

from matinee.sources.world.config import Shift, WorldConfig, default, small
from matinee.sources.world.service import Recommend, World

__all__ = ["Recommend", "Shift", "World", "WorldConfig", "default", "small"]
