"""One connection to NATS that never gives up and never does anything behind its user's back.

A client of nats-py is used once: when it is lost, for whatever reason, a new one is built from the address as it stands
now (the embedded server may have a new port or credential), and every subscription is made again. Nothing is buffered
while disconnected: a request then fails with `ConnectionLostError`, and its caller finds out the fate.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import secrets
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.protocol import parser

from labwright.core.errors import EngineError, LabwrightError, NotAllowedError, UnreachableError, UsageError
from labwright.core.logs import get_logger
from labwright.journal.key_file import KeyFile
from labwright.journal.session_fold import encoded

OLDEST_SERVER = (2, 12)
LEAST_PAYLOAD = 1_000_000
PING_S = 5
RETRY_S = 0.1
REFUSED_RETRY_S = 30.0
"""So often one whose key opens nothing any more tries again: a new one may be put in its place."""
LOOK_S = 1.0
REQUEST_TIMEOUT_S = 5.0
NO_RESPONDERS = "503"
INBOX = "_INBOX."
API = "$JS.API."
VIOLATION = re.compile('permissions violation for publish to "([^"]*)"', re.IGNORECASE)

Answer = TypeVar("Answer")

log = get_logger(__name__)

# nats-server divides a line at spaces and tabs; nats-py would at other letters too, which may stand in a subject
parser.MSG_RE = re.compile(rb"\AMSG[ \t]+([^ \t\r\n]+)[ \t]+(\d+)[ \t]+(([^ \t\r\n]+)[ \t]+)?(\d+)\r\n")
parser.HMSG_RE = re.compile(rb"\AHMSG[ \t]+([^ \t\r\n]+)[ \t]+(\d+)[ \t]+(([^ \t\r\n]+)[ \t]+)?(\d+)[ \t]+(\d+)\r\n")


class ConnectionLostError(UnreachableError):
    """The connection broke while an answer was awaited; what was asked may have been done."""

    kind = "connection_lost"


class NoResponderError(UnreachableError):
    """Nobody listens on that subject now."""

    kind = "no_responder"


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a server is and how to log in; `server_name` is what an embedded server must call itself.

    `identity` is the sender as whom the holder of a key speaks, such as `operator=ada`; empty for the lab's own
    credential. `ca` is the certificate, as PEM text, by which a server is known that speaks TLS; one that stands on
    this machine (`is_here`) need not have the name by which it is reached.
    """

    url: str
    user: str = ""
    password: str = field(default="", repr=False)
    credentials: str = ""
    server_name: str = ""
    identity: str = ""
    seed: str = field(default="", repr=False)
    ca: str = field(default="", repr=False)
    is_here: bool = False

    @property
    def place(self) -> str:
        """Tell host and port, without a password that the url may hold."""
        return self.url.rpartition("//")[2].rpartition("@")[2]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a `connection.json`.

        Raises:
            UnreachableError: there is none, or it cannot be read.
        """
        try:
            fields = json.loads(path.read_text())
            names = ("url", "user", "password", "server_name", "ca")
            return cls(**{name: str(fields.get(name, "")) for name in names}, is_here=True)
        except FileNotFoundError:
            because = f"it has no {path.name}, which labwright serve writes"
        except (OSError, ValueError) as error:
            because = f"{path.name}: {error}"
        message = f"no lab is known at {path.parent}"
        raise UnreachableError(message, because=because, cure="start one: labwright serve")

    @classmethod
    def of(cls, url: str, credentials: Path | None) -> Self:
        """Give the address of a server that is reached by credentials: a key file, or what NATS's own tools make.

        Raises:
            UsageError: the key file is not valid, or tells no url where none is given.
        """
        key = None if credentials is None else KeyFile.read(credentials)
        if key is None:
            return cls(url=url, credentials=str(credentials or ""))
        if not url and not key.url:
            raise UsageError(
                f"the key file {credentials} does not tell where the lab is", cure="name its NATS: LABWRIGHT_URL"
            )
        return cls(url=url or key.url, identity=key.sender, seed=key.seed, ca=key.ca)

    def tls(self) -> ssl.SSLContext | None:
        """Give what a connection by TLS is made with; None where the url does not ask for TLS."""
        if not self.url.startswith("tls://"):
            return None
        context = ssl.create_default_context(cadata=self.ca or None)
        context.check_hostname = not self.is_here
        return context


def is_inbox(reply: str) -> bool:
    """Tell whether a reply goes to an inbox.

    Whoever asks chooses where the reply goes, and it is sent with the rights of who answers: to any other subject it
    would be a word of theirs.
    """
    return reply.startswith(INBOX) and not any(letter in reply for letter in "*> \t\r\n")


class Channel:
    """An inbox of its own, into which a server may send many messages."""

    def __init__(self, reply: str) -> None:
        self.reply = reply
        self.queue: asyncio.Queue[Msg | LabwrightError | None] = asyncio.Queue()

    async def next(self, timeout_s: float) -> Msg:
        """Take the next message.

        Raises:
            ConnectionLostError: the connection broke; what was under way will not come.
            NotAllowedError: the server did not take what was asked with this identity.
            TimeoutError: nothing came in that many seconds.
        """
        async with asyncio.timeout(timeout_s):
            message = await self.queue.get()
        if message is None:
            text = "the connection to the journal was lost"
            raise ConnectionLostError(text)
        if isinstance(message, LabwrightError):
            raise message
        return message


class Connection:
    """The connection of one process; `async with` opens it, waiting `patience_s` (None: for ever) for the server.

    Raises:
        UnreachableError: nothing answered in that time.
        NotAllowedError: the server is there, and does not accept the key; nothing is waited for.
    """

    def __init__(
        self,
        locate: Callable[[], Address],
        *,
        name: str = "labwright",
        patience_s: float | None = None,
        ping_s: int = PING_S,
    ) -> None:
        self.generation = 0
        self.identity = ""
        """As whom this connection speaks, such as `operator=ada`; empty for the lab's own credential."""
        self._locate = locate
        self._name = name
        self._patience_s = patience_s
        self._ping_s = ping_s
        """How often the server is asked whether it is there; twice unanswered, the connection is given up."""
        self._lost = asyncio.Event()
        self._refused: Address | None = None
        """The address that was tried last, where the server was there and did not accept the key."""
        self._client: Client | None = None
        self._prefix = ""
        self._count = 0
        self._answers: dict[str, asyncio.Future[Msg]] = {}
        self._asked: dict[str, str] = {}
        """What was asked with which token, where an identity may be refused by the server."""
        self._channels: dict[str, Channel] = {}
        self._listeners: dict[int, tuple[str, str, Callable[[Msg], Awaitable[None]]]] = {}
        self._subscriptions: dict[int, Subscription] = {}
        self._up = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._on_reconnect: list[Callable[[], None]] = []

    async def __aenter__(self) -> Self:
        self._keeper = asyncio.create_task(self._keep(), name="connection")
        up = asyncio.create_task(self._up.wait())
        try:
            async with asyncio.timeout(self._patience_s):
                done, _ = await asyncio.wait([up, self._keeper], return_when=asyncio.FIRST_COMPLETED)
            if self._keeper in done:
                self._keeper.result()
        except TimeoutError:
            await self.close()
            raise _unreachable(self._locate) from None
        except BaseException:
            await self.close()
            raise
        finally:
            up.cancel()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def is_connected(self) -> bool:
        """Tell whether there is a live connection now."""
        return self._up.is_set()

    async def wait_connected(self) -> None:
        """Wait until there is a live connection."""
        await self._up.wait()

    def on_reconnect(self, function: Callable[[], None]) -> None:
        """Have a function called after each new connection but the first."""
        self._on_reconnect.append(function)

    def renew(self) -> None:
        """Give up the connection of now and make another, as when the server no longer answers on it."""
        self._lost.set()

    async def close(self) -> None:
        """Flush what was published and close; bounded to two seconds."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._keeper
        client, self._client = self._client, None
        self._up.clear()
        self._fail_pending()
        if client is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(2):
                    await heeding(client.flush())
            await _end(client)

    async def publish(
        self, subject: str, payload: bytes = b"", *, headers: dict[str, str] | None = None, reply: str = ""
    ) -> None:
        """Send a message that nobody acknowledges.

        Raises:
            ConnectionLostError: there is no connection now; nothing was kept for later.
        """
        client = self._client
        if client is None or not self._up.is_set():
            text = "not connected to the journal"
            raise ConnectionLostError(text)
        if self.identity and subject.startswith(API):  # whoever serves the lab passes it on
            subject = f"read.{encoded(self.identity)}.{subject.removeprefix(API)}"
        if self.identity and reply:
            self._asked[reply.rpartition(".")[2]] = subject
        try:
            await heeding(client.publish(subject, payload, reply=reply, headers=headers))
        except (nats.errors.Error, OSError, AttributeError) as error:
            text = "the connection to the journal was lost"
            raise ConnectionLostError(text, because=str(error)) from error

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        *,
        headers: dict[str, str] | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> Msg:
        """Send a message and wait for its answer.

        Raises:
            ConnectionLostError: the connection broke before the answer came.
            NotAllowedError: this identity may not ask that.
            NoResponderError: nobody listens there.
            TimeoutError: no answer came in time.
        """
        token = self._token()
        answer: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._answers[token] = answer
        try:
            await self.publish(subject, payload, headers=headers, reply=f"{self._prefix}.{token}")
            async with asyncio.timeout(timeout_s):
                message = await answer
        finally:
            self._answers.pop(token, None)
            self._asked.pop(token, None)
        if not message.data and message.headers and message.headers.get("Status") == NO_RESPONDERS:
            text = f"nobody answers on {subject}"
            raise NoResponderError(text, cure="start the lab: labwright serve")
        return message

    @contextlib.asynccontextmanager
    async def channel(self) -> AsyncGenerator[Channel]:
        """Open an inbox for many messages; it is valid until the connection breaks."""
        token = self._token()
        channel = Channel(f"{self._prefix}.{token}")
        self._channels[token] = channel
        try:
            yield channel
        finally:
            self._channels.pop(token, None)
            self._asked.pop(token, None)

    @contextlib.asynccontextmanager
    async def delivery(self) -> AsyncGenerator[Channel]:
        """Open an inbox to which a stream delivers: such messages keep their own subjects, so it is a subscription."""
        client = self._client
        if client is None or not self._up.is_set():
            text = "not connected to the journal"
            raise ConnectionLostError(text)
        token = f"d{self._token()}"
        channel = Channel(f"_DELIVER.{self._prefix}.{token}")
        self._channels[token] = channel

        async def put(message: Msg) -> None:
            channel.queue.put_nowait(message)

        try:
            subscribing = client.subscribe(channel.reply, cb=put, pending_msgs_limit=0, pending_bytes_limit=0)  # pyright: ignore[reportUnknownMemberType]
            subscription = await heeding(subscribing)
        except (nats.errors.Error, OSError) as error:
            self._channels.pop(token, None)
            text = "the connection to the journal was lost"
            raise ConnectionLostError(text, because=str(error)) from error
        try:
            yield channel
        finally:
            self._channels.pop(token, None)
            self._asked.pop(token, None)
            with contextlib.suppress(nats.errors.Error, OSError):
                await heeding(subscription.unsubscribe())

    async def listen(
        self, subject: str, handler: Callable[[Msg], Awaitable[None]], *, queue: str = ""
    ) -> Callable[[], Awaitable[None]]:
        """Have each message on a subject handled, on every connection to come; returns what ends it.

        An exception of the handler is logged and does not end the listening.
        """
        number = self._count = self._count + 1

        async def guarded(message: Msg) -> None:
            try:
                await handler(message)
            except Exception:  # a border: one bad message must not deafen the subscription
                log.exception("handler failed", subject=message.subject)

        self._listeners[number] = (subject, queue, guarded)
        if self._client is not None and self._up.is_set():
            with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
                await self._subscribe(self._client)
                await heeding(self._client.flush(timeout=2))  # from here on, whoever sends is heard

        async def end() -> None:
            self._listeners.pop(number, None)
            subscription = self._subscriptions.pop(number, None)
            if subscription is not None:
                with contextlib.suppress(nats.errors.Error, OSError):
                    await heeding(subscription.unsubscribe())

        return end

    async def _subscribe(self, client: Client) -> None:
        """Subscribe what is listened to and has no subscription on this connection yet."""
        while missing := self._listeners.keys() - self._subscriptions.keys():
            number = min(missing)
            subject, queue, handler = self._listeners[number]
            subscribing = client.subscribe(subject, queue=queue, cb=handler)  # pyright: ignore[reportUnknownMemberType]
            self._subscriptions[number] = await heeding(subscribing)

    def _token(self) -> str:
        self._count += 1
        return str(self._count)

    async def _keep(self) -> None:
        """Connect, wait until that connection is lost, and do it again."""
        while True:
            lost = self._lost = asyncio.Event()
            try:
                client = await self._connect_once(lost)
                if client is None and self._refused is not None:
                    raise _not_accepted(self._refused)
            except (EngineError, UsageError, NotAllowedError) as error:  # at the start nobody waits in vain
                if not self.generation:
                    raise
                log.error("not connected", because=f"{error.message}: {error.because}")  # noqa: TRY400 - said, not traced
                client = None
            if client is None:
                pause_s = REFUSED_RETRY_S if self._refused is not None else RETRY_S
                await asyncio.sleep(pause_s * (1 + random.random()))  # noqa: S311 - jitter
                continue
            self._client = client
            self.generation += 1
            self._up.set()
            with contextlib.suppress(nats.errors.Error, OSError):
                await self._subscribe(client)
            if self.generation > 1:
                log.info("reconnected", name=self._name)
                for function in self._on_reconnect:
                    function()
            await _until_lost(client, lost)
            self._up.clear()
            self._client = None
            self._fail_pending()
            await _end(client)

    async def _connect_once(self, lost: asyncio.Event) -> Client | None:
        client = _Client()
        address = None
        self._refused = None
        try:
            address = self._locate()
            await heeding(client.connect(**self._options(address, lost)))
            check_server(client)
            self.identity = address.identity
            own = f"{encoded(address.identity)}." if address.identity else ""
            self._prefix = f"{INBOX}{own}{secrets.token_hex(11)}"
            inbox = client.subscribe(f"{self._prefix}.*", cb=self._sort, pending_msgs_limit=0, pending_bytes_limit=0)  # pyright: ignore[reportUnknownMemberType]
            await heeding(inbox)
            self._subscriptions.clear()
            await self._subscribe(client)
            await heeding(client.flush(timeout=2))
        except BaseException as error:
            await _end(client)
            if not isinstance(error, (nats.errors.Error, OSError, TimeoutError, UnreachableError)):
                raise
            log.debug("not connected yet", because=str(error) or type(error).__name__)
            if address is not None and address.identity and "authorization violation" in str(error).lower():
                self._refused = address
            return None
        return client

    def _options(self, address: Address, lost: asyncio.Event) -> dict[str, Any]:
        async def ended() -> None:
            lost.set()

        async def noted(error: Exception) -> None:
            log.debug("connection error", because=str(error) or type(error).__name__)
            if (violation := VIOLATION.search(str(error))) is not None:
                self._refuse(violation[1])

        options: dict[str, Any] = {
            "servers": [address.url],
            "name": self._name,
            "allow_reconnect": False,
            "connect_timeout": 2,
            "max_reconnect_attempts": 1,
            "reconnect_time_wait": 0.01,
            "ping_interval": self._ping_s,
            "max_outstanding_pings": 2,
            "pending_size": -1,
            "closed_cb": ended,
            "disconnected_cb": ended,
            "error_cb": noted,
        }
        if address.user:
            options |= {"user": address.user, "password": address.password}
        if address.credentials:
            options["user_credentials"] = address.credentials
        if address.seed:
            options["nkeys_seed_str"] = address.seed
        if (context := address.tls()) is not None:
            options["tls"] = context
        return options

    def _refuse(self, subject: str) -> None:
        """Have whoever waits for an answer from a subject know that this identity may not speak there."""
        for token, asked in list(self._asked.items()):
            if asked.lower() != subject.lower():  # the client tells it in small letters
                continue
            error = NotAllowedError(
                f"{self.identity} may not do that",
                because=f"this identity may not speak on {asked}",
                cure="ask an admin of the lab: labwright user list",
            )
            answer, channel = self._answers.get(token), self._channels.get(token)
            if answer is not None and not answer.done():
                answer.set_exception(error)
            elif channel is not None:
                channel.queue.put_nowait(error)

    async def _sort(self, message: Msg) -> None:
        token = message.subject.rpartition(".")[2]
        answer = self._answers.get(token)
        if answer is not None:
            if not answer.done():
                answer.set_result(message)
            return
        channel = self._channels.get(token)
        if channel is not None:
            channel.queue.put_nowait(message)

    def _fail_pending(self) -> None:
        for answer in list(self._answers.values()):
            if not answer.done():
                text = "the connection to the journal was lost"
                answer.set_exception(ConnectionLostError(text))
        self._asked.clear()
        for channel in list(self._channels.values()):
            channel.queue.put_nowait(None)


class _Client(Client):
    """The client of nats-py, save that nothing which others say, and nothing that it cannot send, leaves it deaf."""

    async def _close(self, status: int, do_cbs: bool = True) -> None:  # noqa: FBT001, FBT002 - its signature
        self._pending = []
        self._pending_data_size = 0
        await super()._close(status, do_cbs)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        try:
            await super()._process_msg(sid, subject, reply, data, headers)
        except (ValueError, IndexError) as error:  # no text: it would end the reading, and nobody would notice
            log.warning("a message that cannot be read was left out", subject=repr(subject[:200]), because=str(error))


async def heeding(doing: Awaitable[Answer]) -> Answer:
    """Await what the client of nats-py does, and let no cancellation be lost in it.

    `asyncio.wait_for` of Python 3.11, which the client uses, swallows a cancellation that comes in the moment in which
    the answer comes, and so do some of its own handlers; a loop around it would never end.

    Raises:
        asyncio.CancelledError: the task was cancelled meanwhile, whatever else came of it.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        return await doing
    finally:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError


