"""``manage.py gateway_recover``: the way back in for somebody who is locked out."""

import secrets
from argparse import ArgumentParser
from typing import Any

from allauth.mfa.models import Authenticator
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from gateway_site import audit_trail, people_actions


class Command(BaseCommand):
    """Whoever can run this has the database and the keys, so it asks for nothing more."""

    help = "Let somebody back in: new password, no second factor, active, no throttling."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare whom, and what to do."""
        parser.add_argument("username")
        parser.add_argument("--new-password", action="store_true", help="print a new password")
        parser.add_argument(
            "--remove-second-factor", action="store_true", help="remove every second factor"
        )
        parser.add_argument(
            "--administrator", action="store_true", help="make the account an administrator"
        )

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        """Do what was asked, audit it, and say what is to do next."""
        user = User.objects.filter(username=options["username"]).first()
        if user is None:
            known = User.objects.filter(is_superuser=True).values_list("username", flat=True)
            raise CommandError(
                f"There is nobody called {options['username']}. "
                f"Administrators: {', '.join(known[:20]) or 'none'}."
            )
        values: dict[str, Any] = {"is_active": True}
        if options["administrator"]:
            values |= {"is_staff": True, "is_superuser": True}
        password = secrets.token_urlsafe(12) if options["new_password"] else None
        people_actions.save_person(user, values, password=password, actor=None, by="command line")
        if options["remove_second_factor"]:
            removed = Authenticator.objects.filter(user=user).delete()[0]
            audit_trail.record(
                "person.second_factor_removed",
                target=user.username,
                details={"by": "command line", "removed": removed},
            )
            self.stdout.write(f"Second factors removed: {removed}")
        # Failed sign-ins are counted there; so are other short-lived things, which come back.
        cache.clear()
        if password:
            self.stdout.write(f"Password: {password}   (shown only now)")
        self.stdout.write(f"{user.username} can sign in.")
