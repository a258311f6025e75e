"""Public URIs in the arguments of a call: given back to the upstream where that is chosen (3.3)."""

import json

import pytest

from tests.fakes.mcp_upstream import FakeUpstream
from tests.virtualmcp import routed
from tests.virtualmcp.routed import Client, in_thread
from virtualmcp.argument_uris import given_back

ASKED = {
    "uri": "alpha+file:///a",
    "page": "ui://alpha+board/view.html",
    "many": [{"deep": ["alpha+notes://7"]}],
    "other": "beta+file:///a",
    "words": "alpha+beta",
    "text": "see alpha+file:///a",
    "alpha+file:///a": 1,
}
GIVEN_BACK = {
    **ASKED,
    "uri": "file:///a",
    "page": "ui://board/view.html",
    "many": [{"deep": ["notes://7"]}],
}


@pytest.fixture(autouse=True)
def db(django_db_setup, django_db_blocker):
    with routed.own_rows(django_db_blocker):
        yield


@pytest.fixture(params=["modern", "legacy"])
def alpha(request):
    with FakeUpstream(era=request.param).serve() as upstream:
        yield upstream


@pytest.fixture
def beta():
    with FakeUpstream(name="beta", tools=[]).serve() as upstream:
        yield upstream


async def offer(*fakes, **more):
    """Offer upstreams with the keys alpha and beta."""
    await in_thread(
        lambda: routed.virtual_mcp(
            *(
                routed.upstream(fake, key)
                for fake, key in zip(fakes, ("alpha", "beta"), strict=False)
            ),
            **more,
        )
    )


def arguments_at(upstream):
    """Return what the last call of a tool brought."""
    return upstream.calls("tools/call")[-1]["params"]["arguments"]


async def test_a_whole_string_that_is_an_address_of_the_called_upstream_is_given_back(alpha, beta):
    await offer(alpha, beta, argument_uris="undo")
    client = Client()
    await client.names()
    # The second call has nothing to find out anew; what the first kept must not answer it.
    await client.call("echo", text="plain")
    await client.call("echo", **ASKED)
    assert arguments_at(alpha) == GIVEN_BACK
    await client.call("echo", text="plain")
    assert arguments_at(alpha) == {"text": "plain"}


async def test_arguments_stay_as_they_are_where_nobody_chose_otherwise(alpha, beta):
    await offer(alpha, beta)
    await Client().call("echo", **ASKED)
    assert arguments_at(alpha) == ASKED


async def test_a_single_upstream_has_no_addresses_of_ours_to_give_back(alpha):
    await offer(alpha, argument_uris="undo")
    await Client().call("echo", **ASKED)
    assert arguments_at(alpha) == ASKED


async def test_a_header_that_repeats_an_argument_says_what_the_upstream_gets(beta):
    with FakeUpstream().serve() as alpha:
        await offer(alpha, beta, argument_uris="undo")
        client = Client()
        await client.names()
        params = {"name": "regional", "arguments": {"region": "alpha+geo:eu", "query": "q"}}
        headers = {"Mcp-Param-Region": "alpha+geo:eu"}
        await client.result("tools/call", params, param_headers=headers)
        assert arguments_at(alpha)["region"] == "geo:eu"
        assert alpha.last_headers("tools/call")["mcp-param-region"] == "geo:eu"


async def test_the_arguments_of_a_prompt_are_given_back_too(alpha, beta):
    await offer(alpha, beta, argument_uris="undo")
    params = {"name": "greet", "arguments": {"name": "alpha+file:///a"}}
    prompt = await Client().result("prompts/get", params)
    assert prompt["messages"][0]["content"]["text"] == "Hello file:///a"


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        pytest.param(
            r'{"u":"alpha+file:\/\/\/a","n":36893488147419103232}',
            '{"u":"file:///a","n":36893488147419103232}',
            id="escaped slashes and a big number",
        ),
        pytest.param('{"u":"alpha+FILE:x"}', '{"u":"FILE:x"}', id="a scheme in capitals"),
        pytest.param('{"u":"alpha+https://x.example"}', '{"u":"https://x.example"}', id="https"),
        pytest.param('{"u":"alpha+1:x"}', None, id="no scheme"),
        pytest.param('{"u":"Xalpha+file:x"}', None, id="another key's end"),
        pytest.param('{"u":"alpha+file:x"', None, id="cut short"),
        pytest.param("[" * 5_000 + '"alpha+file:x"' + "]" * 5_000, None, id="too deep"),
    ],
)
def test_what_is_given_back_and_what_stays_byte_for_byte(sent, expected):
    changed = given_back(sent.encode(), "alpha")
    assert (None if changed is None else changed.decode()) == expected
    if expected:
        assert json.loads(changed)
