"""Run evaluation protocols on the home's data, or show the figures of a registered version.

    python jobs/evaluate.py [--protocol NAME]... [--preset NAME] [--home HOME] [--seed N] [--address RAY]
    python jobs/evaluate.py --version champion [--home HOME]
    ... [--json] [--plot FILE.png]
    ray job submit --address URL --working-dir . --runtime-env-json '{"py_modules": ["platform/matinee"]}' \\
        -- python jobs/evaluate.py --home HOME

Nothing is registered.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from matinee.config import Settings, load_settings
from matinee.errors import MatineeError

PROTOCOLS = {
    "prequential": "prequential",
    "per-member": "per_member",
    "global": "global_time",
    "leave-one-out": "leave_one_out",
}


def main() -> int:
    """Parse, build, run, close; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--home", help="the data home")
    parser.add_argument("--version", help="a registered version or alias: show the figures it came with")
    parser.add_argument("--preset", help="preset of the models (default: the setting training.preset)")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--address", help="a running Ray cluster")
    parser.add_argument(
        "--protocol",
        action="append",
        choices=PROTOCOLS,
        help="again for more (default: prequential, per-member and global)",
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--plot", type=Path, help="draw NDCG@20 into this PNG file")
    args = parser.parse_args()
    try:
        settings = load_settings({"home": args.home, "seed": args.seed, "ray_address": args.address})
        if args.version:
            figures = _registered(settings, args.version)
        else:
            figures = _run(settings, args.preset, args.protocol or list(PROTOCOLS)[:3])
    except MatineeError as failure:
        print(f"evaluate: {failure}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    from matinee.training.evaluate import report

    panels = report.from_json(figures["panels"])
    if args.plot:
        report.plot(panels, args.plot)
    if args.json:
        print(json.dumps(figures))
        return 0
    from rich.console import Console

    for table in report.tables(panels):
        Console().print(table)
    return 0


def _registered(settings: Settings, version: str) -> dict[str, Any]:
    from matinee.registry.mlflow import Registry

    found = Registry(settings).get(settings.serving.model, version)
    figures: dict[str, Any] = json.loads((Path(found.path) / "metrics.json").read_text())
    return figures


def _run(settings: Settings, preset: str | None, protocols: list[str]) -> dict[str, Any]:
    from matinee.local.cluster import connect
    from matinee.models import discover
    from matinee.training import pipeline
    from matinee.training.evaluate import report

    chosen = [PROTOCOLS[name] for name in dict.fromkeys(protocols)]
    configs = pipeline.presets(settings, discover(), preset or settings.training.preset)
    with connect(settings):
        found = pipeline.evaluate_models(settings, pipeline.read(settings), configs, protocols=chosen)
    return {
        "models": found.models,
        "models_global": found.models_global,
        "margins": found.margins,
        "panels": report.to_json(found.panels),
    }


if __name__ == "__main__":
    sys.exit(main())
