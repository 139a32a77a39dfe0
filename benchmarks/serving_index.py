"""Retrieval by an index beside a pass over every title: what it finds, what it misses, how long both take.

Members are asked one at a time on one thread. Recall is the share of the best titles by a full pass that the
answer of the index holds: of the whole ensemble, every signal weighing alike, and of each model alone. Real
data, though below `serving.exact_titles`, shows what recall is like where people's watches placed the titles;
the drawn catalogue is large, and about as hard as it gets. Other ways to find candidates in the same sketch
stand beside.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from benchmarks import served
from benchmarks.common import ROOT, arguments, machine, pinned, skipped
from benchmarks.questions import SHARED, bare_catalogue
from matinee.errors import NotFound
from matinee.models.base import Query, TrainingSet
from matinee.models.bundle import Bundle, load_bundle
from matinee.schema import Interactions
from matinee.serving.home import BEST, Layout, Member, compose
from matinee.serving.rank import Titles
from matinee.serving.retrieval import MORE, Retriever, part_products
from matinee.serving.scores import EveryTitle
from matinee.serving.vector_index import VectorIndex
from matinee.serving.versions import Live
from matinee.sources.published import read_sequences, read_user_split

NAME = "serving_index"
HOUR = 3_600_000_000
START = 1_700_000_000_000_000
ASKED = 30
"""Members that are asked about."""
CUTS = (20, 200, BEST)
SHORT: Mapping[str, Mapping[str, Any]] = {
    "dnn": {"epochs": 1, "negatives": 4096},
    "gnn": {"steps": 60, "sampling": "neighbours"},
}
"""Less training than by default on real data, in the same shapes."""
DRAWN, DRAWN_QUICK = 100_000, 12_000
"""Titles; of fewer than about 10,000 cf learns a weight for every pair, which no index holds."""


def main() -> None:
    args = arguments(__doc__, _declare)
    sources: dict[str, Callable[[], TrainingSet]] = {
        "sasrec-video": lambda: video(Path(args.data)),
        "gowalla": lambda: gowalla(Path(args.data)),
        "drawn": lambda: drawn(DRAWN_QUICK if args.quick else DRAWN),
    }
    for source in ["drawn"] if args.quick else args.sources:
        try:
            data = sources[source]()
        except NotFound as missing:
            skipped(NAME, source, str(missing))
            continue
        folder = Path(args.cache) / f"{source}-{len(data.catalogue)}"
        with pinned(1):
            measure(source, fitted(folder, data, SHORT if source != "drawn" else served.SHORT), data)


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", default=SHARED, help="the folder of the data sets")
    parser.add_argument("--cache", default=str(ROOT / ".benchmarks" / NAME), help="where models are kept")
    parser.add_argument("--sources", nargs="+", default=["sasrec-video", "gowalla", "drawn"])


def video(folder: Path) -> TrainingSet:
    """SASRec's Video data."""
    return in_turn(read_sequences(folder / "sasrec-video" / "Video.txt.gz"))


def gowalla(folder: Path) -> TrainingSet:
    """The training part of LightGCN's split; a member's titles in the order of the file."""
    train, _ = read_user_split(folder / "gowalla" / "train.txt.gz", folder / "gowalla" / "test.txt.gz")
    return in_turn(train)


def in_turn(watched: Interactions) -> TrainingSet:
    """A member's titles two hours apart; nothing is known of titles but who watched them."""
    order = np.argsort(watched.member, kind="stable")
    member = watched.member[order]
    place = np.arange(len(member)) - np.searchsorted(member, member)
    turn = order[np.lexsort((member, place))]
    time_of = START + np.sort(place).astype(np.int64) * 2 * HOUR
    interactions = replace(
        watched,
        member=watched.member[turn],
        title=watched.title[turn],
        time=time_of,
        value=watched.value[turn],
    )
    return TrainingSet(interactions=interactions, catalogue=bare_catalogue(watched.title_ids))


def drawn(titles: int) -> TrainingSet:
    """A drawn catalogue with attributes, and histories of drawn members."""
    return served.training_set(served.catalogue(titles), served.histories(titles, served.LEARNERS))


def fitted(folder: Path, data: TrainingSet, short: Mapping[str, Mapping[str, Any]]) -> Bundle:
    """The ensemble, its signals weighing alike; from the folder where it lies there."""
    if not (folder / "bundle.json").exists():
        served.fit(folder, data, short)
    return load_bundle(folder)


