"""The simulated service: time passes in slots of six hours, members come, see a page and react."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from matinee.errors import InvalidInput, NotFound
from matinee.schema import EVENT_SCHEMA, Catalogue, Ranking
from matinee.sources.dataset import Dataset
from matinee.sources.world.behaviour import Chance, react
from matinee.sources.world.config import WorldConfig, default
from matinee.sources.world.log import Visits, events
from matinee.sources.world.taste import make_tastes
from matinee.sources.world.titles import DAY, make_titles

SLOT = DAY // 4
"""Microseconds of a slot: a member visits at most once in each."""

Recommend = Callable[[str, int, Mapping[str, object]], Sequence[str] | Ranking]
"""Given member_id, k and a context (surface, session, time in microseconds): title ids best first, or a
`Ranking`, whose request_id, model_version and cell the events then carry."""

_VISITS_BY_SLOT = (0.05, 0.15, 0.25, 0.55)
_WEEKEND = 1.3
_INCUMBENT = "incumbent"
_POPULARITY_HALF_LIFE_SLOTS = 4 * 14.0


class World:
    """A service that lives. State: the moment, who watched what, and how popular titles are.

    Args:
        config: what the service is made of; None: `default()`.
        seed: the same seed and the same calls give the same events.
    """

    def __init__(self, config: WorldConfig | None = None, seed: int = 0) -> None:
        self.config = config or default()
        self.seed = seed
        self.name = f"world-{seed}"
        self._titles = make_titles(self.config, seed)
        self._tastes = make_tastes(self.config, self._titles, seed)
        self._title_ids = pa.array(self._titles.catalogue.title_ids)
        self._title_position = {title_id: i for i, title_id in enumerate(self._titles.catalogue.title_ids)}
        self._member_position = {member_id: i for i, member_id in enumerate(self._tastes.member_ids)}
        self._watched = np.zeros((self.config.members, self.config.titles), np.bool_)
        self._free_at = np.zeros(self.config.members, np.int64)
        self._plays = np.where(
            self._titles.released <= self.config.start, 5 * np.exp(0.6 * self._titles.quality), 0.0
        )
        self._slot = 0

    @property
    def now(self) -> int:
        """The moment the next slot begins: int microseconds since the epoch, UTC."""
        return self.config.start + self._slot * SLOT

    @property
    def catalogue(self) -> Catalogue:
        """All titles, those to be released later among them."""
        return self._titles.catalogue

    @property
    def members(self) -> pa.Table:
        """What a service would know of its members: id, age, languages."""
        return self._tastes.table()

    def utility(self, member_ids: Sequence[str], at: int | None = None) -> npt.NDArray[np.float32]:
        """The truth: how much members like each title, float32 [m, titles], about standard normal.

        -inf where a title is unsuitable at the member's age or not released. The chance of a click, a
        play and the time watched rise with it. What was watched already is not taken into account.

        Args:
            member_ids: whose.
            at: when, int microseconds since the epoch; None: now.

        Raises:
            NotFound: a member is unknown.
        """
        positions = np.array([self._member(member_id) for member_id in member_ids], np.intp)
        return self._tastes.utility(positions, self._titles, self.now if at is None else at)

    def oracle(self, member_id: str, k: int, context: Mapping[str, object] | None = None) -> list[str]:
        """The k titles the member likes most now among those on offer and not watched; may be `Recommend`.

        Raises:
            NotFound: the member is unknown.
        """
        liking = self.utility([member_id])[0]
        liking[self._watched[self._member(member_id)]] = -np.inf
        best = np.argsort(-liking, kind="stable")[:k]
        return [self._title_ids[int(i)].as_py() for i in best if np.isfinite(liking[i])]

    def history(self, days: float) -> Dataset:
        """Let `days` pass with the service's own pages (popularity, a little taste, much chance).

        Returns:
            The events of sessions that began in these days, in time order, with the truth as of the end.

        Raises:
            InvalidInput: `days` is less than a slot of six hours.
        """
        slots = round(days * DAY / SLOT)
        if slots < 1:
            raise InvalidInput(f"days is {days}; the least is {SLOT / DAY}, one slot of six hours")
        log = pa.concat_tables([self._pass_slot(None, self.config.page_size) for _ in range(slots)])
        order = np.argsort(log["event_time"].cast(pa.int64()).to_numpy(), kind="stable")
        return Dataset(
            name=self.name,
            catalogue=self.catalogue,
            events=log.take(pa.array(order)).combine_chunks(),
            members=self.members,
            truth=self.utility(self._tastes.member_ids),
        )

    def step(self, recommend: Recommend, *, k: int | None = None) -> pa.Table:
        """Let six hours pass: each visitor is shown the page `recommend` gives and reacts to it.

        Args:
            recommend: asked once per visitor.
            k: titles of a page; None: `config.page_size`.

        Returns:
            Rows of `EVENT_SCHEMA` in time order: all events of the sessions that began in these six
            hours. A session may end after them.

        Raises:
            InvalidInput: `k` is not positive; a page names an unknown title, or one title twice.
        """
        wanted = self.config.page_size if k is None else k
        if wanted < 1:
            raise InvalidInput(f"k is {k}; accepted: 1 and more")
        return self._pass_slot(recommend, wanted)

    def _pass_slot(self, recommend: Recommend | None, k: int) -> pa.Table:
        chance = Chance.draw(self.config, 1 + k, np.random.default_rng([self.seed, 3, self._slot]))
        visitors, start = self._visitors()
        if len(visitors) == 0:
            self._slot += 1
            return EVENT_SCHEMA.empty_table()
        rng = np.random.default_rng([self.seed, 5, self._slot])
        label = f"{self.name}-{self._slot}"
        liking = self._tastes.utility(visitors, self._titles, self.now)
        liking -= np.float32(self.config.rewatch_penalty) * self._watched[visitors]
        luck = chance.of(visitors)
        searched, queries = self._searches(visitors, liking, luck.searches, rng)
        member_ids = [self._tastes.member_ids[i] for i in visitors]
        if recommend is None:
            page = self._incumbent_page(visitors, liking, k, rng)
            requests = [f"{label}-{member_id}-page" for member_id in member_ids]
            versions: list[str | None] = [_INCUMBENT] * len(visitors)
            cells: list[str | None] = [None] * len(visitors)
        else:
            page, requests, versions, cells = self._ask(recommend, member_ids, start, label, k)
        page = np.concatenate([searched[:, None], page], axis=1)
        reaction = react(
            self.config,
            luck,
            page,
            np.where(page >= 0, np.take_along_axis(liking, np.maximum(page, 0), axis=1), -np.inf),
            self._titles.runtime[page],
        )
        visits = Visits(
            label=label,
            member_ids=member_ids,
            start=start,
            page=page,
            queries=queries,
            request_ids=requests,
            model_versions=versions,
            cells=cells,
        )
        log = events(visits, reaction, self._title_ids)
        who, column = np.nonzero(reaction.played)
        self._watched[visitors[who], page[who, column]] = True
        self._plays *= 2 ** (-1 / _POPULARITY_HALF_LIFE_SLOTS)
        np.add.at(self._plays, page[who, column], 1.0)
        self._free_at[visitors] = start + (reaction.end_at * 1e6).astype(np.int64) + 60_000_000
        self._slot += 1
        return log

    def _visitors(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]:
        rng = np.random.default_rng([self.seed, 4, self._slot])
        day = (self.now // DAY + 3) % 7
        share = _VISITS_BY_SLOT[self.now % DAY // SLOT] * (_WEEKEND if day >= 5 else 1.0)
        rate = self._tastes.activity / 7 * share
        moment = self.now + rng.integers(0, SLOT, self.config.members)
        coming = rng.random(self.config.members) < 1 - np.exp(-rate)
        visitors = np.flatnonzero(coming)
        return visitors, np.maximum(moment, self._free_at)[visitors]

    def _searches(
        self,
        visitors: npt.NDArray[np.intp],
        liking: npt.NDArray[np.float32],
        searches: npt.NDArray[np.bool_],
        rng: np.random.Generator,
    ) -> tuple[npt.NDArray[np.int32], list[str | None]]:
        """What each visitor searched for: a liked title, half by its name, half by a synopsis word."""
        searched = np.full(len(visitors), -1, np.int32)
        queries: list[str | None] = [None] * len(visitors)
        who = np.flatnonzero(searches)
        if len(who):
            wish = liking[who] + 1.5 * rng.gumbel(size=(len(who), self.config.titles))
            best = wish.argmax(axis=1)
            found = np.isfinite(wish[np.arange(len(who)), best])
            searched[who] = np.where(found, best, -1)
            by_name = rng.random(len(who)) < 0.5
            table = self._titles.catalogue.table
            for visitor, title, named in zip(who.tolist(), best.tolist(), by_name.tolist(), strict=True):
                words = table["keywords"][title].as_py()
                queries[visitor] = table["name"][title].as_py() if named or not words else words[0]
        return searched, queries

    def _incumbent_page(
        self,
        visitors: npt.NDArray[np.intp],
        liking: npt.NDArray[np.float32],
        k: int,
        rng: np.random.Generator,
    ) -> npt.NDArray[np.int32]:
        popular = np.log1p(self._plays)
        popular = (popular - popular.mean()) / (popular.std() or 1.0)
        known = np.where(np.isfinite(liking), liking, 0.0)
        score = popular + self.config.incumbent_skill * known + 0.8 * rng.gumbel(size=liking.shape)
        score[~np.isfinite(liking) | self._watched[visitors]] = -np.inf
        best = np.argpartition(-score, min(k, score.shape[1] - 1), axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(score, best, axis=1), axis=1)
        best = np.take_along_axis(best, order, axis=1)
        there = np.isfinite(np.take_along_axis(score, best, axis=1))
        page = np.full((len(visitors), k), -1, np.int32)
        page[:, : best.shape[1]] = np.where(there, best, -1)
        return page

    def _ask(
        self,
        recommend: Recommend,
        member_ids: Sequence[str],
        start: npt.NDArray[np.int64],
        label: str,
        k: int,
    ) -> tuple[npt.NDArray[np.int32], list[str], list[str | None], list[str | None]]:
        page = np.full((len(member_ids), k), -1, np.int32)
        requests: list[str] = []
        versions: list[str | None] = []
        cells: list[str | None] = []
        for row, (member_id, time) in enumerate(zip(member_ids, start.tolist(), strict=True)):
            session = f"{label}-{member_id}"
            answer = recommend(member_id, k, {"surface": "home", "session": session, "time": time})
            if isinstance(answer, Ranking):
                title_ids: Sequence[str] = [candidate.title_id for candidate in answer.candidates]
                requests.append(answer.request_id)
                versions.append(answer.model_version)
                cells.append(answer.cell)
            else:
                title_ids = answer
                requests.append(f"{session}-page")
                versions.append(None)
                cells.append(None)
            positions = [self._title(title_id) for title_id in title_ids[:k]]
            if len(set(positions)) != len(positions):
                raise InvalidInput(
                    f"the page for member {member_id} names a title twice: {list(title_ids[:k])}"
                )
            page[row, : len(positions)] = positions
        return page, requests, versions, cells

    def _member(self, member_id: str) -> int:
        try:
            return self._member_position[member_id]
        except KeyError:
            raise NotFound(
                f"member {member_id!r} is not one of {self.name}'s {self.config.members}"
            ) from None

    def _title(self, title_id: str) -> int:
        try:
            return self._title_position[title_id]
        except KeyError:
            raise InvalidInput(f"title {title_id!r} is not in {self.name}'s catalogue") from None
