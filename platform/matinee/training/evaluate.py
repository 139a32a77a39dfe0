"""Offline evaluation: protocols that split interactions, and metrics of full rankings. Pure NumPy.

A ranking holds every title of the catalogue that is not in the member's training history; nothing is
sampled. Titles of equal score are ordered by their position in the catalogue, so a figure depends on
the scores alone. Only members with at least one test interaction count.

Metrics, with `k` titles in a list and `n` relevant (held-out) titles of the member:

- `recall@k`: hits / n.
- `ndcg@k`: binary gains, discount 1 / log2(rank + 1), divided by that of the ideal list (Järvelin and
  Kekäläinen 2002).
- `coverage`: share of the catalogue that stands in at least one member's list of 20.
- `diversity`: mean over the pairs of a member's list of 20 of 1 - |A & B| / |A | B|, the Jaccard distance of
  the titles' genre sets; two titles without a genre are at distance 0. Mean over members.

Intervals are 95% percentile bootstraps over members. Coverage shrinks in any resample (it holds about
63% of the distinct members), so its interval is moved by that bias to stand around the measured value.
The resamples depend on the seed and the number of members alone: two models measured on the same members
share them, and `difference` uses that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matinee.models.base import Query, Scores
from matinee.schema import Catalogue, Estimate, Features, Interactions

LIST_LENGTH = 20
"""Titles in the list that coverage and diversity look at, and the longest cut-off."""

WARM_EVENTS = 5
"""Least training interactions of a member that counts as warm."""

METRICS = ("recall@20", "ndcg@10", "ndcg@20", "coverage", "diversity")

Positions = npt.NDArray[np.int32]
Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Interactions divided into what a model may learn from and what it must foresee.

    Args:
        train: the known part, in time order.
        test: the held-out part, in time order.
        train_rows: positions of `train` in the interactions that were split.
        test_rows: positions of `test` in the same.
    """

    train: Interactions
    test: Interactions
    train_rows: Rows
    test_rows: Rows


def per_member(interactions: Interactions, *, share: float = 0.8) -> Split:
    """Train on the first ceil(share) of each member's interactions, test on the rest of each."""
    order = np.argsort(interactions.member, kind="stable")
    counts = np.bincount(interactions.member, minlength=len(interactions.member_ids))
    starts = np.cumsum(counts) - counts
    rank = np.empty(len(interactions), np.int64)
    rank[order] = np.arange(len(interactions)) - np.repeat(starts, counts)
    return _split(interactions, rank < _ceil_share(counts, share)[interactions.member])


def global_time(interactions: Interactions, *, share: float = 0.8) -> Split:
    """Train on the first ceil(share) of all interactions in time, test on what came later."""
    known = int(_ceil_share(np.array([len(interactions)]), share)[0])
    return _split(interactions, np.arange(len(interactions)) < known)


def _ceil_share(counts: npt.NDArray[np.int64], share: float) -> npt.NDArray[np.int64]:
    if not 0 < share < 1:
        raise ValueError(f"share is {share!r}: accepted are numbers between 0 and 1, both excluded")
    return np.ceil(np.round(counts * share, 9)).astype(np.int64)


def _split(interactions: Interactions, known: npt.NDArray[np.bool_]) -> Split:
    train, test = np.flatnonzero(known), np.flatnonzero(~known)
    return Split(
        train=interactions.take(train), test=interactions.take(test), train_rows=train, test_rows=test
    )


@dataclass(frozen=True, kw_only=True)
class Cases:
    """The members a split tests, m of them, in vocabulary order.

    Args:
        members: int32 [m], positions in the split's member vocabulary.
        query: what is known of each when its first test interaction is about to happen.
        relevant: per member, int32 positions of its test titles.
        titles: size of the catalogue.
    """

    members: Positions
    query: Query
    relevant: Sequence[Positions]
    titles: int

    def __len__(self) -> int:
        return len(self.members)

    @property
    def known(self) -> npt.NDArray[np.int64]:
        """Training interactions of each member, int64 [m]."""
        return np.array([len(history) for history in self.query.histories], np.int64)


def cases(split: Split, *, member_features: Features | None = None) -> Cases:
    """The test members of a split.

    Args:
        member_features: rows aligned with `split.test`: what the store knew just before each. A member
            takes the row of its first test interaction, so that no value knows a test interaction.
    """
    members, first = np.unique(split.test.member, return_index=True)
    histories, relevant = split.train.histories(), split.test.histories()
    watched = times(split.train)
    features = None
    if member_features is not None:
        features = Features(names=member_features.names, values=member_features.values[first])
    return Cases(
        members=members.astype(np.int32),
        query=Query(
            histories=[histories[member] for member in members],
            times=[watched[member] for member in members],
            now=split.test.time[first],
            member_features=features,
        ),
        relevant=[relevant[member] for member in members],
        titles=len(split.test.title_ids),
    )


