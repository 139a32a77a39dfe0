"""A bare ASGI application on uvicorn that answers constant JSON of a given size."""

from __future__ import annotations

import json
import sys
import threading
from typing import Any


def main() -> None:
    import uvicorn
    from exchange import request

    asked = request()
    body = json.dumps({"text": "x" * (asked["bytes"] - len('{"text": ""}'))}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    config = uvicorn.Config(
        app, host="127.0.0.1", port=asked["port"], lifespan="off", access_log=False, log_level="error"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        threading.Event().wait(0.02)
    print(json.dumps({"url": f"http://127.0.0.1:{asked['port']}"}), flush=True)
    sys.stdin.read()
    server.should_exit = True
    thread.join()


if __name__ == "__main__":
    main()
