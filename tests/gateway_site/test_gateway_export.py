"""The configuration as a file: all of it, no secrets, and applying it changes nothing."""

import re
from io import StringIO
from pathlib import Path

import msgspec
import pytest
import yaml
from allauth.socialaccount.models import SocialAccount, SocialApp
from django.conf import settings
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command

from gateway_site import config_schema
from gateway_site.config_schema import Configuration
from gateway_site.models import AuditEvent, ScimIdentity, ScimToken, SiteProfile
from oauthserver.models import ClientPolicy, OAuthClient, ServiceAccount, TrustedIssuer
from tests.gateway_site.test_gateway_apply import EXAMPLE, SECRETS
from upstreams import sealed_secrets
from upstreams.models import Upstream
from virtualmcp.models import VirtualMcp

# Whatever the example leaves as it is by default; the two together say everything there is.
FURTHER = """
site:
  name: "Contoso: tools"
  support_contact: help@contoso.example
  openai_apps_challenge: challenge-1
  require_second_factor: true
groups: ["no", "2026-11-27", ops]
users:
  - {username: root, email: root@contoso.example, first_name: R, last_name: Oot, staff: true,
     administrator: true, active: false, groups: [ops], password: env:ADA_PASSWORD}
identity_providers:
  - {id: full, name: Full, preset: generic, server_url: "https://login.example.com",
     client_id: c, client_secret: env:SIGN_IN_SECRET, only_known_people: true,
     trust_addresses: true, scopes: [openid, groups], groups_claim: roles, groups_by_name: true,
     group_mapping: {"dev": [ops, "no"]}, allowed_domains: [contoso.example],
     allowed_groups: [staff], sign_in_domains: [contoso.example], sign_out_there: true,
     sign_out_ends_access: true, recheck_minutes: 30, sign_in_days: 7, staff_groups: [ops],
     administrator_groups: [owners]}
upstreams:
  - {key: full, title: "Full", description: "yes", url: "https://full.example.com/mcp",
     enabled: false, era: modern, session_scope: client, credential: fixed, placement: query,
     name: api_key, prefix: "k ", secret: env:WEATHER_KEY, key_help: Ask ops.,
     headers: {X-One: env:PAYMENTS_KEY},
     private_network: "10.1.0.0/16", call_timeout: 33, list_timeout: 11, max_in_flight: 7,
     max_answer_mib: 3, sampling_per_minute: 5, sampling_tokens_per_day: 9000}
  - key: signed
    url: https://signed.example.com/mcp
    credential: shared_oauth
    oauth: {issuer: "https://as.example.com", client_id: c, client_secret: env:NEWS_CLIENT_SECRET,
      auth_method: client_secret_post, scopes: [a, b], scope_delimiter: comma,
      resource: "https://signed.example.com", send_resource: false,
      authorize_parameters: {audience: x}, allowed_hosts: [as.example.com],
      allow_missing_pkce: true}
  - key: company
    url: https://company.example.com/mcp
    credential: enterprise
    enterprise: {token_url: "https://login.example.com/token", provider: full, client_id: c,
      client_secret: env:PAYMENTS_ACCOUNT, auth_method: client_secret_post,
      subject_token: refresh_token, audience: "https://as.example.com",
      audience_parameter: aud, resource_parameter: res}
virtual_mcps:
  - slug: full
    title: Full
    description: "Line one\\nline two"
    instructions: "Be kind: always. # really"
    enabled: false
    audience: everyone
    groups: [ops]
    new_tools: hold
    changed_tools: hold
    step_up: true
    ask_again: tools
    app_domains: recompute
    naming: prefixed
    argument_uris: undo
    upstreams:
      - signed
      - {upstream: full, required: false, tools: [b, a], sampling: true, roots: true,
         read_tools: [a], write_tools: [b], rerun_tools: [a]}
    access:
      - {upstream: full, tools: [a], groups: [ops]}
      - {upstream: signed, groups: []}
    names:
      - {upstream: full, tool: a, name: first}
      - {upstream: signed, prompt: b, name: second}
clients:
  - {client_id: open-one, name: Open, redirect_uris: ["https://a.example/cb"], enabled: false}
client_policy: {forget_after_days: 91}
trusted_issuers:
  - issuer: https://inside.example.com
    provider: full
    enabled: false
    person_claim: email
    tenant_claim: tenant
    sign_in_tenant_claim: org
    domains: [b.example, a.example]
    jwks: {keys: [{kty: EC, crv: P-256, kid: one, alg: ES256,
      x: "mvkFzx1BA4gif_iZcfiUGI2tC_lWc2JpSvMrATE6nz8",
    y: "KoE9QEb72py5uwDpOj_fv1l_Lnz3oFtoGhykI-aDV3Y"}]}
  - issuer: https://other.example.com
    provider: full
    jwks_uri: https://other.example.com/keys
    person_claim: oid
    tenant_claim: tid
    sign_in_claim: objectidentifier
service_accounts:
  - client_id: nightly
    name: Nightly
    virtual_mcps: [engineering]
    jwks: {keys: [{kty: EC, crv: P-256, kid: one, alg: ES256,
      x: "mvkFzx1BA4gif_iZcfiUGI2tC_lWc2JpSvMrATE6nz8",
    y: "KoE9QEb72py5uwDpOj_fv1l_Lnz3oFtoGhykI-aDV3Y"}]}
"""
# What no stored object says: how it came to be, or that it is to go.
NEVER = {"state", "preset of UpstreamEntry"}


