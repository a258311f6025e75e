"""A company's identity provider that exchanges tokens of a sign-in for assertions (ID-JAG).

    with EnterpriseProvider({"id-token-of-alice": "alice"}).serve() as company:
        server.assertions = company.whom(server)      # an authorization server that trusts it

Knobs: ``audience_parameter`` and ``resource_parameter`` are the names it wants, ``subject``
the token type it takes, ``client`` and ``secret`` who may ask, ``allowed`` whom it vouches for.
"""

import base64
import contextlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from tests.fakes.asgi_server import serve
from tests.fakes.authorization_server import FakeAuthorizationServer, Fault, as_json, reply

ID_JAG = "urn:ietf:params:oauth:token-type:id-jag"


@dataclass
class EnterpriseProvider:
    """See the module's text."""

    sign_ins: dict[str, str]
    client: str = "gateway"
    secret: str = "s3cret-at-the-company"
    subject: str = "urn:ietf:params:oauth:token-type:id_token"
    audience_parameter: str = "audience"
    resource_parameter: str = "resource"
    allowed: set[str] | None = None
    changes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.url = ""
        self.forms: list[dict[str, str]] = []
        self.made: dict[str, tuple[str, str]] = {}

    @contextlib.contextmanager
    def serve(self) -> Iterator["EnterpriseProvider"]:
        """Run until the block ends."""
        with serve(self) as origin:
            self.url = f"{origin}/exchange"
            yield self

    def whom(self, server: FakeAuthorizationServer) -> Callable[[str], str]:
        """What a server asks about an assertion: whom it names, "" if it is not for it."""

        def named(assertion: str) -> str:
            person, audience = self.made.pop(assertion, ("", ""))
            return person if audience == server.issuer else ""

        return named

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        form = dict(parse_qsl(body.decode()))
        self.forms.append(form)
        headers = {key.decode(): value.decode() for key, value in scope["headers"]}
        await reply(send, self._answer(form, headers.get("authorization", "")))

    def _answer(self, form: dict[str, str], authorization: str) -> Fault:
        pair = base64.b64encode(f"{self.client}:{self.secret}".encode()).decode()
        by_form = (form.get("client_id"), form.get("client_secret")) == (self.client, self.secret)
        if authorization != f"Basic {pair}" and not by_form:
            return as_json({"error": "invalid_client"}, 401)
        if form.get("requested_token_type") != ID_JAG or "token-exchange" not in form["grant_type"]:
            return as_json({"error": "unsupported_grant_type"}, 400)
        person = self.sign_ins.get(form.get("subject_token", ""), "")
        if not person or form.get("subject_token_type") != self.subject:
            return as_json({"error": "invalid_grant"}, 400)
        if self.allowed is not None and person not in self.allowed:
            return as_json({"error": "access_denied"}, 400)
        audience = form.get(self.audience_parameter, "")
        if not audience or (self.resource_parameter and not form.get(self.resource_parameter)):
            return as_json({"error": "invalid_target"}, 400)
        assertion = f"jag-{secrets.token_urlsafe(16)}"
        self.made[assertion] = (person, audience)
        answer = {"access_token": assertion, "issued_token_type": ID_JAG, "token_type": "N_A"}
        return as_json({**answer, "expires_in": 300, **self.changes})
