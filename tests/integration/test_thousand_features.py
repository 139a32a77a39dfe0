"""A thousand declared features are applied, streamed, equal to batch and read."""

from benchmarks.thousand_features import home, run


def test_a_thousand_features_work(tmp_path):
    figures = run(home(tmp_path / "home"), 3_000)
    assert (figures["features"], figures["views"], figures["read_features"]) == (1_000, 50, 500)
