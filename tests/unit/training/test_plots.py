from pathlib import Path

from matinee.models.space import Choice, Real
from matinee.schema import Estimate
from matinee.training import plots


def test_plots_are_written(tmp_path: Path):
    bars = {"per member": {"popularity": Estimate(value=0.1, low=0.05, high=0.2)}}
    plots.comparison(bars, tmp_path / "bars.png", metric="NDCG@20")
    plots.curves({"dnn": [{"step": 1, "steps": 2, "loss": 0.5}], "cf": []}, tmp_path / "loss.png")
    plots.curves({}, tmp_path / "none.png")
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("bars.png", "loss.png", "none.png"))


def test_a_search_is_drawn(tmp_path: Path):
    space = {"x": Real(0.01, 1, log=True), "kind": Choice((None, "a"))}
    trials = [({"x": 0.1, "kind": None}, 0.2), ({"x": 1.0, "kind": "a"}, 0.3)]
    for number in (1, 2):
        path = tmp_path / f"{number}.png"
        plots.parallel_coordinates(space, trials[:number], path, metric="NDCG@20")
        assert path.stat().st_size > 1000
    plots.learning_curves([[(12.5, 0.1), (100, 0.2)], [(25, 0.05)]], tmp_path / "c.png", metric="NDCG@20")
    assert (tmp_path / "c.png").stat().st_size > 1000
