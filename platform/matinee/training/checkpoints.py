"""Where a fit keeps its state: a folder that all nodes see, or a URI such as s3://bucket/prefix.

Ray Train could keep checkpoints itself, but counts them by run, and a run of ours fits many models one after
the other: their states lie by fit, so that whoever takes a fit up again, a restarted worker or another
run, finds its own. What a step holds depends on seed and number alone, so a worker that was thought
lost and writes late writes the same.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from pyarrow import fs

from matinee.features.offline import opened

WHOLE = ".whole"
"""Ending of the empty file beside a step's folder that is written last: no step counts without it."""


class FitCheckpoints:
    """The checkpoints of one fit (`models.base.Checkpoints`), within a `with` block; the latest is kept.

    Args:
        root: a folder, or a URI that pyarrow knows.
        name: of the fit, below the root.
        every: optimiser steps between two checkpoints.
        writes: whether this process writes; of the workers that train together, one does.
    """

    def __init__(self, root: str, name: str, *, every: int, writes: bool) -> None:
        self._files, base = opened(root)
        self._folder = f"{base}/{name}"
        self.every = every
        self._writes = writes
        self._local = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._local.close()

    def latest(self) -> Path | None:
        """The folder of the last whole step, which holds for the block; fetched, where it lies elsewhere."""
        steps = self._steps()
        if not steps:
            return None
        found = f"{self._folder}/{steps[-1]}"
        if isinstance(self._files, fs.LocalFileSystem):
            return Path(found)
        fetched = self._local.enter_context(tempfile.TemporaryDirectory(prefix="matinee-"))
        fs.copy_files(found, fetched, source_filesystem=self._files)
        return Path(fetched)

    def keep(self, step: int, write: Callable[[Path], None]) -> None:
        """Keep what `write` puts into an empty folder, then forget the steps before."""
        if not self._writes:
            return
        before = self._steps()
        target = f"{self._folder}/{step:012d}"
        with tempfile.TemporaryDirectory(prefix="matinee-") as draft:
            write(Path(draft))
            self._files.create_dir(target)
            fs.copy_files(draft, target, destination_filesystem=self._files)
        with self._files.open_output_stream(target + WHOLE):
            pass
        for other in before:
            if other != f"{step:012d}":
                self._files.delete_file(f"{self._folder}/{other}{WHOLE}")
                self._files.delete_dir(f"{self._folder}/{other}")

    def forget(self) -> None:
        """Remove everything kept: the fit is done."""
        if self._writes and self._files.get_file_info(self._folder).type == fs.FileType.Directory:
            self._files.delete_dir(self._folder)

    def _steps(self) -> list[str]:
        found = self._files.get_file_info(fs.FileSelector(self._folder, allow_not_found=True))
        return sorted(each.base_name.removesuffix(WHOLE) for each in found if each.base_name.endswith(WHOLE))