def times(interactions: Interactions) -> list[npt.NDArray[np.int64]]:
    """Per member of the vocabulary, when each title of `histories` was watched, oldest first."""
    order = np.argsort(interactions.member, kind="stable")
    bounds = np.searchsorted(interactions.member[order], np.arange(len(interactions.member_ids) + 1))
    moments = interactions.time[order]
    return [moments[bounds[i] : bounds[i + 1]] for i in range(len(interactions.member_ids))]


def subset(query: Query, rows: Rows) -> Query:
    """The same query for some of its members."""
    features = query.member_features
    return Query(
        histories=[query.histories[row] for row in rows],
        times=[query.times[row] for row in rows],
        now=query.now[rows],
        member_features=None
        if features is None
        else Features(names=features.names, values=features.values[rows]),
    )


def top(scores: Scores, seen: Sequence[Positions], k: int = LIST_LENGTH) -> Positions:
    """The best `k` unseen titles of each member.

    Args:
        scores: float32 [m, titles].
        seen: per member, positions left out.

    Returns:
        int32 [m, k], best first, equal scores by position; -1 after the last where fewer are unseen.

    Raises:
        ValueError: a score is NaN or infinite.
    """
    if not np.isfinite(scores).all():
        raise ValueError("scores hold NaN or infinite values: a model's scores must be finite")
    members, titles = scores.shape
    scores = scores.astype(np.float32, copy=True)
    if members:
        rows = np.repeat(np.arange(members), [len(positions) for positions in seen])
        scores[rows, np.concatenate([np.asarray(positions, np.intp) for positions in seen])] = -np.inf
    width = min(k, titles)
    least = np.partition(scores, titles - width, axis=1)[:, titles - width, None]
    above, equal = scores > least, scores == least
    room = width - above.sum(1, keepdims=True)
    chosen = np.nonzero(above | (equal & (np.cumsum(equal, axis=1) <= room)))[1].reshape(members, width)
    values = np.take_along_axis(scores, chosen, 1)
    order = np.argsort(-values, axis=1, kind="stable")
    ranked = np.take_along_axis(chosen, order, 1)
    ranked[np.isneginf(np.take_along_axis(values, order, 1))] = -1
    lists = np.full((members, k), -1, np.int32)
    lists[:, :width] = ranked
    return lists


def rank(
    score: Callable[[Query], Scores], query: Query, *, k: int = LIST_LENGTH, batch: int = 1024
) -> Positions:
    """The list of each member of a query, scored `batch` members at a time: int32 [m, k] as from `top`."""
    lists = np.full((len(query), k), -1, np.int32)
    for start in range(0, len(query), batch):
        part = subset(query, np.arange(start, min(start + batch, len(query))))
        lists[start : start + batch] = top(score(part), part.histories, k)
    return lists


