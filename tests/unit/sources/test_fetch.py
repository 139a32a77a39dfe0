import http.server
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from matinee.errors import NotFound, Unavailable
from matinee.sources import fetch


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = self.path in ("/whole", "/short")
        self.send_response(200 if found else 404 if self.path == "/none" else 500)
        self.send_header("Content-Length", "9" if self.path == "/short" else "5")
        self.end_headers()
        self.wfile.write(b"bytes")

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_a_download_is_whole_and_reports_progress(server: str, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    fetch.download(
        f"{server}/whole", tmp_path / "file", progress=lambda done, total: told.append((done, total))
    )
    assert (tmp_path / "file").read_bytes() == b"bytes"
    assert told == [(5, 5)]
    assert fetch.checksum(tmp_path / "file", "md5") == "4b3a6218bb3e3a7303e8a171a60fcf92"


@pytest.mark.parametrize(
    ("path", "error", "said"),
    [("/none", NotFound, "404"), ("/broken", Unavailable, "500"), ("/short", Unavailable, "5 of 9 bytes")],
)
def test_a_failed_download_says_why(
    server: str, tmp_path: Path, path: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        fetch.download(f"{server}{path}", tmp_path / "file")


def test_nobody_listening_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot download http://127"):
        fetch.download("http://127.0.0.1:9/file", tmp_path / "file")


def test_pip_is_found_even_where_the_environment_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "_base_executable", "", raising=False)
    found = list(fetch._pips())
    if not found:
        pytest.skip("this Python carries no copy of pip for ensurepip")
    command, environment = found[0]
    done = fetch.subprocess.run([*command, "--version"], env=environment, capture_output=True, check=True)
    assert done.stdout.startswith(b"pip ")


def test_a_wheel_no_index_has_says_what_pip_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(Unavailable, match=r"cannot download matinee-none==1.0: No matching distribution"):
        fetch.download_wheel("matinee-none==1.0", tmp_path)


def test_no_pip_at_all_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_pips", lambda: iter(()))
    with pytest.raises(Unavailable, match="no pip was found"):
        fetch.download_wheel("x==1", tmp_path)


def test_an_index_that_does_not_answer_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(Unavailable, match=r"\(an index does not answer: Failed .* refused\)$"):
        fetch.download_wheel("matinee-none==1.0", tmp_path)
