"""The evaluator against a published table: GF-CF on Gowalla, written here apart from the product's models.

Shen et al., "How powerful is graph convolution for recommendation?", CIKM 2021, report Recall@20 .1849 and
NDCG@20 .1518 on LightGCN's split. With R~ = D_m^-1/2 R D_t^-1/2 and V its 256 leading right singular vectors
(exact: an approximate span differs), a row r of R scores r (R~^T R~ + .3 D_t^-1/2 V V^T D_t^1/2).
One JSON line: our figures with intervals, theirs, and the seconds of fitting, scoring and evaluating alone.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import svds

from benchmarks.common import ROOT, arguments, machine, skipped
from matinee.models.base import Query, Scores
from matinee.schema import Interactions
from matinee.sources.published import read_user_split
from matinee.training import evaluate

NAME = "evaluator_proof"
DATA = ROOT.parent / "shared" / "data" / "gowalla"
PUBLISHED = {"recall@20": 0.1849, "ndcg@20": 0.1518}
RANK = 256
IDEAL = 0.3
"""Weight of the ideal low-pass filter on Gowalla."""


def main() -> None:
    """Print the line, or why there is none."""
    folder = Path(arguments(__doc__, _declare).data)
    if not (folder / "train.txt.gz").exists():
        skipped(NAME, "GF-CF", f"no data: {folder} has no train.txt.gz")
        return
    print(json.dumps(prove(folder)))


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", default=DATA, help="the folder of train.txt.gz and test.txt.gz")


def prove(folder: Path) -> dict[str, Any]:
    """Evaluate GF-CF on the split in `folder`."""
    split = evaluate.given(*read_user_split(folder / "train.txt.gz", folder / "test.txt.gz"))
    begun = time.perf_counter()
    score = gf_cf(split.train)
    fit_s = time.perf_counter() - begun
    score_s = 0.0

    def timed(query: Query) -> Scores:
        nonlocal score_s
        started = time.perf_counter()
        scores = score(query)
        score_s += time.perf_counter() - started
        return scores

    begun = time.perf_counter()
    cases = evaluate.cases(split)
    lists = evaluate.rank(timed, cases.query)
    judged = evaluate.outcome(lists, cases, np.zeros((cases.titles, 0), np.bool_))
    found = evaluate.estimate(judged, seed=0)
    evaluator_s = time.perf_counter() - begun - score_s
    return {
        "name": NAME,
        "peer": "GF-CF",
        **{name: [round(each, 4) for each in (one.value, one.low, one.high)] for name, one in found.items()},
        "published": PUBLISHED,
        "fit_s": round(fit_s, 1),
        "score_s": round(score_s, 1),
        "evaluator_s": round(evaluator_s, 1),
        "sizes": {"members": len(cases), "titles": cases.titles, "tested": len(split.test)},
        "machine": machine(),
    }


def gf_cf(train: Interactions) -> Callable[[Query], Scores]:
    """A function that scores every title for a query's histories."""
    shape = len(train.member_ids), len(train.title_ids)
    watched = sparse.csr_array((np.ones(len(train)), (train.member, train.title)), shape=shape)
    member, title = (np.sqrt(np.maximum(watched.sum(side), 1)) for side in (1, 0))
    normalised = sparse.csr_array(
        sparse.diags_array(1 / member) @ watched @ sparse.diags_array(1 / title), dtype=np.float32
    )
    rank = min(RANK, min(shape) - 1)
    double = normalised.astype(np.float64)
    right = svds(double, k=rank, random_state=0, return_singular_vectors="vh")[2].T
    into = (right / title[:, None]).astype(np.float32)
    out = (right * title[:, None] * IDEAL).T.astype(np.float32)
    near = sparse.csr_array(normalised.T @ normalised)

    def score(query: Query) -> Scores:
        bounds = np.cumsum([0, *(len(history) for history in query.histories)])
        titles = np.concatenate(list(query.histories))
        rows = sparse.csr_array(
            (np.ones(len(titles), np.float32), titles, bounds), shape=(len(query), shape[1])
        )
        scores: Scores = (rows @ into) @ out
        linear = sparse.csr_array(rows @ near)
        scores[np.repeat(np.arange(len(query)), np.diff(linear.indptr)), linear.indices] += linear.data
        return scores

    return score


if __name__ == "__main__":
    main()
