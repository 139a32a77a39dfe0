import io
import json

from rich.console import Console

from matinee.schema import Estimate
from matinee.training.evaluate import report

PANELS = {
    "per member": {
        "popularity": {"ndcg@20": Estimate(value=0.1, low=0.05, high=0.15)},
        "cf": {"ndcg@20": Estimate(value=0.2, low=0.15, high=0.25), "gini": Estimate(value=1, low=1, high=1)},
    }
}


def test_tables_show_values_with_their_intervals_and_a_dash_for_none():
    console = Console(file=io.StringIO(), width=100)
    for table in report.tables(PANELS, ["ndcg@20", "gini"]):
        console.print(table)
    shown = console.file.getvalue()
    assert "per member" in shown
    assert "0.1000 [0.0500, 0.1500]" in shown
    popularity = next(line for line in shown.splitlines() if "popularity" in line)
    assert popularity.replace("│", " ").split()[-1] == "-"


def test_json_is_read_back_as_it_was():
    written = json.loads(json.dumps(report.to_json(PANELS)))
    assert written["per member"]["popularity"] == {"ndcg@20": [0.1, 0.05, 0.15]}
    assert report.from_json(written) == PANELS


def test_a_plot_is_a_png(tmp_path):
    report.plot(PANELS, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
