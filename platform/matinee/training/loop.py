"""Fitting on Ray: Ray Train runs the models that train data-parallel, a plain task the others.

Starting a Ray Train worker group takes longer than fitting a small model, so a lane (one `TorchTrainer`
run) fits many models in sequence; lanes share the tasks through a `Board`. What is learned does not depend
on which lane learned it: every worker has the same number of CPU threads. The data travels through Ray's
object store, where workers of a node read it without a copy; models that need only the members they train
on get them as a shard of a Ray dataset instead. Fitted models travel through the scratch folder, which all
nodes must see. The processes end with their work (`max_calls`): they hold hundreds of megabytes that
serving would miss.

A worker, a node or a whole lane may be lost at any time: Ray starts it again, it finds its claim on the
board, and the fit goes on from its last checkpoint.
"""

from __future__ import annotations

import dataclasses
import fcntl
import logging
import shutil
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from matinee.config import Settings, Training
from matinee.errors import MatineeError, StorageError, Unavailable
from matinee.models.base import Model, TrainingSet
from matinee.training.checkpoints import FitCheckpoints
from matinee.training.row_blocks import share
from matinee.training.shards import blocks, can_shard, common, gathered
from matinee.training.tasks import Board, FitTask, fit
from matinee.training.usage import measured

Moved = Callable[[float, float, str | None], None]
"""Called as (completed, total, note) while a stage runs."""

POLL_S = 0.3
END_S = 20.0
"""Longest wait for a lane to end its workers by itself."""
THREADS = 1
"""CPU threads of a worker: a second one saves a quarter of the time of a fit on idle cores, and costs
ten times the time where something else runs, because threads that wait for each other spin."""

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fitted:
    """The outcome of `fit_all`.

    Args:
        models: by task name.
        curves: by task name, what the model reported while it trained.
        usage: by task name and worker, what the fit took (`training.usage.measured`).
        device: "cpu", or the accelerator's name.
    """

    models: Mapping[str, Model]
    curves: Mapping[str, list[dict[str, float]]]
    usage: Mapping[str, list[dict[str, float]]]
    device: str


def uses_gpu(device: str, gpus: float, workers: int) -> bool:
    """Whether models train on GPUs, given the `training.device` setting and the cluster's GPUs.

    Raises:
        Unavailable: GPUs are demanded and there are fewer than workers.
    """
    if device == "gpu" and gpus < workers:
        raise Unavailable(
            f"setting training.device is 'gpu' and training.workers {workers}, but the cluster has "
            f"{gpus:g} GPUs; use 'auto' or 'cpu', or add GPU nodes"
        )
    return device != "cpu" and gpus >= workers


