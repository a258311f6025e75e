"""A client reads, changes and removes what it registered (RFC 7592), and nobody else does."""

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from oauthserver import expiry, request_limits
from oauthserver.actions import set_client_enabled
from oauthserver.client_directory import note_seen
from oauthserver.client_review import review_client, set_policy
from oauthserver.expiry import remove_expired
from oauthserver.models import OAuthClient
from tests.oauthserver import flows
from tests.oauthserver.conftest import CALLBACK, register
from tests.oauthserver.document_host import DocumentHost
from tests.oauthserver.flows import BASE
from tests.oauthserver.test_client_metadata_documents import ask, place

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.oauthserver.addresses")]
OTHER = "https://client.example/other"


def call(api: Client, method: str, client_id: str, token: str, document: Any = None) -> Any:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    kind = "application/json"
    path = f"/oauth/register/{client_id}"
    return api.generic(method, path, document or "", content_type=kind, headers=headers)


def put(api: Client, answer: dict[str, Any], token: str = "", **changes: Any) -> Any:
    kept = ("client_id", "redirect_uris", "client_name", "token_endpoint_auth_method")
    document = {name: answer[name] for name in kept if name in answer} | changes
    path = f"/oauth/register/{answer['client_id']}"
    headers = {"Authorization": f"Bearer {token or answer['registration_access_token']}"}
    return api.put(path, document, content_type="application/json", headers=headers)


def test_a_client_reads_what_it_registered(api: Client) -> None:
    made = register(api, token_endpoint_auth_method="client_secret_basic", client_uri=f"{CALLBACK}")
    assert made["registration_client_uri"] == f"{BASE}/oauth/register/{made['client_id']}"
    token = made["registration_access_token"]
    read = call(api, "GET", made["client_id"], token)
    assert read.status_code == 200
    assert read["Cache-Control"] == "no-store"
    # The secret is known as a digest only.
    assert read.json() == {
        name: value for name, value in made.items() if not name.startswith("client_secret")
    }
    assert token not in str(list(OAuthClient.objects.values_list()))


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_another_clients_token_or_none_manages_nothing(api: Client, method: str) -> None:
    mine, other = register(api), register(api)
    for token in ("", "x", other["registration_access_token"], mine["client_id"]):
        refused = call(api, method, mine["client_id"], token, "{}")
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid_token")
        assert refused["WWW-Authenticate"].startswith("Bearer ")
    unknown = call(api, method, "unknown", mine["registration_access_token"], "{}")
    assert unknown.status_code == 401
    assert unknown.json() == refused.json()
    assert OAuthClient.objects.count() == 2


