"""The authorization endpoint: who is answered where, and that only a person says yes."""

from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.auth.models import User
from django.core import signing
from django.test import Client
from oauth2_provider.models import Grant

from oauthserver import approval
from oauthserver.actions import preregister_client, set_client_enabled
from oauthserver.client_review import review_client
from oauthserver.models import IssuedCode, OAuthClient
from tests.oauthserver import flows
from tests.oauthserver.addresses import BarePage
from tests.oauthserver.conftest import CALLBACK, Resources, Session, register
from tests.oauthserver.flows import BASE, OTHER_RESOURCE, RESOURCE, Pkce

OTHER = f"{CALLBACK}-other"

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.oauthserver.addresses")]


def ask(browser: Client, client: OAuthClient, **more: str | None) -> Any:
    redirect_uri = more.pop("redirect_uri", CALLBACK)
    query = flows.request_of(client.client_id, "", Pkce(), redirect_uri=redirect_uri, **more)
    return flows.open_page(browser, query)


def test_the_page_knows_everything_about_the_request(browser: Client, public: OAuthClient) -> None:
    page = ask(browser, public)
    details = page.context["details"]
    assert page.status_code == 200
    assert details.client == public
    assert (details.redirect_uri, details.redirect_host) == (CALLBACK, "client.example")
    assert details.resource.uri == RESOURCE
    assert (details.scopes, details.state) == (["mcp:tools"], "st-1")
    assert not details.verified
    assert not details.loopback_only


def test_allowing_redirects_with_code_state_and_issuer(
    browser: Client, public: OAuthClient
) -> None:
    response = flows.press(browser, ask(browser, public))
    assert response.status_code in (302, 303)
    answer = flows.answer_of(response)
    assert set(answer) == {"code", "state", "iss"}
    assert (answer["state"], answer["iss"]) == ("st-1", BASE)
    assert [details.client for details in BarePage.said_yes] == [public]
    public.refresh_from_db()
    assert public.approved_at is not None


def test_denying_says_so_with_state_and_issuer(browser: Client, public: OAuthClient) -> None:
    answer = flows.answer_of(flows.press(browser, ask(browser, public), allow=""))
    assert answer["error"] == "access_denied"
    assert (answer["state"], answer["iss"]) == ("st-1", BASE)
    assert not Grant.objects.exists()


def test_a_stranger_signs_in_first_and_comes_back(db: None, public: OAuthClient) -> None:
    response = flows.open_page(Client(), flows.request_of(public.client_id, CALLBACK, Pkce()))
    assert response.status_code == 302
    assert response["Location"].startswith("/accounts/login/?next=/oauth/authorize%3F")


@pytest.mark.parametrize("signed_in", [True, False])
def test_prompt_none_is_answered_without_a_page(
    browser: Client, public: OAuthClient, signed_in: bool
) -> None:
    flows.press(browser, ask(browser, public))
    who = browser if signed_in else Client()
    answer = flows.answer_of(ask(who, public, prompt="none"))
    assert answer["error"] == ("consent_required" if signed_in else "login_required")
    assert (answer["state"], answer["iss"]) == ("st-1", BASE)


@pytest.mark.parametrize(
    "more", [{}, {"response_type": "token"}, {"code_challenge": None}, {"prompt": "none login"}]
)
def test_nobody_is_led_on_to_a_client_that_only_registered_itself(
    browser: Client, public: OAuthClient, more: dict[str, str | None]
) -> None:
    page = ask(Client(), public, **{"prompt": "none", **more})
    assert page.status_code == 400
    assert "Location" not in page
    assert "nobody here has approved this client" in page.content.decode()
    # Whoever is signed in is answered as ever, and so is everybody once the client is approved.
    assert "error" in flows.answer_of(ask(browser, public, **{"prompt": "none", **more}))
    review_client(public, True, actor=None)
    assert "error" in flows.answer_of(ask(Client(), public, **{"prompt": "none", **more}))


def test_a_client_that_an_administrator_registered_is_told_that_nobody_is_signed_in(
    db: None,
) -> None:
    made, _ = preregister_client(
        name="Ours", redirect_uris_allowed=[CALLBACK], confidential=False, actor=None
    )
    assert flows.answer_of(ask(Client(), made, prompt="none"))["error"] == "login_required"


