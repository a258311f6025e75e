"""Connects the rooms to what spans them: audit trail, change feed, metrics, background work."""

import functools
from collections import defaultdict
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from django.contrib.auth.models import Group, User
from django.db.models.signals import m2m_changed, post_delete, post_save

from gateway_site import (
    audit_trail,
    change_feed,
    identity_grants,
    metrics,
    sign_in_age,
    sign_in_events,
    sign_in_secrets,
)
from gateway_site.identity import vouched_people
from oauthserver import sign_in_age as token_age
from upstreams import signals as upstream_signals

ROOMS = ("consent", "oauthserver", "upstreams", "virtualmcp")


def connect() -> None:
    """Connect everything once; repeated calls change nothing."""
    for room in ROOMS:
        signals = import_module(f"{room}.signals")
        signals.audit.connect(audit_trail.hear, dispatch_uid=f"audit_trail.{room}")
        signals.changed.connect(change_feed.hear, dispatch_uid=f"change_feed.{room}")
    post_save.connect(forget_person, sender=User, dispatch_uid="change_feed.user")
    post_delete.connect(forget_deleted, sender=User, dispatch_uid="change_feed.user_deleted")
    post_delete.connect(forget_deleted, sender=Group, dispatch_uid="change_feed.group_deleted")
    m2m_changed.connect(
        forget_membership, sender=User.groups.through, dispatch_uid="change_feed.membership"
    )
    sign_in_events.connect()
    vouched_people.connect()
    identity_grants.connect()
    token_age.register(sign_in_age.why_sign_in_again)
    upstream_signals.audit.connect(
        sign_in_secrets.hear_resealing, dispatch_uid="sign_in_secrets.upstreams"
    )
    connect_caches()
    connect_metrics()


def connect_caches() -> None:
    """Have every cache of every room forget what a change says is no longer true."""
    from oauthserver import bearer_tokens
    from upstreams import call_gate, credentials, legacy_sessions, mcp_client
    from virtualmcp import change_hearing, icon_fetching, notice_feed, published_lists
    from virtualmcp.eras import era_in, log_levels
    from virtualmcp.routing import shared_listening, shared_questions
    from virtualmcp.transport import (
        calls_in_flight,
        event_log,
        open_streams,
        resumption,
        roots_notices,
        session_notices,
        session_questions,
    )

    def forget_tokens(key: str) -> None:
        bearer_tokens.forget(token_digest=key)

    def forget_access(key: str) -> None:
        bearer_tokens.forget(user_id=int(key) if key.isdecimal() else None)

    def hear_of(kind: str) -> Callable[[str], None]:
        return lambda key: change_hearing.hear(kind, key)

    change_feed.on_change("token", forget_tokens)
    change_feed.on_change("access", forget_access)
    change_feed.on_change("credential", credentials.forget_key)
    change_feed.on_change("health", call_gate.hear_health)
    change_feed.on_change("session", era_in.forget)
    change_feed.on_change(log_levels.KIND, era_in.hear_level)
    change_feed.on_reading(log_levels.heard_all_before)
    for kind in ("session", calls_in_flight.CANCELLED):
        change_feed.on_change(kind, functools.partial(calls_in_flight.hear, kind))
    for kind in change_hearing.KINDS:
        change_feed.on_change(kind, hear_of(kind))
    for forget in (published_lists.forget, mcp_client.forget, icon_fetching.forget):
        change_feed.on_change("configuration", _whatever_the_key(forget))
    # Open streams look at what they show once everything above has been forgotten.
    for kind in ("token", "access", "credential", "configuration", "session"):
        change_feed.on_change(kind, functools.partial(open_streams.hear, kind))
    change_feed.on_change("subscription", session_notices.hear)
    change_feed.on_change("notice", notice_feed.hear)
    change_feed.on_change(shared_listening.KIND, shared_listening.hear)
    change_feed.on_change(shared_questions.KIND, shared_questions.hear)
    change_feed.on_change(resumption.ASKED, resumption.hear)
    change_feed.on_change(roots_notices.KIND, roots_notices.hear)
    change_feed.on_change(session_questions.KIND, session_questions.hear)
    change_feed.on_change("session", event_log.forget_session)
    change_feed.on_change("session", legacy_sessions.client_left_anywhere)


def _whatever_the_key(forget: Callable[[], None]) -> Callable[[str], None]:
    """An upstream may be part of several Virtual MCPs, so its change concerns them all."""
    return lambda key: forget()


def connect_metrics() -> None:
    """Count the calls that the call log sees, and show how the upstreams do."""
    from gateway_site.upstream_metrics import UpstreamCollector
    from virtualmcp.call_log import Entry, call_log

    if not metrics.upstreams_shown:
        metrics.registry.register(UpstreamCollector())
        metrics.upstreams_shown = True

    def count(entries: Sequence[Entry], lost: int) -> None:
        alike: dict[tuple[str, str, str], list[float]] = defaultdict(list)
        for entry in entries:
            alike[entry.server.slug, entry.method, entry.outcome].append(entry.seconds)
        for labels, seconds in alike.items():
            metrics.count_calls(*labels, seconds)
        if lost:
            metrics.LOST_RECORDS.inc(lost)

    call_log.observe(count)


def forget_person(sender: Any, instance: User, created: bool, **kwargs: Any) -> None:
    """Have everybody read a person again who was switched off or changed.

    A sign-in only writes ``last_login``, which no cache depends on.
    """
    if created or kwargs.get("update_fields") == frozenset({"last_login"}):
        return
    change_feed.announce("access", str(instance.pk))


def forget_membership(sender: Any, action: str, **kwargs: Any) -> None:
    """Have everybody read the groups of people again."""
    if action in ("post_add", "post_remove", "post_clear"):
        change_feed.announce("access")


def forget_deleted(sender: Any, instance: User | Group, **kwargs: Any) -> None:
    """Have everybody forget a person or group that is gone.

    The rows that joined people to a deleted group go without a signal of their own.
    """
    change_feed.announce("access", str(instance.pk) if isinstance(instance, User) else "")
