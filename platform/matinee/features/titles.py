"""The home's catalogue, as features need it."""

from __future__ import annotations

from matinee.config import Settings
from matinee.errors import NotFound
from matinee.features.transforms import Genres
from matinee.schema import Catalogue


def read_catalogue(settings: Settings) -> Catalogue:
    """The home's catalogue.

    Raises:
        NotFound: there is none yet.
    """
    try:
        return Catalogue.read(settings.paths.catalogue)
    except FileNotFoundError:
        raise NotFound(
            f"catalogue {settings.paths.catalogue}: none; load a data set first (matinee data get)"
        ) from None


def genres_of(catalogue: Catalogue) -> Genres:
    """Genres by title id."""
    return dict(zip(catalogue.title_ids, catalogue.table["genres"].to_pylist(), strict=True))


def genre_names(catalogue: Catalogue) -> list[str]:
    """Every genre of the catalogue, sorted."""
    return sorted({genre for held in catalogue.table["genres"].to_pylist() for genre in held})
