"""Presets: what an administrator would otherwise look up about a well-known remote server.

One folder each under ``presets/``, named for the key that the upstream gets. A preset only
fills in a form: what is stored is the administrator's, and a preset that changes later
changes nothing that exists.
"""

import functools
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import yaml

from upstreams.client_documents import callback_url

FOLDER: Final = Path(__file__).parent / "presets"
_REDIRECT_URI: Final = "{redirect_uri}"


class Fact(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something the preset relies on, and the public page that says so.

    ``confirmed`` is False where the vendor's own page was not read.
    """

    says: str
    source: str
    confirmed: bool = True


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``preset.yaml`` as written."""

    title: str
    description: str
    url: str
    credential: Literal["none", "fixed", "user_key", "user_oauth"]
    setup: str
    facts: list[Fact]
    registration: Literal["automatic", "by_hand"] = "automatic"
    name: str = "Authorization"
    prefix: str = "Bearer "
    key_help: str = ""
    scopes: list[str] = []
    send_resource: bool = True
    allowed_hosts: list[str] = []
    authorize_parameters: dict[str, str] = {}


class Preset(_Entry, frozen=True, kw_only=True):
    """One well-known server."""

    key: str

    def fields(self) -> dict[str, Any]:
        """Return the values for ``actions.create_upstream``."""
        return {
            "key": self.key,
            "title": self.title,
            "description": self.description,
            "url": self.url,
            "credential_kind": self.credential,
            "credential_name": self.name,
            "credential_prefix": self.prefix,
            "user_key_help": self.key_help,
            "oauth_scopes": " ".join(self.scopes),
            "oauth_send_resource": self.send_resource,
            "oauth_allowed_hosts": list(self.allowed_hosts),
            "oauth_extra_authorize_parameters": dict(self.authorize_parameters),
        }

    @property
    def by_hand(self) -> bool:
        """Whether an administrator has to register the gateway at the vendor."""
        return self.registration == "by_hand"

    @property
    def unconfirmed(self) -> list[Fact]:
        """What the vendor's own pages have not confirmed."""
        return [fact for fact in self.facts if not fact.confirmed]

    def steps(self) -> list[str]:
        """Return what to do before people can connect, with this gateway's own address."""
        return self.setup.replace(_REDIRECT_URI, callback_url()).strip().splitlines()

    def step_parts(self) -> list[tuple[str, str, str]]:
        """Return each step as (before, redirect URI or "", after), for a page to set it apart."""
        return [step.partition(callback_url()) for step in self.steps()]


def read(folder: Path) -> Preset:
    """Read one preset.

    Raises:
        OSError: there is no ``preset.yaml``.
        yaml.YAMLError, msgspec.ValidationError: it does not say what a preset says.
    """
    written = yaml.safe_load((folder / "preset.yaml").read_text(encoding="utf-8"))
    entry = msgspec.convert(written, _Entry)
    return Preset(
        key=folder.name, **{name: getattr(entry, name) for name in entry.__struct_fields__}
    )


@functools.cache
def presets() -> dict[str, Preset]:
    """Return all presets by key, in the order of their titles."""
    found = [read(folder) for folder in FOLDER.iterdir() if (folder / "preset.yaml").is_file()]
    return {preset.key: preset for preset in sorted(found, key=lambda one: one.title.lower())}


def preset_for(url: str) -> Preset | None:
    """Return the preset an upstream's address belongs to, whatever its query."""
    address = _bare(url)
    return next((one for one in presets().values() if _bare(one.url) == address), None)


def _bare(url: str) -> str:
    return url.partition("?")[0].rstrip("/").lower()