def genre_matrix(catalogue: Catalogue) -> npt.NDArray[np.bool_]:
    """Which title has which genre: bool [titles, genres], genres sorted by name."""
    per_title: list[list[str]] = catalogue.table["genres"].to_pylist()
    genres = sorted({genre for names in per_title for genre in names})
    column = {genre: position for position, genre in enumerate(genres)}
    matrix = np.zeros((len(per_title), len(genres)), np.bool_)
    for row, names in enumerate(per_title):
        matrix[row, [column[genre] for genre in names]] = True
    return matrix


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a model's lists achieved, member by member; `estimate` summarises it.

    Args:
        values: per metric but coverage, float64 [m].
        lists: int32 [m, k], as from `top`.
        titles: size of the catalogue.
    """

    values: Mapping[str, npt.NDArray[np.float64]]
    lists: Positions
    titles: int

    def take(self, rows: npt.NDArray[np.bool_] | Rows) -> Outcome:
        """The same for some of the members (a mask or positions)."""
        return Outcome(
            values={name: value[rows] for name, value in self.values.items()},
            lists=self.lists[rows],
            titles=self.titles,
        )


def outcome(lists: Positions, relevant: Sequence[Positions], genres: npt.NDArray[np.bool_]) -> Outcome:
    """Judge lists by the held-out titles.

    Args:
        lists: int32 [m, k >= 20] as from `top`.
        relevant: per member, positions of held-out titles, each once; at least one.
        genres: bool [titles, genres].
    """
    titles = len(genres)
    counts = np.array([len(positions) for positions in relevant], np.int64)
    if (counts == 0).any():
        raise ValueError("a member without a relevant title cannot be judged")
    hits = _hits(lists, relevant, titles)
    discount = 1.0 / np.log2(np.arange(2, lists.shape[1] + 2))
    ideal = np.cumsum(discount)

    def ndcg(k: int) -> npt.NDArray[np.float64]:
        gained: npt.NDArray[np.float64] = hits[:, :k] @ discount[:k]
        found: npt.NDArray[np.float64] = gained / ideal[np.minimum(counts, k) - 1]
        return found

    return Outcome(
        values={
            "recall@20": hits[:, :20].sum(1) / counts,
            "ndcg@10": ndcg(10),
            "ndcg@20": ndcg(20),
            "diversity": _diversity(lists[:, :LIST_LENGTH], genres),
        },
        lists=lists[:, :LIST_LENGTH],
        titles=titles,
    )


def _hits(lists: Positions, relevant: Sequence[Positions], titles: int) -> npt.NDArray[np.bool_]:
    """Whether each place of each list holds a relevant title, by one sorted key per (member, title)."""
    owners = np.repeat(np.arange(len(relevant)), [len(positions) for positions in relevant])
    wanted = np.sort(owners * titles + np.concatenate([np.asarray(p, np.int64) for p in relevant]))
    keys = np.arange(len(lists))[:, None] * titles + lists
    place = np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)
    found: npt.NDArray[np.bool_] = (wanted[place] == keys) & (lists >= 0)
    return found


def _diversity(lists: Positions, genres: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    known = genres.astype(np.float32)
    upper = np.triu_indices(lists.shape[1], 1)
    result = np.zeros(len(lists))
    for start in range(0, len(lists), 4096):
        part = lists[start : start + 4096]
        rows = known[part]
        shared = rows @ rows.transpose(0, 2, 1)
        sizes = rows.sum(2)
        united = sizes[:, :, None] + sizes[:, None, :] - shared
        distance = 1.0 - np.divide(shared, united, out=np.ones_like(shared), where=united > 0)
        listed = part >= 0
        pairs = (listed[:, :, None] & listed[:, None, :])[:, upper[0], upper[1]]
        total = (distance[:, upper[0], upper[1]] * pairs).sum(1, dtype=np.float64)
        result[start : start + 4096] = total / np.maximum(pairs.sum(1), 1)
    return result


def estimate(
    judged: Outcome, *, seed: int, resamples: int = 1000, confidence: float = 0.95
) -> dict[str, Estimate]:
    """Each metric of `METRICS` with its bootstrap interval over members.

    Raises:
        ValueError: there is no member to judge.
    """
    names = [name for name in METRICS if name != "coverage"]
    values = np.stack([judged.values[name] for name in names], axis=1)
    weights = _resamples(len(values), seed, resamples)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(weights @ values / len(values), tails, axis=0)
    found = {
        name: Estimate(value=float(values[:, i].mean()), low=float(low[i]), high=float(high[i]))
        for i, name in enumerate(names)
    }
    found["coverage"] = _coverage(judged, weights > 0, tails)
    return {name: found[name] for name in METRICS}


def difference(
    judged: Outcome,
    other: Outcome,
    metric: str,
    *,
    seed: int,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Estimate:
    """How much higher a per-member metric is than another model's on the same members: a paired bootstrap."""
    gap = judged.values[metric] - other.values[metric]
    means = _resamples(len(gap), seed, resamples) @ gap / len(gap)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value=float(gap.mean()), low=float(low), high=float(high))


def _resamples(members: int, seed: int, resamples: int) -> npt.NDArray[np.float64]:
    """How often each member stands in each resample: float64 [resamples, members]."""
    if members == 0:
        raise ValueError("no member has a test interaction: there is nothing to evaluate")
    drawn = np.random.default_rng(seed).integers(0, members, (resamples, members))
    flat = (drawn + np.arange(resamples)[:, None] * members).ravel()
    counts = np.bincount(flat, minlength=resamples * members)
    return counts.reshape(resamples, members).astype(np.float64)


def _coverage(judged: Outcome, drawn: npt.NDArray[np.bool_], tails: Sequence[float]) -> Estimate:
    listed = judged.lists >= 0
    recommended = np.unique(judged.lists[listed])
    value = len(recommended) / judged.titles
    stands = np.zeros((len(judged.lists), len(recommended)), np.float32)
    rows = np.repeat(np.arange(len(judged.lists)), listed.sum(1))
    stands[rows, np.searchsorted(recommended, judged.lists[listed])] = 1
    shares = ((drawn.astype(np.float32) @ stands) > 0).sum(1) / judged.titles
    low, high = np.quantile(shares + (value - shares.mean()), tails)
    return Estimate(value=value, low=max(0.0, float(low)), high=min(1.0, float(high)))
