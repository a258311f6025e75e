"""Reading WWW-Authenticate (protocol.md e1)."""

import pytest

from upstreams.oauth_challenge import bearer_challenge, parse_challenges


@pytest.mark.parametrize(
    ("value", "parameters"),
    [
        ("Bearer", {}),
        ('bearer realm="x"', {"realm": "x"}),
        (
            'Bearer resource_metadata="https://a/b?c=d,e"',
            {"resource_metadata": "https://a/b?c=d,e"},
        ),
        ("Bearer resource_metadata=https://a/b", {"resource_metadata": "https://a/b"}),
        ('Bearer scope="a b", error="x\\"y\\\\z"', {"scope": "a b", "error": 'x"y\\z'}),
        ('Bearer SCOPE = "a" ,, error=b', {"scope": "a", "error": "b"}),
        ('Basic realm="Bearer x=y", Bearer scope="a"', {"scope": "a"}),
        ('Negotiate YWJj==, Bearer scope="a", Basic realm=z', {"scope": "a"}),
        ('Bearer scope="first", scope="second"', {"scope": "first"}),
    ],
)
def test_the_bearer_challenge_is_found(value: str, parameters: dict[str, str]) -> None:
    found = bearer_challenge([value])
    assert found is not None
    assert found.parameters == parameters


def test_the_one_that_names_its_metadata_is_preferred() -> None:
    found = bearer_challenge(
        ['Bearer realm="a"', 'Basic x=y, Bearer resource_metadata="https://m"']
    )
    assert found is not None
    assert found.parameters == {"resource_metadata": "https://m"}


@pytest.mark.parametrize(
    "value", ["", "=", '"', ",,,", 'Basic realm="x"', "Bearer\x00", "é", '="a"']
)
def test_nonsense_is_no_challenge_and_no_failure(value: str) -> None:
    assert bearer_challenge([value]) is None or bearer_challenge([value]).parameters == {}


def test_a_long_header_is_read_in_bounded_time() -> None:
    assert len(parse_challenges("Bearer " + 'a="' + "\\" * 200_000)) <= 1
    parse_challenges("Bearer " + "a=b," * 100_000)
    parse_challenges("a " * 100_000)
