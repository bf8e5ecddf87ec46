"""The hosts that pictures are fetched from: addresses looked up once and checked, and connections to them.

This is the door to the network for candidates' URLs. A name is looked up here and nowhere else, ``aiohttp``
gets the checked addresses and never the name, and the last thing before a socket is made is one more check.
"""

import asyncio
import socket
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, NamedTuple
from weakref import WeakValueDictionary

import aiohttp
import httpx
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult

from s2v_tasks.adapters.names import Resolver
from s2v_tasks.addresses import WEB_PORTS, may_connect
from s2v_tasks.screen import Trouble

_UNKNOWN_NAME: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
_TRIED_ADDRESSES: Final = 3
_SILENT_CONNECTS: Final = 3  # in a row: then a host's other pictures wait for the late retry, not for it
_KNOWN_FOR_S: Final = 60.0
_IDLE_HOSTS: Final = 32  # kept with their connections, for the next shard
_RECEIVE_BYTES: Final = 65_536  # what a server can push that knows no ranges, before it is hung up on
_STAND_IN: Final = "checked.invalid"  # for aiohttp: with a literal address it would not ask the resolver
_DEFAULT_PORT: Final = {"http": 80, "https": 443}


def _user_agent() -> str:
    try:
        return f"s2v-tasks/{version('s2v-tasks')}"
    except PackageNotFoundError:  # run from a folder that is not installed
        return "s2v-tasks"


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """How to fetch. ``timeout_s`` and ``max_bytes`` are for one look in all, waiting in line apart.

    ``allow_private_hosts`` opens private and loopback addresses, never link-local and metadata ones, and with
    them every port. ``ports`` are those that public hosts are asked at. ``same_content``: fetch what is kept
    to its end, up to ``max_picture_bytes``, to tell equal bytes.
    """

    allow_private_hosts: bool = False
    ports: frozenset[int] = WEB_PORTS
    same_content: bool = False
    timeout_s: float = 10.0
    connect_timeout_s: float = 5.0
    max_bytes: int = 1_048_576
    max_picture_bytes: int = 33_554_432
    first_bytes: int = 4096
    max_redirects: int = 3
    max_in_flight: int = 256
    per_host: int = 8
    user_agent: str = field(default_factory=_user_agent)


class Unreached(Exception):
    """A look ended before an answer: a trouble, or the reason for a refusal."""

    def __init__(self, why: Trouble | str) -> None:
        super().__init__(why)
        self.why = why


class Origin(NamedTuple):
    """Where a URL leads: connections are never shared between two of these, whatever their addresses."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: httpx.URL) -> "Origin":
        """Return a URL's origin; the host in its ASCII form, without brackets."""
        return cls(url.scheme, url.raw_host.decode(), url.port or _DEFAULT_PORT[url.scheme])


class _Checked(AbstractResolver):
    """What aiohttp believes to be the name service: the addresses that were checked, whatever the name."""

    def __init__(self, addresses: tuple[str, ...]) -> None:
        self._addresses = addresses

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002 - the signature is aiohttp's
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        pass


