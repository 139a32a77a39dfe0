"""implicit's alternating least squares from given factors: seconds of each epoch, and the last factors."""

import implicit
import numpy as np
from exchange import answer, request
from implicit.cpu.als import AlternatingLeastSquares
from scipy import sparse


def main() -> None:
    asked = request()
    with np.load(asked["given"]) as given:
        parts = given["data"], given["indices"], given["indptr"]
        members, titles = given["members"], given["titles"]
    watched = sparse.csr_matrix(parts, shape=(len(members), len(titles)))
    model = AlternatingLeastSquares(**asked["config"])
    model.user_factors, model.item_factors = members, titles
    seconds: list[float] = []
    model.fit(watched, show_progress=False, callback=lambda epoch, took, loss: seconds.append(took))
    np.savez(asked["out"], members=model.user_factors, titles=model.item_factors)
    answer(seconds=seconds, version=implicit.__version__)


if __name__ == "__main__":
    main()
