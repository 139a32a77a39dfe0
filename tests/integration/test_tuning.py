"""Tuning on a real Ray cluster: found, gone on with after SIGKILL, and used."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import served_home
from commands import ENVIRONMENT, ROOT

from matinee.config import Settings, load_settings
from matinee.errors import InvalidInput
from matinee.events import lake
from matinee.features import batch
from matinee.features.store import FeatureStore
from matinee.models import discover
from matinee.models.base import Model, ModelSpec, Query, TrainingSet
from matinee.models.ensemble.holdout import split_holdout
from matinee.models.ensemble.model import Ensemble, fit_ensemble
from matinee.models.space import Choice
from matinee.registry.mlflow import Registry
from matinee.schema import LAKE_SCHEMA
from matinee.training import pipeline, rehearsal, search
from matinee.training.budget import Budget, Left
from matinee.training.rehearsal import Rehearsal, attempt, quality, rehearse
from matinee.training.study import opened

TITLES = served_home.TITLES
PRESET = {"MATINEE_TRAINING_PRESET": "test"}


def events() -> pa.Table:
    watched = served_home.interactions()
    rows = [
        {
            "schema_version": 1,
            "event_id": str(i),
            "type": "play",
            "member_id": watched.member_ids[watched.member[i]],
            "title_id": watched.title_ids[watched.title[i]],
            "event_time": int(watched.time[i]),
            "ingest_time": int(watched.time[i]),
            "value": 1.0,
            "partition": 0,
            "offset": i,
        }
        for i in range(len(watched))
    ]
    return pa.Table.from_pylist(rows, schema=LAKE_SCHEMA)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, ray_cluster: str) -> Settings:
    flags = {"home": str(tmp_path_factory.mktemp("home")), "ray_address": ray_cluster}
    made = load_settings(flags, environment=PRESET)
    served_home.catalogue().write(made.paths.catalogue)
    lake.write_part(made.paths.events, events(), cluster="test")
    FeatureStore(made).apply()
    batch.build(made)
    return made


def runs(settings: Settings, parent: str) -> list[Any]:
    with Registry(settings).writing() as client:
        experiment = client.get_run(parent).info.experiment_id
        return list(client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'"))


CLI = ("-m", "matinee.cli", "tune")
JOB = (str(ROOT / "jobs" / "tune.py"),)


def started(home: Settings, program: tuple[str, ...], *arguments: str) -> subprocess.Popen[str]:
    """The command or the job, joining the session's cluster."""
    environment = {
        **ENVIRONMENT,
        **{name: value for name, value in os.environ.items() if name.startswith("RAY_AUTH")},
        "MATINEE_RAY_ADDRESS": home.ray_address,
    }
    return subprocess.Popen(
        [sys.executable, *program, *arguments, "--json", "--home", str(home.home)],
        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def lines(journal: Path) -> list[dict[str, Any]]:
    text = journal.read_text() if journal.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def ended(journal: Path) -> list[dict[str, Any]]:
    return [line for line in lines(journal) if line.get("end", "lost") != "lost"]


def test_a_killed_command_given_again_goes_on_where_it_was(home: Settings):
    journal = home.paths.tuning / "killed" / "journal.jsonl"
    arguments = ("cf", "--trials", "12", "--name", "killed")
    first = started(home, CLI, *arguments)
    deadline = time.monotonic() + 60
    while len(ended(journal)) < 3:
        assert first.poll() is None, first.communicate()[1][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    before = lines(journal)
    known = {line["trial"] for line in ended(journal)}
    assert 3 <= len(known) < 12
    second = started(home, JOB, *arguments)
    printed, said = second.communicate(timeout=120)
    assert second.returncode == 0, said[-3000:]
    assert lines(journal)[: len(before)] == before
    assert len(ended(journal)) == 12
    found = json.loads(printed)
    tried = {row["trial"] for row in found["trials"]}
    assert len(tried) == 12
    assert known < tried
    assert sorted(run.info.run_name for run in runs(home, found["run_id"])) == sorted(tried)
    assert {run.info.status for run in runs(home, found["run_id"])} == {"FINISHED"}
    points = [json.dumps(row["point"], sort_keys=True) for row in found["trials"]]
    assert len(set(points)) == 12
    assert found["value"] >= found["base_value"]


def test_a_study_is_found_in_mlflow_goes_on_with_more_budget_and_its_best_can_be_used(home: Settings):
    moved: list[float] = []
    first = search.tune(
        home, "popularity", Budget(trials=2), name="pop", progress=lambda done, *_: moved.append(done)
    )
    assert moved == [1, 2]
    assert first.applied is None
    found = search.tune(home, "popularity", Budget(trials=4), name="pop", apply=True)
    assert found.run_id == first.run_id
    assert len(found.trials) == len(runs(home, found.run_id)) == 4
    assert {row["trial"] for row in first.trials} < {row["trial"] for row in found.trials}
    with Registry(home).writing() as client:
        run = client.get_run(found.run_id)
        assert run.data.metrics["ndcg_at_20"] == found.value
        kept = {
            file.path for folder in (None, "plots") for file in client.list_artifacts(run.info.run_id, folder)
        }
    plots = {"plots/parallel_coordinates.png", "plots/learning_curves.png"}
    assert kept >= {"best.json", "trials.json"} | plots
    best = next(run for run in runs(home, found.run_id) if run.info.run_name == found.trials[0]["trial"])
    assert json.loads(best.data.params["half_life_days"]) == found.best["half_life_days"]
    config = pipeline.presets(home, discover(), "tuned")["popularity"]
    assert config.half_life_days == found.best["half_life_days"]
    spent = search.tune(home, "popularity", Budget(trials=4), name="pop")
    assert spent.trials == found.trials
    with pytest.raises(InvalidInput, match="study pop was started with other model"):
        search.tune(home, "cf", Budget(trials=4), name="pop")


def test_an_ensembles_own_config_is_tuned_over_members_fitted_once(
    home: Settings, monkeypatch: pytest.MonkeyPatch
):
    specs = discover()
    spec = replace(specs["ensemble"], members=("popularity", "cf"))
    material, configs = pipeline.read(home), pipeline.presets(home, specs, "test")
    given = rehearse(home, spec, material, configs)
    assert set(given.members) == {"popularity", "cf"}
    seen: list[tuple[float, float]] = []
    weighed: list[Ensemble] = []

    def watched(*asked: Any, **options: Any) -> Ensemble:
        weighed.append(fit_ensemble(*asked, **options))
        return weighed[-1]

    monkeypatch.setattr(rehearsal, "fit_ensemble", watched)
    for shrinkage in (0.3, 1000.0):
        config = replace(configs["ensemble"], shrinkage=shrinkage)
        attempt(config, spec, given, 0, lambda *told: seen.append(told))
    assert [percent for percent, _ in seen] == [100, 100]
    alone = quality(given.members["popularity"], given.exam, served_home.TITLES)
    assert all(value > 0.8 * alone for _, value in seen)
    combinations = []
    for each in weighed:
        assert each.validation is not None
        combinations.append([decision.combination.value for decision in each.validation.decisions])
    assert combinations[0] != combinations[1]


@dataclass(frozen=True)
class FragileConfig:
    folder: str
    kind: str = "sound"


class Fragile(Model):
    """Ends its own process the first time, fails always, or is sound."""

    def __init__(self, config: FragileConfig) -> None:
        self.config = config

    def fit(self, data: TrainingSet, *, seed: int, progress=None) -> None:
        if self.config.kind == "broken":
            raise ZeroDivisionError("no weight is left")
        mark = Path(self.config.folder) / "lost"
        if self.config.kind == "lost" and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def score(self, query: Query):
        return np.zeros((len(query), TITLES), np.float32)

    def save(self, folder: Path) -> None:
        raise AssertionError("trials keep no model")

    load = save


def test_a_trial_whose_process_is_lost_starts_anew_and_a_broken_one_is_told(home: Settings, tmp_path: Path):
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    data = TrainingSet(interactions=served_home.interactions(), catalogue=served_home.catalogue())
    kinds = ("lost", "broken", "sound")
    spec = ModelSpec(name="fragile", model=Fragile, presets={}, space={"kind": Choice(kinds)})
    recorded = []
    with opened(tmp_path / "study", {}) as study:
        search.run_trials(
            home,
            study,
            Left(trials=3, seconds=None, reason=""),
            [{"kind": kind} for kind in kinds],
            Rehearsal(data=data, exam=split_holdout(data, seed=0)),
            spec,
            FragileConfig(folder=str(tmp_path)),
            record=recorded.append,
            progress=None,
        )
    ends = {trial.point["kind"]: (trial.end, trial.reason) for trial in study.trials.values()}
    assert ends == {
        "lost": ("finished", ""),
        "sound": ("finished", ""),
        "broken": ("failed", "ZeroDivisionError: no weight is left"),
    }
    assert (tmp_path / "lost").exists()
    assert len(recorded) == 3
