"""Ray Serve as it comes, one hop for each model: an ingress asks four deployments and composes the page."""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def main() -> None:
    import ray
    from exchange import request
    from ray import serve
    from starlette.requests import Request
    from starlette.responses import Response

    from matinee.config import load_settings

    asked = request()
    settings = load_settings(asked["flags"], environment={})

    @serve.deployment(ray_actor_options={"num_cpus": 0})
    class One:
        """One model of the ensemble; answers its weighed part of the score."""

        def __init__(self, name: str) -> None:
            from serve_models import Pages

            self._name = name
            self._ensemble: Any = Pages(settings).version.bundle.model
            self._ensemble.members = {name: self._ensemble.members[name]}

        def __call__(self, query: Any) -> Any:
            return self._ensemble.score_parts(query)[self._name][0]

    @serve.deployment(ray_actor_options={"num_cpus": 0})
    class Home:
        """Reads the features, asks the models, composes."""

        def __init__(self, **models: Any) -> None:
            from serve_models import Pages

            self._models = models
            self._pages = Pages(settings)

        async def __call__(self, request: Request) -> Response:
            known = self._pages.known(request.url.path.split("/")[3], time.time_ns() // 1000)
            waiting = {name: model.remote(known.query) for name, model in self._models.items()}
            parts = {name: await answer for name, answer in waiting.items()}
            return Response(self._pages.page(known, parts), media_type="application/json")

    ray.init(address="local", include_dashboard=False, log_to_driver=False, object_store_memory=200 << 20)
    serve.start(http_options={"host": "127.0.0.1", "port": asked["port"]})
    models = {name: One.bind(name) for name in asked["models"]}
    serve.run(Home.bind(**models))
    print(json.dumps({"url": f"http://127.0.0.1:{asked['port']}"}), flush=True)
    sys.stdin.read()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