async def _end(client: Client) -> None:
    """Close a client, whatever its state; bounded to two seconds."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(2):
            await heeding(client.close())


async def _until_lost(client: Client, lost: asyncio.Event) -> None:
    """Wait until a connection is lost; now and then look, since a client whose closing failed does not say so."""
    while client.is_connected and not lost.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await lost.wait()


def check_server(client: Client) -> None:
    """Refuse a server that lacks what the journal needs.

    Raises:
        EngineError: it is older than 2.12, or takes only small messages.
    """
    version = client.connected_server_version
    if client.max_payload < LEAST_PAYLOAD:
        text = f"the NATS server takes messages of up to {client.max_payload} bytes only"
        raise EngineError(
            text, because="the journal writes up to 1 MB", cure="set max_payload: 1MB in its configuration"
        )
    if (version.major, version.minor) < OLDEST_SERVER:
        text = f"nats-server {version} is too old"
        raise EngineError(
            text,
            because="the journal needs 2.12 or newer (per-message TTL, per-subject discard, batch direct get)",
            cure="point [nats] url or LABWRIGHT_NATS_SERVER at a newer one, or leave both empty for the embedded one",
        )


def _not_accepted(address: Address) -> NotAllowedError:
    return NotAllowedError(
        f"the lab at {address.place} does not accept this key",
        because=f"it is no key of {address.identity} any more, or of another lab",
        cure="ask an admin of the lab for a new one: labwright user add",
    )


def _unreachable(locate: Callable[[], Address]) -> UnreachableError:
    try:
        address = locate()
    except UnreachableError as error:
        return error
    return UnreachableError(
        f"the lab's journal at {address.place} does not answer",
        because="nothing accepts the connection, or it refuses the credential",
        cure="start the lab: labwright serve; or see what is wrong: labwright doctor",
    )
