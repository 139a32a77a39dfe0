from __future__ import annotations

import os
import subprocess
import sys

import pytest

from matinee.config import Settings
from matinee.errors import MatineeError, StorageError
from matinee.local import platform, running


def test_what_was_published_is_found_until_withdrawn(settings: Settings) -> None:
    platform.prepare_home(settings)
    said = running.Running(pid=os.getpid(), bootstrap="127.0.0.1:1", ray_address="127.0.0.1:2", url="")
    running.publish(settings.paths, said)
    assert running.find(settings.paths) == said
    running.withdraw(settings.paths)
    assert running.find(settings.paths) is None


def test_a_platform_that_was_killed_does_not_run(settings: Settings) -> None:
    platform.prepare_home(settings)
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    running.publish(settings.paths, running.Running(pid=child.pid, bootstrap="", ray_address=""))
    assert running.find(settings.paths) is None


def test_a_home_that_is_a_file_is_refused(settings: Settings) -> None:
    settings.home.write_text("")
    with pytest.raises(StorageError, match=r"--home"):
        platform.prepare_home(settings)


def test_a_home_without_room_is_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "LEAST_FREE_BYTES", 1 << 60)
    with pytest.raises(StorageError, match="MiB free"):
        platform.prepare_home(settings)


def test_two_processes_cannot_run_on_one_home(settings: Settings) -> None:
    platform.prepare_home(settings)
    lock = settings.paths.run / "lock"
    owner = f"in use by process {os.getpid()}"
    with platform._locked(lock), pytest.raises(MatineeError, match=owner), platform._locked(lock):
        pass
    with platform._locked(lock):
        pass
