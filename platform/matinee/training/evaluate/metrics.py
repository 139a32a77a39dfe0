"""Metrics of ranked lists, case by case. Pure NumPy.

With `k` titles looked at and `n` relevant (held-out) titles of the case, at each cut-off of `CUTOFFS`:

- `recall@k`: hits / n. LightGCN's and GF-CF's tables show this one.
- `ndcg@k`: binary gains, discount 1 / log2(rank + 1), divided by that of the ideal list, which holds
  min(n, k) hits (Järvelin and Kekäläinen 2002).
- `map@k`: mean over the first min(n, k) hits, missing ones as 0, of the precision at each hit (Buckley and
  Voorhees 2000, the divisor cut at k).
- `mrr@k`: 1 / rank of the first hit, 0 without one (Voorhees 1999).
- `hit@k`: 1 with a hit, else 0.

Of a case's list of `LIST_LENGTH`, whatever is relevant:

- `diversity`: mean over its pairs of 1 - |A & B| / |A | B|, the Jaccard distance of the titles' genre
  sets; two titles without a genre are at distance 0 (intra-list distance: Ziegler et al. 2005).
- `novelty`: mean self-information in bits, -log2(members who watched the title / members), in the training
  part; a title nobody watched counts as watched by one (Zhou et al. 2010).
- `popularity_lift`: mean count of training watches of its titles / the same of the member's history - 1
  (Abdollahpouri et al. 2019, their change in group average popularity, by member). NaN without a history
  that was watched in training.

Of all lists together, in `intervals`:

- `coverage`: share of the catalogue that stands in at least one list.
- `gini`: Gini coefficient of how often each title of the catalogue is listed: 0 all alike, towards 1 a few
  take all (Adomavicius and Kwon 2012).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matinee.features.titles import genre_names
from matinee.schema import Catalogue
from matinee.training.evaluate.protocols import Cases, Positions, Rows
from matinee.training.evaluate.ranking import LIST_LENGTH

CUTOFFS = (10, 20)

ACCURACY = tuple(f"{name}@{k}" for name in ("recall", "ndcg", "map", "mrr", "hit") for k in CUTOFFS)
"""Metrics of what was foreseen."""

POOLED = ("coverage", "gini")
"""Metrics that all lists share."""

METRICS = (*ACCURACY, "diversity", "novelty", "popularity_lift", *POOLED)

HEADLINE = ("recall@20", "ndcg@10", "ndcg@20", "mrr@20", "coverage", "diversity")
"""Those that tables show."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a model's lists achieved, case by case; `intervals.estimate` summarises it.

    Args:
        values: per metric that cases have one by one, float64 [m]; NaN where it is not defined.
        lists: int32 [m, LIST_LENGTH], as from `ranking.top`.
        titles: size of the catalogue.
        members: int [m], whose case each is: cases of one member are not independent.
    """

    values: Mapping[str, Values]
    lists: Positions
    titles: int
    members: npt.NDArray[np.int32]

    def take(self, rows: npt.NDArray[np.bool_] | Rows) -> Outcome:
        """The same for some of the cases (a mask or positions)."""
        return Outcome(
            values={name: value[rows] for name, value in self.values.items()},
            lists=self.lists[rows],
            titles=self.titles,
            members=self.members[rows],
        )


def outcome(lists: Positions, cases: Cases, genres: npt.NDArray[np.bool_]) -> Outcome:
    """Every metric of lists for the cases they answer.

    Args:
        lists: int32 [m, k >= LIST_LENGTH] as from `ranking.top`.
        genres: bool [titles, genres].

    Raises:
        ValueError: a case has no relevant title.
    """
    whole = lists[:, :LIST_LENGTH]
    bits = np.log2(max(cases.watchers, 1)) - np.log2(np.maximum(cases.watches, 1))
    return Outcome(
        values=accuracy(lists, cases.relevant, cases.titles)
        | {
            "diversity": _diversity(whole, genres),
            "novelty": _listed_mean(whole, bits),
            "popularity_lift": _popularity_lift(whole, cases),
        },
        lists=whole,
        titles=cases.titles,
        members=cases.members,
    )


def accuracy(lists: Positions, relevant: Sequence[Positions], titles: int) -> dict[str, Values]:
    """The metrics of `ACCURACY`, float64 [m] each.

    Args:
        lists: int32 [m, k] as from `ranking.top`, k at least the longest cut-off.
        relevant: per case, positions of held-out titles, each once; at least one.
        titles: size of the catalogue.

    Raises:
        ValueError: a case has no relevant title.
    """
    counts = np.array([len(positions) for positions in relevant], np.int64)
    if (counts == 0).any():
        raise ValueError("a case without a relevant title cannot be judged")
    hits = _hits(lists, relevant, titles)
    ranks = np.arange(1, lists.shape[1] + 1)
    discount = 1 / np.log2(ranks + 1)
    ideal = np.cumsum(discount)
    precision = np.cumsum(hits, axis=1) / ranks
    first = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1.0, np.inf)
    found: dict[str, Values] = {}
    for k in CUTOFFS:
        most = np.minimum(counts, k)
        found[f"recall@{k}"] = hits[:, :k].sum(1) / counts
        found[f"ndcg@{k}"] = hits[:, :k] @ discount[:k] / ideal[most - 1]
        found[f"map@{k}"] = (hits * precision)[:, :k].sum(1) / most
        found[f"mrr@{k}"] = np.where(first <= k, 1 / first, 0)
        found[f"hit@{k}"] = (first <= k).astype(np.float64)
    return found


def genre_matrix(catalogue: Catalogue) -> npt.NDArray[np.bool_]:
    """Which title has which genre: bool [titles, genres], genres as `genre_names` orders them."""
    per_title: list[list[str]] = catalogue.table["genres"].to_pylist()
    names = genre_names(catalogue)
    column = {genre: position for position, genre in enumerate(names)}
    matrix = np.zeros((len(per_title), len(names)), np.bool_)
    for row, own in enumerate(per_title):
        matrix[row, [column[genre] for genre in own]] = True
    return matrix


def _hits(lists: Positions, relevant: Sequence[Positions], titles: int) -> npt.NDArray[np.bool_]:
    """Whether each place of each list holds a relevant title, by one sorted key per (case, title)."""
    owners = np.repeat(np.arange(len(relevant)), [len(positions) for positions in relevant])
    wanted = np.sort(owners * titles + np.concatenate([np.zeros(0, np.int64), *relevant]))
    keys = np.arange(len(lists))[:, None] * titles + lists
    place = np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)
    found: npt.NDArray[np.bool_] = (wanted[place] == keys) & (lists >= 0)
    return found


def _listed_mean(lists: Positions, values: npt.NDArray[np.number]) -> Values:
    """Mean of the titles' values over each list, NaN for an empty one."""
    listed = lists >= 0
    total = np.where(listed, values[lists], 0).sum(1)
    counts = listed.sum(1)
    mean: Values = np.divide(total, counts, out=np.full(len(lists), np.nan), where=counts > 0)
    return mean


def _popularity_lift(lists: Positions, cases: Cases) -> Values:
    histories = cases.query.histories
    past = np.array([cases.watches[history].sum() / max(len(history), 1) for history in histories])
    ours = _listed_mean(lists, cases.watches)
    times: Values = np.divide(ours, past, out=np.full(len(lists), np.nan), where=past > 0)
    return times - 1


def _diversity(lists: Positions, genres: npt.NDArray[np.bool_]) -> Values:
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
