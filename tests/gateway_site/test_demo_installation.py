"""The demo comes and goes with one command each, and touches nothing else."""

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from gateway_site.demo import processes
from gateway_site.demo.running import parcels_key
from upstreams import sealed_secrets
from upstreams.models import Upstream
from virtualmcp.models import UpstreamChoice, VirtualMcp

PORTS = "28001,28002,28003"


@pytest.fixture
def folder(db, settings, tmp_path):
    settings.DATA_DIR = tmp_path
    return tmp_path


def demo(*options: str) -> str:
    out = StringIO()
    call_command("gateway_demo", *options, stdout=out)
    return out.getvalue()


def test_it_sets_up_three_upstreams_and_two_servers(folder):
    out = demo("--ports", PORTS)
    assert "http://localhost:8000/v1/mcp/demo" in out
    kinds = dict(Upstream.objects.values_list("key", "credential_kind"))
    assert kinds == {"harbor": "none", "board": "user_oauth", "parcels": "fixed"}
    everything = VirtualMcp.objects.get(slug="demo")
    assert everything.audience == "everyone"
    assert everything.choices.count() == 3
    assert VirtualMcp.objects.get(slug="harbor").choices.count() == 1
    parcels = Upstream.objects.get(key="parcels")
    assert sealed_secrets.open_fixed(parcels) == parcels_key(folder / "demo")
    assert {u.private_network for u in Upstream.objects.all()} == {"127.0.0.1/32"}


def test_setting_it_up_again_only_moves_the_ports(folder):
    demo("--ports", PORTS)
    before = set(Upstream.objects.values_list("pk", flat=True))
    demo("--ports", "28004,28005,28006")
    assert set(Upstream.objects.values_list("pk", flat=True)) == before
    parcels = Upstream.objects.get(key="parcels")
    assert parcels.url == "http://127.0.0.1:28006/mcp"
    # Another address drops the credential; the demo gives it again.
    assert sealed_secrets.open_fixed(parcels) == parcels_key(folder / "demo")


def test_removing_it_leaves_no_trace(folder):
    demo("--ports", PORTS)
    Upstream.objects.create(key="mine", title="Mine", url="https://mcp.example.com/mcp")
    assert demo("--remove") == "The demo is removed.\n"
    assert list(Upstream.objects.values_list("key", flat=True)) == ["mine"]
    assert not VirtualMcp.objects.exists()
    assert [file.name for file in (folder / "demo").iterdir()] == ["removed"]
    assert processes.was_removed(folder)
    assert demo("--remove") == "There was no demo to remove.\n"


def test_it_can_come_back_after_it_was_removed(folder):
    demo("--ports", PORTS)
    demo("--remove")
    demo("--ports", PORTS)
    assert not processes.was_removed(folder)
    assert Upstream.objects.count() == 3


def test_it_does_not_take_over_what_has_its_names(folder):
    Upstream.objects.create(key="board", title="Ours", url="https://board.example.com/mcp")
    with pytest.raises(CommandError, match="already in use"):
        demo("--ports", PORTS)
    assert Upstream.objects.get(key="board").title == "Ours"
    demo("--remove")
    assert Upstream.objects.filter(key="board").exists()


def test_an_upstream_that_another_server_uses_is_not_removed(folder):
    demo("--ports", PORTS)
    mine = VirtualMcp.objects.create(slug="mine", title="Mine")
    UpstreamChoice.objects.create(virtual_mcp=mine, upstream=Upstream.objects.get(key="harbor"))
    with pytest.raises(CommandError, match="The Virtual MCPs mine use upstreams of the demo"):
        demo("--remove")
    assert VirtualMcp.objects.filter(slug="demo").exists()


@pytest.mark.parametrize("ports", ["1,2", "a,b,c"])
def test_ports_are_checked(folder, ports):
    with pytest.raises(CommandError, match="three ports"):
        demo("--ports", ports)