def test_guessing_is_limited(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    few = request_limits.Limit("failed-token-requests", 3, 3, 100)
    monkeypatch.setattr(request_limits, "FAILED_TOKEN_REQUESTS", few)
    made = register(api)
    assert [call(api, "GET", made["client_id"], "no").status_code for _ in range(4)] == [
        *(401, 401, 401, 429)
    ]


def test_a_change_replaces_the_registration_and_rotates_the_token(
    api: Client, told: list[dict[str, Any]]
) -> None:
    made = register(api)
    changed = put(api, made, redirect_uris=[OTHER])
    assert changed.status_code == 200, changed.content
    answer = changed.json()
    assert answer["redirect_uris"] == [OTHER]
    assert answer["client_id"] == made["client_id"]
    assert answer["registration_access_token"] != made["registration_access_token"]
    assert OAuthClient.objects.get().redirect_uris == OTHER
    assert told[-1]["kind"] == "client.changed"
    assert told[-1]["details"]["members"] == ["redirect_uris"]


def test_the_old_token_works_until_the_new_one_was_seen(api: Client) -> None:
    made = register(api)
    lost = put(api, made, client_name="A").json()
    again = put(api, made, client_name="B")
    assert again.status_code == 200
    # The answer that got lost first is of no use any more, the newest one is.
    assert call(api, "GET", made["client_id"], lost["registration_access_token"]).status_code == 401
    newest = again.json()["registration_access_token"]
    assert call(api, "GET", made["client_id"], newest).status_code == 200
    assert call(api, "GET", made["client_id"], made["registration_access_token"]).status_code == 401


def test_an_update_repeats_who_it_is_and_keeps_its_secret(api: Client) -> None:
    made = register(api, token_endpoint_auth_method="client_secret_post")
    refused = put(api, made, client_id="another")
    assert refused.json()["error"] == "invalid_client_metadata"
    assert put(api, made, client_secret="chosen").status_code == 400
    kept = put(api, made, client_secret=made["client_secret"], client_name="Renamed")
    assert kept.status_code == 200
    assert "client_secret" not in kept.json()
    body = {"client_id": made["client_id"], "client_secret": made["client_secret"], "token": "x"}
    assert flows.form_request(api, "/oauth/revoke", None, **body).status_code == 200
    public = put(api, kept.json(), token_endpoint_auth_method="none")
    assert flows.form_request(api, "/oauth/revoke", None, **body).status_code == 401
    secret = put(api, public.json(), token_endpoint_auth_method="client_secret_post").json()
    assert secret["client_secret"] != made["client_secret"]
    assert secret["client_secret_expires_at"] == 0


@pytest.mark.parametrize("uri", ["javascript:alert(1)", f"{BASE}/connect/callback", "http://x.y/"])
def test_an_update_is_checked_like_a_registration(api: Client, uri: str) -> None:
    made = register(api)
    assert put(api, made, redirect_uris=[uri]).json()["error"] == "invalid_redirect_uri"
    assert OAuthClient.objects.get().redirect_uris == CALLBACK


def test_an_update_cannot_leave_the_policy_or_keep_an_approval(api: Client) -> None:
    made = register(api)
    review_client(OAuthClient.objects.get(), True, actor=None)
    set_policy({"registration": "hosts", "allowed_hosts": ["client.example"]}, actor=None)
    assert put(api, made, redirect_uris=["https://evil.example/"]).status_code == 400
    assert put(api, made, redirect_uris=[OTHER]).status_code == 200
    assert OAuthClient.objects.get().review == "waiting"


def test_a_removed_client_is_gone_with_its_tokens(api: Client, session: Any) -> None:
    made = register(api)
    OAuthClient.objects.filter(client_id=made["client_id"]).delete()
    client = OAuthClient.objects.get()
    given = flows.refresh(api, session.client_id, session.tokens["refresh_token"]).json()
    client.registration_token = OAuthClient(registration_token="").registration_token
    client.save()
    assert call(api, "DELETE", client.client_id, "").status_code == 401
    fresh = register(api)
    removed = call(api, "DELETE", fresh["client_id"], fresh["registration_access_token"])
    assert (removed.status_code, removed.content) == (204, b"")
    gone = call(api, "GET", fresh["client_id"], fresh["registration_access_token"])
    assert gone.status_code == 401
    assert flows.refresh(api, session.client_id, given["refresh_token"]).status_code == 200


def test_other_methods_are_405(api: Client) -> None:
    made = register(api)
    refused = call(api, "POST", made["client_id"], made["registration_access_token"], "{}")
    assert (refused.status_code, refused["Allow"]) == (405, "GET, PUT, DELETE")


def test_only_what_nobody_uses_expires_and_each_use_starts_the_time_anew(api: Client) -> None:
    for _ in range(3):
        register(api)
    old, seen, waiting = OAuthClient.objects.order_by("pk")
    OAuthClient.objects.update(created=timezone.now() - timedelta(days=2))
    seen.refresh_from_db()
    note_seen(seen)
    OAuthClient.objects.filter(pk=waiting.pk).update(review="waiting")
    remove_expired()
    assert set(OAuthClient.objects.values_list("pk", flat=True)) == {seen.pk, waiting.pk}
    OAuthClient.objects.update(last_used_at=timezone.now() - timedelta(days=31))
    remove_expired()
    assert not OAuthClient.objects.exists()
    assert old.pk


def test_an_unused_client_is_forgotten_only_when_an_administrator_says_so(
    api: Client, session: Any, told: list[dict[str, Any]]
) -> None:
    long_ago = timezone.now() - timedelta(days=400)
    unused = OAuthClient.objects.get(client_id=register(api)["client_id"])
    OAuthClient.objects.update(created=long_ago, last_used_at=long_ago, approved_at=long_ago)
    remove_expired()
    assert OAuthClient.objects.count() == 2
    set_policy({"forget_after_days": 365}, actor=None)
    remove_expired()
    # The other one holds a live refresh token.
    assert not OAuthClient.objects.filter(pk=unused.pk).exists()
    assert OAuthClient.objects.filter(client_id=session.client_id).exists()
    forgotten = [event["target"] for event in told if event["kind"] == "client.forgotten"]
    assert forgotten == [unused.client_id]


def test_a_client_that_was_refused_or_switched_off_is_never_forgotten(
    browser: Client, api: Client, host: DocumentHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "MOST_UNAPPROVED", 0)
    set_policy({"documents": "approval", "forget_after_days": 30}, actor=None)
    document = place(host)
    assert ask(browser, document).status_code == 403
    refused = OAuthClient.objects.get(client_id=document)
    review_client(refused, False, actor=None)
    switched_off, agreed = (
        OAuthClient.objects.get(client_id=register(api)["client_id"]) for _ in range(2)
    )
    long_ago = timezone.now() - timedelta(days=400)
    OAuthClient.objects.filter(pk=agreed.pk).update(approved_at=long_ago)
    for client in (switched_off, agreed):
        set_client_enabled(client, False, actor=None)
    OAuthClient.objects.update(created=long_ago, last_used_at=long_ago)
    remove_expired()
    assert OAuthClient.objects.count() == 3
    # The document's client does not come back as if nobody had decided.
    assert ask(browser, document).status_code == 400


def test_a_flood_of_registrations_leaves_a_bounded_number_of_rows(
    api: Client, session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "MOST_UNAPPROVED", 3)
    for _ in range(6):
        newest = register(api)["client_id"]
    remove_expired()
    kept = set(OAuthClient.objects.values_list("client_id", flat=True))
    assert len(kept) == 4
    assert {newest, session.client_id} < kept


def test_addresses_of_one_ipv6_network_count_as_one(
    api: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_limits, "REGISTRATIONS", request_limits.Limit("r", 2, 9, 100))
    document = {"redirect_uris": [CALLBACK]}

    def sent(address: str) -> int:
        kind = "application/json"
        return api.post(
            "/oauth/register", document, content_type=kind, REMOTE_ADDR=address
        ).status_code

    assert [sent(f"2001:db8::{n}") for n in range(1, 4)] == [201, 201, 429]
    assert sent("2001:db8:0:1::1") == 201
