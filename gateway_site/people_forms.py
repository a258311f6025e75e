"""The form of a person in the administration: what was changed behind it is not written over."""

import json
from hashlib import sha256
from typing import Any, Final

from django import forms
from django.contrib.auth.forms import UserChangeForm
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError

from gateway_site import people_actions

# What identity providers, directories, the file and other administrators change too.
_SHARED: Final = (
    *("username", "email", "first_name", "last_name"),
    *("is_active", "is_staff", "is_superuser", "groups", "user_permissions"),
)
_LISTS: Final = ("groups", "user_permissions")
AS_SHOWN: Final = "as_shown"


def marks_of(person: User) -> dict[str, str]:
    """Return a short mark of each fact of an account, another one for each value."""
    facts: dict[str, Any] = {name: getattr(person, name) for name in _SHARED if name not in _LISTS}
    for name in _LISTS:
        facts[name] = sorted(getattr(person, name).values_list("pk", flat=True))
    return {
        name: sha256(json.dumps([name, value]).encode()).hexdigest()[:16]
        for name, value in facts.items()
    }


class _Marks(forms.JSONField):
    """The marks of what a page showed; never a change of the person."""

    widget = forms.HiddenInput

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Nothing of it is stored."""
        return False


class PersonForm(UserChangeForm):  # type: ignore[type-arg]
    """An account; two cannot sign in with the same address."""

    as_shown = _Marks(required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk is not None:
            self.initial[AS_SHOWN] = marks_of(self.instance)

    def clean_email(self) -> str:
        """Refuse an address that another account signs in with."""
        email = str(self.cleaned_data["email"])
        try:
            people_actions.check_address(email, self.instance.pk)
        except people_actions.AddressTaken as failure:
            raise ValidationError(failure.messages) from failure
        return email

    def clean(self) -> dict[str, Any]:
        """Refuse to write over what was changed while the page was open.

        The caller has locked the account's row before it read what is compared here.
        """
        values = super().clean() or {}
        shown, now = values.get(AS_SHOWN), self.initial.get(AS_SHOWN) or {}
        if not isinstance(shown, dict):
            return values
        changed = [n for n in _SHARED if n in self.fields and shown.get(n) != now[n]]
        if changed:
            names = ", ".join(str(self.fields[name].label or name).lower() for name in changed)
            raise ValidationError(
                f"Somebody else changed this account while the page was open: {names}. An identity "
                "provider, a directory or another administrator did; the audit trail says who. "
                "Nothing was saved. Open the page again, and change what is still to be changed."
            )
        return values
