"""What administrators do to upstreams, and what must not leak or go elsewhere by it."""

import asyncio
import base64
import os
from io import StringIO
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command

from tests.upstreams.connecting import (
    account_of,
    browser_of,
    connect,
    facts_of,
    person,
    upstream_at,
)
from upstreams import accounts, actions, credentials, key_rotation, sealed_secrets
from upstreams.errors import NeedsConnection, SetupFailed
from upstreams.models import CredentialKind, Upstream, UpstreamAccount, UpstreamClient
from upstreams.signals import audit, changed

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def heard():
    """Every signal of the room: (kind, details or key)."""
    found: list[tuple[str, Any]] = []

    def on_audit(sender, kind, user, target, details, address, **kwargs) -> None:
        found.append((kind, details))

    def on_change(sender, kind, key, **kwargs) -> None:
        found.append((f"changed:{kind}", key))

    audit.connect(on_audit)
    changed.connect(on_change)
    yield found
    audit.disconnect(on_audit)
    changed.disconnect(on_change)


def kinds(heard) -> list[str]:
    return [kind for kind, _ in heard]


GOOD = {"key": "linear", "title": "Linear", "url": "https://mcp.linear.app/mcp"}


def test_an_upstream_is_made_told_and_audited(heard) -> None:
    upstream = actions.create_upstream({**GOOD, "private_network": "10.0.0.0/8"}, person())
    assert upstream.pk
    assert kinds(heard) == ["upstream.created", "changed:configuration", "changed:credential"]
    assert heard[0][1]["private_network_allowed"] == "10.0.0.0/8"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("url", "http://mcp.example.com/"),
        ("url", "javascript:alert(1)"),
        ("url", "https://10.0.0.1/"),
        ("url", "https://user:pw@x.example/"),
        ("url", ""),
        ("url", "https://x.example/\n"),
        ("key", "Linear"),
        ("key", "callback"),
        ("key", "../x"),
        ("private_network", "everything"),
        ("private_network", "0.0.0.0/0"),
        ("private_network", "::/0"),
        ("credential_prefix", "Bearer\r\n"),
        ("oauth_issuer", "file:///x"),
        ("oauth_allowed_hosts", "x.example"),
        ("oauth_allowed_hosts", ["https://x.example/"]),
        ("oauth_extra_authorize_parameters", ["x"]),
        ("oauth_extra_authorize_parameters", {"a": {"b": 1}}),
        ("call_timeout", 0),
        ("call_timeout", 601),
        ("list_timeout", 31),
        ("credential_kind", "stdio"),
    ],
)
def test_what_cannot_work_or_reaches_inside_is_refused_at_its_field(
    settings, field: str, value: Any
) -> None:
    settings.GATEWAY_ALLOW_LOOPBACK_UPSTREAMS = False
    with pytest.raises(ValidationError) as error:
        actions.create_upstream({**GOOD, field: value}, None)
    assert field in error.value.message_dict
    assert not Upstream.objects.exists()


def test_a_field_that_does_not_exist_is_refused() -> None:
    for name in ("command", "sealed_fixed_credential", "pk", "detected_era"):
        with pytest.raises(ValidationError):
            actions.create_upstream({**GOOD, name: "x"}, None)


def test_an_upstream_inside_may_be_named_without_a_domain() -> None:
    actions.create_upstream(
        {**GOOD, "url": "http://jira-mcp:8000/mcp", "private_network": "172.18.0.0/16"}, None
    )


def test_a_change_that_changes_nothing_is_no_change(heard) -> None:
    upstream = actions.create_upstream(GOOD, None)
    heard.clear()
    actions.update_upstream(upstream, {"title": "Linear"}, None)
    assert heard == []


# #152: a change of place never takes secrets along.


@pytest.mark.parametrize(
    "change",
    [
        {"url": "https://evil.example/mcp"},
        {"url": "{origin}:1/mcp"},
        {"oauth_client_id": "other"},
        {"oauth_issuer": "https://evil.example"},
        {"credential_kind": CredentialKind.USER_KEY},
    ],
)
def test_152_accounts_end_where_the_server_or_client_changes(
    server, protected, heard, change
) -> None:
    alice, upstream = person(), upstream_at(protected.url)
    connect(browser_of(alice), upstream)
    facts = facts_of(upstream)
    asyncio.run(credentials.credential_for(alice.pk, facts))
    data = {
        name: value.replace("{origin}", "http://127.0.0.1") if isinstance(value, str) else value
        for name, value in change.items()
    }
    actions.update_upstream(upstream, data, alice)
    assert not UpstreamAccount.objects.exists()
    assert credentials.cached_credential(alice.pk, facts) is None
    with pytest.raises(NeedsConnection):
        asyncio.run(credentials.credential_for(alice.pk, facts_of(upstream)))
    assert "account.all_disconnected" in kinds(heard)


