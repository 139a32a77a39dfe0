"""BentoML with the same models in one service, its adaptive batching on; the page is composed there too."""

from __future__ import annotations

import json
import os
import sys
import time

import bentoml

for folder in json.loads(os.environ["PEER_PATH"]):
    sys.path.append(folder)  # the models' own requirements, behind the peer's

ASKED = json.loads(os.environ["PEER_REQUEST"])


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 1_000_000})
class Home:
    """Home pages."""

    def __init__(self) -> None:
        from serve_models import Pages

        from matinee.config import load_settings
        from matinee.serving.batches import joined

        self._joined = joined
        self._pages = Pages(load_settings(ASKED["flags"], environment={}))

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=60_000)
    def home(self, members: list[str]) -> list[str]:
        """A page a member, as JSON text."""
        now = time.time_ns() // 1000
        known = [self._pages.known(member, now) for member in members]
        parts = self._pages.parts(self._joined([each.query for each in known]))
        return [
            self._pages.page(each, {name: values[row] for name, values in parts.items()}).decode()
            for row, each in enumerate(known)
        ]
