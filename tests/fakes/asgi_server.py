"""Run any ASGI application on a real socket in a thread, over http or https."""

import asyncio
import atexit
import contextlib
import datetime
import ipaddress
import itertools
import os
import random
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.patience import PATIENCE

# How often tasks that are told to end may begin others.
MOST_ROUNDS = 10
# Ports of test servers, and among how many test processes they are shared out.
FIRST_PORT, LAST_PORT, SHARES = 12_000, 32_000, 16


@dataclass(frozen=True)
class TestAuthority:
    """Files of a certificate authority made for this run, and of a server certificate by it."""

    __test__ = False

    ca_file: Path
    certificate_file: Path
    key_file: Path


@cache
def authority() -> TestAuthority:
    """Make (once per process) a CA and a certificate for localhost, 127.0.0.1 and *.test names."""
    folder = Path(mkdtemp(prefix="gateway-ca-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    now = datetime.datetime.now(datetime.UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway tests CA")])

    def builder(subject: x509.Name, public_key: ec.EllipticCurvePublicKey) -> Any:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
        )

    signing_only = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    ca = (
        builder(ca_name, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), False)
        # Python 3.13 checks certificates strictly: a CA has to say that it may sign them.
        .add_extension(signing_only, critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    names = [x509.DNSName("localhost"), x509.DNSName("*.test"), x509.DNSName("chatgpt.test")]
    addresses = [x509.IPAddress(ipaddress.ip_address(a)) for a in ("127.0.0.1", "::1")]
    certificate = (
        builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]), key.public_key())
        .add_extension(x509.SubjectAlternativeName([*names, *addresses]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False
        )
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "ca.pem").write_bytes(ca.public_bytes(pem))
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return TestAuthority(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")


def _own_ports() -> Iterator[int]:
    """Give each of this process's ports in turn, in an order of chance.

    No two test processes have one in common: between the look and the start of a server another
    one could take the port, and answer in its place.
    """
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % SHARES
    size = (LAST_PORT - FIRST_PORT) // SHARES
    first = FIRST_PORT + number * size
    ports = list(range(first, first + size))
    random.SystemRandom().shuffle(ports)
    return itertools.cycle(ports)


_ports = _own_ports()


def free_port() -> int:
    """Return a port that was free a moment ago.

    It is below those that the kernel gives to connections: one of the many that tests open would
    otherwise take it now and then before the server does that it is meant for.
    """
    for port in itertools.islice(_ports, 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port is free")


class PromptServer(uvicorn.Server):
    """Starts and ends at once: uvicorn itself looks ten times a second, twice on its way out."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()
        self._told_to_end = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def end(self) -> None:
        """Stop serving; may be called from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._told_to_end.set)

    async def main_loop(self) -> None:
        """Wait until it is told to end; the date of answers changes every second."""
        self._loop = asyncio.get_running_loop()
        self.ready.set()
        while not self._told_to_end.is_set():
            await self.on_tick(0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._told_to_end.wait(), 1)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let requests end for ``timeout_graceful_shutdown`` seconds, then cancel them."""
        for server in self.servers:
            server.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        deadline = time.monotonic() + (self.config.timeout_graceful_shutdown or 0)
        while (state.connections or state.tasks) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.002)  # uvicorn has no event for it
        for task in state.tasks:
            task.cancel()
        await self.lifespan.shutdown()


@contextlib.contextmanager
def serve(
    app: Any,
    *,
    tls: bool = False,
    host: str = "127.0.0.1",
    port: int = 0,
    lifespan: bool = False,
    http: Any = "auto",
) -> Iterator[str]:
    """Serve ``app`` until the block ends; yields its base URL without a trailing slash.

    ``lifespan`` is for applications that must be told when they start and end, ``http`` the class
    of uvicorn's connections.
    """
    # asyncio switches Nagle's delay off only where the protocol is named: 40 ms an answer.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(128)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="on" if lifespan else "off",
        timeout_graceful_shutdown=1,
        http=http,
        ssl_certfile=str(authority().certificate_file) if tls else None,
        ssl_keyfile=str(authority().key_file) if tls else None,
    )
    server = PromptServer(config)
    thread = threading.Thread(
        target=lambda: asyncio.run(_serve_and_leave_nothing(server, listener)), daemon=True
    )
    thread.start()
    if not server.ready.wait(PATIENCE):
        raise RuntimeError("the test server did not start")
    try:
        yield f"{'https' if tls else 'http'}://{host}:{listener.getsockname()[1]}"
    finally:
        server.end()
        thread.join(PATIENCE)
        listener.close()


async def _serve_and_leave_nothing(server: PromptServer, listener: socket.socket) -> None:
    """Serve, then end every task: one that is cancelled may begin another to say so upstream."""
    await server.serve(sockets=[listener])
    for _ in range(MOST_ROUNDS):
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if not left:
            return
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=1)


def client_context() -> ssl.SSLContext:
    """Return a TLS context that trusts the run's CA."""
    return ssl.create_default_context(cafile=str(authority().ca_file))