@pytest.mark.parametrize("client_id", [None, "", "unknown", "x" * 3000, "a\x00b"])
def test_an_unknown_client_is_told_here_and_never_redirected(
    browser: Client, public: OAuthClient, client_id: str | None
) -> None:
    response = ask(browser, public, client_id=client_id)
    assert response.status_code == 400
    assert "Location" not in response
    assert "add it" in response.content.decode()


@pytest.mark.parametrize(
    "redirect_uri",
    [
        CALLBACK + "/",
        CALLBACK + "?a=1",
        CALLBACK + "#",
        CALLBACK.replace("callback", "Callback"),
        "https://client.example:444/callback",
        "https://client.example/%63allback",
        "https://client.example/x/../callback",
        "https://client.example.evil.example/callback",
        "https://client.example@evil.example/callback",
        "http://client.example/callback",
        "javascript:alert(1)",
        "//client.example/callback",
        "/callback",
        " " + CALLBACK,
    ],
)
@pytest.mark.parametrize("prompt", [None, "none"])
def test_a_redirect_uri_that_is_not_registered_is_told_here(
    browser: Client, public: OAuthClient, redirect_uri: str, prompt: str | None
) -> None:
    response = ask(browser, public, redirect_uri=redirect_uri, prompt=prompt)
    assert response.status_code == 400
    assert "Location" not in response


@pytest.mark.parametrize(
    ("registered", "asked", "allowed"),
    [
        ("http://127.0.0.1/callback", "http://127.0.0.1:4567/callback", True),
        ("http://127.0.0.1:33418/", "http://127.0.0.1:50000", True),
        ("http://127.0.0.1:33418", "http://127.0.0.1:50000/", True),
        ("http://localhost/callback", "http://localhost:3118/callback", True),
        ("http://[::1]/callback", "http://[::1]:3118/callback", True),
        ("http://localhost:3118/callback", "http://localhost/callback", True),
        ("http://127.0.0.1/callback", "http://localhost:4567/callback", False),
        ("http://localhost/callback", "http://127.0.0.1:4567/callback", False),
        ("http://127.0.0.1/callback", "http://127.0.0.1:4567/other", False),
        ("http://127.0.0.1/callback", "http://127.0.0.1:4567/callback?x=1", False),
        ("http://127.0.0.1/callback", "http://127.0.0.1:4567/callback/", False),
        ("http://127.0.0.1/callback", "https://127.0.0.1:4567/callback", False),
        ("http://127.0.0.1/callback", "http://127.0.0.1:99999/callback", False),
        ("http://127.0.0.1/callback", "http://127.0.0.1:0/callback", False),
        ("http://127.0.0.1/callback", "http://evil@127.0.0.1:1/callback", False),
        # The gateway itself is on loopback in development.
        ("http://localhost/connect/callback", "http://localhost:8000/connect/callback", False),
        ("http://127.0.0.1/connect/callback", "http://127.0.0.1:8000/connect/callback", False),
        ("https://a.example:444/cb", "https://a.example:445/cb", False),
        (
            "cursor://anysphere.cursor-mcp/oauth/callback",
            "cursor://anysphere.cursor-mcp/oauth/callback",
            True,
        ),
    ],
)
def test_only_the_port_of_a_loopback_redirect_may_differ(
    browser: Client, api: Client, registered: str, asked: str, allowed: bool
) -> None:
    client_id = register(api, redirect_uris=[registered])["client_id"]
    page = flows.open_page(browser, flows.request_of(client_id, asked, Pkce()))
    if not allowed:
        assert page.status_code == 400
        return
    response = flows.press(browser, page)
    assert response.status_code == 302
    assert response["Location"].startswith(asked + "?")


