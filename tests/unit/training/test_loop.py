from pathlib import Path

import pytest

from matinee.config import Settings
from matinee.errors import StorageError, Unavailable
from matinee.models.base import ModelSpec
from matinee.models.cf.config import CfConfig
from matinee.models.cf.model import CollaborativeFiltering
from matinee.training import loop
from matinee.training.tasks import FitTask


@pytest.mark.parametrize(
    ("device", "gpus", "workers", "expected"),
    [
        ("auto", 0, 1, False),
        ("auto", 1, 1, True),
        ("auto", 1, 2, False),
        ("cpu", 4, 1, False),
        ("gpu", 2, 2, True),
    ],
)
def test_gpus_are_used_where_every_worker_gets_one(device: str, gpus: float, workers: int, expected: bool):
    assert loop.uses_gpu(device, gpus, workers) is expected


def test_a_demanded_gpu_that_is_missing_is_an_error():
    with pytest.raises(Unavailable, match="has 0 GPUs"):
        loop.uses_gpu("gpu", 0, 1)


@pytest.mark.parametrize(
    ("tasks", "wanted", "workers", "units", "expected"),
    [
        (10, 4, 1, 2, 2),
        (10, 4, 2, 2, 1),
        (1, 4, 1, 8, 1),
        (50, 4, 1, 64, 4),
        (3, 1, 4, 2, 1),
        (0, 1, 1, 2, 1),
    ],
)
def test_lanes_fit_the_cluster(tasks: int, wanted: int, workers: int, units: float, expected: int):
    assert loop.lane_count(tasks, wanted=wanted, workers=workers, units=units) == expected


def interrupted(settings: Settings) -> None:
    with loop.scratch(settings) as folder:
        (folder / "half").write_text("")
        raise KeyboardInterrupt


def test_scratch_is_gone_whatever_happens(tmp_path: Path):
    settings = Settings(home=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        interrupted(settings)
    assert list(settings.paths.scratch.iterdir()) == []


def test_a_named_scratch_is_taken_up_after_a_kill_and_never_shared(tmp_path: Path):
    settings = Settings(home=tmp_path)
    left = settings.paths.scratch / "train-one"
    left.mkdir(parents=True)
    (left / "half").write_text("kept")
    with loop.scratch(settings, "one") as folder:
        assert (folder / "half").read_text() == "kept"
        with pytest.raises(Unavailable, match=r"under way in .*train-one"), loop.scratch(settings, "one"):
            pass
        with loop.scratch(settings, "two") as other:
            assert other != folder
    assert list(settings.paths.scratch.iterdir()) == []


def test_scratch_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "scratch").write_text("in the way")
    with pytest.raises(StorageError, match="scratch"), loop.scratch(Settings(home=tmp_path)):
        pass


def one(config: object) -> FitTask:
    spec = ModelSpec(name="one", model=CollaborativeFiltering, presets={})
    return FitTask(spec=spec, config=config, part="all", seed=0)


@pytest.mark.parametrize(
    ("config", "gpu", "expected"),
    [(CfConfig(), True, "H100"), (CfConfig(), False, "cpu"), (None, True, "cpu")],
)
def test_a_run_trained_on_the_gpus_where_any_model_has_a_device(config: object, gpu: bool, expected: str):
    resources = {"GPU": 2.0, "accelerator_type:H100": 1.0}
    assert loop.trained_on([one(config)], resources, gpu=gpu) == expected


@pytest.mark.parametrize(("gpu", "device"), [(True, "cuda"), (False, "cpu")])
def test_every_model_that_has_a_device_gets_the_stage_s(gpu: bool, device: str):
    assert loop._placed(one(CfConfig(device="mps")), gpu).config.device == device
    assert loop._placed(one(None), gpu).config is None
