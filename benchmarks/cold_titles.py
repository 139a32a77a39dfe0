"""Rankings of titles that nobody has watched yet, and for members who have just come.

MovieLens latest-small with what Wikipedia says of its films (`sources.wikipedia`). A fifth of the titles
with five ratings or more is held out with all of its ratings, drawn at random ("any") or among those first
watched last ("latest"), and so is a tenth of the members. Each of the others is asked which of the held-out
titles to watch, among themselves and among all that the member has not seen.

Peers see the same catalogue. "content" is nearest neighbours: the cosine of TF-IDF attribute vectors between
a title and those of the history. "popularity by content" is a ridge regression from attributes to the log of
the watches. Their settings are drawn TRIALS times for each split and judged on a fifth of the titles left;
ours are the defaults. On each split ours and the peers are compared on the same members, and the paired
bootstrap over members of the mean over splits stands under sizes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from benchmarks.common import arguments, compare, skipped
from benchmarks.questions import SHARED, interactions
from matinee.config import Home
from matinee.models import discover
from matinee.models.base import Model, Query, Scores, TrainingSet
from matinee.models.content import Relation, attribute_matrix, relations
from matinee.models.gnn.cold import from_content
from matinee.models.histories import recency_weights
from matinee.schema import Interactions
from matinee.sources import movielens
from matinee.sources.wikipedia import enrich
from matinee.training import evaluate

LEAST_RATINGS = 5
COLD, NEW_MEMBERS, LATEST = 0.2, 0.1, 0.25
"""Shares held out: of the titles, of the members; and of the titles those that count as the latest."""
VARIANTS = ("any", "latest")
"""How titles are held out; --quick stops after the first."""
TRIALS = 24
SPLITS = 5
SESSIONS = (0, 1, 3, 5)
"""Titles known of a new member."""
RESAMPLES = 2000

Mask = npt.NDArray[np.bool_]
Histories = list[npt.NDArray[np.int32]]


@dataclass(frozen=True, kw_only=True)
class Split:
    """What models learn from, and which titles and members they have not seen."""

    train: TrainingSet
    test: Interactions
    cold: Mask
    new: Mask
    attributes: Sequence[Relation]


def split(data: TrainingSet, pool: Mask, *, seed: int, members: float = NEW_MEMBERS) -> Split:
    """Hold titles of `pool` out, a fifth of all that count, and a share of the members.

    The test part holds the old members' watches of cold titles and the new members' of the others.
    """
    generator = np.random.default_rng(seed)
    watched = data.interactions
    counted = int((np.bincount(watched.title, minlength=len(data.catalogue)) >= LEAST_RATINGS).sum())
    cold = np.zeros(len(data.catalogue), np.bool_)
    cold[generator.choice(np.flatnonzero(pool), int(counted * COLD), replace=False)] = True
    new = generator.random(len(watched.member_ids)) < members
    of_cold, of_new = cold[watched.title], new[watched.member]
    return Split(
        train=replace(data, interactions=watched.take(~of_cold & ~of_new)),
        test=watched.take(of_cold ^ of_new),
        cold=cold,
        new=new,
        attributes=relations(data.catalogue),
    )


@dataclass(frozen=True, kw_only=True)
class Cases:
    """Members who are asked, the titles they choose from, and those they watched."""

    query: Query
    relevant: Histories
    offered: Mask

    def judge(self, scores: Scores) -> Mapping[str, npt.NDArray[np.float64]]:
        """`ndcg@20` and `recall@20` of each member; titles of the history are left out.

        Args:
            scores: float32 [members, titles].
        """
        place = np.cumsum(self.offered) - 1
        seen = [place[history[self.offered[history]]] for history in self.query.histories]
        lists = evaluate.top(scores[:, self.offered], [each.astype(np.int32) for each in seen])
        relevant = [place[titles].astype(np.int32) for titles in self.relevant]
        return evaluate.accuracy(lists, relevant, int(self.offered.sum()))


def cold_cases(held: Split, *, offered: Mask) -> Cases:
    """Old members with a watch of a cold title; their other watches are known."""
    known, relevant = held.train.interactions.histories(), held.test.histories()
    asked = [i for i in range(len(known)) if len(relevant[i]) and not held.new[i]]
    return Cases(
        query=_query([known[i] for i in asked]), relevant=[relevant[i] for i in asked], offered=offered
    )


def session_cases(held: Split, known: int) -> Cases:
    """New members after their first `known` watches of titles that are not cold."""
    histories = held.test.histories()
    asked = [i for i in np.flatnonzero(held.new) if len(histories[i]) > max(SESSIONS)]
    return Cases(
        query=_query([histories[i][:known] for i in asked]),
        relevant=[histories[i][known:] for i in asked],
        offered=~held.cold,
    )


def _query(histories: Histories) -> Query:
    """The histories as one sitting that goes on: only the order of watches counts here."""
    return Query(
        histories=histories,
        times=[np.arange(len(history), dtype=np.int64) for history in histories],
        now=np.array([len(history) for history in histories], np.int64),
    )


@dataclass(frozen=True, kw_only=True)
class Content:
    """Nearest neighbours by content.

    Args:
        weights: of the attributes, by name.
        rarity: power of the inverse document frequency.
        half_life: watches after which a title of the history weighs half; None: all alike.
        neighbours: titles of the history, the most similar ones, that a score sums; None: all.
    """

    weights: Mapping[str, float]
    rarity: float = 1.0
    half_life: float | None = None
    neighbours: int | None = None

    @classmethod
    def draw(cls, attributes: Sequence[Relation], generator: np.random.Generator) -> Content:
        return cls(
            weights={each.name: float(10 ** generator.uniform(-1, 0.5)) for each in attributes},
            rarity=float(generator.choice([0, 0.5, 1.0, 1.5])),
            half_life=[None, 10.0, 50.0, 200.0][generator.integers(4)],
            neighbours=[None, 3, 10, 30][generator.integers(4)],
        )

    def score(self, attributes: Sequence[Relation], query: Query, offered: Mask) -> Scores:
        """Scores of the offered titles; the others' are 0."""
        matrix = attribute_matrix(attributes, len(offered))
        rarity = np.log(len(offered) / np.asarray(matrix.sum(axis=0)).ravel()) ** self.rarity
        weight = np.repeat(
            [self.weights[each.name] for each in attributes], [len(each.values) for each in attributes]
        )
        vectors = matrix @ sparse.diags((rarity * weight).astype(np.float32))
        length = np.sqrt(np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel())
        vectors = sparse.csr_matrix(sparse.diags(1 / np.maximum(length, 1e-9)) @ vectors)
        places = np.flatnonzero(offered)
        scores = np.zeros((len(query), len(offered)), np.float32)
        alike = (vectors @ vectors[places].T).toarray().astype(np.float32)
        for row, history in enumerate(query.histories):
            near = alike[history] * recency_weights(len(history), self.half_life)[:, None]
            if self.neighbours is not None and len(near) > self.neighbours:
                near = np.partition(near, -self.neighbours, axis=0)[-self.neighbours :]
            scores[row, places] = near.sum(0)
        return scores