def test_a_registered_query_is_kept_as_it_is(browser: Client, api: Client) -> None:
    uri = "https://client.example/cb?tenant=%C3%BC+x&b="
    client_id = register(api, redirect_uris=[uri])["client_id"]
    page = flows.open_page(browser, flows.request_of(client_id, uri, Pkce()))
    assert flows.press(browser, page)["Location"].startswith(uri + "&code=")


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"response_type": None}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": "code id_token"}, "unsupported_response_type"),
        ({"response_type": "none"}, "unsupported_response_type"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"response_mode": "form_post"}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": "s256"}, "invalid_request"),
        ({"code_challenge_method": "S512"}, "invalid_request"),
        ({"code_challenge": "a" * 42}, "invalid_request"),
        ({"code_challenge": "a" * 129}, "invalid_request"),
        ({"code_challenge": "a" * 42 + "="}, "invalid_request"),
        ({"request": "eyJ"}, "request_not_supported"),
        ({"request": ""}, "request_not_supported"),
        ({"request_uri": "http://169.254.169.254/"}, "request_uri_not_supported"),
        ({"resource": ""}, "invalid_target"),
        ({"resource": f"{BASE}/v1/mcp/unknown"}, "invalid_target"),
        ({"resource": f"{BASE}/v1/mcp/TOOLS"}, "invalid_target"),
        ({"resource": f"{BASE}/v1/mcp/x/../tools"}, "invalid_target"),
        ({"resource": f"{RESOURCE}#f"}, "invalid_target"),
        ({"resource": f"{RESOURCE}?a=1"}, "invalid_target"),
        ({"resource": f"{RESOURCE}//"}, "invalid_target"),
        ({"resource": "https://localhost:8000/v1/mcp/tools"}, "invalid_target"),
        ({"resource": "https://evil.example/v1/mcp/tools"}, "invalid_target"),
        ({"resource": BASE}, "invalid_target"),
        ({"resource": "x" * 4000}, "invalid_target"),
        ({"prompt": "none login"}, "invalid_request"),
        ({"nonce": "n" * 300}, "invalid_request"),
    ],
)
def test_other_mistakes_go_to_the_client_with_state_and_issuer(
    browser: Client, public: OAuthClient, more: dict[str, str | None], error: str
) -> None:
    response = ask(browser, public, **more)
    answer = flows.answer_of(response)
    assert set(answer) == {"error", "error_description", "state", "iss"}
    assert (answer["error"], answer["state"], answer["iss"]) == (error, "st-1", BASE)
    assert not Grant.objects.exists()


@pytest.mark.parametrize("more", [{"code_challenge": None}, {"code_challenge_method": "plain"}])
def test_a_client_with_a_secret_needs_pkce_as_well(
    browser: Client, api: Client, more: dict[str, str | None]
) -> None:
    """(d3)"""
    method = "client_secret_basic"
    client_id = register(api, token_endpoint_auth_method=method)["client_id"]
    answer = flows.answer_of(ask(browser, OAuthClient.objects.get(client_id=client_id), **more))
    assert (answer["error"], answer["iss"]) == ("invalid_request", BASE)
    assert not Grant.objects.exists()


def test_two_resources_are_refused(browser: Client, public: OAuthClient) -> None:
    query = flows.request_of(public.client_id, CALLBACK, Pkce())
    answer = flows.answer_of(
        flows.open_page(browser, f"{query}&{urlencode({'resource': OTHER_RESOURCE})}")
    )
    assert answer["error"] == "invalid_target"


def test_a_trailing_slash_names_the_same_resource(browser: Client, public: OAuthClient) -> None:
    page = ask(browser, public, resource=RESOURCE + "/")
    assert page.context["details"].resource.uri == RESOURCE


def test_a_person_who_may_not_use_the_resource_is_denied(
    browser: Client, public: OAuthClient, resources: Resources
) -> None:
    resources.barred.add(("alice", RESOURCE))
    assert flows.answer_of(ask(browser, public))["error"] == "access_denied"


@pytest.mark.parametrize(
    "name", ["client_id", "redirect_uri", "scope", "state", "code_challenge", "prompt", "x"]
)
def test_a_parameter_that_is_there_twice_is_told_here(
    browser: Client, public: OAuthClient, name: str
) -> None:
    query = flows.request_of(public.client_id, CALLBACK, Pkce(), scope="a", prompt="login", x="1")
    response = flows.open_page(browser, f"{query}&{name}=again")
    assert response.status_code == 400
    assert "Location" not in response


