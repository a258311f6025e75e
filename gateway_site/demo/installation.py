"""Puts the demo into a gateway's configuration, and takes it out again without a trace.

What the demo made is noted in its folder, so that nothing of an administrator's own is
changed or removed because it happens to have the same name.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from gateway_site import declarative_config
from gateway_site.config_file import SecretReferences
from gateway_site.config_schema import (
    ChoiceEntry,
    Configuration,
    State,
    UpstreamEntry,
    VirtualMcpEntry,
)
from gateway_site.demo import processes
from gateway_site.demo.running import parcels_key
from upstreams.models import Upstream
from virtualmcp.models import UpstreamChoice, VirtualMcp

INSTALLED = "installed.json"
# Whatever PUBLIC_URL is, the demo's upstreams are on this machine.
LOOPBACK = "127.0.0.1/32"
SLUGS = ("demo", "harbor")


class DemoRefused(Exception):
    """The demo cannot be set up or removed; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class DemoServer:
    """One Virtual MCP of the demo."""

    slug: str
    title: str

    @property
    def url(self) -> str:
        """The address to paste into a client."""
        return f"{settings.PUBLIC_URL}/v1/mcp/{self.slug}"


def configuration(ports: dict[str, int]) -> Configuration:
    """Return what the demo adds: three upstreams, one Virtual MCP over all, one over the first."""
    addresses = {name: f"http://127.0.0.1:{port}/mcp" for name, port in ports.items()}
    return Configuration(
        upstreams=[
            UpstreamEntry(
                key="harbor",
                title="Harbour office",
                description="Tides and berths of a small harbour. Open to everyone.",
                url=addresses["harbor"],
                credential="none",
                private_network=LOOPBACK,
            ),
            UpstreamEntry(
                key="board",
                title="Ticket board",
                description="Your own small tickets. You connect your account by OAuth.",
                url=addresses["board"],
                credential="user_oauth",
                private_network=LOOPBACK,
            ),
            UpstreamEntry(
                key="parcels",
                title="Parcel service",
                description="Parcel tracking. The gateway holds one API key for everybody.",
                url=addresses["parcels"],
                credential="fixed",
                placement="header",
                name="X-Api-Key",
                prefix="",
                secret="env:PARCELS_KEY",  # noqa: S106
                private_network=LOOPBACK,
            ),
        ],
        virtual_mcps=[
            VirtualMcpEntry(
                slug="demo",
                title="Demo",
                description="Three upstreams behind one URL: harbour, tickets and parcels.",
                audience="everyone",
                upstreams=[
                    ChoiceEntry(upstream="harbor"),
                    ChoiceEntry(upstream="board"),
                    ChoiceEntry(upstream="parcels"),
                ],
            ),
            VirtualMcpEntry(
                slug="harbor",
                title="Harbour office",
                description="A single upstream, passed through as it is.",
                audience="everyone",
                upstreams=[ChoiceEntry(upstream="harbor")],
            ),
        ],
    )


def _was_installed(folder: Path) -> bool:
    return (folder / processes.FOLDER / INSTALLED).exists()


def install(folder: Path, ports: dict[str, int]) -> list[DemoServer]:
    """Set the demo up, or bring an earlier one to these ports.

    Args:
        folder: the gateway's data directory.
        ports: of each upstream on 127.0.0.1.

    Raises:
        DemoRefused: an administrator already uses one of its names.
    """
    wanted = configuration(ports)
    if not _was_installed(folder):
        _refuse_taken_names(wanted)
    private = folder / processes.FOLDER
    private.mkdir(exist_ok=True, mode=0o700)
    secrets = SecretReferences(private, {"PARCELS_KEY": parcels_key(private)})
    declarative_config.apply(wanted, secrets)
    names = {"upstreams": list(ports), "virtual_mcps": list(SLUGS)}
    (private / INSTALLED).write_text(json.dumps(names))
    processes.mark_wanted(folder)
    return [DemoServer(server.slug, server.title or "") for server in wanted.virtual_mcps]


def _refuse_taken_names(wanted: Configuration) -> None:
    keys = [entry.key for entry in wanted.upstreams]
    slugs = [entry.slug for entry in wanted.virtual_mcps]
    taken = [
        *Upstream.objects.filter(key__in=keys).values_list("key", flat=True),
        *VirtualMcp.objects.filter(slug__in=slugs).values_list("slug", flat=True),
    ]
    if taken:
        raise DemoRefused(
            f"The demo needs the names {', '.join(sorted(set(taken)))}, which are already in use. "
            "Start with --no-demo, or rename yours."
        )


def remove(folder: Path) -> bool:
    """Remove everything the demo made; False if there was none.

    Raises:
        DemoRefused: another Virtual MCP uses one of its upstreams.
    """
    installed = _was_installed(folder)
    if installed:
        _remove_configuration()
    kept = folder / processes.FOLDER
    if kept.exists():
        shutil.rmtree(kept)
    processes.mark_removed(folder)
    return installed


def _remove_configuration() -> None:
    others = UpstreamChoice.objects.filter(upstream__key__in=processes.NAMES).exclude(
        virtual_mcp__slug__in=SLUGS
    )
    slugs = sorted(set(others.values_list("virtual_mcp__slug", flat=True)))
    if slugs:
        raise DemoRefused(
            f"The Virtual MCPs {', '.join(slugs)} use upstreams of the demo. "
            "Take these out there first."
        )
    gone = Configuration(
        upstreams=[UpstreamEntry(key=key, state=State.ABSENT) for key in processes.NAMES],
        virtual_mcps=[VirtualMcpEntry(slug=slug, state=State.ABSENT) for slug in SLUGS],
    )
    declarative_config.apply(gone, SecretReferences(Path(), {}))
