"""A whole journey with secrets of every kind, and none of them anywhere it could be read (S6)."""

import logging
import os
import subprocess
from typing import Any

import pytest
from django.apps import apps
from django.db import connection
from django.views.debug import SafeExceptionReporterFilter

from tests.fakes.authorization_server import Fault
from tests.upstreams.connecting import (
    account_of,
    approve,
    begin,
    browser_of,
    connect,
    expire,
    facts_of,
    person,
    run,
    upstream_at,
)
from upstreams import accounts, actions, client_keys, key_rotation, sealed_secrets
from upstreams.credentials import credential_for
from upstreams.errors import UpstreamError
from upstreams.models import CredentialKind, Upstream, UpstreamAccount, UpstreamClient

pytestmark = pytest.mark.django_db(transaction=True)

CANARIES = {
    "fixed": "canary-fixed-0123456789",
    "header": "canary-header-0123456789",
    "key": "canary-key-0123456789",
    "client": "canary-client-0123456789",
    "company": "canary-company-0123456789",
}
PAGES = (
    "/connections/",
    "/connect/fake/",
    "/connect/keyed/",
    "/admin/",
    "/admin/upstreams/upstream/",
    "/admin/upstreams/upstreamclient/",
    "/admin/upstreams/upstreamaccount/",
    "/admin/gateway_site/auditevent/",
    "/api/v1/upstreams/",
    "/api/v1/upstreams/fake/",
)


def configured(address: str) -> tuple[Upstream, Upstream]:
    """Enter a secret of every kind."""
    oauth = upstream_at(address, oauth_client_id="ours")
    actions.set_oauth_client_secret(oauth, CANARIES["client"], None)
    actions.set_further_headers(oauth, {"X-Extra": CANARIES["header"]}, None)
    fixed = upstream_at("https://f.example/", key="fixed", credential_kind=CredentialKind.FIXED)
    actions.set_fixed_credential(fixed, CANARIES["fixed"], None)
    keyed = upstream_at("https://k.example/", key="keyed", credential_kind=CredentialKind.USER_KEY)
    company = upstream_at(
        "https://c.example/",
        key="company",
        credential_kind=CredentialKind.ENTERPRISE,
        enterprise_token_url="https://login.example/token",
        enterprise_client_id="ours",
    )
    actions.set_enterprise_secret(company, CANARIES["company"], None)
    return oauth, keyed


def rows() -> str:
    """Everything that stands in the database."""
    found = [str(list(model._default_manager.values())) for model in apps.get_models()]
    if connection.vendor == "sqlite":
        name = str(connection.settings_dict["NAME"])
        # Not opened here: with the file a process also gives up the locks of its own connections
        # (fcntl(2)), and the next other process that has used the database deletes its log.
        files = [name + ending for ending in ("", "-wal") if os.path.exists(name + ending)]
        read = subprocess.run(["cat", *files], capture_output=True, check=True, timeout=30)
        found.append(read.stdout.decode("latin-1"))
    return "\n".join(found)


def printed() -> str:
    """What a debugger or an error report would print of the objects that hold secrets."""
    objects: list[Any] = []
    for model in (Upstream, UpstreamClient, UpstreamAccount):
        objects += list(model.objects.all())
    account = UpstreamAccount.objects.exclude(client=None).select_related("client").get()
    objects += [
        sealed_secrets.open_tokens(account, account.bound_url),
        sealed_secrets.credential_of(account.client),
        run(credential_for(account.user_id, facts_of(account.upstream))),
        SafeExceptionReporterFilter().get_safe_settings(),
    ]
    return "\n".join(f"{one!r} {one!s}" for one in objects)


def test_s6_no_secret_of_a_whole_journey_can_be_read_anywhere(server, protected, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    server.register("ours", client_secret=CANARIES["client"])
    admin = person("root", is_staff=True, is_superuser=True)
    oauth, keyed = configured(protected.url)
    browser = browser_of(admin)
    assert connect(browser, oauth).status_code == 303
    accounts.save_user_key(admin, keyed, CANARIES["key"], actor=admin)
    shown = []
    # Renew, fail to renew, fail to connect.
    expire()
    run(credential_for(admin.pk, facts_of(oauth)))
    address = begin(browser, oauth)
    server.token_faults = [Fault(400, b'{"error":"invalid_grant"}')]
    shown.append(browser.get(approve(address)).content.decode())
    client_keys.rotate()
    key_rotation.reseal_all()
    account = account_of(admin, oauth)
    secrets = {
        *CANARIES.values(),
        *server.tokens,
        *server.refresh_tokens,
        *server.spent,
        *server.codes,
        *(seen.form["code_verifier"] for seen in server.calls("/token") if "code" in seen.form),
    }
    assert sealed_secrets.open_tokens(account, oauth.url).refresh_token in secrets
    assert len(secrets) > 9
    for page in (*PAGES, f"/admin/upstreams/upstream/{oauth.pk}/change/"):
        answer = browser.get(page)
        assert answer.status_code == 200, page
        shown.append(answer.content.decode())
    server.refresh_tokens.clear()
    places = {"pages": "\n".join(shown), "database": rows(), "objects": printed()}
    expire()
    with pytest.raises(UpstreamError) as error:
        run(credential_for(admin.pk, facts_of(oauth)))
    places["errors"] = f"{error.value!r} {error.value.message} {error.value.detail}"
    # The person's browser of this test is an httpx client in the same process, and sees codes.
    ours = [one for one in caplog.records if not one.name.startswith(("httpx", "httpcore"))]
    places["log"] = "\n".join(one.getMessage() for one in ours)
    tokens = secrets - set(server.codes)
    places["log of requests"] = caplog.text if any(one in caplog.text for one in tokens) else ""
    found = {(place, one) for place, text in places.items() for one in secrets if one in text}
    assert found == set()