@pytest.mark.parametrize(
    "state", [None, "", 'q"uote', "<script>", "&code=x", "\r\nSet-Cookie: a=b", "ü", "a" * 4000]
)
def test_the_state_comes_back_once_and_encoded(
    browser: Client, public: OAuthClient, state: str | None
) -> None:
    response = flows.press(browser, ask(browser, public, state=state))
    assert "\n" not in response["Location"]
    assert flows.answer_of(response).get("state", "") == (state or "")
    assert flows.answer_of(response)["code"].startswith("mcpgw_ac_")


@pytest.mark.parametrize(("size", "status"), [(4001, 400), (100_000, 414)])
def test_a_request_that_is_too_long_is_told_here(
    browser: Client, public: OAuthClient, size: int, status: int
) -> None:
    response = ask(browser, public, state="a" * size)
    assert response.status_code == status
    assert "Location" not in response


@pytest.mark.parametrize("query", ["client_id=%ff", "&".join(f"a{i}=1" for i in range(200))])
def test_a_malformed_query_is_told_here(browser: Client, query: str) -> None:
    assert flows.open_page(browser, query).status_code == 400


@pytest.mark.parametrize(
    "more",
    [
        {"approval_prompt": "auto"},
        {"prompt": "consent"},
        {"login_hint": "alice@example.com"},
        {"id_token_hint": "eyJ"},
        {"max_age": "86400"},
        {"skip": "1"},
    ],
)
@pytest.mark.parametrize(
    "unlike",
    [{}, {"resource": OTHER_RESOURCE}, {"redirect_uri": OTHER}, {"scope": "offline_access"}],
)
def test_nothing_a_client_sends_skips_the_page(
    browser: Client, session: Session, more: dict[str, str], unlike: dict[str, str]
) -> None:
    OAuthClient.objects.update(redirect_uris=f"{CALLBACK} {OTHER}")
    codes = IssuedCode.objects.count()
    query = flows.request_of(session.client_id, CALLBACK, Pkce(), **more, **unlike)
    assert flows.open_page(browser, query).status_code == 200
    assert IssuedCode.objects.count() == codes


def test_not_even_a_client_that_the_library_would_trust(
    browser: Client, public: OAuthClient
) -> None:
    OAuthClient.objects.update(skip_authorization=True)
    assert ask(browser, public).status_code == 200


@pytest.mark.parametrize("method", ["put", "patch", "delete", "head", "options"])
def test_other_methods_are_not_allowed(browser: Client, public: OAuthClient, method: str) -> None:
    query = flows.request_of(public.client_id, CALLBACK, Pkce())
    assert getattr(browser, method)(f"/oauth/authorize?{query}").status_code == 405


def test_a_post_from_another_site_is_refused(public: OAuthClient, alice: User) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(alice, "django.contrib.auth.backends.ModelBackend")
    page = ask(strict, public)
    response = flows.press(strict, page)
    assert response.status_code == 403
    assert not Grant.objects.exists()


def test_an_approval_counts_once(browser: Client, public: OAuthClient) -> None:
    page = ask(browser, public)
    assert flows.press(browser, page).status_code == 302
    again = flows.press(browser, page)
    assert again.status_code == 400
    assert Grant.objects.count() == 1


def test_two_tabs_both_finish(browser: Client, public: OAuthClient) -> None:
    pages = [ask(browser, public, state=state) for state in ("one", "two")]
    answers = [flows.answer_of(flows.press(browser, page)) for page in reversed(pages)]
    assert [answer["state"] for answer in answers] == ["two", "one"]


def test_an_approval_is_for_its_own_request(browser: Client, public: OAuthClient) -> None:
    page, other = ask(browser, public), ask(browser, public, resource=OTHER_RESOURCE)
    response = browser.post(
        other.context["form_action"], {"transaction": page.context["transaction"], "allow": "1"}
    )
    assert response.status_code == 400
    assert not Grant.objects.exists()


