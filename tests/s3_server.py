"""An S3 service on this machine, by moto, for tests of what is written there."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from matinee.local.cluster import free_port

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
BUCKET = "lake"


@contextmanager
def s3_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yields its endpoint, with a bucket `BUCKET` and credentials in the environment; skips without moto."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which("moto_server") or shutil.which("moto_server", path=beside)
    if found is None:
        pytest.skip("moto_server is not installed: no S3 to test against")
    from pyarrow import fs

    port = free_port()
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([found, "-H", "127.0.0.1", "-p", str(port)], **silent) as server:
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    assert time.monotonic() < deadline, "the moto server does not answer"
                    time.sleep(0.05)
            for name, value in CREDENTIALS.items():
                monkeypatch.setenv(name, value)
            endpoint = f"http://127.0.0.1:{port}"
            files = fs.S3FileSystem(
                endpoint_override=endpoint, region="us-east-1", allow_bucket_creation=True
            )
            files.create_dir(BUCKET)
            yield endpoint
        finally:
            server.terminate()
