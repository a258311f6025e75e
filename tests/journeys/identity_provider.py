"""Runs panva's ``oidc-provider`` (npm) as the company's identity provider.

It is somebody else's implementation of OpenID Connect, so that gateway and fake cannot agree on
the same mistake. People, its keys and the one client are set by commands; the rest is its own.
"""

import json
import queue
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tests.fakes.asgi_server import free_port
from tests.fakes.browser import Browser, Page
from tests.journeys.official_client import NODE, NPM

CLIENT_ID = "gateway"
CLIENT_SECRET = "company-s3cret-of-the-gateway"
ANSWER_SECONDS = 60
Provider = TypeVar("Provider", bound="IdentityProvider")


@dataclass
class IdentityProvider:
    """The running provider; ``url`` is its issuer."""

    url: str
    _process: "subprocess.Popen[str]"
    _lines: "queue.Queue[str]" = field(default_factory=queue.Queue)

    def __post_init__(self) -> None:
        threading.Thread(target=self._pump, daemon=True).start()

    def _pump(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def hear(self) -> dict[str, Any]:
        """Return the next answer; fails where the process ended."""
        while True:
            line = self._lines.get(timeout=ANSWER_SECONDS)
            assert line, "the identity provider ended"
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer

    def do(self, command: str, **more: Any) -> dict[str, Any]:
        """Send a command and return its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": command, **more}) + "\n")
        self._process.stdin.flush()
        return self.hear()

    def know_gateway(self, url: str, name: str = "company") -> None:
        """Register the gateway as an administrator does, with every address its page names."""
        metadata = {
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
            "grant_types": ["authorization_code", "refresh_token"],
            "redirect_uris": [f"{url}/accounts/oidc/{name}/login/callback/"],
            "post_logout_redirect_uris": [f"{url}/accounts/login/"],
            "backchannel_logout_uri": f"{url}/accounts/oidc/{name}/backchannel-logout/",
            "backchannel_logout_session_required": True,
            "token_endpoint_auth_method": "client_secret_post",
        }
        self.do("client", metadata=metadata)

    def person(self, login: str, *groups: str, disabled: bool = False) -> None:
        """Add or change somebody."""
        claims = {
            "email": f"{login}@contoso.example",
            "email_verified": True,
            "preferred_username": login,
            "name": f"{login.capitalize()} of Contoso",
            "groups": list(groups),
        }
        self.do("person", login=login, claims=claims, disabled=disabled)

    def errors(self) -> list[str]:
        """Return what went wrong there since the last time."""
        return list(self.do("errors")["errors"])


def sign_in_there(browser: Browser, login: str) -> Page:
    """Do what a person does on the provider's pages, until none of them is left."""
    page = browser.page
    for _ in range(6):
        assert page is not None
        if page.find_button("Sign-in"):
            page = browser.press("Sign-in", login=login, password="any")
        elif page.find_button("Continue") and "/interaction/" in page.url:
            page = browser.press("Continue")
        else:
            return page
    raise AssertionError(f"going round in circles: {browser.visited[-8:]}")


@contextmanager
def identity_provider() -> Iterator[IdentityProvider]:
    """Run the provider until the block ends."""
    with running("identity_provider.mjs", IdentityProvider) as provider:
        yield provider


@contextmanager
def running(script: str, kind: type[Provider]) -> Iterator[Provider]:
    """Run a provider's script among the npm packages until the block ends; it is ready."""
    port = free_port()
    with subprocess.Popen(
        [str(NODE), str(NPM / script), str(port)],
        cwd=NPM,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        provider = kind(f"http://127.0.0.1:{port}", process)
        try:
            assert provider.hear() == {"ready": provider.url}
            yield provider
        finally:
            process.kill()
