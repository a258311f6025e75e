"""One file sets a gateway up: all of it or nothing, and twice is the same as once."""

from io import StringIO
from pathlib import Path

import pytest
from allauth.socialaccount.models import SocialApp
from django.conf import settings
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command

from gateway_site import people_actions
from gateway_site.config_file import MOST_BYTES
from gateway_site.models import AuditEvent, SiteProfile
from oauthserver.models import OAuthClient
from oauthserver.token_values import secret_matches
from upstreams import sealed_secrets
from upstreams.models import Upstream
from virtualmcp.models import VirtualMcp

EXAMPLE = Path(settings.BASE_DIR) / "docs" / "gateway.example.yaml"
SECRETS = {
    "ADA_PASSWORD": "correct horse battery staple",
    "PAYMENTS_KEY": "payments-key-0123456789",
    "PAYMENTS_ACCOUNT": "payments-account-0123456789",
    "NEWS_CLIENT_SECRET": "news-client-secret-0123456789",
    "SIGN_IN_SECRET": "sign-in-secret-of-the-gateway",
    "SCIM_TOKEN": "a-token-of-the-directory-with-32-characters",
    "WEATHER_KEY": "weather-key-0123456789",
    "PORTAL_SECRET": "portal-secret-0123456789abcdef0123456789",
}
MINIMAL = """
upstreams:
  - {key: notes, url: "https://mcp.example.com/mcp"}
virtual_mcps:
  - {slug: team, upstreams: [notes], audience: everyone}
"""


@pytest.fixture
def secrets(monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def apply(tmp_path, db):
    def run(text: str, *options: str) -> str:
        file = tmp_path / "gateway.yaml"
        file.write_text(text)
        out = StringIO()
        call_command("gateway_apply", str(file), *options, stdout=out)
        return out.getvalue()

    return run


def refusal(apply, text: str) -> str:
    with pytest.raises(CommandError) as refused:
        apply(text)
    assert not Upstream.objects.exists()
    assert not VirtualMcp.objects.exists()
    return str(refused.value)


def test_the_example_in_the_documentation_works(apply, secrets):
    out = apply(EXAMPLE.read_text())
    assert "created   virtual mcp engineering" in out
    ada = User.objects.get(username="ada")
    assert ada.check_password(SECRETS["ADA_PASSWORD"])
    assert ada.is_superuser
    assert ada.is_staff
    assert not User.objects.get(username="grace").has_usable_password()
    engineering = VirtualMcp.objects.get(slug="engineering")
    policy = (engineering.new_definitions, engineering.changed_definitions)
    assert policy == ("trust", "hold")
    choices = [
        (c.upstream.key, c.required, c.tool_mode, c.chosen_tools) for c in engineering.choices.all()
    ]
    assert choices == [
        ("tracker", True, "all", []),
        ("handbook", False, "all", []),
        ("weather", False, "chosen", ["forecast"]),
    ]
    assert list(engineering.groups.all()) == [Group.objects.get(name="engineering")]
    assert Upstream.objects.get(key="tracker").oauth_scopes == "issues.read issues.write"
    assert SiteProfile.current().name == "Contoso tools"


def test_the_examples_secrets_are_sealed_and_open_again(apply, secrets):
    apply(EXAMPLE.read_text())
    weather = Upstream.objects.get(key="weather")
    assert SECRETS["WEATHER_KEY"] not in weather.sealed_fixed_credential
    assert sealed_secrets.open_fixed(weather) == SECRETS["WEATHER_KEY"]
    provider = SocialApp.objects.get(provider_id="contoso")
    assert provider.secret == ""
    assert SECRETS["SIGN_IN_SECRET"] not in str(provider.settings)
    assert people_actions.provider_secret(provider) == SECRETS["SIGN_IN_SECRET"]
    portal = OAuthClient.objects.get(client_id="contoso-portal")
    assert secret_matches(SECRETS["PORTAL_SECRET"], portal.client_secret)


def test_no_secret_is_printed_or_kept_in_the_audit_trail(apply, secrets):
    shown = apply(EXAMPLE.read_text()) + str(list(AuditEvent.objects.values()))
    assert not [secret for secret in SECRETS.values() if secret in shown]


def test_applying_twice_changes_nothing(apply, secrets):
    apply(EXAMPLE.read_text())
    before = AuditEvent.objects.count()
    assert apply(EXAMPLE.read_text()).startswith("0 changed")
    assert AuditEvent.objects.count() == before


def test_a_dry_run_says_what_would_change_and_changes_nothing(apply, secrets):
    out = apply(EXAMPLE.read_text(), "--dry-run")
    assert "created   upstream tracker" in out
    assert "would change" in out
    assert not Upstream.objects.exists()
    assert not User.objects.exists()
    assert not AuditEvent.objects.exists()


def test_only_what_differs_is_changed(apply):
    apply(MINIMAL)
    out = apply(MINIMAL.replace("slug: team,", "slug: team, title: The team,"))
    assert out.splitlines() == ["changed   virtual mcp team (title)", "1 changed, 1 as before."]


def test_what_the_file_does_not_name_is_left_alone(apply):
    apply(MINIMAL)
    apply("groups: [staff]")
    assert VirtualMcp.objects.filter(slug="team").exists()


def test_objects_are_removed_in_the_order_that_works(apply):
    apply(MINIMAL)
    gone = MINIMAL.replace("key: notes,", "key: notes, state: absent,")
    gone = gone.replace("slug: team,", "slug: team, state: absent,")
    out = apply(gone)
    assert "removed   upstream notes" in out
    assert not Upstream.objects.exists()


def test_an_upstream_in_use_is_not_removed(apply):
    apply(MINIMAL)
    with pytest.raises(CommandError, match="still used by the Virtual MCPs team"):
        apply("upstreams: [{key: notes, state: absent}]")
    assert Upstream.objects.filter(key="notes").exists()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("upstreams: [{key: a, ulr: x}]", "upstreams[0]: Object contains unknown field `ulr`"),
        ("upstreams: [{title: a}]", "upstreams[0]: Object missing required field `key`"),
        (
            "upstreams: [{key: a, era: old}]",
            'upstreams[0].era: Invalid enum value; give one of "auto", "legacy", "modern".',
        ),
        ("groups: [{name: a, state: gone}]", 'give one of "present", "absent".'),
        ("version: 2", "version: Invalid enum value 2"),
        ("upstreams: {key: a}", "upstreams: Expected `array`, got `object`"),
        ("upstreams: [{key: A b, url: 'https://x.example/mcp'}]", "upstreams[0].key:"),
        ("upstreams: [{key: a, url: 'ftp://x.example'}]", "upstreams[0].url:"),
        ("upstreams: [{key: a}, {key: a}]", "upstreams[1]: a is named twice"),
        ("virtual_mcps: [{slug: t, upstreams: [no]}]", "virtual_mcps[0].upstreams[0]: There is no"),
        ("virtual_mcps: [{slug: t, groups: [no]}]", "virtual_mcps[0].groups: There is no group no"),
        ("virtual_mcps: [{slug: 'Not a slug'}]", "virtual_mcps[0].slug:"),
        ("users: [{username: a, groups: [no]}]", "users[0].groups: There is no group no"),
        ("users: [{username: a, password: hunter2}]", "users[0].password: Give a secret as"),
        ("users: [{username: a, password: 'env:NOT_SET_1'}]", "NOT_SET_1 is not set"),
        ("users: [{username: a, password: 'file:nowhere'}]", "nowhere cannot be read"),
        ("clients: [{client_id: a}]", "clients[0]: Give at least one redirect URI"),
        ("clients: [{client_id: a, redirect_uris: ['javascript:x']}]", "clients[0]:"),
        ("identity_providers: [{id: a, client_id: b, server_url: 'http://x.example'}]", "url"),
        ("groups: [a, a]", "groups[1]: a is named twice"),
        ("a: b: c", "line 1"),
        ("groups: &x [a]\nusers: *x", "references"),
        ("groups: [a]\ngroups: [b]", "stands here twice"),
        ("groups: !!python/object:os.system [a]", "could not determine a constructor"),
        ("groups: " + "[" * 50 + "]" * 50, "nested too deeply"),
        ("groups: \x00", "not allowed"),
    ],
)  # fmt: skip
def test_each_mistake_is_named_with_its_place(apply, text, complaint):
    assert complaint in refusal(apply, text)


