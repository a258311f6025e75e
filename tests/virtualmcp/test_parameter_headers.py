"""``Mcp-Param-*`` headers on their way through the gateway."""

import pytest

from tests.fakes.mcp_upstream import FakeUpstream
from tests.virtualmcp import routed
from tests.virtualmcp.routed import Client, in_thread

PARAMS = {"name": "regional", "arguments": {"region": "eu", "query": "q"}}
HEADERS = {"Mcp-Param-Region": "eu", "Mcp-Param-Other": "kept", "X-Other": "never"}


@pytest.fixture(autouse=True)
def db(django_db_setup, django_db_blocker):
    with routed.own_rows(django_db_blocker):
        yield


@pytest.mark.parametrize(("upstreams", "passed"), [(1, "kept"), (2, None)])
async def test_what_the_schema_does_not_name_goes_on_to_a_single_upstream_only(upstreams, passed):
    with FakeUpstream().serve() as alpha, FakeUpstream(tools=[]).serve() as beta:

        def make():
            fakes = {"alpha": alpha, "beta": beta}
            rows = [routed.upstream(fake, key) for key, fake in list(fakes.items())[:upstreams]]
            return routed.virtual_mcp(*rows)

        await in_thread(make)
        await Client().names()
        await Client().result("tools/call", PARAMS, param_headers=HEADERS)
        sent = alpha.last_headers("tools/call")
    assert sent["mcp-param-region"] == "eu"
    assert sent.get("mcp-param-other") == passed
    assert "x-other" not in sent