def lane_count(tasks: int, *, wanted: int, workers: int, units: float) -> int:
    """Lanes for `tasks` fits on a cluster with `units` CPUs or GPUs: as many as wanted, if they find room."""
    return max(1, min(tasks, int(units // workers), wanted))


@contextmanager
def scratch(settings: Settings, name: str = "") -> Iterator[Path]:
    """A folder of this run's own below the home's scratch; gone after the block, whatever happens.

    Args:
        name: what the run is for: where one of this name was killed, this goes on in its folder.

    Raises:
        StorageError: it cannot be made.
        Unavailable: a run of this name is under way.
    """
    folder = settings.paths.scratch / f"train-{name or uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise StorageError(f"scratch folder {folder} cannot be made: {failure}") from failure
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(f"the same training is under way in {folder}; wait for it") from None
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def fit_all(
    settings: Settings,
    tasks: Sequence[FitTask],
    parts: Mapping[str, TrainingSet],
    *,
    folder: Path,
    progress: Moved | None = None,
) -> Fitted:
    """Fit every task on the connected Ray cluster.

    Args:
        parts: training sets by the name that tasks give.
        folder: seen by all nodes; empty, or as an interrupted run of the same tasks left it: what that run
            had fitted is taken, and what it had begun goes on.

    Raises:
        MatineeError: a fit failed; names the model and the cause.
        Unavailable: nothing advanced for `training.patience_s`, or a worker was lost again and again.
    """
    import ray

    resources = ray.cluster_resources()
    workers = settings.training.workers
    gpu = uses_gpu(settings.training.device, resources.get("GPU", 0), workers)
    tasks = [_placed(task, gpu) for task in tasks]
    board = Board(folder)
    board.release(tasks)
    left = [task for task in tasks if not board.done(task)]
    together = [task for task in left if task.spec.distributed]
    alone = [task for task in left if not task.spec.distributed]
    data = _Data.put(left, parts, workers)
    retries = settings.training.max_failures
    plain: list[Any] = []
    own = int(gpu and any(map(_has_device, alone)))
    if alone:
        run = ray.remote(num_cpus=1, num_gpus=own, max_retries=retries, max_calls=1)(fit_alone)
        plain.append(run.remote(settings.training, folder, alone, data))
    units = resources.get("GPU", 1) - own if gpu else resources.get("CPU", 1)
    count = lane_count(len(together), wanted=settings.training.lanes, workers=workers, units=units)
    lanes: list[Any] = []
    for lane in range(count if together else 0):
        run = ray.remote(num_cpus=0, max_retries=retries, max_calls=1)(fit_lane)
        lanes.append(run.remote(settings.training, folder, f"lane-{lane}", together, data, gpu=gpu))
    try:
        _await([*plain, *lanes], board, tasks, patience_s=settings.training.patience_s, progress=progress)
    except BaseException:
        _end(plain, lanes)
        raise
    missing = [task.name for task in tasks if not board.done(task)]
    if missing:
        raise MatineeError(f"training ended without {', '.join(missing)}")
    return Fitted(
        models={task.name: task.spec.model.load(board.models / task.name) for task in tasks},
        curves={task.name: board.curve(task) for task in tasks},
        usage={task.name: board.usage(task) for task in tasks},
        device=trained_on(tasks, resources, gpu=gpu),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Data:
    """The tasks' data in the object store.

    Args:
        whole: by part, a reference to its training set, for the tasks that need all of it.
        common: by part that is sharded, a reference to what its shards share.
        shards: by part and worker, a dataset each: Ray's own split deals blocks to whoever asks first,
            and a fit that is taken up again would meet other members.
    """

    whole: Mapping[str, Any]
    common: Mapping[str, Any]
    shards: Mapping[str, Any]

    @classmethod
    def put(cls, tasks: Sequence[FitTask], parts: Mapping[str, TrainingSet], workers: int) -> _Data:
        import ray

        divided = {
            task.part for task in tasks if task.spec.shardable and can_shard(parts[task.part], workers)
        }
        needed = {task.part for task in tasks if not (task.spec.shardable and task.part in divided)}
        return cls(
            whole={part: ray.put(parts[part]) for part in needed},
            common={part: ray.put(common(parts[part])) for part in divided},
            shards={
                _shard_name(part, rank): _dataset(tables)
                for part in divided
                for rank, tables in enumerate(blocks(parts[part], workers))
            },
        )

    def learned(self, task: FitTask, rank: int) -> TrainingSet:
        """The task's part, or this worker's shard of it."""
        import ray

        if not (task.spec.shardable and task.part in self.common):
            whole: TrainingSet = ray.get(self.whole[task.part])
            return whole
        shard = ray.train.get_dataset_shard(_shard_name(task.part, rank))
        tables = shard.iter_batches(batch_size=None, batch_format="pyarrow")
        return gathered(ray.get(self.common[task.part]), tables)


def _dataset(tables: Sequence[Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Ray Data's about its own defaults
        from ray.data import from_blocks

        return from_blocks(list(tables))


def _shard_name(part: str, rank: int) -> str:
    return f"{part}.{rank}"


def fit_alone(training: Training, folder: Path, tasks: Sequence[FitTask], data: _Data) -> None:
    """Body of the plain task: fit models that need no worker group, one after the other."""
    board, prepare = Board(folder), partial(share, limit=training.process_mib << 20)
    for task in tasks:
        if not board.done(task):
            with _named(task):
                with measured() as usage:
                    model = fit(task, data.learned(task, 0), board, prepare=prepare)
                board.spent(task, 0, usage)
                board.keep(task, model)


def fit_lane(
    training: Training, folder: Path, lane: str, tasks: Sequence[FitTask], data: _Data, *, gpu: bool
) -> None:
    """Body of a lane's task: one Ray Train run over the tasks that the board still has."""
    from ray.train import DataConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    TorchTrainer(
        fit_claimed,
        train_loop_config={
            "training": training,
            "folder": folder,
            "lane": lane,
            "tasks": list(tasks),
            "data": dataclasses.replace(data, shards={}),
        },
        scaling_config=ScalingConfig(num_workers=training.workers, use_gpu=gpu),
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        datasets=dict(data.shards),
        dataset_config=DataConfig(datasets_to_split=[]),
        run_config=RunConfig(
            name=f"{lane}-{uuid.uuid4().hex}",
            storage_path=str(folder / "ray"),
            failure_config=FailureConfig(max_failures=training.max_failures),
        ),
    ).fit()


def fit_claimed(given: Mapping[str, Any]) -> None:
    """Body of a Ray Train worker: fit what the lane can claim. Only rank 0 claims, reports and saves."""
    import ray
    import torch

    torch.set_num_threads(THREADS)
    context = ray.train.get_context()
    rank = context.get_world_rank()
    leader = rank == 0
    folder, training = given["folder"], given["training"]
    board = Board(folder)
    root = training.checkpoints or str(folder / "checkpoints")
    while (task := _next(board, given["tasks"], given["lane"], context)) is not None:
        kept = FitCheckpoints(
            root, f"{folder.name}/{task.name}", every=training.checkpoint_steps, writes=leader
        )
        with _named(task), kept as checkpoints:
            with measured() as usage:
                model = fit(task, given["data"].learned(task, rank), board if leader else None, checkpoints)
            board.spent(task, rank, usage)
            if leader:
                board.keep(task, model)
                kept.forget()


def _next(board: Board, tasks: Sequence[FitTask], lane: str, context: Any) -> FitTask | None:
    import torch

    leads = context.get_world_rank() == 0
    task = board.claim(tasks, lane) if leads else None
    place = [None if task is None else tasks.index(task)]
    if context.get_world_size() > 1:
        torch.distributed.broadcast_object_list(place, src=0)
    return None if place[0] is None else tasks[place[0]]


@contextmanager
def _named(task: FitTask) -> Iterator[None]:
    try:
        yield
    except MatineeError:
        raise
    except Exception as failure:
        raise MatineeError(
            f"fitting {task.spec.name} on {task.part} failed: {type(failure).__name__}: {failure}"
        ) from failure


def _placed(task: FitTask, gpu: bool) -> FitTask:
    if not _has_device(task):
        return task
    config = dataclasses.replace(task.config, device="cuda" if gpu else "cpu")
    return dataclasses.replace(task, config=config)


def _has_device(task: FitTask) -> bool:
    return hasattr(task.config, "device")


def _await(
    running: Sequence[Any],
    board: Board,
    tasks: Sequence[FitTask],
    *,
    patience_s: float,
    progress: Moved | None,
) -> None:
    import ray

    reached, since = -1.0, time.monotonic()
    waiting = list(running)
    while waiting:
        ready, waiting = ray.wait(waiting, num_returns=1, timeout=POLL_S)
        for reference in ready:
            _result(reference)
        completed = board.completed(tasks)
        if completed > reached:
            reached, since = completed, time.monotonic()
        if progress is not None:
            done = sum(map(board.done, tasks))
            progress(completed, len(tasks), f"{done} of {len(tasks)} models fitted")
        if waiting and time.monotonic() - since > patience_s:
            left = [task.name for task in tasks if not board.done(task)]
            raise Unavailable(
                f"training gave up: nothing advanced for {patience_s:g} s with {', '.join(left)} unfinished; "
                "is a node of the Ray cluster lost, or has it too few free CPUs or GPUs?"
            )


def _end(plain: Sequence[Any], lanes: Sequence[Any]) -> None:
    """End what runs. A lane is asked first: killed outright it leaves its placement group, and the CPUs or
    GPUs in it, behind where the cluster has no dashboard."""
    import ray

    for reference in plain:
        ray.cancel(reference, force=True)
    for reference in lanes:
        ray.cancel(reference)
    left = ray.wait(list(lanes), num_returns=len(lanes), timeout=END_S)[1] if lanes else []
    for reference in left:
        ray.cancel(reference, force=True)


def _result(reference: Any) -> None:
    """Raise a finished task's failure as an error of ours that names the cause."""
    import ray

    try:
        ray.get(reference)
    except ray.exceptions.RayTaskError as failure:
        cause = _root(failure)
        log.error("training failed", exc_info=failure)
        if isinstance(cause, MatineeError):
            raise cause from None
        if isinstance(cause, ray.exceptions.RayError):
            lost = str(cause).splitlines()[0]
            raise Unavailable(
                f"training lost workers more often than training.max_failures: {lost}"
            ) from None
        raise MatineeError(f"training failed: {type(cause).__name__}: {cause}") from None
    except ray.exceptions.RayError as failure:
        raise Unavailable(f"training lost its Ray worker: {str(failure).splitlines()[0]}") from failure


def _root(failure: BaseException) -> BaseException:
    """The failure of a worker below what Ray and Ray Train wrapped around it."""
    seen: set[int] = set()
    while id(failure) not in seen:
        seen.add(id(failure))
        workers = list(getattr(failure, "worker_failures", {}).values())
        inner = [*workers, getattr(failure, "cause", None), failure.__cause__]
        failure = next((one for one in inner if isinstance(one, BaseException)), failure)
    return failure


def trained_on(tasks: Sequence[FitTask], resources: Mapping[str, float], *, gpu: bool) -> str:
    """What these tasks are fitted on, whenever they were: "cpu", or the cluster's accelerators."""
    if not (gpu and any(map(_has_device, tasks))):
        return "cpu"
    prefix = "accelerator_type:"
    kinds = sorted(name.removeprefix(prefix) for name in resources if name.startswith(prefix))
    return ", ".join(kinds) or "gpu"
