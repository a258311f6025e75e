"""The demo's three upstreams are honest servers of both eras, each with its own kind of login."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from jsonschema import Draft202012Validator

from gateway_site.demo import board, harbor, parcels
from gateway_site.demo.running import Options, parcels_key
from tests.fakes.asgi_server import free_port, serve

META = "io.modelcontextprotocol/"
MODERN = "2026-07-28"
REDIRECT = "http://localhost:8000/connect/callback"
VERIFIER = "v" * 64


class Asker:
    """Speaks to one server in one era, on the wire."""

    def __init__(self, url: str, modern: bool, headers: dict[str, str] | None = None) -> None:
        self.url, self.modern = url, modern
        accept = "application/json, text/event-stream"
        self.http = httpx.Client(trust_env=False, headers={"accept": accept, **(headers or {})})
        if not modern:
            params = {
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "clientInfo": {"name": "t", "version": "1"},
            }
            opened = self.post({"method": "initialize", "id": 0, "params": params})
            self.opened = opened.json()["result"]
            self.http.headers["mcp-session-id"] = opened.headers["mcp-session-id"]
            self.http.headers["mcp-protocol-version"] = "2025-11-25"
            self.post({"method": "notifications/initialized"})

    def post(self, message: dict[str, Any], **headers: str) -> httpx.Response:
        return self.http.post(self.url, json={"jsonrpc": "2.0", **message}, headers=headers)

    def ask(self, method: str, **params: Any) -> list[dict[str, Any]]:
        """Send a request; return all messages of the answer, the response last."""
        headers = {}
        if self.modern:
            meta = {META + "protocolVersion": MODERN, META + "clientCapabilities": {}}
            params["_meta"] = {**meta, **params.get("_meta", {})}
            headers = {"mcp-protocol-version": MODERN, "mcp-method": method}
            name = params.get("name") or params.get("uri")
            if name and method != "completion/complete":
                headers["mcp-name"] = name
        answer = self.post({"id": 1, "method": method, "params": params}, **headers)
        if answer.headers["content-type"] == "text/event-stream":
            return [json.loads(data) for data in re.findall(r"^data: (.*)$", answer.text, re.M)]
        return [answer.json()]

    def result(self, method: str, **params: Any) -> dict[str, Any]:
        message = self.ask(method, **params)[-1]
        assert "result" in message, message
        return message["result"]


@pytest.fixture(scope="module")
def harbor_url() -> Iterator[str]:
    with serve(harbor.application) as url:
        yield url + "/mcp"


@pytest.fixture(params=[True, False], ids=["stateless", "stateful"])
def asker(request, harbor_url) -> Asker:
    return Asker(harbor_url, request.param)


def test_the_server_says_what_it_is(asker):
    opened = asker.result("server/discover") if asker.modern else asker.opened
    assert "tools" in opened["capabilities"]
    assert "io.modelcontextprotocol/ui" in opened["capabilities"]["extensions"]
    if asker.modern:
        assert opened["resultType"] == "complete"
        assert opened["supportedVersions"][0] == MODERN


def test_every_tool_works_and_keeps_its_word(asker):
    for tool in asker.result("tools/list")["tools"]:
        Draft202012Validator.check_schema(tool["inputSchema"])
        arguments = {"draught_m": 3.5} if "draught_m" in tool["inputSchema"]["properties"] else {}
        called = asker.result("tools/call", name=tool["name"], arguments=arguments)
        assert not called.get("isError")
        assert json.loads(called["content"][0]["text"]) == called["structuredContent"]
        if "outputSchema" in tool:
            Draft202012Validator(tool["outputSchema"]).validate(called["structuredContent"])


def test_progress_and_logs_stream_before_the_result(asker):
    meta = {"progressToken": "p1"}
    if asker.modern:
        meta[META + "logLevel"] = "info"
    else:
        asker.result("logging/setLevel", level="info")
    messages = asker.ask("tools/call", name="survey_berths", arguments={}, _meta=meta)
    methods = [message.get("method") for message in messages]
    assert methods.count("notifications/progress") == 6
    assert methods.count("notifications/message") == 2
    steps = [m["params"] for m in messages if m.get("method") == "notifications/progress"]
    assert [step["progress"] for step in steps] == [1, 2, 3, 4, 5, 6]
    assert {step["progressToken"] for step in steps} == {"p1"}
    assert "result" in messages[-1]


def test_nobody_who_did_not_ask_gets_interim_messages(asker):
    assert len(asker.ask("tools/call", name="survey_berths", arguments={})) == 1


def test_the_app_page_is_what_the_tool_points_at(asker):
    tools = {tool["name"]: tool for tool in asker.result("tools/list")["tools"]}
    uri = tools["show_berths"]["_meta"]["ui"]["resourceUri"]
    listed = {r["uri"]: r for r in asker.result("resources/list")["resources"]}
    assert listed[uri]["mimeType"] == "text/html;profile=mcp-app"
    page = asker.result("resources/read", uri=uri)["contents"][0]
    assert page["mimeType"] == "text/html;profile=mcp-app"
    assert "ui/initialize" in page["text"]
    assert 'name: "list_berths"' in page["text"]
    assert page["_meta"]["ui"]["prefersBorder"] is True


def test_resources_templates_prompts_and_completion(asker):
    assert (
        "fairway" in asker.result("resources/read", uri="harbor://notices")["contents"][0]["text"]
    )
    templates = asker.result("resources/templates/list")["resourceTemplates"]
    assert templates[0]["uriTemplate"] == "harbor://berths/{number}"
    berth = asker.result("resources/read", uri="harbor://berths/3")["contents"][0]
    assert "Northern Tern" in berth["text"]
    prompt = asker.result("prompts/get", name="plan_arrival", arguments={"ship": "Oskar"})
    assert "Oskar" in prompt["messages"][0]["content"]["text"]
    ref = {"type": "ref/prompt", "name": "plan_arrival"}
    done = asker.result("completion/complete", ref=ref, argument={"name": "ship", "value": "m"})
    assert done["completion"]["values"] == ["Marie Galante"]


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("tools/nothing", {}, -32601),
        ("tools/call", {"name": "nothing"}, -32602),
        ("prompts/get", {"name": "plan_arrival", "arguments": {}}, -32602),
        ("prompts/get", {"name": "nothing"}, -32602),
    ],
)
def test_wrong_requests_get_the_right_code(asker, method, params, code):
    assert asker.ask(method, **params)[-1]["error"]["code"] == code


def test_an_unknown_resource_has_the_code_of_the_era(asker):
    error = asker.ask("resources/read", uri="harbor://berths/99")[-1]["error"]
    assert error["code"] == (-32602 if asker.modern else -32002)


@pytest.mark.parametrize(
    "arguments", [{}, {"draught_m": "deep"}, {"draught_m": 3, "x": 1}, {"draught_m": 900}]
)
def test_wrong_arguments_are_told_to_the_model(asker, arguments):
    called = asker.result("tools/call", name="find_berth", arguments=arguments)
    assert called["isError"] is True


def test_a_header_that_contradicts_the_body_is_refused(harbor_url):
    meta = {META + "protocolVersion": MODERN, META + "clientCapabilities": {}}
    message = {"id": 1, "method": "tools/list", "params": {"_meta": meta}}
    asker = Asker(harbor_url, True)
    headers = {"mcp-protocol-version": MODERN, "mcp-method": "tools/call"}
    answer = asker.post(message, **headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32020)


def test_an_unknown_revision_is_told_what_is_spoken(harbor_url):
    meta = {META + "protocolVersion": "2030-01-01", META + "clientCapabilities": {}}
    answer = Asker(harbor_url, True).post(
        {"id": 1, "method": "tools/list", "params": {"_meta": meta}}
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["data"]["supported"][0] == MODERN


def test_a_session_ends_and_is_then_unknown(harbor_url):
    asker = Asker(harbor_url, False)
    assert asker.http.delete(asker.url).status_code == 200
    assert asker.post({"id": 2, "method": "ping"}).status_code == 404


def test_the_parcel_service_opens_for_its_key_only(tmp_path):
    with serve(parcels.make(Options(0, tmp_path))) as url:
        assert httpx.post(f"{url}/mcp", json={}, trust_env=False).status_code == 401
        wrong = {"x-api-key": "pk_wrong"}
        assert httpx.post(f"{url}/mcp", json={}, headers=wrong, trust_env=False).status_code == 401
        key = {"x-api-key": parcels_key(tmp_path)}
        asker = Asker(f"{url}/mcp", True, key)
        tracked = asker.result(
            "tools/call", name="track_parcel", arguments={"number": "PX00412087"}
        )
        assert tracked["structuredContent"]["history"][0]["station"] == "Collected"
        arguments = {"weight_kg": 2.5, "zone": "island"}
        estimate = asker.result("tools/call", name="estimate_delivery", arguments=arguments)
        assert estimate["structuredContent"] == {"zone": "island", "days": 4, "price_eur": 10.4}
        bad = asker.result("tools/call", name="track_parcel", arguments={"number": "1"})
        assert bad["isError"] is True


class Person:
    """Somebody who lets a client use the board, as a browser and the client would do it."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.http = httpx.Client(trust_env=False, base_url=origin)
        body = {"redirect_uris": [REDIRECT], "client_name": "A <b>client</b>"}
        registered = self.http.post("/register", json=body)
        assert registered.status_code == 201
        self.client_id = registered.json()["client_id"]

    def request(self, **changes: str) -> dict[str, str]:
        hashed = hashlib.sha256(VERIFIER.encode()).digest()
        return {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": REDIRECT,
            "state": "s&1",
            "code_challenge": base64.urlsafe_b64encode(hashed).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            "resource": f"{self.origin}/mcp",
            **changes,
        }

    def decide(self, person: str = "Ada", decision: str = "allow") -> dict[str, str]:
        page = self.http.get("/authorize", params=self.request())
        assert "A &lt;b&gt;client&lt;/b&gt;" in page.text
        fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.text))
        fields = {name: value.replace("&amp;", "&") for name, value in fields.items()}
        answer = self.http.post(
            "/authorize", data={**fields, "person": person, "decision": decision}
        )
        assert answer.status_code == 302
        query = parse_qs(urlsplit(answer.headers["location"]).query)
        return {name: values[0] for name, values in query.items()}

    def token(self, **form: str) -> httpx.Response:
        return self.http.post("/token", data={"client_id": self.client_id, **form})

    def redeem(self, code: str, **changes: str) -> httpx.Response:
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT}
        return self.token(**{**form, "code_verifier": VERIFIER, **changes})

    def refresh(self, token: str) -> httpx.Response:
        return self.token(grant_type="refresh_token", refresh_token=token)

    def connect(self, name: str) -> dict[str, Any]:
        return self.redeem(self.decide(name)["code"]).json()


