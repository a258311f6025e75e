"""Every security-relevant fact is written once, in words, without secrets."""

import asyncio
import logging
import re
from pathlib import Path

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP
from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import transaction

from gateway_site import audit_trail
from gateway_site.audit_kinds import KINDS
from gateway_site.models import AuditEvent
from tests.fakes.openid_provider import OpenIdProvider
from tests.gateway_site.arriving import arrive, browser, configured
from upstreams.signals import audit

ROOMS = ("gateway_site", "consent", "virtualmcp", "upstreams", "oauthserver")


def test_what_a_room_reports_is_kept_with_who_and_where(db):
    ada = User.objects.create_user("ada")
    audit.send(
        sender=None,
        kind="account.connected",
        user=ada,
        target="board",
        details={"scope": "tickets"},
        address="192.0.2.7",
    )
    event = AuditEvent.objects.get(kind="account.connected")
    assert (event.actor, event.user_id, event.target) == ("ada", ada.pk, "board")
    assert (event.address, event.details) == ("192.0.2.7", {"scope": "tickets"})


def test_an_event_is_never_changed(db):
    audit_trail.record("site.changed")
    event = AuditEvent.objects.get()
    event.target = "something else"
    with pytest.raises(PermissionDenied):
        event.save()


def test_line_breaks_and_terminal_codes_do_not_forge_lines(db, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("gateway.audit"), "propagate", True)
    audit_trail.record(
        "site.changed", target="a\r\n2026 INFO forged\x1b[31m", details={"n\n": "v\n"}
    )
    event = AuditEvent.objects.get()
    assert event.target == "a\\x0d\\x0a2026 INFO forged\\x1b[31m"
    assert event.details == {"n\\x0a": "v\\x0a"}


def test_values_under_telling_names_are_dropped(db):
    secrets = {"client_secret": "s3cr3t-value", "nested": {"access_token": "t0ken-value"}}
    audit_trail.record("client.changed", target="Bearer abcdef123456", details=secrets)
    event = AuditEvent.objects.get()
    stored = f"{event.details} {event.target}"
    assert "s3cr3t-value" not in stored
    assert "t0ken-value" not in stored
    assert "abcdef123456" not in stored


def test_a_change_that_is_rolled_back_leaves_no_event(transactional_db):
    with pytest.raises(RuntimeError), transaction.atomic():
        audit_trail.record("site.changed")
        raise RuntimeError
    assert not AuditEvent.objects.exists()


async def test_an_event_from_an_event_loop_is_written(transactional_db):
    audit_trail.record("site.changed", target="from a loop")
    await asyncio.gather(*audit_trail._pending)
    assert await AuditEvent.objects.filter(target="from a loop").aexists()


def test_sign_ins_are_kept(db, client):
    User.objects.create_user("ada", password="correct horse battery")
    client.post("/accounts/login/", {"login": "ada", "password": "wrong horse battery"})
    client.post("/accounts/login/", {"login": "ada", "password": "correct horse battery"})
    client.post("/accounts/logout/")
    kinds = list(AuditEvent.objects.order_by("pk").values_list("kind", flat=True))
    assert kinds == ["person.sign_in_failed", "person.signed_in", "person.signed_out"]
    assert signed_in_by() == [{"how": "password"}]


def signed_in_by() -> list[dict[str, str]]:
    """Return by what people came in, the earliest first."""
    events = AuditEvent.objects.filter(kind="person.signed_in").order_by("pk")
    return list(events.values_list("details", flat=True))


def test_a_sign_in_is_kept_with_the_provider_that_vouched_for_it(db):
    claims = {"email": "ada@contoso.com", "email_verified": True}
    with OpenIdProvider(claims=claims).serve() as provider:
        configured(provider)
        configured(provider, "partners")
        client = browser()
        arrive(client, provider)
        arrive(client, provider, "partners")
        assert signed_in_by() == [
            {"how": "identity provider", "provider": "company"},
            {"how": "identity provider", "provider": "partners"},
        ]


def test_a_sign_in_is_kept_with_its_second_factor(db, client):
    ada = User.objects.create_user("ada", password="correct horse battery")
    RecoveryCodes.activate(ada)
    TOTP.activate(ada, "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP")
    codes = RecoveryCodes(Authenticator.objects.get(type="recovery_codes")).get_unused_codes()
    form = {"login": "ada", "password": "correct horse battery"}
    for code in codes[:2]:
        sent = client.post("/accounts/login/", form).headers["Location"]
        client.post(sent, {"code": code})
        client.post("/accounts/logout/")
    assert signed_in_by() == [{"how": "password", "second_factor": "recovery_codes"}] * 2
    trail = str(list(AuditEvent.objects.values()))
    assert not [code for code in codes if code in trail]


def test_a_password_typed_as_a_name_is_not_kept(db, client):
    client.post("/accounts/login/", {"login": "my-secret-password", "password": "x"})
    assert AuditEvent.objects.get().target == "an unknown name"


KIND = re.compile(
    r'"((?:person|group|identity_provider|client|consent|token|upstream|account|vault|virtual_mcp'
    r"|site|configuration|definition|scim|name|sampling)\.[a-z_]+)\""
)
# Names of permissions, modules, models and SCIM attributes look alike.
NOT_KINDS = re.compile(
    r"\.(urls|admin|signals|models|consentrecord|(add|change|delete|view)_[a-z]+|(given|family)name)$"
)


def kinds_in_code() -> set[str]:
    found: set[str] = set()
    for room in ROOMS:
        for file in (Path(settings.BASE_DIR) / room).rglob("*.py"):
            if file.name != "audit_kinds.py":
                found |= set(KIND.findall(file.read_text()))
    return {kind for kind in found if not NOT_KINDS.search(kind)}


def test_every_kind_has_a_sentence_and_every_sentence_a_kind():
    assert kinds_in_code() == set(KINDS)
