"""Hold a home's features against their bounds: what was served, what is expected; and write their catalogue.

    python jobs/check_features.py [--home HOME] [--no-catalogue] [--bootstrap HOST:PORT] [--json]
    ray job submit --address URL --working-dir . --runtime-env-json '{"py_modules": ["platform/matinee"]}' \\
        -- python jobs/check_features.py --home HOME

Exit status: 0 within bounds (or nothing to compare), 1 a bound is broken, 2 bad input.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any

from matinee.config import load_settings
from matinee.errors import MatineeError
from matinee.monitoring.catalogue import write_catalogue
from matinee.monitoring.features import (
    check_consistency,
    check_expectations,
    consistency_event,
    violation_event,
)
from matinee.monitoring.send import send_signals

BROKEN = 1


def main() -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--home", help="the data home")
    options.add_argument("--no-catalogue", action="store_true", help="leave reports/features.html as it is")
    options.add_argument("--bootstrap", help="Kafka brokers on whose signals topic a broken bound is told")
    options.add_argument("--json", action="store_true", help="print the findings as JSON")
    given = options.parse_args()
    try:
        settings = load_settings({"home": given.home})
        served, expected = check_consistency(settings), check_expectations(settings)
        found: dict[str, Any] = {
            "consistency": asdict(served),
            "expectations": asdict(expected),
            "catalogue": None if given.no_catalogue else str(write_catalogue(settings)),
        }
        events = []
        if served.decision == "disagree":
            events.append(("features", consistency_event(served)))
        if expected.decision == "hold":
            told = violation_event(expected.violations, source="batch", time_us=expected.time)
            events.append(("features", told))
        found["told"] = bool(events and given.bootstrap and send_signals(settings, given.bootstrap, events))
    except MatineeError as failure:
        print(f"check_features: {failure}", file=sys.stderr)
        return 2
    print(json.dumps(found) if given.json else _table(found))
    return BROKEN if events else 0


def _table(found: dict[str, Any]) -> str:
    served, expected = found["consistency"], found["expectations"]
    lines = [f"served as recomputed: {served['decision']} ({served['reason']})"]
    for view in served["views"]:
        lines.append(
            f"  {view['view']:<22} {view['compared']:>7} rows compared, {view['unsettled']} unsettled, "
            f"{view['behind']} behind"
        )
        for each in view["features"]:
            share = "      -" if each["share"] is None else f"{each['share']:7.2%}"
            mark = "" if each["share"] is None or each["share"] >= served["bound"] else "  below the bound"
            lines.append(f"    {each['feature']:<28} {share}{mark}")
            lines += [
                f"      {one['key']}: served {one['served']}, recomputed {one['recomputed']} ({one['row']})"
                for one in each["examples"][:2]
            ]
    verdict = "met" if expected["decision"] == "publish" else "not met"
    lines.append(f"expectations: {verdict} ({expected['reason']})")
    lines += [f"  {rows:>8} rows of {view}" for view, rows in expected["rows"].items()]
    if found["catalogue"]:
        lines.append(f"catalogue: {found['catalogue']}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
