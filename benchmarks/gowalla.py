"""Gowalla, LightGCN's split: Recall@20 and NDCG@20 of full rankings, ours beside published figures.

Every title that is not in a member's training history is ranked; the mean is over members with a tested
title. The peers' figures are quoted: theirs were measured on the same split by the same metrics. What ours
takes of settings was chosen on a hold-out of the training part.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from benchmarks.common import arguments, machine, skipped
from benchmarks.questions import SHARED, bare_catalogue
from matinee.models.base import Model, TrainingSet
from matinee.models.cf import SPEC
from matinee.sources.published import read_user_split
from matinee.training import evaluate

NAME = "gowalla"
DATA = SHARED / "gowalla"
METRICS = ("recall@20", "ndcg@20")
PUBLISHED: dict[str, tuple[float, float, str]] = {
    "LightGCN": (0.1830, 0.1554, "He et al., SIGIR 2020"),
    "UltraGCN": (0.1862, 0.1580, "Mao et al., CIKM 2021"),
    "SimpleX": (0.1872, 0.1557, "Mao et al., CIKM 2021 (SimpleX)"),
    "GF-CF": (0.1849, 0.1518, "Shen et al., CIKM 2021"),
    "BSPM": (0.1920, 0.1597, "BSPM-EM: Choi et al., SIGIR 2023"),
}
MODELS = {f"cf, {preset}": SPEC.presets[preset] for preset in ("gfcf", "default", "sparse")}


def main() -> None:
    """Fit and judge each of our models once; one line for each peer and metric."""
    args = arguments(__doc__, _declare)
    folder = Path(args.data)
    if not (folder / "train.txt.gz").exists():
        for peer in PUBLISHED:
            skipped(NAME, peer, f"no data: {folder} has no train.txt.gz")
        return
    split = read(folder)
    sizes = {
        "members": len(split.train.member_ids),
        "titles": len(split.train.title_ids),
        "train": len(split.train),
        "test": len(split.test),
    }
    for model, config in MODELS.items():
        if args.quick and model != "cf, sparse":
            continue
        ours = measure(split, config)
        for peer, (*figures, source) in PUBLISHED.items():
            for metric, theirs in zip(METRICS, figures, strict=True):
                line = {
                    "name": NAME,
                    "peer": peer,
                    "metric": metric,
                    "ours": round(ours[metric], 4),
                    "theirs": theirs,
                    "ratio": round(ours[metric] / theirs, 4),
                    "unit": "",
                    "model": model,
                    "source": source,
                    "fit_s": round(ours["fit_s"], 1),
                    "rank_s": round(ours["rank_s"], 1),
                    "sizes": sizes,
                    "versions": {"numpy": np.__version__, "scipy": scipy.__version__},
                    "machine": machine(),
                }
                print(json.dumps(line), flush=True)


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", default=DATA, help="the folder of train.txt.gz and test.txt.gz")


def measure(split: evaluate.Split, config: Any) -> Mapping[str, float]:
    """Both metrics, fit_s and rank_s."""
    cases = evaluate.cases(split)
    begun = time.perf_counter()
    model = fitted(split, config)
    between = time.perf_counter()
    lists = evaluate.rank(model.score, cases.query)
    ranked = time.perf_counter()
    values = evaluate.accuracy(lists, cases.relevant, cases.titles)
    figures = {metric: float(values[metric].mean()) for metric in METRICS}
    return {**figures, "fit_s": between - begun, "rank_s": ranked - between}


def fitted(split: evaluate.Split, config: Any) -> Model:
    """The model of a cf config. The data has no times, so a history's titles weigh alike."""
    model = SPEC.model(replace(config, recent_half_life=float("inf")))
    catalogue = bare_catalogue(split.train.title_ids)
    model.fit(TrainingSet(interactions=split.train, catalogue=catalogue), seed=0)
    return model


def read(folder: Path) -> evaluate.Split:
    """The split as published."""
    return evaluate.given(*read_user_split(folder / "train.txt.gz", folder / "test.txt.gz"))


if __name__ == "__main__":
    main()
