"""implicit's alternating least squares (iALS); a query's member is solved for from its history."""

import implicit
import numpy as np
from exchange import answer, request
from implicit.als import AlternatingLeastSquares
from recommend import Task, joined, train
from scipy import sparse


def main() -> None:
    asked = request()
    task = Task.read(asked["task"])
    shape = (task.members, task.titles)
    pairs = (np.ones(len(task.member), np.float32), (task.member, task.title))
    watched = sparse.csr_matrix(pairs, shape=shape)
    model = AlternatingLeastSquares(
        **asked["config"], iterations=1, num_threads=asked["threads"], random_state=asked["seed"]
    )
    histories = task.histories

    def step(left: float) -> None:
        """A fit goes on from the factors that the last one left."""
        model.fit(watched, show_progress=False)

    def score(rows: np.ndarray) -> np.ndarray:
        columns, bounds = joined([histories[row] for row in rows])
        weights = np.ones(len(columns), np.float32)
        mine = sparse.csr_matrix((weights, columns, bounds), shape=(len(rows), task.titles))
        return np.asarray(model.recalculate_user(np.arange(len(rows)), mine) @ model.item_factors.T)

    lists, found = train(task, step, score, **asked["limits"])
    np.save(asked["out"], lists)
    answer(**found, version=implicit.__version__)


if __name__ == "__main__":
    main()