def popularity_by_content(held: Split, penalty: float) -> Callable[[Query], Scores]:
    """Everyone's scores: the log of the watches that attributes foretell."""
    watches = np.bincount(held.train.interactions.title, minlength=len(held.cold))
    matrix = attribute_matrix(held.attributes, len(held.cold))
    logs = np.log1p(watches).astype(np.float32)[:, None]
    weight = np.sqrt(watches).astype(np.float32)
    foretold = from_content(matrix, logs, weight, penalty)[:, 0]
    return lambda query: np.tile(foretold, (len(query), 1))


def tuned(held: Split, *, seed: int) -> tuple[Content, float]:
    """The peers' settings, the best of TRIALS each, on a fifth of the titles that are left."""
    watches = np.bincount(held.train.interactions.title, minlength=len(held.cold))
    inner = split(held.train, watches >= LEAST_RATINGS, seed=seed + 1000, members=0.0)
    cases = cold_cases(inner, offered=inner.cold)
    generator = np.random.default_rng(seed)
    plain = Content(weights={each.name: 1.0 for each in held.attributes})
    drawn = [plain, *(Content.draw(held.attributes, generator) for _ in range(TRIALS - 1))]
    penalties = [float(each) for each in np.geomspace(1, 3000, TRIALS)]

    def of_content(setting: Content) -> float:
        scores = setting.score(inner.attributes, cases.query, cases.offered)
        return float(cases.judge(scores)["ndcg@20"].mean())

    def of_penalty(penalty: float) -> float:
        scores = popularity_by_content(inner, penalty)(cases.query)
        return float(cases.judge(scores)["ndcg@20"].mean())

    return max(drawn, key=of_content), max(penalties, key=of_penalty)


def model(name: str, data: TrainingSet, *, seed: int) -> Model:
    """The model of this name fitted at its defaults; for a combination, with its members."""
    specs = discover()

    def build(each: str) -> Model:
        return specs[each].model(specs[each].presets["default"])

    fitted = build(name)
    if specs[name].members:
        fitted = fitted.with_members({each: build(each) for each in specs[name].members})  # type: ignore[attr-defined]
    fitted.fit(data, seed=seed)
    return fitted


Judged = dict[tuple[str, str], Mapping[str, npt.NDArray[np.float64]]]


