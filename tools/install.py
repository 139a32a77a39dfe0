"""Make `.venv` and install Matinee into it, pinned by constraints.txt. Standard library only.

uv does it where it is present or can be installed into the environment, pip otherwise. What pip's
configuration names (find-links, index, extra indexes, certificates) counts for both.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".installed"


def main(extras: str) -> int:
    """Install the given extras; returns an exit status."""
    if sys.version_info < (3, 11):
        print(f"Python 3.11 or later is needed, this is {sys.version.split()[0]}", file=sys.stderr)
        return 2
    if not PYTHON.exists():
        venv.create(VENV, with_pip=True)
    STAMP.unlink(missing_ok=True)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    wanted = ["--constraint", "constraints.txt", "--editable", f".[{extras}]"]
    config = pip_config(environment)
    installed = False
    if uv := find_uv(environment):
        command = [uv, "pip", "install", "--python", str(PYTHON), "--compile-bytecode", *wanted]
        status = run([*command, *uv_options(config)], environment | uv_environment(config))
        installed = status == 0
    if not installed:
        installed = run([str(PYTHON), "-m", "pip", "install", *wanted], environment) == 0
    if installed:
        STAMP.touch()
    return 0 if installed else 1


def find_uv(environment: dict[str, str]) -> str | None:
    """uv on the PATH, or in the environment, installed there if need be."""
    if found := shutil.which("uv"):
        return found
    own = VENV / "bin" / "uv"
    if not own.exists():
        run([str(PYTHON), "-m", "pip", "install", "--quiet", "uv"], environment)
    return str(own) if own.exists() else None


def pip_config(environment: dict[str, str]) -> dict[str, list[str]]:
    """pip's settings from its files and variables, by option name; the environment's come last."""
    listed = subprocess.run(
        [str(PYTHON), "-m", "pip", "config", "list"], capture_output=True, text=True, env=environment
    ).stdout
    config: dict[str, list[str]] = {}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        option = name.rpartition(".")[2]
        config[option] = value.strip("'\"").replace("\\n", " ").split()
    return config


def uv_options(config: dict[str, list[str]]) -> list[str]:
    """What uv must be told of pip's settings."""
    options = [part for place in config.get("find-links", []) for part in ("--find-links", place)]
    for index in config.get("index-url", [])[-1:]:
        options += ["--default-index", index]
    extra = [index for index in config.get("extra-index-url", []) if index.startswith("http")]
    options += [part for index in extra for part in ("--index", index)]
    return [*options, "--index-strategy", "unsafe-best-match"] if extra else options


def uv_environment(config: dict[str, list[str]]) -> dict[str, str]:
    """Certificates, where pip names a bundle."""
    named = config.get("cert", [])[-1:]
    return {"SSL_CERT_FILE": named[0]} if named and "SSL_CERT_FILE" not in os.environ else {}


def run(command: list[str], environment: dict[str, str]) -> int:
    """Run in the project's folder; the output goes to the terminal."""
    return subprocess.run(command, cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "local"))
