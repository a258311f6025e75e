"""The one command that starts a gateway: it runs, it stops cleanly, it keeps everything."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from gateway_site import data_directory
from tests.fakes.asgi_server import free_port

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = pytest.mark.timeout(400)


class Served:
    """One run of ``bin/serve``."""

    def __init__(self, folder: Path, port: int, *options: str) -> None:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self.output_file = folder.parent / f"{folder.name}-{time.monotonic_ns()}.log"
        self.stream = self.output_file.open("wb")
        self.process = subprocess.Popen(
            [ROOT / "bin" / "serve", "--port", str(port), "--data-dir", str(folder), *options],
            env=kept,
            stdin=subprocess.DEVNULL,
            stdout=self.stream,
            stderr=subprocess.STDOUT,
        )

    @property
    def output(self) -> str:
        return self.output_file.read_text()

    def wait_for(self, text: str, seconds: float = 150) -> str:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if text in self.output:
                return self.output
            assert self.process.poll() is None, self.output
            time.sleep(0.05)
        raise AssertionError(self.output)

    def stop(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        code = self.process.wait(60)
        self.stream.close()
        return code


def test_it_starts_stops_and_keeps_everything(tmp_path):
    folder, port = tmp_path / "data", free_port()
    first = Served(folder, port)
    try:
        shown = first.wait_for("Stop with Ctrl-C")
        password = re.search(r"password (\S+)   \(shown only now", shown).group(1)
        assert f"http://localhost:{port}/v1/mcp/demo" in shown
        assert f"http://localhost:{port}/v1/mcp/harbor" in shown
        keys = data_directory.read_stored(folder)["SECRET_KEY"]
        with httpx.Client(trust_env=False, base_url=f"http://localhost:{port}") as client:
            refused = client.post("/v1/mcp/demo", json={})
            assert refused.status_code == 401
            assert "resource_metadata=" in refused.headers["www-authenticate"]
            assert client.get("/static/gateway/gateway.css").status_code == 200
            client.get("/accounts/login/")
            form = {
                "login": "admin",
                "password": password,
                "csrfmiddlewaretoken": client.cookies["gateway-csrf"],
            }
            assert client.post("/accounts/login/", data=form).status_code == 302
            assert client.get("/admin/").status_code == 200
    finally:
        code = first.stop()
    assert code == 0
    assert "Stopped. Everything is kept" in first.output
    assert "Traceback" not in first.output

    second = Served(folder, port, "--server", "uvicorn", "--no-demo")
    try:
        again = second.wait_for("Stop with Ctrl-C")
        assert "shown only now" not in again
        assert "user admin" in again
        assert data_directory.read_stored(folder)["SECRET_KEY"] == keys
        third = Served(folder, free_port())
        third.process.wait(60)
        assert "already runs on" in third.output
    finally:
        assert second.stop(signal.SIGTERM) == 0
    assert "Traceback" not in second.output


def test_a_port_in_use_is_explained(tmp_path):
    port = free_port()
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        served = Served(tmp_path / "data", port)
        assert served.process.wait(60) == 1
    assert f"Port {port} is in use" in served.output
    assert "Traceback" not in served.output
