"""LensKit's scorers; each is given the query's history.

Titles that no training pair names are left out of it: two of the scorers fail on them.
"""

import lenskit
import numpy as np
import pandas as pd
from exchange import answer, request
from lenskit.als import ImplicitMFScorer
from lenskit.data import ItemList, RecQuery, from_interactions_df
from lenskit.knn import EASEScorer, ItemKNNScorer, UserKNNScorer
from lenskit.training import TrainingOptions
from recommend import Task, train

SCORERS = {
    "EASE": EASEScorer,
    "ImplicitMF": ImplicitMFScorer,
    "ItemKNN": ItemKNNScorer,
    "UserKNN": UserKNNScorer,
}


def main() -> None:
    asked = request()
    task = Task.read(asked["task"])
    frame = pd.DataFrame({"user_id": task.member, "item_id": task.title})
    data = from_interactions_df(frame)
    scorer = SCORERS[asked["model"]](**asked["config"])
    everything = ItemList(item_ids=np.arange(task.titles))
    trained = np.bincount(task.title, minlength=task.titles) > 0
    histories = [history[trained[history]] for history in task.histories]

    def step(left: float) -> None:
        scorer.train(data, TrainingOptions(rng=asked["seed"], device="cpu"))

    def score(rows: np.ndarray) -> np.ndarray:
        return np.stack([_scores(histories[row]) for row in rows])

    def _scores(history: np.ndarray) -> np.ndarray:
        query = RecQuery(history_items=ItemList(item_ids=history))
        return scorer(query, everything).scores("numpy") if len(history) else np.full(task.titles, np.nan)

    lists, found = train(task, step, score, epochs=1, budget_s=asked["limits"]["budget_s"])
    np.save(asked["out"], lists)
    answer(**found, version=lenskit.__version__)


if __name__ == "__main__":
    main()