def test_all_missing_secrets_are_named_at_once(apply):
    text = "users: [{username: a, password: 'env:NO_1'}, {username: b, password: 'env:NO_2'}]"
    found = refusal(apply, text)
    assert "users[0].password" in found
    assert "users[1].password" in found


def test_a_mistake_at_the_end_undoes_what_came_before(apply):
    found = refusal(apply, MINIMAL + "clients: [{client_id: a, redirect_uris: ['no']}]")
    assert "Nothing was changed" in found


def test_a_file_that_is_too_large_is_refused(apply):
    assert "larger than" in refusal(apply, "# " + "x" * MOST_BYTES)


def test_a_weak_password_is_refused(apply, monkeypatch):
    monkeypatch.setenv("WEAK", "password")
    found = refusal(apply, "users: [{username: a, password: 'env:WEAK'}]")
    assert "users[0].password" in found


def test_a_guessable_client_secret_is_refused(apply, monkeypatch):
    monkeypatch.setenv("WEAK", "short")
    text = "clients: [{client_id: a, redirect_uris: ['https://a.example/'], secret: 'env:WEAK'}]"
    assert "clients[0].secret" in refusal(apply, text)


def test_secrets_can_come_from_files_beside_the_configuration(apply, tmp_path):
    (tmp_path / "ada.txt").write_text("correct horse battery staple\n")
    apply("users: [{username: ada, password: 'file:ada.txt'}]")
    assert User.objects.get(username="ada").check_password("correct horse battery staple")


def test_a_changed_secret_is_noticed(apply, monkeypatch):
    text = """
upstreams:
  - {key: w, url: "https://w.example/mcp", credential: fixed, secret: "env:KEY"}
"""
    monkeypatch.setenv("KEY", "first-key-1234")
    apply(text)
    monkeypatch.setenv("KEY", "second-key-5678")
    assert "changed   upstream w (secret)" in apply(text)
    assert sealed_secrets.open_fixed(Upstream.objects.get(key="w")) == "second-key-5678"


def test_a_preset_fills_in_what_the_file_does_not_say(apply) -> None:
    text = "upstreams: [{key: tasks, preset: asana, title: Our tasks}]"
    assert "created" in apply(text)
    upstream = Upstream.objects.get()
    assert upstream.url == "https://mcp.asana.com/v2/mcp"
    assert (upstream.key, upstream.title) == ("tasks", "Our tasks")
    assert upstream.credential_kind == "user_oauth"
    assert "1 as before" in apply(text)


def test_an_unknown_preset_is_refused_with_those_that_exist(apply) -> None:
    said = refusal(apply, "upstreams: [{key: tasks, preset: nothing}]")
    assert "upstreams[0].preset" in said and "asana" in said
