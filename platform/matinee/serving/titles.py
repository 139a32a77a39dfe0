"""Every title's features in the serving process: columnar copies that follow the online store."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from matinee.config import Settings
from matinee.errors import NotFound, Unavailable
from matinee.features.titles import read_catalogue
from matinee.features.titles_copy import TitleCopy


class TitleFeatures:
    """Copies of all online views of titles. Safe between threads once started.

    Args:
        settings: the home and its online store.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._copies: dict[str, TitleCopy] = {}
        self._places: dict[str, int] = {}

    def start(self) -> None:
        """Open the copies and follow the store.

        Raises:
            NotFound: the home has no catalogue.
            Unavailable: the store was never applied.
        """
        from matinee.features.store import FeatureStore
        from matinee.features.store.declared import declared

        if self._copies:
            return
        title_ids = read_catalogue(self._settings).title_ids
        store = FeatureStore(self._settings)
        views = [v for v in declared(self._settings).views.values() if v.key == "title_id" and v.online]
        copies = {view.name: TitleCopy(store, view.name, title_ids) for view in views}
        for copy in copies.values():
            with suppress(Unavailable):
                copy.refresh()
            copy.start(self._settings.features.titles_refresh_s)
        self._places = {title_id: place for place, title_id in enumerate(title_ids)}
        self._copies = copies

    def close(self) -> None:
        """Stop following."""
        for copy in self._copies.values():
            copy.close()

    @property
    def copies(self) -> Mapping[str, TitleCopy]:
        """The copies by view; none before `start`."""
        return self._copies

    def ages(self) -> dict[str, float]:
        """By view, seconds since its copy was known to be what the store holds."""
        return {view: copy.age_s for view, copy in self._copies.items()}

    def features(self, title_id: str) -> dict[str, dict[str, Any]]:
        """A title's features by view: `event_time` (microseconds) and `features` by name.

        Views without a row of the title are left out.

        Raises:
            NotFound: no title of the catalogue has this id.
            Unavailable: the copies are not there yet.
        """
        if not self._copies:
            raise Unavailable("titles' features are not there yet")
        place = self._places.get(title_id)
        if place is None:
            raise NotFound(f"title {title_id!r}; none of the catalogue's {len(self._places)} has this id")
        found = {}
        for view, copy in self._copies.items():
            values = copy.values
            if values.present[place]:
                found[view] = {
                    "event_time": int(values.event_time[place]),
                    "features": {
                        name: None if values.missing[name][place] else _plain(column[place])
                        for name, column in values.values.items()
                    },
                }
        return found


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
