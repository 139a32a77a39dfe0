"""The HTTP API: routes, bodies, problem documents and metrics around serving and the event door."""