def measure(held: Split, *, name: str, seed: int) -> Judged:
    """What each side reached, by (side, question)."""
    ours = model(name, held.train, seed=seed)
    content, penalty = tuned(held, seed=seed)
    foretold = popularity_by_content(held, penalty)
    watches = np.bincount(held.train.interactions.title, minlength=len(held.cold)).astype(np.float32)
    asked = {
        "cold titles": cold_cases(held, offered=held.cold),
        "cold among all unseen titles": cold_cases(held, offered=np.ones_like(held.cold)),
    } | {f"new members, {known} titles known": session_cases(held, known) for known in SESSIONS}
    found: Judged = {}
    for question, cases in asked.items():
        found["ours", question] = cases.judge(ours.score(cases.query))
        found["content", question] = cases.judge(content.score(held.attributes, cases.query, cases.offered))
        if question.startswith("new"):
            popular = np.tile(watches, (len(cases.query), 1))
            found["popularity", question] = cases.judge(popular)
        else:
            found["popularity by content", question] = cases.judge(foretold(cases.query))
    return found


def bootstrap(judged: Sequence[Judged], peer: str, question: str, metric: str) -> list[float]:
    """95% interval of the ratio of means, members of each split drawn anew for both sides alike."""
    generator = np.random.default_rng(0)
    sides = np.zeros((2, RESAMPLES))
    for found in judged:
        pair = np.stack([found[side, question][metric] for side in ("ours", peer)])
        drawn = generator.integers(0, pair.shape[1], (RESAMPLES, pair.shape[1]))
        sides += pair[:, drawn].mean(axis=2)
    low, high = np.quantile(sides[0] / sides[1], [0.025, 0.975])
    return [round(float(low), 3), round(float(high), 3)]


def report(judged: Sequence[Judged], *, name: str, variant: str, sizes: Mapping[str, Any]) -> None:
    """One line for each peer, question and metric."""
    for peer, question in judged[0]:
        if peer == "ours" or (peer == "content" and question.endswith(" 0 titles known")):
            continue
        for metric in ("ndcg@20", "recall@20"):
            means = {
                side: [float(found[side, question][metric].mean()) for found in judged]
                for side in ("ours", peer)
            }
            if not all(map(all, means.values())):
                skipped("cold_titles", peer, f"{metric}, {question}: no ratio to a side at 0: {means}")
                continue
            compare(
                name="cold_titles",
                peer=peer,
                metric=f"{metric}, {question}",
                unit="share",
                ours=iter(means["ours"]).__next__,
                theirs=iter(means[peer]).__next__,
                higher_is_better=True,
                repeats=len(judged),
                sizes={
                    **sizes,
                    "ours": name,
                    "titles held out": variant,
                    "bootstrap": bootstrap(judged, peer, question, metric),
                },
                versions={},
                check=None,
            )


def load(scratch: Path) -> TrainingSet:
    """MovieLens latest-small, with what Wikipedia says of its films."""
    home = Home(scratch)
    movielens.get("movielens-latest-small", home, source=SHARED / "ml-latest-small")
    data = movielens.load("movielens-latest-small", home)
    catalogue = enrich(data.catalogue, SHARED / "wikipedia-movies" / "movies.jsonl.gz")
    return TrainingSet(interactions=interactions(replace(data, catalogue=catalogue)), catalogue=catalogue)


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="gnn", help="gnn, or ensemble (minutes a split)")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)


def main() -> None:
    """Print a JSON line for each comparison."""
    import tempfile

    options = arguments(__doc__, _declare)
    if not (SHARED / "ml-latest-small").is_dir() or not (SHARED / "wikipedia-movies").is_dir():
        skipped("cold_titles", "content", f"{SHARED} lacks ml-latest-small or wikipedia-movies")
        return
    with tempfile.TemporaryDirectory() as scratch:
        data = load(Path(scratch))
    watched = data.interactions
    counts = np.bincount(watched.title, minlength=len(data.catalogue))
    first = np.full(len(counts), np.iinfo(np.int64).max)
    np.minimum.at(first, watched.title, watched.time)
    counted = counts >= LEAST_RATINGS
    pools = {"any": counted, "latest": counted & (first >= np.quantile(first[counted], 1 - LATEST))}
    for variant in options.variants[: 1 if options.quick else None]:
        splits = [split(data, pools[variant], seed=seed) for seed in range(1, SPLITS + 1)]
        judged = [measure(held, name=options.model, seed=seed) for seed, held in enumerate(splits, start=1)]
        sizes = {
            "members": len(watched.member_ids),
            "titles": len(data.catalogue),
            "interactions": len(watched),
            "cold titles": int(splits[0].cold.sum()),
        }
        report(judged, name=options.model, variant=variant, sizes=sizes)


if __name__ == "__main__":
    main()
