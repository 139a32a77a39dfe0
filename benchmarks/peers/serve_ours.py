"""Our API on Ray Serve with its broker, from a data home; ends when standard input does."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    from exchange import request

    from matinee.config import load_settings
    from matinee.events.broker import LocalBroker
    from matinee.events.kafka import ensure_topics
    from matinee.gateway import deployment
    from matinee.local.cluster import connect

    settings = load_settings(request()["flags"], environment={})
    with connect(settings), LocalBroker(Path(settings.home) / "broker.log") as broker:
        ensure_topics(settings.kafka, broker.bootstrap)
        url = deployment.start(settings, broker.bootstrap)
        print(json.dumps({"url": url}), flush=True)
        sys.stdin.read()
        deployment.stop(cluster_ends=True)


if __name__ == "__main__":
    main()