def test_152_a_row_changed_behind_our_back_sends_nothing_either(server, protected) -> None:
    alice, upstream = person(), upstream_at(protected.url)
    connect(browser_of(alice), upstream)
    Upstream.objects.update(url="https://evil.example/mcp")
    with pytest.raises(NeedsConnection):
        asyncio.run(credentials.credential_for(alice.pk, facts_of(upstream)))
    assert accounts.status_for(alice, Upstream.objects.get()).state == "needs_reconnect"


def test_152_a_shared_credential_stays_with_its_server() -> None:
    upstream = upstream_at("https://a.example/mcp", credential_kind=CredentialKind.FIXED)
    actions.set_fixed_credential(upstream, "sk-1", None)
    Upstream.objects.update(url="https://evil.example/mcp")
    with pytest.raises(SetupFailed):
        asyncio.run(credentials.credential_for(1, facts_of(upstream)))
    Upstream.objects.update(url="https://a.example/mcp")
    actions.update_upstream(Upstream.objects.get(), {"url": "https://evil.example/mcp"}, None)
    assert Upstream.objects.get().sealed_fixed_credential == ""


def test_another_path_of_the_same_server_keeps_what_was_given_for_all_of_it(
    server, protected
) -> None:
    alice, upstream = person(), upstream_at(protected.url)
    connect(browser_of(alice), upstream)
    actions.update_upstream(upstream, {"url": f"{protected.url}/v2"}, None)
    assert UpstreamAccount.objects.exists()
    actions.update_upstream(upstream, {"url": f"{protected.origin}/other"}, None)
    assert not UpstreamAccount.objects.exists()


def test_a_client_secret_goes_with_its_client_id() -> None:
    upstream = upstream_at("https://a.example/mcp", oauth_client_id="one")
    actions.set_oauth_client_secret(upstream, "s", None)
    actions.update_upstream(upstream, {"oauth_client_id": "two"}, None)
    assert Upstream.objects.get().sealed_oauth_client_secret == ""
    with pytest.raises(ValidationError):
        actions.set_oauth_client_secret(upstream_at("https://b.example/", key="b"), "s", None)


def test_secrets_are_in_no_event(heard) -> None:
    upstream = upstream_at(
        "https://a.example/mcp", credential_kind=CredentialKind.FIXED, oauth_client_id="one"
    )
    actions.set_fixed_credential(upstream, "canary-1", None)
    actions.set_oauth_client_secret(upstream, "canary-2", None)
    actions.set_fixed_credential(upstream, "", None)
    assert "canary" not in str(heard)
    assert "upstream.credential_removed" in kinds(heard)
    assert Upstream.objects.get().sealed_fixed_credential == ""


def test_deleting_an_upstream_takes_everything_along(server, protected, heard) -> None:
    alice, upstream = person(), upstream_at(protected.url)
    connect(browser_of(alice), upstream)
    actions.delete_upstream(upstream, alice)
    assert not UpstreamAccount.objects.exists()
    assert not UpstreamClient.objects.exists()
    assert "upstream.deleted" in kinds(heard)


# Rotation of keys (R39).


def new_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


def test_r39_everything_is_sealed_again_and_nobody_notices(server, protected, settings) -> None:
    old, new = settings.GATEWAY_ENCRYPTION_KEYS[0], new_key()
    alice, upstream = person(), upstream_at(protected.url, oauth_client_id="")
    connect(browser_of(alice), upstream)
    fixed = upstream_at("https://a.example/", key="b", credential_kind=CredentialKind.FIXED)
    actions.set_fixed_credential(fixed, "sk-1", None)
    settings.GATEWAY_ENCRYPTION_KEYS = [new, old]
    steps: list[tuple[int, int]] = []
    report = key_rotation.reseal_all(lambda done, total: steps.append((done, total)))
    assert report.resealed == len(steps) == 4
    assert steps[-1] == (4, 4)
    assert key_rotation.reseal_all().current == 4
    settings.GATEWAY_ENCRYPTION_KEYS = [new]
    credentials.forget()
    assert asyncio.run(credentials.credential_for(alice.pk, facts_of(upstream))).headers
    assert sealed_secrets.open_fixed(Upstream.objects.get(key="b")) == "sk-1"


def test_the_command_says_what_it_could_not_open(server, protected, settings) -> None:
    alice, upstream = person(), upstream_at(protected.url)
    connect(browser_of(alice), upstream)
    settings.GATEWAY_ENCRYPTION_KEYS = [new_key()]
    before = account_of(alice, upstream).sealed_secret
    with pytest.raises(CommandError, match="could not be opened"):
        call_command("rotate_encryption_key", stdout=StringIO(), stderr=StringIO())
    assert account_of(alice, upstream).sealed_secret == before
    settings.GATEWAY_ENCRYPTION_KEYS = []
    with pytest.raises(CommandError):
        call_command("rotate_encryption_key", stdout=StringIO(), stderr=StringIO())
