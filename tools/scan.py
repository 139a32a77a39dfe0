"""Look for known vulnerabilities in constraints.txt, and for secrets that the baseline does not know.

    python tools/scan.py             0: nothing found, 1: something is
    python tools/scan.py --accept    take the secrets found now into the baseline: look at the diff

Where no vulnerability service answers, the first half is skipped and says so.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from detect_secrets.core import baseline
from detect_secrets.core.secrets_collection import SecretsCollection
from detect_secrets.settings import default_settings, transient_settings

ROOT = Path(__file__).resolve().parent.parent
BASELINE = ROOT / ".secrets.baseline"
SERVICE = "https://api.osv.dev/v1/vulns/PYSEC-2021-1"
ANSWER_S = 10


def main(accept: bool) -> int:
    """Run both; returns an exit status."""
    found = secrets(accept=accept)
    return dependencies() or found


def dependencies() -> int:
    """The exit status of pip-audit; 0 where its service cannot be asked."""
    try:
        urllib.request.urlopen(SERVICE, timeout=ANSWER_S).close()
    except urllib.error.HTTPError:
        pass  # it answers
    except OSError as failure:
        print(f"dependencies: skipped, the vulnerability service does not answer ({failure})")
        return 0
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--vulnerability-service",
        "osv",
        "--progress-spinner",
        "off",
    ]
    command += ["--no-deps", "--disable-pip", "--requirement", str(ROOT / "constraints.txt")]
    return subprocess.run(command, check=False).returncode


def secrets(*, accept: bool) -> int:
    """1 where a file that git knows holds a secret that is not in the baseline."""
    if accept:
        with default_settings():
            baseline.save_to_file(_scanned(), str(BASELINE))
        return 0
    known = baseline.load_from_file(str(BASELINE))
    settings = {key: known[key] for key in ("plugins_used", "filters_used")}
    with transient_settings(settings):
        new = _scanned() - baseline.load(known, str(BASELINE))
        for file, secret in new:
            print(f"secrets: {file}:{secret.line_number}: {secret.type}")
    print(f"secrets: {len(list(new)) or 'none'} new")
    return int(bool(new))


def _scanned() -> SecretsCollection:
    found = SecretsCollection()
    git = shutil.which("git") or "git"
    with contextlib.chdir(ROOT):  # so that the baseline names files as git does
        listed = subprocess.run([git, "ls-files", "-z"], check=True, capture_output=True, text=True)
        for name in listed.stdout.split("\0"):
            if name and name != BASELINE.name and Path(name).is_file():
                found.scan_file(name)
    return found


if __name__ == "__main__":
    sys.exit(main("--accept" in sys.argv[1:]))
