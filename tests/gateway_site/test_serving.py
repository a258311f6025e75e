"""What is decided before a gateway starts: folder, keys, port, address."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway_site import data_directory, serving
from gateway_site.data_directory import DataDirectoryUnusable
from gateway_site.demo import processes
from gateway_site.supervision import Child, Supervisor
from tests.fakes.asgi_server import free_port
from tests.patience import PATIENCE


def decide(folder, environment=None, **options) -> serving.ServingPlan:
    options = {"port": free_port(), "data_dir": str(folder), **options}
    return serving.decide(options, environment or {})


def test_keys_are_made_once_and_kept_private(tmp_path):
    decide(tmp_path)
    first = data_directory.read_stored(tmp_path)
    decide(tmp_path)
    second = data_directory.read_stored(tmp_path)
    assert first["SECRET_KEY"] == second["SECRET_KEY"]
    assert first["GATEWAY_ENCRYPTION_KEYS"] == second["GATEWAY_ENCRYPTION_KEYS"]
    assert (tmp_path / "gateway.env").stat().st_mode & 0o777 == 0o600


def test_keys_of_the_environment_are_not_copied_to_disk(tmp_path):
    keys = {"SECRET_KEY": "x" * 50, "GATEWAY_ENCRYPTION_KEYS": "y" * 44}
    decide(tmp_path, keys)
    assert not {"SECRET_KEY", "GATEWAY_ENCRYPTION_KEYS"} & set(data_directory.read_stored(tmp_path))


def test_a_database_without_its_keys_is_not_given_new_ones(tmp_path):
    (tmp_path / "gateway.sqlite3").touch()
    with pytest.raises(serving.CannotServe, match="Restore that file from your backup"):
        decide(tmp_path)
    assert not (tmp_path / "gateway.env").exists()


def test_port_and_address_of_the_last_start_are_kept(tmp_path):
    port = free_port()
    decide(tmp_path, port=port, public_url="https://mcp.example.com")
    again = serving.decide({"data_dir": str(tmp_path)}, {})
    assert (again.port, again.public_url) == (port, "https://mcp.example.com")


def test_the_local_address_follows_the_port(tmp_path):
    decide(tmp_path)
    port = free_port()
    stored = {"PUBLIC_URL": data_directory.read_stored(tmp_path)["PUBLIC_URL"]}
    assert decide(tmp_path, stored, port=port).public_url == f"http://localhost:{port}"


def test_an_address_of_the_environment_counts(tmp_path):
    environment = {"PUBLIC_URL": "https://mcp.example.com"}
    assert decide(tmp_path, environment).public_url == "https://mcp.example.com"


def test_a_wrong_address_is_explained(tmp_path):
    with pytest.raises(serving.CannotServe, match="must begin with https://"):
        decide(tmp_path, public_url="http://mcp.example.com")


def test_a_port_in_use_is_named_with_another_to_try(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(serving.CannotServe, match=f"Port {port} is in use.*--port"):
            decide(tmp_path, port=port)


def test_several_workers_need_uvicorn(tmp_path):
    with pytest.raises(serving.CannotServe, match="uvicorn"):
        decide(tmp_path, workers=2)
    assert decide(tmp_path, workers=2, server="uvicorn").workers == 2


@pytest.mark.parametrize(
    ("environment", "ending"),
    [
        ({"GATEWAY_DATA_DIR": "/srv/gateway"}, "/srv/gateway"),
        ({"XDG_DATA_HOME": "/srv/data"}, "/srv/data/mcp-gateway"),
        ({"XDG_DATA_HOME": "relative"}, ".local/share/mcp-gateway"),
        ({}, ".local/share/mcp-gateway"),
    ],
)
def test_data_is_kept_in_the_usual_place(environment, ending, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(data_directory.default_path(environment)).endswith(ending)


def test_without_a_home_a_directory_is_asked_for(monkeypatch):
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(DataDirectoryUnusable, match="--data-dir"):
        data_directory.default_path({})


def test_a_folder_that_cannot_be_made_is_explained(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(serving.CannotServe, match="cannot be written"):
        decide(tmp_path / "file" / "folder")


def test_the_demos_ports_are_kept_while_they_are_free(tmp_path):
    # Below the ports that connections are given, so that no other process takes one meanwhile.
    port = random.randrange(20_000, 30_000)
    first = processes.choose_ports(tmp_path, port)
    assert processes.choose_ports(tmp_path, port + 50) == first
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first["board"]))
        moved = processes.choose_ports(tmp_path, port)
    assert moved["board"] != first["board"]
    assert moved["harbor"] == first["harbor"]


def test_the_demos_processes_get_no_secret_of_the_gateway(tmp_path):
    ports = dict.fromkeys(processes.NAMES, 1)
    environment = {"SECRET_KEY": "x", "GATEWAY_ENCRYPTION_KEYS": "y", "PATH": "/bin"}
    for child in processes.children(tmp_path, ports, environment):
        assert child.environment == {"PATH": "/bin"}


@pytest.fixture
def supervisor(monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    said: list[str] = []
    made = Supervisor(said.append)
    yield made, said
    made.stop(PATIENCE)


def child(name: str, code: str, **options) -> Child:
    return Child(name, [sys.executable, "-c", code], dict(os.environ), serving.ROOT, **options)


def test_everything_ends_with_the_web_server(supervisor):
    made, said = supervisor
    helper = child("helper", "import time; time.sleep(60)")
    made.start(helper)
    made.start(child("web", "raise SystemExit(3)", vital=True))
    assert made.watch() == 3
    assert said == ["web ended with status 3."]
    made.stop(PATIENCE)
    assert not helper.running()


def test_a_helper_that_ends_is_started_again_but_not_for_ever(supervisor, tmp_path, monkeypatch):
    made, said = supervisor
    over = tmp_path / "over"

    def say(text: str) -> None:
        said.append(text)
        if "stays off" in text:
            over.touch()

    monkeypatch.setattr(made, "_say", say)
    code = f"import os, time\nwhile not os.path.exists({str(over)!r}): time.sleep(0.05)"
    made.start(child("web", code, vital=True))
    made.start(child("helper", "raise SystemExit(1)"))
    made.watch()
    assert said.count("helper ended with status 1; starting it again.") == 5
    assert "stays off" in said[5]


def test_children_that_do_not_listen_are_killed(supervisor):
    made, _ = supervisor
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"
    stubborn = child("stubborn", code)
    made.start(stubborn)
    time.sleep(0.3)
    began = time.monotonic()
    made.stop(0.5)
    assert not stubborn.running()
    assert time.monotonic() - began < 40


ORPHAN = """
import os, sys, time
from pathlib import Path
from gateway_site.supervision import Child, Supervisor
code = "import os, time; open({file!r}, 'w').write(str(os.getpid())); time.sleep(60)"
child = Child("x", [sys.executable, "-c", code], dict(os.environ), Path.cwd())
Supervisor(print).start(child)
time.sleep(60)
"""


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells children that their parent died")
def test_children_end_when_the_supervisor_is_killed(tmp_path):
    pid_file = tmp_path / "pid"
    code = ORPHAN.format(file=str(pid_file))
    process = subprocess.Popen([sys.executable, "-c", code], cwd=serving.ROOT)
    deadline = time.monotonic() + 2 * PATIENCE
    while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    pid = int(pid_file.read_text())
    process.kill()
    process.wait(PATIENCE)
    while lives(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not lives(pid)
