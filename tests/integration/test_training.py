import json
import sys
import time
from pathlib import Path

import lake_home
import numpy as np
import pyarrow.parquet as pq
import pytest

from matinee.config import Settings, Training
from matinee.errors import InvalidInput, MatineeError, NotFound, Unavailable
from matinee.features import batch
from matinee.models.base import Model, ModelSpec, Query, Scores, TrainingSet
from matinee.models.bundle import load_bundle
from matinee.registry.mlflow import CHAMPION, Registry
from matinee.training import loop, pipeline
from matinee.training.evaluate.report import from_json
from matinee.training.tasks import FitTask


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, ray_cluster: str) -> Settings:
    made = Settings(home=tmp_path_factory.mktemp("home"), ray_address=ray_cluster)
    lake_home.make(made)
    batch.build(made)
    return made


@pytest.fixture(scope="module")
def trained(home: Settings) -> pipeline.TrainingReport:
    seen: list[float] = []
    report = pipeline.train(
        home, preset="test", progress=lambda completed, total, note: seen.append(completed / total)
    )
    assert seen[-1] == 1
    assert len(set(seen)) > 5
    return report


def test_the_champion_is_whole(home: Settings, trained: pipeline.TrainingReport):
    version = Registry(home).get(home.serving.model, CHAMPION)
    assert version == trained.version
    folder = Path(version.path)
    figures = json.loads((folder / "metrics.json").read_text())
    assert figures["models"] == trained.models
    assert set(trained.models) == {"popularity", "cf", "dnn", "gnn", "ensemble"}
    assert set(trained.models_global["ensemble"]) >= {"cold", "all"}
    assert version.metrics["ndcg@20"] == trained.models["ensemble"]["ndcg@20"]
    panels = from_json(figures["panels"])
    assert panels == trained.panels
    assert next(iter(panels)) == "prequential replay"
    assert version.metrics["prequential.mrr@20"] == panels["prequential replay"]["ensemble"]["mrr@20"].value
    assert (folder / "card.md").read_text().count("\n## ") >= 10
    assert sorted(path.name for path in (folder / "plots").iterdir()) == ["loss.png", "ndcg_at_20.png"]
    wanted = {"data_snapshot", "feature_service", "code_version", "hardware", "seed", "weights_digest"}
    assert wanted <= set(version.tags)
    assert list(home.paths.scratch.glob("train-*")) == []


def test_the_reference_has_the_features_and_scores_of_every_member(trained: pipeline.TrainingReport):
    table = pq.read_table(Path(trained.version.path) / "reference.parquet")
    names = ["plays_1h", "plays_24h", "plays_7d", *(f"affinity[g{i}]" for i in range(4))]
    assert table.column_names == [*names, "score_top", "score_mean"]
    assert table.num_rows == lake_home.MEMBERS
    values = table.to_pandas()
    assert not values.isna().any().any()
    assert (values["score_top"] >= values["score_mean"]).all()


def test_the_bundle_scores_an_unknown_member(trained: pipeline.TrainingReport):
    bundle = load_bundle(Path(trained.version.path))
    nobody = Query(
        histories=[np.zeros(0, np.int32)],
        times=[np.zeros(0, np.int64)],
        now=np.array([400 * 24 * lake_home.HOUR]),
    )
    scores = bundle.model.score(nobody)
    assert scores.shape == (1, lake_home.TITLES)
    assert np.isfinite(scores).all()


def test_the_same_data_and_seed_give_the_same_version(home: Settings, trained: pipeline.TrainingReport):
    again = pipeline.train(home, preset="test")
    assert again.weights_digest == trained.weights_digest
    assert again.models == trained.models
    assert again.models_global == trained.models_global
    assert again.version.version == str(int(trained.version.version) + 1)


def test_only_what_is_registered_goes_on_from_a_version(
    home: Settings, trained: pipeline.TrainingReport, monkeypatch: pytest.MonkeyPatch
):
    champion = Registry(home).get(home.serving.model, CHAMPION)
    asked: list[FitTask] = []

    def watched(settings: Settings, tasks: list[FitTask], parts: object, **options: object) -> None:
        asked.extend(tasks)
        raise InterruptedError

    monkeypatch.setattr(pipeline, "fit_all", watched)
    with pytest.raises(InterruptedError):
        pipeline.train(home, preset="test", start=CHAMPION)
    starts = {(task.part == pipeline.EVERYTHING, task.start) for task in asked}
    assert starts == {(True, Path(champion.path)), (False, None)}


def test_a_version_to_go_on_from_must_be_there(home: Settings, trained: pipeline.TrainingReport):
    with pytest.raises(NotFound, match="version '99'"):
        pipeline.train(home, preset="test", start="99")


def test_an_unknown_preset_is_named(home: Settings):
    with pytest.raises(InvalidInput, match="'huge' is unknown; there are default"):
        pipeline.train(home, preset="huge")


def test_a_home_without_data_is_told(tmp_path: Path):
    with pytest.raises(NotFound, match="catalogue"):
        pipeline.train(Settings(home=tmp_path))
    lake_home.catalogue().write(Settings(home=tmp_path).paths.catalogue)
    with pytest.raises(InvalidInput, match="holds no watch"):
        pipeline.train(Settings(home=tmp_path))


class Awkward(Model):
    """Fails, or never ends, as its config says."""

    def __init__(self, config: str) -> None:
        self.config = config

    def fit(self, data: TrainingSet, *, seed: int, progress=None, checkpoints=None, start=None) -> None:
        if self.config == "fails":
            raise ZeroDivisionError("no weight is left")
        time.sleep(600)

    def score(self, query: Query) -> Scores:
        raise AssertionError("never fitted")

    def save(self, folder: Path) -> None: ...

    @classmethod
    def load(cls, folder: Path) -> "Awkward":
        raise AssertionError("never fitted")


def awkward(settings: Settings, config: str) -> None:
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    spec = ModelSpec(name="awkward", model=Awkward, presets={"default": config})
    task = FitTask(spec=spec, config=config, part="all", seed=0)
    data = TrainingSet(interactions=None, catalogue=lake_home.catalogue())
    with loop.scratch(settings) as folder:
        loop.fit_all(settings, [task], {"all": data}, folder=folder)


def test_a_model_that_fails_is_named_with_its_cause(settings: Settings, ray_cluster: str):
    with pytest.raises(MatineeError, match="fitting awkward on all failed: ZeroDivisionError: no weight"):
        awkward(settings, "fails")
    assert list(settings.paths.scratch.iterdir()) == []


def test_training_that_does_not_advance_is_given_up(settings: Settings, ray_cluster: str):
    hasty = settings.model_copy(update={"training": Training(patience_s=2)})
    with pytest.raises(Unavailable, match=r"nothing advanced for 2 s with all\.awkward unfinished"):
        awkward(hasty, "sleeps")
    assert list(settings.paths.scratch.iterdir()) == []