@pytest.fixture
def person(tmp_path) -> Iterator[Person]:
    port = free_port()
    with serve(board.make(Options(port, tmp_path)), port=port) as url:
        yield Person(url)


def board_asker(person: Person, tokens: dict[str, Any]) -> Asker:
    headers = {"authorization": f"Bearer {tokens['access_token']}"}
    return Asker(f"{person.origin}/mcp", True, headers)


def test_the_board_points_to_its_authorization_server(person):
    answer = person.http.post("/mcp", json={})
    assert answer.status_code == 401
    where = re.search(r'resource_metadata="([^"]+)"', answer.headers["www-authenticate"])
    resource = person.http.get(where.group(1)).json()
    assert resource["resource"] == f"{person.origin}/mcp"
    issuer = resource["authorization_servers"][0]
    metadata = person.http.get(f"{issuer}/.well-known/oauth-authorization-server").json()
    assert metadata["issuer"] == issuer
    assert metadata["code_challenge_methods_supported"] == ["S256"]


def test_everybody_sees_their_own_tickets(person):
    ada = board_asker(person, person.connect("Ada"))
    robin = board_asker(person, person.connect("Robin"))
    made = ada.result("tools/call", name="create_ticket", arguments={"title": "Paint the mole"})
    number = made["structuredContent"]["id"]
    mine = ada.result("tools/call", name="list_tickets", arguments={})["structuredContent"]
    assert [ticket["title"] for ticket in mine["tickets"]] == ["Paint the mole"]
    theirs = robin.result("tools/call", name="list_tickets", arguments={})["structuredContent"]
    assert theirs == {"person": "robin", "tickets": []}
    refused = robin.result("tools/call", name="close_ticket", arguments={"id": number})
    assert refused["isError"] is True
    closed = ada.result("tools/call", name="close_ticket", arguments={"id": number})
    assert closed["structuredContent"]["state"] == "closed"