@pytest.fixture(autouse=True)
def secrets(monkeypatch, db):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def apply(folder: Path, text: str) -> str:
    file, out = folder / "gateway.yaml", StringIO()
    file.write_text(text)
    call_command("gateway_apply", str(file), stdout=out)
    return out.getvalue()


def export(*options: str) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    call_command("gateway_export", *options, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


@pytest.fixture
def gateway(tmp_path) -> Path:
    apply(tmp_path, EXAMPLE.read_text())
    apply(tmp_path, FURTHER)
    return tmp_path


def test_applying_what_was_exported_changes_nothing(gateway):
    before = AuditEvent.objects.count()
    text, said = export()
    assert apply(gateway, text).startswith("0 changed")
    assert AuditEvent.objects.count() == before
    assert said == ""


def test_no_secret_is_in_it_and_what_is_left_out_is_named(gateway):
    text, _ = export()
    named, _ = export("--name-secrets")
    for secret in SECRETS.values():
        assert secret not in text + named
    assert "env:" not in text
    for place in (
        "user ada: password",
        "upstream weather: secret",
        "upstream full header: X-One",
        "upstream signed oauth: client_secret",
        "client contoso-portal: secret",
    ):
        assert f"#   {place}\n" in text


def test_another_gateway_becomes_the_same_by_the_references(gateway, monkeypatch):
    values = {
        "USER_ADA_PASSWORD": SECRETS["ADA_PASSWORD"],
        "USER_ROOT_PASSWORD": SECRETS["ADA_PASSWORD"],
        "UPSTREAM_FULL_SECRET": SECRETS["WEATHER_KEY"],
        "UPSTREAM_FULL_HEADER_X_ONE": SECRETS["PAYMENTS_KEY"],
    }
    text, said = export("--name-secrets")
    variables = re.findall(r"env:(\w+)", text)
    assert len(variables) == len(set(variables))
    assert all(name in said for name in variables)
    assert set(values) <= set(variables)
    for name in variables:
        monkeypatch.setenv(name, values.get(name, f"another-secret-{name}-of-32-characters"))
    for model in (VirtualMcp, Upstream, ServiceAccount, OAuthClient, SocialApp, User, Group):
        model.objects.all().delete()
    for model in (SiteProfile, ClientPolicy, ScimToken, TrustedIssuer):
        model.objects.all().delete()
    apply(gateway, text)
    assert export("--name-secrets")[0] == text
    full = Upstream.objects.get(key="full")
    assert sealed_secrets.open_fixed(full) == SECRETS["WEATHER_KEY"]
    assert OAuthClient.objects.get(client_id="contoso-portal").client_type == "confidential"


def test_everything_that_a_file_may_say_is_exported(gateway):
    """Fails for whoever adds a member to the schema until this file, and so the export, has it."""
    document = yaml.safe_load(export("--name-secrets")[0])
    found: dict[str, set[str]] = {}

    def walk(value, kind):
        if isinstance(kind, msgspec.inspect.ListType):
            for item in value:
                walk(item, kind.item_type)
        elif isinstance(kind, msgspec.inspect.UnionType):
            for one in kind.types:
                if isinstance(one, msgspec.inspect.StructType) == isinstance(value, dict):
                    walk(value, one)
        elif isinstance(kind, msgspec.inspect.StructType) and isinstance(value, dict):
            found.setdefault(kind.cls.__name__, set()).update(value)
            for field in kind.fields:
                if field.name in value:
                    walk(value[field.name], field.type)

    walk(document, msgspec.inspect.type_info(Configuration))
    missing = {
        f"{field.name} of {name}"
        for name, entry in vars(config_schema).items()
        if isinstance(entry, type) and issubclass(entry, config_schema.Entry)
        for field in msgspec.structs.fields(entry)
        if field.name not in found.get(name, set()) and field.name not in NEVER
    }
    # A group is its name alone.
    assert missing - NEVER == {"name of GroupEntry"}


def test_people_whom_a_provider_or_directory_brings_are_left_out(gateway):
    for name in ("arrived", "provisioned", "chief"):
        User.objects.create_user(name, is_staff=name == "chief")
    for name in ("arrived", "chief"):
        SocialAccount.objects.create(user=User.objects.get(username=name), provider="x", uid=name)
    ScimIdentity.objects.create(user=User.objects.get(username="provisioned"))
    text, _ = export()
    names = [user["username"] for user in yaml.safe_load(text)["users"]]
    assert names == ["ada", "chief", "grace", "root"]


def test_clients_that_came_by_themselves_are_left_out(gateway):
    OAuthClient.objects.create(
        client_id="https://chatgpt.com/x", registration_source="cimd", name="ChatGPT"
    )
    assert "chatgpt.com/x" not in export()[0]


def test_a_service_account_of_a_server_that_was_switched_off_is_as_before(gateway):
    VirtualMcp.objects.filter(slug="engineering").update(enabled=False)
    assert apply(gateway, export()[0]).startswith("0 changed")


def test_it_goes_to_a_file_or_says_why_not(gateway):
    file = gateway / "out.yaml"
    out, _ = export("--output", str(file))
    assert out == ""
    assert file.read_text() == export()[0]
    with pytest.raises(CommandError, match=r"cannot be written: No such file"):
        export("--output", str(gateway / "missing" / "out.yaml"))


def test_an_empty_gateway_exports_to_a_file_that_can_be_applied(tmp_path):
    text, _ = export()
    assert apply(tmp_path, text) == "0 changed, 0 as before.\n"
    assert settings.GATEWAY_ENCRYPTION_KEYS[0] not in text


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{upstream: a, tool: x, name: bad name}", r"names\[0\]\.name: Use 1 to 64 letters"),
        ("{upstream: b, tool: x, name: fine}", r"names\[0\]: B is not behind S"),
        ("{upstream: a, tool: x, prompt: y, name: fine}", r"names\[0\]: Say either tool or prompt"),
    ],
)
def test_a_name_that_cannot_be_given_is_refused_at_its_place_in_the_file(tmp_path, entry, said):
    text = (
        "version: 1\nupstreams:\n"
        "  - {key: a, title: A, url: 'https://a.example/mcp'}\n"
        "  - {key: b, title: B, url: 'https://b.example/mcp'}\n"
        f"virtual_mcps: [{{slug: s, title: S, upstreams: [a], names: [{entry}]}}]\n"
    )
    with pytest.raises(CommandError, match=said):
        apply(tmp_path, text)