def measure(source: str, bundle: Bundle, data: TrainingSet) -> None:
    """Print what was found of one catalogue."""
    members = np.linspace(0, len(data.interactions.member_ids) - 1, ASKED).astype(int)
    known = data.interactions.histories()
    histories = [known[member] for member in members]
    asked = [one(history) for history in histories if len(history)]
    exact = Live(name="exact", bundle=bundle, titles=Titles(bundle.catalogue))
    begun = time.perf_counter()
    indexed = replace(exact, exact_titles=0)
    retriever = indexed.retriever
    assert retriever is not None
    built_s = time.perf_counter() - begun
    facts = {"name": NAME, "source": source, "titles": len(exact.titles)}
    pages, exact_ms, indexed_ms = [], [], []
    recalls = {cut: [] for cut in CUTS}
    for query in asked:
        allowed = np.ones(len(exact.titles), dtype=bool)
        allowed[query.histories[0]] = False
        start = time.perf_counter()
        whole = EveryTitle(values=np.sum(list(exact.ask(query).values()), axis=0, dtype=np.float32)[0])
        best = whole.best(allowed, BEST)
        between = time.perf_counter()
        answer = retriever.found({name: each[0] for name, each in retriever.ask(query).items()})
        found = answer.best(allowed, BEST)
        indexed_ms.append((time.perf_counter() - between) * 1e3)
        exact_ms.append((between - start) * 1e3)
        for cut in CUTS:
            recalls[cut].append(float(np.isin(best[:cut], found).mean()))
        member = Member(watched=query.histories[0])
        shown = [
            shown_titles(compose(scores, allowed, member, version.columns, Layout(), today=20_000))
            for scores, version in ((whole, exact), (answer, indexed))
        ]
        pages.append(float(np.isin(*shown).mean()))
    line = {
        **facts,
        "dimensions": sum(each.shape[1] for each in retriever.parts.titles.values()),
        "build_s": round(built_s, 1),
        **{f"recall@{cut}": round(statistics.mean(values), 4) for cut, values in recalls.items()},
        "least_recall@200": round(min(recalls[200]), 4),
        "page_titles": round(statistics.mean(pages), 4),
        "exact_ms": round(statistics.median(exact_ms), 2),
        "indexed_ms": round(statistics.median(indexed_ms), 2),
        "members": len(asked),
        "machine": machine(),
    }
    print(json.dumps(line), flush=True)
    print(json.dumps({**facts, "models": alone(bundle, asked)}), flush=True)
    print(json.dumps({**facts, "candidates": ways(retriever, asked)}), flush=True)


def one(history: npt.NDArray[np.int32]) -> Query:
    """A member who watched these titles, one an hour, long ago."""
    times = START + np.arange(len(history), dtype=np.int64) * HOUR
    return Query(histories=[history], times=[times], now=np.array([time.time_ns() // 1000]))


def shown_titles(page: list[Any]) -> npt.NDArray[np.intp]:
    """Every title of a page."""
    return np.concatenate([row.titles for row in page])


def alone(bundle: Bundle, asked: list[Query]) -> dict[str, float]:
    """Recall@200 of each model that can be retrieved alone."""
    found = {}
    for name, model in getattr(bundle.model, "members", {}).items():
        parts = part_products(name, model)
        if parts is None:
            continue
        retriever = Retriever(parts, model.score(asked[0])[0])
        recalls = []
        for query in asked[:: max(len(asked) // 30, 1)]:
            allowed = np.ones(len(bundle.catalogue), dtype=bool)
            allowed[query.histories[0]] = False
            best = EveryTitle(values=model.score(query)[0]).best(allowed, 200)
            answer = retriever.found({part: each[0] for part, each in retriever.ask(query).items()})
            recalls.append(float(np.isin(best, answer.best(allowed, 200)).mean()))
        found[name] = round(statistics.mean(recalls), 4)
    return found


def ways(retriever: Retriever, asked: list[Query]) -> dict[str, dict[str, float]]:
    """Ways to as many candidates as `BEST` takes: recall of the best by full products, ms, and s to build.

    Without what titles have beside the products.
    """
    sketch = retriever.sketch.titles
    count = min(int((1 + MORE) * BEST), len(sketch) - 1)
    products = [retriever.ask(query) for query in asked]
    vectors = [[each.vectors for each in found.values()] for found in products]
    directions = [retriever.sketch.turned(each) for each in vectors]
    titles = list(retriever.parts.titles.values())
    best = []
    for each in vectors:
        scores = sum(vector @ block.T for vector, block in zip(each, titles, strict=True))[0]
        best.append(np.argsort(-scores)[:BEST])
    everything = np.ones(len(sketch), dtype=bool)

    def passing() -> Callable[[npt.NDArray[np.float32]], Any]:
        return lambda direction: np.argpartition(-(sketch @ direction[0]), count)[:count]

    def ours(scanned: int) -> Callable[[], Callable[[npt.NDArray[np.float32]], Any]]:
        def build() -> Callable[[npt.NDArray[np.float32]], Any]:
            index = VectorIndex(sketch, scanned=scanned)
            return lambda direction: index.largest(direction[0], count, everything)[0]

        return build

    def graph() -> Callable[[npt.NDArray[np.float32]], Any]:
        index = faiss.IndexHNSWFlat(sketch.shape[1], 24, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = 80, count
        index.add(sketch)
        return lambda direction: index.search(direction, count)[1][0]

    found = {}
    builders = {
        "float32, all": passing,
        "int8, all": ours(len(sketch)),
        "int8, cells": ours(0),
        "HNSW": graph,
    }
    for name, build in builders.items():
        begun = time.perf_counter()
        search = build()
        built_s, spent = time.perf_counter() - begun, []
        recalls: dict[int, list[float]] = {cut: [] for cut in CUTS}
        for direction, right in zip(directions, best, strict=True):
            start = time.perf_counter()
            got = search(direction)
            spent.append((time.perf_counter() - start) * 1e3)
            for cut in CUTS:
                recalls[cut].append(float(np.isin(right[:cut], got).mean()))
        found[name] = {
            **{f"recall@{cut}": round(statistics.mean(values), 4) for cut, values in recalls.items()},
            "ms": round(statistics.median(spent), 2),
            "build_s": round(built_s, 1),
        }
    return found


if __name__ == "__main__":
    main()
