"""Messages between the processes of all nodes: to whoever waits at an address.

    async with node_mail.mailbox(address) as box:     # where somebody waits
        body = await box.receive(seconds)             # bytes; TimeoutError
    await node_mail.send(address, body)               # from any process

An address is a secret of the gateway that both sides can compose (a digest, never a client's own
word). Within a process a message is handed over at once. To another one it travels as a row, and
where Redis is shared the channel layer says that it is there; otherwise processes with an open
mailbox look every ``POLL_SECONDS``, all their mailboxes in one query. A process without an open
mailbox does nothing at all.

Each message is received once, by one receiver, in the order in which it was sent by one sender.
What nobody fetches is dropped after ``KEEP_SECONDS``. Messages may be lost only with the database.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Final

from channels.layers import InMemoryChannelLayer, get_channel_layer
from django.db import Error as DatabaseFailure
from django.utils import timezone

from upstreams import token_vault
from upstreams.database_calls import in_thread
from upstreams.running_loop import PerLoop
from upstreams.token_vault import VaultError
from virtualmcp.models import NodeMail

logger = logging.getLogger(__name__)

GROUP: Final = "gateway.mail"
POLL_SECONDS: Final = 0.1
# How often to look all the same where the channel layer tells of mail.
POLL_WITH_LAYER_SECONDS: Final = 2.0
KEEP_SECONDS: Final = 600.0
LONGEST_ADDRESS: Final = 100


class Mailbox:
    """What has come for one address in this process."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._waiting: deque[bytes] = deque()
        self._came = asyncio.Event()

    def deliver(self, body: bytes) -> None:
        """Put a message in; called on the mailbox's own event loop."""
        self._waiting.append(body)
        self._came.set()

    async def receive(self, seconds: float | None = None) -> bytes:
        """Return the next message, waiting at most so long (``None``: for ever).

        Raises:
            TimeoutError: none came.
        """
        async with asyncio.timeout(seconds):
            while not self._waiting:
                self._came.clear()
                await self._came.wait()
        return self._waiting.popleft()


class _PostOffice:
    """The open mailboxes of one event loop and what looks for their mail."""

    def __init__(self) -> None:
        self.open: dict[str, list[Mailbox]] = {}
        self._wake = asyncio.Event()
        self._fetching: asyncio.Task[None] | None = None
        self._listening: asyncio.Task[None] | None = None
        self._told = False

    def add(self, box: Mailbox) -> None:
        self.open.setdefault(box.address, []).append(box)
        self._wake.set()
        loop = asyncio.get_running_loop()
        if self._fetching is None or self._fetching.done():
            self._fetching = loop.create_task(self._fetch())
        layer = _shared_layer()
        if layer is not None and (self._listening is None or self._listening.done()):
            self._listening = loop.create_task(self._listen(layer))

    def remove(self, box: Mailbox) -> None:
        boxes = self.open.get(box.address, [])
        if box in boxes:
            boxes.remove(box)
        if not boxes:
            self.open.pop(box.address, None)
        if not self.open:
            self._wake.set()

    def hand_over(self, address: str, body: bytes) -> bool:
        """Deliver within the process; False if nobody waits for it here."""
        boxes = self.open.get(address)
        if not boxes:
            return False
        boxes[0].deliver(body)
        return True

    async def _fetch(self) -> None:
        """Look for mail until no mailbox is open."""
        failing = False
        while self.open:
            self._wake.clear()
            try:
                for address, body in await in_thread(_take, list(self.open)):
                    self._opened(address, body)
                failing = False
            except DatabaseFailure:
                if not failing:
                    logger.exception("mail of other processes cannot be read; trying again")
                failing = True
            seconds = POLL_WITH_LAYER_SECONDS if self._told else POLL_SECONDS
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), seconds)

    def _opened(self, address: str, sealed: str) -> None:
        try:
            body = token_vault.open_sealed(sealed, _owner(address))
        except VaultError:
            logger.error("mail of another process cannot be opened; do all have the same keys?")
            return
        if not self.hand_over(address, body):
            logger.debug("mail came for a mailbox that was just closed")

    async def _listen(self, layer: Any) -> None:
        """Hear from the channel layer that there is mail, for as long as the process runs."""
        while True:
            try:
                channel = await layer.new_channel()
                loop = asyncio.get_running_loop()
                joined = float("-inf")
                while True:
                    # Group membership expires after a day; joining again extends it.
                    if loop.time() - joined > 3600:
                        await layer.group_add(GROUP, channel)
                        joined, self._told = loop.time(), True
                        self._wake.set()
                    message = await layer.receive(channel)
                    if str(message.get("address")) in self.open:
                        self._wake.set()
            except asyncio.CancelledError:
                raise
            except Exception as failure:
                self._told = False
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    # The layer may turn a cancellation into something else.
                    raise asyncio.CancelledError from failure
                logger.warning("listening on the channel layer failed: %s", type(failure).__name__)
                await asyncio.sleep(5)


_offices = PerLoop(_PostOffice)


@contextlib.asynccontextmanager
async def mailbox(address: str) -> AsyncIterator[Mailbox]:
    """Open a mailbox until the block ends. Open it before you tell anybody its address."""
    box, office = Mailbox(address), _offices.here()
    office.add(box)
    try:
        yield box
    finally:
        office.remove(box)


async def send(address: str, body: bytes) -> None:
    """Send a message to whoever waits, or will soon wait, at an address.

    Raises:
        django.db.Error: it could not be left for another process.
        VaultError: there is no usable key.
    """
    if _offices.here().hand_over(address, body):
        return
    await in_thread(_leave, address, token_vault.seal(body, _owner(address)))
    layer = _shared_layer()
    if layer is None:
        return
    try:
        await layer.group_send(GROUP, {"type": "gateway.mail", "address": address})
    except Exception as failure:
        # The other process looks for itself, only later.
        logger.warning("the channel layer did not tell of mail: %s", type(failure).__name__)


def waits_here(address: str) -> bool:
    """Tell whether a mailbox of this address is open in this process."""
    return bool(_offices.here().open.get(address))


def _shared_layer() -> Any:
    layer = get_channel_layer()
    return None if layer is None or isinstance(layer, InMemoryChannelLayer) else layer


def _owner(address: str) -> str:
    return f"mail:{address}"


def _leave(address: str, sealed: str) -> None:
    until = timezone.now() + timedelta(seconds=KEEP_SECONDS)
    NodeMail.objects.create(address=address, body=sealed, expires_at=until)


def _take(addresses: list[str]) -> list[tuple[str, str]]:
    """Fetch and remove; of two processes that see a row, the one that removes it has it."""
    rows = NodeMail.objects.filter(address__in=addresses, expires_at__gt=timezone.now())
    found = rows.order_by("pk").values_list("pk", "address", "body")
    return [
        (address, body) for pk, address, body in found if NodeMail.objects.filter(pk=pk).delete()[0]
    ]
