"""Firefox, driven by its own remote protocol (Marionette): no further driver is needed.

with firefox(program) as browser:
    browser.open("http://…")
"""

import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.fakes.asgi_server import free_port

READY_SECONDS = 90
WAIT_SECONDS = 30
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_PREFERENCES = {
    "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    # The person has said before that pages may open the installed program.
    "security.external_protocol_requires_permission": False,
    "toolkit.telemetry.enabled": False,
}


class Refused(Exception):
    """Firefox did not do what it was asked; the message is its own."""


class Firefox:
    """One window. Messages are ``length:[type, id, ...]``, one answer to each command."""

    def __init__(self, port: int, home: Path) -> None:
        self._opened = home / "opened"
        self._socket = self._connected(port)
        self._buffer = b""
        self._ids = 0
        self._read()
        self.command("WebDriver:NewSession", {"capabilities": {}})

    def _connected(self, port: int) -> socket.socket:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                return socket.create_connection(("127.0.0.1", port), timeout=60)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def command(self, name: str, parameters: dict[str, Any] | None = None) -> Any:
        """Send one command and return its value.

        Raises:
            Refused: Firefox answered with an error.
        """
        self._ids += 1
        message = json.dumps([0, self._ids, name, parameters or {}]).encode()
        self._socket.sendall(b"%d:%b" % (len(message), message))
        _, answered, error, result = self._read()
        assert answered == self._ids
        if error:
            raise Refused(f"{name}: {error['error']}: {error['message']}")
        held = isinstance(result, dict) and set(result) == {"value"}
        return result["value"] if held else result

    def _read(self) -> Any:
        while b":" not in self._buffer:
            self._receive()
        length, _, rest = self._buffer.partition(b":")
        while len(rest) < int(length):
            self._receive()
            rest = self._buffer.partition(b":")[2]
        self._buffer = rest[int(length) :]
        return json.loads(rest[: int(length)])

    def _receive(self) -> None:
        piece = self._socket.recv(65536)
        if not piece:
            raise Refused("Firefox has ended")
        self._buffer += piece

    # What a person does -------------------------------------------------------------
    @property
    def url(self) -> str:
        """The address of what is shown, also of an error page."""
        return str(self.script("return document.documentURI"))

    def open(self, url: str) -> None:
        """Go to an address."""
        self.command("WebDriver:Navigate", {"url": url})

    def fill(self, selector: str, text: str) -> None:
        """Type into a field."""
        self.command("WebDriver:ElementSendKeys", {"id": self._find(selector), "text": text})

    def click(self, selector: str) -> None:
        """Click."""
        self.command("WebDriver:ElementClick", {"id": self._find(selector)})

    def script(self, text: str) -> Any:
        """Run a script in the page and return what it returns."""
        return self.command("WebDriver:ExecuteScript", {"script": text, "args": []})

    def wait_for(self, beginning: str) -> str:
        """Wait until the address begins so; return it whole."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not self.url.startswith(beginning):
            assert time.monotonic() < deadline, f"{self.url}: {self.script(_TEXT)}"
            time.sleep(0.05)
        return self.url

    def handed_over(self) -> str:
        """Wait until an address went to the installed program; return it."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not self._opened.exists():
            assert time.monotonic() < deadline, f"nothing was opened from {self.url}"
            time.sleep(0.05)
        return self._opened.read_text()

    def _find(self, selector: str) -> str:
        asked = {"using": "css selector", "value": selector}
        return str(self.command("WebDriver:FindElement", asked)[_ELEMENT])


_TEXT = "return document.body ? document.body.innerText.slice(0, 500) : ''"


# Takes an address as the operating system hands it to an editor, and writes it down.
_EDITOR = """#!/bin/sh
printf '%s' "$1" > "$HOME/opened.part" && mv "$HOME/opened.part" "$HOME/opened"
"""


def _install_editor(home: Path, scheme: str) -> None:
    """Install a program for a scheme, as a Linux desktop does, and have agreed to open it."""
    editor = home / "editor"
    editor.write_text(_EDITOR)
    editor.chmod(0o700)
    kind = f"x-scheme-handler/{scheme}"
    applications = home / ".local" / "share" / "applications"
    applications.mkdir(parents=True)
    (applications / "editor.desktop").write_text(
        f"[Desktop Entry]\nType=Application\nName=Editor\nExec={editor} %u\nMimeType={kind};\n"
    )
    (applications / "mimeapps.list").write_text(f"[Default Applications]\n{kind}=editor.desktop\n")
    agreed = {"action": 4, "handlers": [None]}
    (home / "handlers.json").write_text(json.dumps({"schemes": {scheme: agreed}}))


@contextmanager
def firefox(program: str, *, scheme: str = "cursor") -> Iterator[Firefox]:
    """Run Firefox with an empty profile, without a screen, until the block ends.

    Addresses of ``scheme`` go to a program, as on a machine where an editor is installed.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="firefox-", ignore_cleanup_errors=True) as profile:
        lines = [
            f"user_pref({json.dumps(name)}, {json.dumps(value)});"
            for name, value in {
                **_PREFERENCES,
                "marionette.port": port,
                f"network.protocol-handler.external.{scheme}": True,
                f"network.protocol-handler.expose.{scheme}": False,
            }.items()
        ]
        (Path(profile) / "user.js").write_text("\n".join(lines))
        _install_editor(Path(profile), scheme)
        command = [program, "--headless", "--marionette", "--no-remote", "--profile", profile]
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin", "HOME": profile, "LANG": "C.UTF-8"},
        ) as process:
            try:
                yield Firefox(port, Path(profile))
            finally:
                process.terminate()
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    process.kill()
