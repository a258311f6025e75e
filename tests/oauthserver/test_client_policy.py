"""Which clients may come by themselves, and what those that may not are told."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.test import Client

from oauthserver import client_metadata_documents, client_review
from oauthserver.client_admission import admission, problem_with_host
from oauthserver.client_review import review_client, set_policy
from oauthserver.expiry import remove_expired
from oauthserver.models import ClientPolicy, OAuthClient
from tests.oauthserver import flows
from tests.oauthserver.conftest import CALLBACK, register
from tests.oauthserver.document_host import DocumentHost
from tests.oauthserver.flows import BASE, Pkce, answer_of, open_page, press, request_of
from tests.oauthserver.test_client_metadata_documents import REDIRECT, ask, let_it_age, place

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.oauthserver.addresses")]


def metadata(api: Client) -> dict[str, Any]:
    return api.get("/.well-known/oauth-authorization-server").json()


def test_registration_that_is_off_is_not_advertised_and_says_what_to_do(api: Client) -> None:
    set_policy({"registration": "off", "advice": "Write to it@corp.example."}, actor=None)
    assert "registration_endpoint" not in metadata(api)
    refused = api.post(
        "/oauth/register", {"redirect_uris": [CALLBACK]}, content_type="application/json"
    )
    assert refused.status_code == 403
    assert refused.json()["error"] == "access_denied"
    assert "it@corp.example" in refused.json()["error_description"]
    assert not OAuthClient.objects.exists()


def test_documents_that_are_off_are_not_advertised_and_refused(
    browser: Client, host: DocumentHost
) -> None:
    set_policy({"documents": "off"}, actor=None)
    assert metadata(browser)["client_id_metadata_document_supported"] is False
    page = ask(browser, place(host))
    assert page.status_code == 403
    assert b"not allowed here" in page.content


@pytest.mark.parametrize(
    ("hosts", "uris", "status"),
    [
        (["client.example"], [CALLBACK], 201),
        (["*.example"], [CALLBACK], 201),
        (["other.example"], [CALLBACK], 400),
        (["*.client.example"], [CALLBACK], 400),
        (["client.example"], [CALLBACK, "https://evil.example/cb"], 400),
        (["localhost"], ["http://127.0.0.1/cb", "http://[::1]:9/cb"], 201),
        (["client.example"], ["http://localhost/cb"], 400),
        (
            ["localhost", "cursor://anysphere.cursor-mcp"],
            ["cursor://anysphere.cursor-mcp/oauth/callback", "http://localhost:8787/callback"],
            201,
        ),
    ],
)
def test_only_listed_redirect_hosts_register(
    api: Client, hosts: list[str], uris: list[str], status: int
) -> None:
    set_policy({"registration": "hosts", "allowed_hosts": hosts}, actor=None)
    answer = api.post("/oauth/register", {"redirect_uris": uris}, content_type="application/json")
    assert answer.status_code == status, answer.content
    if status == 400:
        assert answer.json()["error"] == "invalid_redirect_uri"
        assert "not listed" in answer.json()["error_description"]


def test_a_listed_document_host_is_proven_by_the_document(
    browser: Client, host: DocumentHost
) -> None:
    client_id = place(host)
    set_policy({"documents": "hosts", "allowed_hosts": ["chatgpt.com"]}, actor=None)
    assert ask(browser, client_id).status_code == 403
    set_policy({"allowed_hosts": ["chatgpt.com", "127.0.0.1"]}, actor=None)
    assert ask(browser, client_id).status_code == 200


def test_a_tightened_policy_stops_new_consent_and_leaves_what_was_agreed(
    browser: Client, api: Client, session: Any
) -> None:
    set_policy({"registration": "off"}, actor=None)
    page = open_page(browser, request_of(session.client_id, CALLBACK, Pkce()))
    assert page.status_code == 403
    again = flows.refresh(api, session.client_id, session.tokens["refresh_token"])
    assert again.status_code == 200


def test_a_person_waits_for_approval_and_then_connects_without_setting_up_anew(
    browser: Client, api: Client, alice: User, told: list[dict[str, Any]]
) -> None:
    set_policy({"registration": "approval", "advice": "Ask in #ai-tools."}, actor=None)
    client_id = register(api)["client_id"]
    stored = OAuthClient.objects.get(client_id=client_id)
    assert stored.review == ""  # Nobody who is not signed in fills the queue.
    query = request_of(client_id, CALLBACK, Pkce())
    for _ in range(2):
        page = open_page(browser, query)
        assert page.status_code == 403
        assert b"approved first" in page.content
        assert b"#ai-tools" in page.content
    stored.refresh_from_db()
    assert (stored.review, stored.review_asked_by) == ("waiting", "alice")
    review_client(stored, True, actor=alice)
    assert "code" in answer_of(press(browser, open_page(browser, query)))
    kinds = [event["kind"] for event in told]
    assert kinds.count("client.approval_asked") == 1
    assert kinds.count("client.approved") == 1


def test_a_person_is_told_that_the_list_of_waiting_clients_is_full(
    browser: Client, api: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_policy({"registration": "approval"}, actor=None)
    monkeypatch.setattr(client_review, "MOST_WAITING", 1)
    first, second = (register(api)["client_id"] for _ in range(2))
    for client_id, full in ((first, False), (second, True), (first, False)):
        page = open_page(browser, request_of(client_id, CALLBACK, Pkce())).content
        assert b"approved first" in page
        assert (b"list of waiting clients is full" in page) is full
        assert (b"is in the administrators" in page) is not full
    assert OAuthClient.objects.get(client_id=second).review == ""


def test_a_document_client_that_waits_keeps_its_place(browser: Client, host: DocumentHost) -> None:
    set_policy({"documents": "approval"}, actor=None)
    client_id = place(host)
    assert ask(browser, client_id).status_code == 403
    stored = OAuthClient.objects.get(client_id=client_id)
    assert stored.review == "waiting"
    assert ask(browser, client_id).status_code == 403
    remove_expired()
    review_client(OAuthClient.objects.get(pk=stored.pk), True, actor=None)
    assert "code" in answer_of(press(browser, ask(browser, client_id)))


def test_a_client_that_waits_leads_nobody_on_who_is_not_signed_in(
    browser: Client, host: DocumentHost
) -> None:
    set_policy({"documents": "approval"}, actor=None)
    client_id = place(host)
    ask(browser, client_id)
    query = request_of(client_id, REDIRECT, Pkce(), prompt="none")
    for asked in (query, f"{query}&request=x"):
        answered = open_page(Client(), asked)
        assert answered.status_code == 400
        assert b"nobody here has approved" in answered.content
    review_client(OAuthClient.objects.get(client_id=client_id), True, actor=None)
    assert answer_of(open_page(Client(), query))["error"] == "login_required"


def test_an_approval_is_for_the_client_as_it_was(browser: Client, host: DocumentHost) -> None:
    set_policy({"documents": "approval"}, actor=None)
    client_id = place(host)
    ask(browser, client_id)
    review_client(OAuthClient.objects.get(client_id=client_id), True, actor=None)
    press(browser, ask(browser, client_id))
    place(host, redirect_uris=["https://evil.example/cb"])
    let_it_age()
    page = ask(browser, client_id, "https://evil.example/cb")
    assert page.status_code == 403
    assert OAuthClient.objects.get(client_id=client_id).review == "waiting"


def test_a_refusal_made_while_the_document_is_fetched_stands(
    browser: Client, host: DocumentHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_policy({"documents": "approval"}, actor=None)
    client_id = place(host)
    ask(browser, client_id)
    review_client(OAuthClient.objects.get(client_id=client_id), True, actor=None)
    press(browser, ask(browser, client_id))
    place(host, redirect_uris=["https://evil.example/cb"])
    let_it_age()
    fetch = client_metadata_documents.fetch_json

    def refused_meanwhile(*args: Any, **kwargs: Any) -> Any:
        review_client(OAuthClient.objects.get(client_id=client_id), False, actor=None)
        return fetch(*args, **kwargs)

    monkeypatch.setattr(client_metadata_documents, "fetch_json", refused_meanwhile)
    assert ask(browser, client_id, "https://evil.example/cb").status_code == 400
    assert OAuthClient.objects.get(client_id=client_id).review == "refused"


def test_the_client_is_told_when_the_person_goes_back(browser: Client, public: OAuthClient) -> None:
    set_policy({"registration": "approval"}, actor=None)
    page = open_page(browser, request_of(public.client_id, CALLBACK, Pkce()))
    back = browser.post(page.context["form_action"], {"tell": "client"})
    told = answer_of(back)
    assert back["Location"].startswith(CALLBACK)
    assert told["error"] == "unauthorized_client"
    assert "administrator" in told["error_description"]
    assert (told["state"], told["iss"]) == ("st-1", BASE)


def test_a_client_that_asks_silently_is_told_at_once(browser: Client, public: OAuthClient) -> None:
    set_policy({"registration": "off"}, actor=None)
    query = request_of(public.client_id, CALLBACK, Pkce(), prompt="none")
    assert answer_of(open_page(browser, query))["error"] == "unauthorized_client"


def test_refusing_a_client_ends_what_it_holds(api: Client, session: Any) -> None:
    review_client(OAuthClient.objects.get(client_id=session.client_id), False, actor=None)
    answer = flows.refresh(api, session.client_id, session.tokens["refresh_token"])
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


@pytest.mark.parametrize("change", [{"review": "refused"}, {"enabled": False}], ids=str)
def test_only_who_is_signed_in_is_told_that_an_administrator_stopped_a_client(
    browser: Client, public: OAuthClient, change: dict[str, Any]
) -> None:
    OAuthClient.objects.filter(pk=public.pk).update(**change)
    page = open_page(browser, request_of(public.client_id, CALLBACK, Pkce()))
    assert page.status_code == 400
    assert b"has refused this client or switched it off" in page.content
    silent = request_of(public.client_id, CALLBACK, Pkce(), prompt="none")
    assert b"does not know this client" in open_page(Client(), silent).content


def test_what_an_administrator_registered_is_always_admitted() -> None:
    policy = ClientPolicy(documents="off", registration="off")
    client = OAuthClient(registration_source=OAuthClient.RegistrationSource.MANUAL)
    assert admission(client, policy).admitted


@pytest.mark.parametrize("entry", ["https://x.example", "x.example/y", "x.example:1", "", "*", 7])
def test_what_is_no_host_is_not_listed(entry: Any) -> None:
    assert problem_with_host(entry)
    with pytest.raises(ValidationError):
        set_policy({"allowed_hosts": [entry]}, actor=None)


def test_a_rule_by_hosts_needs_hosts_and_a_change_is_audited(told: list[dict[str, Any]]) -> None:
    with pytest.raises(ValidationError):
        set_policy({"documents": "hosts"}, actor=None)
    assert set_policy({"documents": "hosts", "allowed_hosts": ["a.example"]}, actor=None)
    assert set_policy({"documents": "hosts"}, actor=None) == []
    assert [event["kind"] for event in told] == ["client.policy_changed"]


@pytest.mark.urls("tests.oauthserver.admin_addresses")
def test_an_administrator_sets_the_policy_and_works_the_queue_off(
    api: Client, told: list[dict[str, Any]]
) -> None:
    boss = User.objects.create_superuser("boss", "boss@corp.example", "pw-of-boss")
    api.force_login(boss, "django.contrib.auth.backends.ModelBackend")
    policy = {"documents": "hosts", "registration": "approval", "forget_after_days": "0"}
    sent = {**policy, "allowed_hosts": "ChatGPT.com\n*.corp.example", "advice": "Ask."}
    assert api.get("/admin/oauthserver/clientpolicy/").status_code == 200
    pk = ClientPolicy.objects.get().pk
    assert api.post(f"/admin/oauthserver/clientpolicy/{pk}/change/", sent).status_code == 302
    stored = ClientPolicy.current()
    assert stored.allowed_hosts == ["chatgpt.com", "*.corp.example"]
    client = OAuthClient.objects.get(client_id=register(api)["client_id"])
    client.review = "waiting"
    client.save()
    listed = api.get("/admin/oauthserver/oauthclient/?review__exact=waiting")
    assert b"Test client" in listed.content
    own = f"/admin/oauthserver/oauthclient/{client.pk}/change/"
    for action, review in (("approve", "approved"), ("refuse", "refused")):
        button = f'name="action" value="{action}" formaction="/admin/oauthserver/oauthclient/"'
        assert button in api.get(own).content.decode()
        chosen = {"action": action, "_selected_action": [str(client.pk)], "confirmed": "yes"}
        assert api.post("/admin/oauthserver/oauthclient/", chosen).status_code == 302
        client.refresh_from_db()
        assert client.review == review
        assert button not in api.get(own).content.decode()
    kinds = [event["kind"] for event in told]
    assert kinds == [
        *("client.policy_changed", "client.registered", "client.approved", "client.refused")
    ]