def test_the_answer_names_the_issuer_and_keeps_the_state(person):
    assert person.decide()["iss"] == person.origin
    declined = person.decide(decision="deny")
    assert declined == {"error": "access_denied", "iss": person.origin, "state": "s&1"}


def test_refresh_tokens_rotate_and_an_old_one_ends_the_grant(person):
    first = person.connect("Ada")
    second = person.refresh(first["refresh_token"]).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert person.refresh(first["refresh_token"]).json()["error"] == "invalid_grant"
    assert person.refresh(second["refresh_token"]).json()["error"] == "invalid_grant"
    answer = person.http.post(
        "/mcp", json={}, headers={"authorization": f"Bearer {second['access_token']}"}
    )
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_a_code_works_once_and_only_for_who_asked(person):
    code = person.decide()["code"]
    assert person.redeem(code, code_verifier="w" * 64).status_code == 400
    code = person.decide()["code"]
    tokens = person.redeem(code).json()
    assert person.redeem(code).json()["error"] == "invalid_grant"
    assert person.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"


def test_revoking_ends_the_grant(person):
    tokens = person.connect("Ada")
    assert person.http.post("/revoke", data={"token": tokens["refresh_token"]}).status_code == 200
    assert person.refresh(tokens["refresh_token"]).status_code == 400


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"resource": "http://other.example/mcp"}, "invalid_target"),
    ],
)
def test_wrong_authorization_requests_go_back_with_the_reason(person, changes, error):
    answer = person.http.get("/authorize", params=person.request(**changes))
    assert f"error={error}" in answer.headers["location"]


def test_nobody_is_sent_to_an_unregistered_address(person):
    params = person.request(redirect_uri="https://evil.example/")
    assert person.http.get("/authorize", params=params).status_code == 400


def test_the_consent_form_cannot_be_sent_from_elsewhere(person):
    form = {**person.request(), "person": "Ada", "decision": "allow", "form": "guess"}
    assert person.http.post("/authorize", data=form).status_code == 400


@pytest.mark.parametrize("uri", ["http://evil.example/", "https://a.example/#f", "javascript:x"])
def test_dangerous_redirects_are_not_registered(person, uri):
    assert person.http.post("/register", json={"redirect_uris": [uri]}).status_code == 400
