"""RecBole's models under RecBole's data loaders, losses and optimiser.

A general model answers with the member as fitted; a sequential one is given the query's history. Where the
request names a `checkpoint`, training that was cut off goes on there.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import recbole
import torch
from exchange import answer, request
from recbole.config import Config
from recbole.data import create_dataset, create_samplers
from recbole.data.interaction import Interaction
from recbole.data.utils import get_dataloader
from recbole.utils import ModelType, get_model, get_trainer, init_seed
from recommend import Task, train


class Fitter:
    """A model of RecBole's, trained as its trainer would, in steps that a clock can end."""

    def __init__(self, task: Task, model: str, settings: dict, seed: int, folder: str) -> None:
        places = np.arange(len(task.member))
        Path(folder, "data").mkdir()
        rows = np.column_stack([task.member, task.title, places])
        header = "user_id:token\titem_id:token\ttimestamp:float"
        np.savetxt(Path(folder, "data", "data.inter"), rows, "%d", "\t", header=header, comments="")
        config = Config(model=model, dataset="data", config_dict={**_fixed(folder), **settings, "seed": seed})
        init_seed(seed, True)
        dataset = create_dataset(config)
        built = dataset.build()
        sampler = create_samplers(config, dataset, built)[0]
        self.batches = get_dataloader(config, "train")(config, built[0], sampler, shuffle=True)
        self.config, self.task = config, task
        self.model = get_model(model)(config, self.batches.dataset)
        self.optimizer = get_trainer(config["MODEL_TYPE"], model)(config, self.model).optimizer
        self.sequential = config["MODEL_TYPE"] == ModelType.SEQUENTIAL
        self.member = _ids(dataset.field2token_id["user_id"], task.members)
        self.title = _ids(dataset.field2token_id["item_id"], task.titles)
        self.histories = task.histories

    def steps(self) -> Iterator[None]:
        """Trains on batch after batch of one epoch."""
        self.model.train()
        for batch in self.batches:
            self.optimizer.zero_grad()
            losses = self.model.calculate_loss(batch)
            (sum(losses) if isinstance(losses, tuple) else losses).backward()
            self.optimizer.step()
            yield

    def score(self, rows: np.ndarray) -> np.ndarray:
        """As `recommend.Score`: not finite for titles and members that no training pair names."""
        self.model.eval()
        with torch.no_grad():
            found = self.model.full_sort_predict(self._query(rows)).view(len(rows), -1).numpy()
        scores = np.where(self.title > 0, found[:, self.title], np.nan)
        unknown = [not len(self._known(row)) if self.sequential else self._member(row) == 0 for row in rows]
        scores[unknown] = np.nan
        return scores

    def _query(self, rows: np.ndarray) -> Interaction:
        if not self.sequential:
            return Interaction({"user_id": torch.tensor([self._member(row) for row in rows])})
        longest = self.config["MAX_ITEM_LIST_LENGTH"]
        listed = torch.zeros(len(rows), longest, dtype=torch.long)
        lengths = torch.ones(len(rows), dtype=torch.long)
        for at, row in enumerate(rows):
            known = self._known(row)[-longest:]
            listed[at, : len(known)] = torch.from_numpy(known)
            lengths[at] = max(len(known), 1)
        return Interaction({"item_id_list": listed, "item_length": lengths})

    def _known(self, row: int) -> np.ndarray:
        ids = self.title[self.histories[row]]
        return ids[ids > 0]

    def _member(self, row: int) -> int:
        return int(self.member[self.task.asked[row]])


class Kept:
    """See `recommend.Checkpoint`; a file of torch's."""

    def __init__(self, fitter: Fitter, path: str) -> None:
        self.fitter, self.path = fitter, Path(path)

    def load(self) -> dict | None:
        if not self.path.exists():
            return None
        state = torch.load(self.path, weights_only=False)
        self.fitter.model.load_state_dict(state["model"])
        self.fitter.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["torch"])
        np.random.set_state(state["numpy"])  # RecBole's own generator.
        return state["course"]

    def save(self, course: dict) -> None:
        state = {
            "course": course,
            "model": self.fitter.model.state_dict(),
            "optimizer": self.fitter.optimizer.state_dict(),
            "torch": torch.get_rng_state(),
            "numpy": np.random.get_state(),
        }
        draft = self.path.with_suffix(".draft")
        torch.save(state, draft)
        draft.replace(self.path)


def _fixed(folder: str) -> dict:
    """All pairs train; their order in time is their place in the task."""
    return {
        "data_path": folder,
        "checkpoint_dir": folder,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"RS": [1, 0, 0]}, "group_by": "none", "order": "TO", "mode": "full"},
        "use_gpu": False,
        "show_progress": False,
        "state": "ERROR",
    }


def _ids(known: dict[str, int], count: int) -> np.ndarray:
    """RecBole's numbers of positions; 0 for those it has not seen."""
    return np.array([known.get(str(place), 0) for place in range(count)])


def main() -> None:
    asked = request()
    sys.argv = sys.argv[:1]
    torch.set_num_threads(asked["threads"])
    task = Task.read(asked["task"])
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # RecBole writes logs into the working folder.
        fitter = Fitter(task, asked["model"], asked["config"], asked["seed"], folder)

        def step(left: float) -> None:
            end = time.perf_counter() + left
            for _ in fitter.steps():
                if time.perf_counter() > end:
                    break

        checkpoint = Kept(fitter, asked["checkpoint"]) if "checkpoint" in asked else None
        lists, found = train(task, step, fitter.score, checkpoint=checkpoint, **asked["limits"])
    np.save(asked["out"], lists)
    answer(**found, version=recbole.__version__)


if __name__ == "__main__":
    main()
