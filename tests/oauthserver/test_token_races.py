r"""The races at the token endpoint over two processes, in many rounds (security.md #95, #107).

    TOKEN_RACE_ROUNDS=1000 \
        .venv/bin/python -m pytest -m races -s tests/oauthserver/test_token_races.py

On SQLite, and on the server that ``GATEWAY_TEST_POSTGRES_URL`` names.
"""

import base64
import hashlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.journeys.test_servers_and_nodes import scratch_database
from tests.running_gateway import RunningGateway, another_node, running_gateway

pytestmark = [pytest.mark.races, pytest.mark.timeout(5400)]

ROUNDS = int(os.environ.get("TOKEN_RACE_ROUNDS", "20"))
REDEMPTIONS, REFRESHES = 16, 8
VERIFIER = "v" * 43
REDIRECT = "https://client.example/callback"
WITH_POSTGRES = bool(os.environ.get("GATEWAY_TEST_POSTGRES_URL"))
DATABASES = [
    "sqlite",
    pytest.param(
        "postgresql",
        marks=pytest.mark.skipif(not WITH_POSTGRES, reason="GATEWAY_TEST_POSTGRES_URL is not set"),
    ),
]
# Run inside the gateway: codes as the consent page makes them, but for an hour.
ISSUE = """
import json, uuid
from django.contrib.auth.models import User
from oauthserver import audience, authorization_codes
from oauthserver.models import OAuthClient
authorization_codes.LIFETIME_SECONDS = 7200
client, user = OAuthClient.objects.get(client_id="racer"), User.objects.get(username="ada")
from consent.models import ConsentRecord
resource = audience.find_resource(%(resource)r)
ConsentRecord.objects.get_or_create(
    user=user, client=client, resource=resource.uri,
    defaults={"virtual_mcp_slug": "one", "scopes": "mcp:tools", "redirect_uri": %(redirect)r})
codes = [authorization_codes.issue(client=client, user=user, redirect_uri=%(redirect)r,
    scopes=["mcp:tools"], resource=resource, code_challenge=%(challenge)r, nonce="",
    approval=uuid.uuid4().hex) for _ in range(%(number)d)]
print("CODES" + json.dumps(codes))
"""


@dataclass
class Rig:
    """Two processes of one gateway, and connections that are kept open."""

    gateway: RunningGateway
    nodes: list[str]
    clients: list[httpx.Client]

    def codes(self, number: int) -> list[str]:
        challenge = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest())
        values = {
            "resource": self.gateway.endpoint("one"),
            "redirect": REDIRECT,
            "challenge": challenge.decode().rstrip("="),
            "number": number,
        }
        printed = self.gateway.manage("shell", "-c", ISSUE % values)
        found: list[str] = json.loads(printed.partition("CODES")[2].splitlines()[0])
        return found

    def at_once(self, number: int, round_: int, **form: str) -> list[tuple[int, dict[str, Any]]]:
        """Send the same form so many times at the same moment, half of it to each process."""
        barrier, answers = threading.Barrier(number), []
        # Failures are counted per address; a thousand rounds are not one attacker.
        address = f"10.{round_ >> 16 & 255}.{round_ >> 8 & 255}.{round_ & 255}"
        headers = {"Host": self.gateway.url.partition("://")[2], "X-Forwarded-For": address}

        def send(position: int) -> None:
            target = self.nodes[position % len(self.nodes)] + "/oauth/token"
            barrier.wait(30)
            answer = self.clients[position].post(target, data=form, headers=headers)
            answers.append((answer.status_code, answer.json()))

        threads = [threading.Thread(target=send, args=(n,)) for n in range(number)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert len(answers) == number, "a request got no answer"
        return answers


@contextmanager
def rig_on(database: str) -> Iterator[Rig]:
    configuration = {
        "upstreams": [{"key": "one", "title": "One", "url": "http://127.0.0.1:9/mcp"}],
        "virtual_mcps": [
            {"slug": "one", "title": "One", "audience": "everyone", "upstreams": ["one"]}
        ],
        "users": [{"username": "ada", "email": "ada@example.com"}],
        "clients": [{"client_id": "racer", "name": "Racer", "redirect_uris": [REDIRECT]}],
    }
    with scratch_database() if database == "postgresql" else nullcontext("") as url:
        environment = {"TRUSTED_PROXY": "127.0.0.1/32", **({"DATABASE_URL": url} if url else {})}
        with (
            running_gateway(configuration, environment=environment) as gateway,
            another_node(gateway) as other,
        ):
            clients = [httpx.Client(timeout=60, trust_env=False) for _ in range(REDEMPTIONS)]
            yield Rig(gateway, [gateway.listening, other.listening], clients)
            for client in clients:
                client.close()


def told(name: str, database: str, counts: Counter[str], began: float) -> None:
    seconds = time.monotonic() - began
    print(f"\n{name}, {database}: {ROUNDS} rounds in {seconds:.0f} s: {dict(counts)}")


def rounds_of(one: Callable[[int], str]) -> Counter[str]:
    return Counter(one(number) for number in range(ROUNDS))


@pytest.mark.parametrize("database", DATABASES)
def test_of_sixteen_redemptions_of_one_code_exactly_one_succeeds(database: str) -> None:
    with rig_on(database) as rig:
        codes = rig.codes(ROUNDS)
        began = time.monotonic()

        def one(number: int) -> str:
            answers = rig.at_once(
                REDEMPTIONS,
                number,
                grant_type="authorization_code",
                client_id="racer",
                code=codes[number],
                redirect_uri=REDIRECT,
                code_verifier=VERIFIER,
            )
            statuses = sorted(status for status, _ in answers)
            errors = {body.get("error") for status, body in answers if status != 200}
            good = statuses == [200] + [400] * (REDEMPTIONS - 1) and errors == {"invalid_grant"}
            return "one success" if good else f"{statuses} {errors}"

        counts = rounds_of(one)
        told("16 redemptions", database, counts, began)
        assert set(counts) == {"one success"}


@pytest.mark.parametrize("database", DATABASES)
def test_of_eight_refreshes_of_one_token_all_give_one_successor(database: str) -> None:
    with rig_on(database) as rig:
        form = {"grant_type": "authorization_code", "client_id": "racer", "code": rig.codes(1)[0]}
        first = rig.at_once(1, 0, **form, redirect_uri=REDIRECT, code_verifier=VERIFIER)
        current = [str(first[0][1]["refresh_token"])]
        began = time.monotonic()

        def one(number: int) -> str:
            answers = rig.at_once(
                REFRESHES,
                number,
                grant_type="refresh_token",
                client_id="racer",
                refresh_token=current[0],
            )
            successors = {body.get("refresh_token") for _, body in answers}
            statuses = {status for status, _ in answers}
            if statuses != {200} or len(successors) != 1:
                return f"{sorted(status for status, _ in answers)} {len(successors)}"
            current[0] = successors.pop()
            return "one successor"

        counts = rounds_of(one)
        told("8 refreshes", database, counts, began)
        assert set(counts) == {"one successor"}
