"""Compare the last exposures in the lake with the champion's training reference.

Exit status: 0 no drift (or too little to tell), 3 drift, 2 bad input.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from matinee.config import load_settings
from matinee.errors import MatineeError
from matinee.monitoring.check import Check, check_champion
from matinee.monitoring.exposures import ExposureLake
from matinee.monitoring.window import Window

DRIFT = 3


def main() -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--home")
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    try:
        settings = load_settings({"home": given.home})
        window = Window(settings.monitoring.window)
        for row in ExposureLake(settings.paths.exposures).tail(settings.monitoring.window).to_pylist():
            window.add(row)
        found = check_champion(settings, window)
    except MatineeError as failure:
        print(f"check_drift: {failure}", file=sys.stderr)
        return 2
    print(json.dumps(asdict(found)) if given.json else _table(found))
    return DRIFT if found.decision == "drift" else 0


def _table(found: Check) -> str:
    lines = [f"{found.model}/{found.model_version}: {found.decision} ({found.reason})"]
    for name in dict.fromkeys([*found.drifted, *found.columns]):
        index = f"{found.columns[name]:8.3f}" if name in found.columns else " " * 8
        mark = "drifted" if name in found.drifted else ""
        lines.append(f"  {name:<32} {index}  {mark:<8} {found.notes.get(name, '')}".rstrip())
    if found.report:
        lines.append(f"report: {found.report}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
