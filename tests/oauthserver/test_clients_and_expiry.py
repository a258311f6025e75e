"""What administrators do with clients, and what the housekeeping removes."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from oauth2_provider.models import AccessToken, Grant, RefreshToken

from oauthserver import actions, checks
from oauthserver.errors import ProtocolError
from oauthserver.expiry import remove_expired
from oauthserver.models import IssuedCode, OAuthClient, RotationAnswer, UsedAssertion
from oauthserver.signals import changed
from tests.oauthserver import flows
from tests.oauthserver.conftest import CALLBACK, Session, register
from tests.oauthserver.flows import BASE, OTHER_RESOURCE, RESOURCE, Pkce
from tests.oauthserver.test_client_authentication import attempt, basic, passed

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.oauthserver.addresses")]


def made(**more: Any) -> tuple[OAuthClient, str | None]:
    given: dict[str, Any] = {
        "name": "Ours",
        "redirect_uris_allowed": [CALLBACK],
        "confidential": True,
        "actor": None,
    }
    return actions.preregister_client(**{**given, **more})


def test_a_preregistered_client_may_send_its_secret_either_way(
    api: Client, told: list[dict[str, Any]]
) -> None:
    client, secret = made()
    assert secret is not None
    assert passed(attempt(api, basic(client.client_id, secret)))
    assert passed(attempt(api, client_id=client.client_id, client_secret=secret))
    assert not passed(attempt(api, client_id=client.client_id))
    kinds = [event["kind"] for event in told]
    assert kinds == ["client.preregistered", "client.proof_refused"]
    assert secret not in str(told)


def test_a_new_secret_replaces_the_old_one(api: Client) -> None:
    client, old = made()
    new = actions.renew_client_secret(client, actor=None)
    assert not passed(attempt(api, basic(client.client_id, str(old))))
    assert passed(attempt(api, basic(client.client_id, new)))
    public, none = made(confidential=False)
    assert none is None
    with pytest.raises(ProtocolError):
        actions.renew_client_secret(public, actor=None)


@pytest.mark.parametrize(
    "uris", [[], ["javascript:alert(1)"], ["http://x.example/"], [f"{BASE}/connect/callback"]]
)
def test_an_administrator_cannot_register_a_harmful_redirect(uris: list[str]) -> None:
    with pytest.raises(ProtocolError) as refused:
        made(redirect_uris_allowed=uris)
    assert refused.value.error == "invalid_redirect_uri"
    client, _ = made()
    with pytest.raises(ProtocolError):
        actions.change_client(client, actor=None, redirect_uris_allowed=uris)


def test_an_administrator_may_allow_a_private_scheme_exactly(browser: Client) -> None:
    uri = "com.example.app:/oauth2redirect"
    client, _ = made(redirect_uris_allowed=[uri], confidential=False)
    page = flows.open_page(browser, flows.request_of(client.client_id, uri, Pkce()))
    assert flows.press(browser, page)["Location"].startswith(f"{uri}?code=")
    near = flows.open_page(browser, flows.request_of(client.client_id, uri + "/x", Pkce()))
    assert near.status_code == 400


def test_a_client_id_is_given_once() -> None:
    made(client_id="chosen")
    with pytest.raises(ProtocolError, match="taken"):
        made(client_id="chosen")


def test_a_self_registered_client_is_not_ours_to_change(public: OAuthClient) -> None:
    with pytest.raises(ProtocolError):
        actions.change_client(public, actor=None, name="Other")


def test_tokens_can_be_ended_by_person_client_and_resource(
    browser: Client, api: Client, public: OAuthClient, alice: User, bob: User
) -> None:
    def sign_in(resource: str) -> None:
        pkce = Pkce()
        code = flows.code_for(browser, public.client_id, CALLBACK, pkce, resource=resource)
        answer = flows.redeem(api, public.client_id, CALLBACK, code, pkce, resource=resource)
        assert answer.status_code == 200

    sign_in(RESOURCE)
    sign_in(OTHER_RESOURCE)
    assert actions.revoke_tokens(actor=None, user=bob) == 0
    assert AccessToken.objects.count() == 2
    assert actions.revoke_tokens(actor=None, user=alice, client=public, resource=RESOURCE) == 2
    assert AccessToken.objects.get().resource == [OTHER_RESOURCE]
    assert RefreshToken.objects.get(revoked=None).resource == [OTHER_RESOURCE]
    assert actions.revoke_tokens(actor=None, resource=OTHER_RESOURCE) == 2
    assert not AccessToken.objects.exists()
    with pytest.raises(ValueError, match="name"):
        actions.revoke_tokens(actor=None)


def test_waiting_codes_end_with_the_tokens(
    browser: Client, api: Client, public: OAuthClient, alice: User
) -> None:
    pkce = Pkce()
    code = flows.code_for(browser, public.client_id, CALLBACK, pkce)
    actions.revoke_client_for_user(alice, public, actor=alice)
    answer = flows.redeem(api, public.client_id, CALLBACK, code, pkce)
    assert answer.json()["error"] == "invalid_grant"


def test_a_switched_off_client_can_be_switched_on_but_people_connect_anew(
    api: Client, session: Session
) -> None:
    client = OAuthClient.objects.get(client_id=session.client_id)
    actions.set_client_enabled(client, False, actor=None)
    refresh_token = session.tokens["refresh_token"]
    assert flows.refresh(api, session.client_id, refresh_token).status_code == 401
    actions.set_client_enabled(client, True, actor=None)
    dead = flows.refresh(api, session.client_id, refresh_token)
    assert (dead.status_code, dead.json()["error"]) == (400, "invalid_grant")


def test_every_end_of_tokens_is_announced(session: Session, alice: User) -> None:
    heard: list[tuple[str, str]] = []

    def hear(sender: Any, kind: str, key: str, **more: Any) -> None:
        heard.append((kind, key))

    changed.connect(hear)
    actions.revoke_tokens(actor=None, user=alice)
    changed.disconnect(hear)
    assert heard == [("token", "")]


# Housekeeping -----------------------------------------------------------------------------


def test_unapproved_registrations_go_after_a_day_and_approved_ones_stay(
    api: Client, session: Session
) -> None:
    register(api)
    assert remove_expired()["unapproved clients"] == 0
    OAuthClient.objects.update(created=timezone.now() - timedelta(days=2))
    manual, _ = made()
    OAuthClient.objects.filter(pk=manual.pk).update(
        created=timezone.now() - timedelta(days=2), approved_at=None
    )
    assert remove_expired()["unapproved clients"] == 1
    left = set(OAuthClient.objects.values_list("client_id", flat=True))
    assert left == {session.client_id, manual.client_id}


def test_what_is_alive_survives_the_housekeeping(api: Client, session: Session) -> None:
    tokens = flows.refresh(api, session.client_id, session.tokens["refresh_token"]).json()
    AccessToken.objects.update(expires=timezone.now() - timedelta(hours=1))
    RefreshToken.objects.update(created=timezone.now() - timedelta(days=29))
    remove_expired()
    assert flows.refresh(api, session.client_id, tokens["refresh_token"]).status_code == 200


def test_a_replay_is_still_recognised_after_the_housekeeping(api: Client, session: Session) -> None:
    first = session.tokens["refresh_token"]
    second = flows.refresh(api, session.client_id, first).json()["refresh_token"]
    third = flows.refresh(api, session.client_id, second).json()["refresh_token"]
    later = timezone.now() - timedelta(hours=2)
    AccessToken.objects.update(expires=later)
    RotationAnswer.objects.update(until=later)
    removed = remove_expired()
    assert removed["access tokens"] == 2
    assert removed["rotation answers"] == 2
    assert flows.refresh(api, session.client_id, first).json()["error"] == "invalid_grant"
    assert flows.refresh(api, session.client_id, third).json()["error"] == "invalid_grant"


def test_what_is_over_is_removed(browser: Client, api: Client, session: Session) -> None:
    flows.code_for(browser, session.client_id, CALLBACK, Pkce())
    flows.refresh(api, session.client_id, session.tokens["refresh_token"])
    UsedAssertion.objects.create(digest="x", until=timezone.now() - timedelta(seconds=1))
    UsedAssertion.objects.create(digest="y", until=timezone.now() + timedelta(hours=1))
    long_ago = timezone.now() - timedelta(days=61)
    Grant.objects.update(expires=long_ago)
    IssuedCode.objects.update(issued_at=long_ago)
    AccessToken.objects.update(expires=long_ago)
    RefreshToken.objects.update(created=long_ago)
    RefreshToken.objects.filter(revoked__isnull=False).update(revoked=long_ago)
    RotationAnswer.objects.update(until=long_ago)
    remove_expired()
    remove_expired()
    for model in (Grant, IssuedCode, AccessToken, RefreshToken, RotationAnswer):
        assert not model.objects.exists(), model
    assert UsedAssertion.objects.get().digest == "y"


# Checks -----------------------------------------------------------------------------------


def test_a_bad_signing_key_is_reported(settings: Any) -> None:
    settings.OIDC_RSA_PRIVATE_KEY = ""
    assert checks.check_signing_key(None) == []
    settings.OIDC_RSA_PRIVATE_KEY = "not a key"
    assert [message.id for message in checks.check_signing_key(None)] == ["oauthserver.E001"]


def test_a_bad_network_is_reported(settings: Any) -> None:
    settings.GATEWAY_SHARED_EGRESS = ["160.79.104.0/21", "2001:db8::/32"]
    assert checks.check_shared_egress(None) == []
    settings.GATEWAY_SHARED_EGRESS = ["160.79.104.1/21", "office"]
    ids = [message.id for message in checks.check_shared_egress(None)]
    assert ids == ["oauthserver.E002", "oauthserver.E002"]


# The admin --------------------------------------------------------------------------------


@pytest.fixture
def administrator(db: None) -> Client:
    browser = Client()
    user = User.objects.create_superuser("root", "root@example.com", "pw")
    browser.force_login(user, "django.contrib.auth.backends.ModelBackend")
    return browser


LIST = "/admin/oauthserver/oauthclient/"


@pytest.mark.urls("tests.oauthserver.admin_addresses")
def test_the_secret_of_a_new_client_is_shown_once(administrator: Client, api: Client) -> None:
    form = administrator.get(LIST + "add/")
    client_id = form.context["adminform"].form["client_id"].value()
    body = {
        "name": "Ours",
        "client_id": client_id,
        "redirect_uris": f"{CALLBACK}\r\nhttp://localhost/cb",
        "confidential": "on",
    }
    page = administrator.post(LIST + "add/", body)
    assert page.status_code == 200
    assert "no-store" in page["Cache-Control"]
    secret = page.context["secret"]
    assert secret in page.content.decode()
    client = OAuthClient.objects.get(client_id=client_id)
    assert client.redirect_uris == f"{CALLBACK} http://localhost/cb"
    assert passed(attempt(api, basic(client_id, secret)))
    for path in (LIST, f"{LIST}{client.pk}/change/", f"{LIST}{client.pk}/history/"):
        text = administrator.get(path).content.decode()
        assert "Ours" in text
        assert secret not in text
        assert client.client_secret not in text


@pytest.mark.urls("tests.oauthserver.admin_addresses")
def test_a_harmful_redirect_is_refused_on_the_form(administrator: Client) -> None:
    body = {"name": "x", "client_id": "x", "redirect_uris": "javascript:alert(1)"}
    page = administrator.post(LIST + "add/", body)
    assert "only https" in page.content.decode().lower()
    assert not OAuthClient.objects.exists()


@pytest.mark.urls("tests.oauthserver.admin_addresses")
def test_a_self_registered_client_can_only_be_switched(
    administrator: Client, public: OAuthClient
) -> None:
    change = f"{LIST}{public.pk}/change/"
    assert "Registered itself" in administrator.get(change).content.decode()
    administrator.post(change, {"name": "Evil", "redirect_uris": "https://evil.example/"})
    public.refresh_from_db()
    assert (public.name, public.redirect_uris) == ("Test client", CALLBACK)
    assert not public.enabled


@pytest.mark.urls("tests.oauthserver.admin_addresses")
def test_the_list_can_switch_revoke_and_renew(
    administrator: Client, api: Client, session: Session
) -> None:
    client = OAuthClient.objects.get(client_id=session.client_id)

    def act(action: str, *clients: OAuthClient) -> Any:
        body: dict[str, Any] = {"action": action, "confirmed": "yes"}
        body["_selected_action"] = [str(one.pk) for one in clients]
        return administrator.post(LIST, body, follow=True)

    assert "2 tokens ended" in act("revoke_all", client).content.decode()
    act("switch_off", client)
    client.refresh_from_db()
    assert not client.enabled
    act("switch_on", client)
    client.refresh_from_db()
    assert client.enabled
    assert "does not use a secret" in act("renew_secret", client).content.decode()
    ours, old = made()
    assert "Choose one" in act("renew_secret", client, ours).content.decode()
    page = act("renew_secret", ours)
    assert passed(attempt(api, basic(ours.client_id, page.context["secret"])))
    assert not passed(attempt(api, basic(ours.client_id, str(old))))


@pytest.mark.urls("tests.oauthserver.admin_addresses")
def test_deleting_a_client_ends_its_tokens(administrator: Client, session: Session) -> None:
    client = OAuthClient.objects.get(client_id=session.client_id)
    administrator.post(f"{LIST}{client.pk}/delete/", {"post": "yes"})
    assert not OAuthClient.objects.filter(pk=client.pk).exists()
    assert not AccessToken.objects.exists()


@pytest.mark.urls("tests.oauthserver.admin_addresses")
@pytest.mark.parametrize("model", ["accesstoken", "refreshtoken", "grant", "idtoken"])
def test_tokens_have_no_page_of_their_own(administrator: Client, model: str) -> None:
    assert administrator.get(f"/admin/oauth2_provider/{model}/").status_code == 404
