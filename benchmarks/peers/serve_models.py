"""What peers serve: the same models, features and pages as ours, put together by the peer's means."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from matinee.config import Settings
from matinee.features.online import OnlineReader
from matinee.models.base import Query, Scores
from matinee.registry.mlflow import CHAMPION, Registry
from matinee.serving import recommender, versions
from matinee.serving.pages import HomeRequest, again, page_of
from matinee.serving.recommender import Known, Scored
from matinee.serving.scores import EveryTitle
from matinee.serving.titles import TitleFeatures
from matinee.serving.trends import Trends


class Pages:
    """Home pages from given parts of scores; features and composition are ours.

    Args:
        settings: of the data home.
    """

    def __init__(self, settings: Settings) -> None:
        registry = Registry(settings)
        self.version = versions.load_live(
            registry, settings.serving.model, registry.get(settings.serving.model, CHAMPION).version
        )
        self._reader = OnlineReader(settings)
        titles = TitleFeatures(settings)
        titles.start()
        self._trends = Trends(titles)

    def known(self, member_id: str, now: int) -> Known:
        """A member, as ours would know them."""
        state = self._reader.member(member_id)
        query, watched, reason = recommender._query(self.version, state, now, None)
        return Known(
            request_id="peer",
            member_id=member_id,
            surface="home",
            cell="v1",
            version=self.version,
            state=state,
            query=query,
            watched=watched,
            reason=reason,
            time=now,
        )

    def page(self, known: Known, parts: Mapping[str, Scores]) -> bytes:
        """The page of parts, float32 [titles] each, as JSON."""
        scores: Scores = np.sum(list(parts.values()), axis=0, dtype=np.float32)
        found = Scored(known=known, scores=EveryTitle(values=scores, parts=parts))
        return again(page_of(HomeRequest(member_id=known.member_id), found, self._trends), known).json()

    def parts(self, query: Query) -> Mapping[str, Scores]:
        """The ensemble's parts, float32 [m, titles]."""
        found: Mapping[str, Scores] = self.version.bundle.model.score_parts(query)  # type: ignore[attr-defined]
        return found
