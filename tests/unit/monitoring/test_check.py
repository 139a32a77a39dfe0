from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pandas as pd
import pytest

from matinee.config import Settings
from matinee.errors import NotFound
from matinee.monitoring.check import check, drift_event
from matinee.monitoring.exposures import parse
from matinee.monitoring.window import Window
from matinee.schema import ModelVersion

Message = Callable[..., bytes]


@pytest.fixture
def version(tmp_path: Path) -> ModelVersion:
    generator = np.random.default_rng(0)
    reference = pd.DataFrame(
        {
            "plays_1h": generator.poisson(5, 900).astype(float),
            "score_top": generator.normal(3, 1, 900),
            "score_mean": generator.normal(2, 1, 900),
        }
    )
    reference.to_parquet(tmp_path / "reference.parquet")
    return ModelVersion(name="recommender", version="1", run_id="r", path=str(tmp_path))


def live(message: Message, rows: int, plays: float, score: float) -> Window:
    generator = np.random.default_rng(1)
    window = Window(1000)
    for number in range(rows):
        scores = [generator.normal(score, 1), generator.normal(score - 2, 2**-0.5 * 2)]
        titles = [{"title_id": str(i), "position": i, "score": s} for i, s in enumerate(scores)]
        features = {"plays_1h": int(generator.poisson(plays))}
        window.add(parse(message(number, titles=titles, features=features)))
    return window


def test_traffic_like_training_is_kept(settings: Settings, version: ModelVersion, message: Message) -> None:
    found = check(settings, version, live(message, 400, plays=5, score=3))
    assert found.decision == "keep"
    assert found.drifted == []
    assert set(found.columns) == {"plays_1h", "score_top", "score_mean"}


def test_other_traffic_is_drift_and_says_so_everywhere(
    settings: Settings, version: ModelVersion, message: Message
) -> None:
    found = check(settings, version, live(message, 400, plays=12, score=6))
    assert found.decision == "drift"
    assert found.share == 1
    folder = settings.paths.reports / "drift" / "recommender-1"
    assert found.report == str(folder / "drift.html")
    assert (folder / "drift.html").is_file()
    kept = orjson.loads((folder / "drift.json").read_bytes())
    event = orjson.loads(drift_event(found))
    assert kept.items() <= event.items()
    assert event["type"] == "drift"
    assert event["event_id"] == f"drift-recommender-1-{found.time}"


def test_few_rows_hold_without_a_report(settings: Settings, version: ModelVersion, message: Message) -> None:
    found = check(settings, version, live(message, 99, plays=50, score=50))
    assert (found.decision, found.rows, found.share) == ("hold", 99, None)
    assert not settings.paths.reports.exists()


def test_answers_of_another_version_do_not_count(
    settings: Settings, version: ModelVersion, message: Message
) -> None:
    window = Window(1000)
    for number in range(200):
        window.add(parse(message(number, model_version="recommender/2")))
    assert check(settings, version, window).rows == 0


def test_no_reference(settings: Settings, version: ModelVersion, message: Message) -> None:
    Path(version.path, "reference.parquet").unlink()
    with pytest.raises(NotFound, match="training reference"):
        check(settings, version, live(message, 150, plays=5, score=3))
