from pathlib import Path

from matinee.schema import Estimate
from matinee.training import plots


def test_plots_are_written(tmp_path: Path):
    bars = {"per member": {"popularity": Estimate(value=0.1, low=0.05, high=0.2)}}
    plots.comparison(bars, tmp_path / "bars.png", metric="NDCG@20")
    plots.curves({"dnn": [{"step": 1, "steps": 2, "loss": 0.5}], "cf": []}, tmp_path / "loss.png")
    plots.curves({}, tmp_path / "none.png")
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("bars.png", "loss.png", "none.png"))
