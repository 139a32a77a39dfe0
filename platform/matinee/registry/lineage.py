"""Where a version comes from: the code, the packages and the machine that made it."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import matinee

PACKAGES = ("numpy", "torch", "dgl", "ray", "polars", "pyarrow", "feast", "mlflow")


def code_version() -> str:
    """The package's git commit ("-dirty" where files differ from it), else its release."""
    folder = Path(matinee.__file__).parent
    commit = _git(folder, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")
    tracked = commit and _git(folder, "ls-files", "__init__.py")
    return f"git:{commit}" if tracked else f"matinee {matinee.__version__}"


def _git(folder: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def package_versions(names: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Installed versions of the packages that decide a model's numbers; absent ones are left out."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware(accelerators: Sequence[str] = ()) -> str:
    """This machine in a line: cores, memory, architecture, and the accelerators that were used."""
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [f"{os.cpu_count()} cores", f"{gib:.0f} GiB", platform.machine(), *accelerators]
    return ", ".join(parts)


def folder_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of all files below a folder, hexadecimal."""
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        found.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return found.hexdigest()
