"""Connects the rooms' signals to what spans them: the audit trail and the change feed."""

from importlib import import_module
from typing import Any

from django.contrib.auth.models import User
from django.db.models.signals import m2m_changed, post_save

from gateway_site import audit_trail, change_feed

ROOMS = ("consent", "oauthserver", "upstreams", "virtualmcp")


def connect() -> None:
    """Connect everything once; repeated calls change nothing."""
    for room in ROOMS:
        signals = import_module(f"{room}.signals")
        signals.audit.connect(audit_trail.hear, dispatch_uid=f"audit_trail.{room}")
        signals.changed.connect(change_feed.hear, dispatch_uid=f"change_feed.{room}")
    post_save.connect(forget_person, sender=User, dispatch_uid="change_feed.user")
    m2m_changed.connect(
        forget_membership, sender=User.groups.through, dispatch_uid="change_feed.membership"
    )


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
