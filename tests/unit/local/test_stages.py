from __future__ import annotations

import io
import subprocess
import sys
import time

import pytest
from rich.console import Console

from matinee.local.stages import MemoryWatch, Stages


def test_a_stage_is_timed_and_keeps_its_figures() -> None:
    console = Console(file=io.StringIO(), width=200)
    with Stages(console) as stages:
        with stages.stage("first", "something real") as step:
            step.move(1, 2)
            step.figures(rows=7)
            time.sleep(0.02)
        console.print(stages.table())
    assert stages.done[0].figures == {"rows": 7}
    assert stages.done[0].seconds >= 0.02
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "something real" in text
    assert "rows 7" in text


def test_a_stage_that_fails_is_not_done() -> None:
    stages = Stages(Console(file=io.StringIO()))
    with pytest.raises(ZeroDivisionError), stages, stages.stage("first", "fails"):
        raise ZeroDivisionError
    assert stages.done == []


def test_memory_of_children_counts() -> None:
    hold = "import sys; held = bytearray(200 << 20); print('held', flush=True); sys.stdin.read()"
    with MemoryWatch() as memory:
        child = subprocess.Popen(
            [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout
        assert child.stdin
        child.stdout.readline()
        time.sleep(3 * MemoryWatch.INTERVAL_S)
        child.communicate()
    assert memory.peak_mib > 200