def test_an_approval_is_for_its_own_browser(
    browser: Client, public: OAuthClient, alice: User
) -> None:
    page = ask(browser, public)
    elsewhere = Client()
    elsewhere.force_login(alice, "django.contrib.auth.backends.ModelBackend")
    assert flows.press(elsewhere, page).status_code == 400


def test_an_approval_is_for_the_person_who_saw_the_page(
    browser: Client, public: OAuthClient, bob: User
) -> None:
    page = ask(browser, public)
    browser.force_login(bob, "django.contrib.auth.backends.ModelBackend")
    assert flows.press(browser, page).status_code == 400
    assert not Grant.objects.exists()


def test_an_approval_is_good_for_ten_minutes(
    browser: Client, public: OAuthClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = ask(browser, public)
    now = signing.time.time
    with monkeypatch.context() as later:
        later.setattr(signing.time, "time", lambda: now() + approval.LIFETIME_SECONDS + 1)
        late = flows.press(browser, page)
    assert late.status_code == 400
    assert flows.press(browser, page).status_code == 302


@pytest.mark.parametrize("forged", ["", "x", "a:b:c", "x" * 5000])
def test_a_forged_approval_is_refused(browser: Client, public: OAuthClient, forged: str) -> None:
    page = ask(browser, public)
    response = browser.post(page.context["form_action"], {"transaction": forged, "allow": "1"})
    assert response.status_code == 400


def test_the_page_can_say_not_yet(browser: Client, public: OAuthClient) -> None:
    BarePage.not_yet = "Connect Linear first."
    page = ask(browser, public)
    assert page.context["refusal"] == "Connect Linear first."
    assert flows.press(browser, page).status_code == 409
    assert not Grant.objects.exists()
    assert BarePage.said_yes == []


def test_without_a_resource_the_person_picks(browser: Client, public: OAuthClient) -> None:
    page = ask(browser, public, resource=None)
    assert [choice.slug for choice in page.context["details"].choices] == ["tools", "other"]
    assert page.context["details"].resource is None
    assert page.context["refusal"]
    assert flows.press(browser, page).status_code == 400
    page = ask(browser, public, resource=None)
    assert flows.press(browser, page, resource=f"{BASE}/v1/mcp/unknown").status_code == 400
    page = ask(browser, public, resource=None)
    flows.answer_of(flows.press(browser, page, resource=OTHER_RESOURCE))
    assert Grant.objects.get().resource == [OTHER_RESOURCE]


def test_without_a_resource_the_only_one_is_taken(
    browser: Client, public: OAuthClient, resources: Resources
) -> None:
    resources.barred.add(("alice", RESOURCE))
    page = ask(browser, public, resource=None)
    assert page.context["details"].resource.uri == OTHER_RESOURCE
    flows.answer_of(flows.press(browser, page))
    assert Grant.objects.get().resource == [OTHER_RESOURCE]


def test_a_person_without_any_resource_is_denied(
    browser: Client, public: OAuthClient, resources: Resources
) -> None:
    resources.known.clear()
    assert flows.answer_of(ask(browser, public, resource=None))["error"] == "access_denied"


def test_a_client_that_was_switched_off_is_unknown(browser: Client, public: OAuthClient) -> None:
    set_client_enabled(public, False, actor=None)
    assert ask(browser, public).status_code == 400


def test_every_answer_keeps_to_itself(browser: Client, public: OAuthClient) -> None:
    page = ask(browser, public)
    answers = [page, flows.press(browser, page), ask(browser, public, client_id="x")]
    for answer in answers:
        assert answer["Cache-Control"] == "no-store"
        assert answer["Referrer-Policy"] == "no-referrer"
        assert answer["X-Frame-Options"] == "DENY"
        assert "Access-Control-Allow-Origin" not in answer


def test_a_loopback_only_client_is_recognised(browser: Client, api: Client) -> None:
    client_id = register(api, redirect_uris=["http://localhost/cb", "http://127.0.0.1/cb"])
    query = flows.request_of(client_id["client_id"], "http://localhost:5000/cb", Pkce())
    details = flows.open_page(browser, query).context["details"]
    assert details.loopback_only
    assert details.redirect_host == "localhost:5000"