class Host:
    """One origin: its addresses, its connections, and how many may ask it at a time."""

    def __init__(self, origin: Origin, hosts: "Hosts") -> None:
        self.origin = origin
        self.users = 0
        self.turns = hosts.turns(origin.host)
        self._hosts = hosts
        self._since = asyncio.get_running_loop().time()
        self._lookup = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None
        self._out: Trouble | str | None = None
        self._silent = 0

    @property
    def good(self) -> bool:
        """Whether who comes later is served too: not if it is old or in trouble, then it is asked anew."""
        young = asyncio.get_running_loop().time() - self._since < _KNOWN_FOR_S
        return young and not isinstance(self._out, Trouble)

    async def look_up(self) -> None:
        """Know where the host is; once, for whoever waits for it.

        Raises:
            Unreached: It can't be found, or must not be asked.
        """
        async with self._lookup:
            if self._session is None and self._out is None:
                await self._find()
        if self._out is not None:
            raise Unreached(self._out)

    async def get(self, url: httpx.URL, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """Ask for a URL of this origin, after ``look_up``.

        Raises:
            Unreached: Several connections in a row met with silence.
            aiohttp.ClientError, TimeoutError: No answer.
        """
        if self._out is not None:
            raise Unreached(self._out)
        if self._session is None:
            raise RuntimeError("look_up() comes first")
        scheme, host, port = self.origin
        try:
            response = await self._session.get(
                yarl.URL(f"{scheme}://{_STAND_IN}:{port}{url.raw_path.decode('ascii')}", encoded=True),
                headers={"Host": url.netloc.decode(), **headers},
                allow_redirects=False,
                # Certificates have no dot at the end of a name.
                server_hostname=host.removesuffix(".") if scheme == "https" else None,
            )
        except aiohttp.ConnectionTimeoutError:
            self._silent += 1
            if self._silent >= _SILENT_CONNECTS:
                self._out = Trouble.TIMEOUT
            raise
        self._silent = 0
        return response

    async def close(self) -> None:
        """Close its connections."""
        if self._session is not None:
            await self._session.close()

    async def _find(self) -> None:
        options = self._hosts.options
        _, name, port = self.origin
        if not options.allow_private_hosts and port not in options.ports:
            self._out = "odd_port"
            return
        try:
            found = await self._hosts.resolver(name, port)
        except socket.gaierror as error:
            self._out = Trouble.NO_SUCH_HOST if error.errno in _UNKNOWN_NAME else Trouble.DNS_BUSY
        except TimeoutError:
            self._out = Trouble.DNS_BUSY
        else:
            # All of them: a name with one public and one private address is an attempt, or a mistake.
            if not all(self._hosts.may_connect(address) for address in found):
                self._out = "private_address"
            elif not found:
                self._out = Trouble.NO_SUCH_HOST
            else:
                self._session = self._hosts.session(tuple(dict.fromkeys(found))[:_TRIED_ADDRESSES])


class Hosts:
    """Every host in use, and a few that were; the bounds on all of them. ``close`` it in the end."""

    def __init__(self, options: FetchOptions, resolver: Resolver, tls: ssl.SSLContext) -> None:
        self.options = options
        self.resolver = resolver
        self._tls = tls
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._in_use: dict[Origin, Host] = {}
        self._idle: OrderedDict[Origin, Host] = OrderedDict()

    def turns(self, host: str) -> asyncio.Semaphore:
        """Return the bound on one host, by any scheme and port; forgotten when nobody holds it."""
        return self._turns.setdefault(host, asyncio.Semaphore(self.options.per_host))

    def may_connect(self, address: str) -> bool:
        """Whether these options allow an address."""
        return may_connect(address, self.options.allow_private_hosts)

    @asynccontextmanager
    async def visit(self, url: httpx.URL) -> AsyncIterator[Host]:
        """Share the URL's host with whoever visits it now."""
        origin = Origin.of(url)
        host = self._in_use.get(origin) or self._idle.pop(origin, None)
        if host is None or not host.good:
            if host is not None and not host.users:
                await host.close()
            host = Host(origin, self)
        self._in_use[origin] = host
        host.users += 1
        try:
            yield host
        finally:
            host.users -= 1
            if not host.users:
                await self._leave(host)

    async def _leave(self, host: Host) -> None:
        if self._in_use.get(host.origin) is host:
            del self._in_use[host.origin]
            if host.good:
                self._idle[host.origin] = host
                if len(self._idle) <= _IDLE_HOSTS:
                    return
                _, host = self._idle.popitem(last=False)
        await host.close()

    def session(self, addresses: tuple[str, ...]) -> aiohttp.ClientSession:
        """Return a client that can connect to these addresses and to no others."""
        connector = aiohttp.TCPConnector(
            resolver=_Checked(addresses),
            socket_factory=self._socket,
            ssl=self._tls,
            limit=0,  # ours are the turns, in which waiting costs a picture no time
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.options.connect_timeout_s),
            read_bufsize=self.options.first_bytes,
        )

    def _socket(self, where: tuple[Any, ...]) -> socket.socket:
        """Make a socket for a connection: nothing gets by here."""
        family, kind, proto, _, address = where
        if not self.may_connect(address[0]):
            raise PermissionError("this address must not be connected to")
        made = socket.socket(family, kind, proto)
        if not self.options.same_content:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        return made

    async def close(self) -> None:
        """Close every connection."""
        for host in [*self._in_use.values(), *self._idle.values()]:
            await host.close()
        self._idle.clear()
