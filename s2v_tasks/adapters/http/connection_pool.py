"""Connection pool: connections to the origins of image URLs, over addresses that were resolved and checked.

Every request for an image's URL passes through this module. It alone resolves host names. ``aiohttp`` gets
the checked addresses and never the name, and each address is checked once more before its socket is made.
"""

import asyncio
import socket
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from weakref import WeakValueDictionary

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult

from s2v_tasks.adapters.http.dns import Resolver
from s2v_tasks.adapters.http.fetch_options import FetchOptions
from s2v_tasks.adapters.http.request_url import Origin, RequestUrl
from s2v_tasks.domain.dead_links import FetchFailure
from s2v_tasks.domain.host_backoff import HostBackoff
from s2v_tasks.domain.ssrf import may_connect

_NAME_NOT_FOUND: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
_MAX_ADDRESSES: Final = 3
_MAX_CONNECT_TIMEOUTS: Final = 3  # in a row; then the origin's other images fail at once, to be retried late
_DNS_TTL_S: Final = 60.0
_RECEIVE_BYTES: Final = 65_536  # what a server that ignores Range can send before the connection closes
_PLACEHOLDER_HOST: Final = "checked.invalid"  # with a literal address, aiohttp would skip the resolver
_MAX_FAILED_LOOKUPS: Final = 8
_MAX_BACKOFFS: Final = 1000  # hosts whose backoff state is kept


class FetchAborted(Exception):
    """A fetch ended without a response; ``cause`` is the failure, or the reason why the image is rejected."""

    def __init__(self, cause: FetchFailure | str) -> None:
        super().__init__(cause)
        self.cause = cause


class _CheckedAddresses(AbstractResolver):
    """A resolver for aiohttp that returns the checked addresses, whatever the name."""

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


class OriginConnections:
    """Connections to one origin: its checked addresses, its HTTP session, and the slots of its host."""

    def __init__(self, origin: Origin, pool: "ConnectionPool") -> None:
        self.origin = origin
        self.users = 0
        self.slots = pool.host_slots(origin.host)
        self._pool = pool
        self._created_s = asyncio.get_running_loop().time()
        self._lookup = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None
        self._failure: FetchFailure | str | None = None
        self._connect_timeouts = 0

    @property
    def is_reusable(self) -> bool:
        """Whether later fetches may use these connections: recent addresses and no failure."""
        is_recent = asyncio.get_running_loop().time() - self._created_s < _DNS_TTL_S
        return is_recent and not isinstance(self._failure, FetchFailure)

    async def resolve(self) -> None:
        """Resolve and check the host's addresses, once for all fetches that wait.

        Raises:
            FetchAborted: The name can't be resolved, or an address or port must not be connected to.
        """
        async with self._lookup:
            if self._session is None and self._failure is None:
                await self._resolve()
        if self._failure is not None:
            raise FetchAborted(self._failure)

    async def wait_until_ready(self, *, is_late: bool = False) -> None:
        """Wait for the host's backoff. ``is_late``: this is the image's last fetch.

        Raises:
            FetchAborted: The backoff is too long, or the host refused several requests in a row.
        """
        backoff = self._pool.backoffs.get(self.origin.host)
        if backoff is None:
            return
        delay_s = backoff.delay(asyncio.get_running_loop().time(), is_late=is_late)
        if delay_s is None:
            raise FetchAborted(FetchFailure.THROTTLED)
        await asyncio.sleep(delay_s)

    def record_response(self, pause_s: float | None) -> None:
        """Record a response. ``pause_s``: the pause that a throttling host requested, 0 if it named none."""
        backoffs, name = self._pool.backoffs, self.origin.host
        if pause_s is not None:
            if name not in backoffs and len(backoffs) >= _MAX_BACKOFFS:
                del backoffs[next(iter(backoffs))]
            backoff = backoffs.setdefault(name, HostBackoff(self._pool.options.pause_s))
            backoff.record_refusal(asyncio.get_running_loop().time(), pause_s)
        elif name in backoffs:
            backoffs[name].record_success()
            if not backoffs[name].interval_s:
                del backoffs[name]

    async def get(self, url: RequestUrl, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """Send a GET for a URL of this origin. Call ``resolve`` first.

        Raises:
            FetchAborted: Several connections in a row timed out.
            aiohttp.ClientError, TimeoutError: No response.
        """
        if self._failure is not None:
            raise FetchAborted(self._failure)
        if self._session is None:
            raise RuntimeError("resolve() comes first")
        scheme, host, port = self.origin
        try:
            response = await self._session.get(
                yarl.URL(f"{scheme}://{_PLACEHOLDER_HOST}:{port}{url.target}", encoded=True),
                headers={"Host": url.authority, **headers},
                allow_redirects=False,
                # Names in certificates have no trailing dot.
                server_hostname=host.removesuffix(".") if scheme == "https" else None,
            )
        except aiohttp.ConnectionTimeoutError:
            self._connect_timeouts += 1
            if self._connect_timeouts >= _MAX_CONNECT_TIMEOUTS:
                self._failure = FetchFailure.TIMEOUT
            raise
        self._connect_timeouts = 0
        return response

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def _resolve(self) -> None:
        options = self._pool.options
        _, name, port = self.origin
        if not options.allow_private_hosts and port not in options.ports:
            self._failure = "odd_port"
            return
        try:
            found = await self._pool.resolver(name, port)
        except (OSError, TimeoutError) as error:
            is_unknown = isinstance(error, socket.gaierror) and error.errno in _NAME_NOT_FOUND
            self._failure = FetchFailure.NO_SUCH_HOST if is_unknown else self._pool.failed_lookup(error)
        else:
            self._pool.record_lookup(name, found)
            # All must be allowed: a name with a public and a private address is an attack, or a mistake.
            if not all(self._pool.may_connect(address) for address in found):
                self._failure = "private_address"
            elif not found:
                self._failure = FetchFailure.NO_SUCH_HOST
            else:
                self._session = self._pool.session(tuple(dict.fromkeys(found))[:_MAX_ADDRESSES])


class ConnectionPool:
    """Connections to the origins in use and to some idle ones, with the bounds on all. ``close`` it."""

    def __init__(self, options: FetchOptions, resolver: Resolver, tls: ssl.SSLContext) -> None:
        self.options = options
        self.resolver = resolver
        self._tls = tls
        self._host_slots: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._in_use: dict[Origin, OriginConnections] = {}
        self._idle: OrderedDict[Origin, OriginConnections] = OrderedDict()
        self._failed_lookups = _MAX_FAILED_LOOKUPS  # in a row; until a name is resolved, none is known
        self.backoffs: dict[str, HostBackoff] = {}
        """Backoff state by host name, only of hosts that throttle."""

    def record_lookup(self, name: str, addresses: Sequence[str]) -> None:
        """Record that a name was resolved: a literal address needs no resolver."""
        if list(addresses) != [name]:
            self._failed_lookups = 0

    def failed_lookup(self, error: OSError) -> FetchFailure:
        """Record a lookup that failed, and return why: after several there may be no resolver here."""
        self._failed_lookups += 1
        is_lookup = isinstance(error, socket.gaierror | TimeoutError)
        has_resolver = self._failed_lookups <= _MAX_FAILED_LOOKUPS
        return FetchFailure.DNS_BUSY if is_lookup and has_resolver else FetchFailure.LOCAL

    def host_slots(self, host: str) -> asyncio.Semaphore:
        """Return the semaphore of one host, for all its schemes and ports; dropped when unused."""
        return self._host_slots.setdefault(host, asyncio.Semaphore(self.options.per_host))

    def may_connect(self, address: str) -> bool:
        """Whether these options allow an address."""
        return may_connect(address, self.options.allow_private_hosts)

    @asynccontextmanager
    async def acquire(self, url: RequestUrl) -> AsyncIterator[OriginConnections]:
        """Share the connections of the URL's origin among all fetches that use them now."""
        origin = url.origin
        connections = self._in_use.get(origin) or self._idle.pop(origin, None)
        if connections is None or not connections.is_reusable:
            if connections is not None and not connections.users:
                await connections.close()
            connections = OriginConnections(origin, self)
        self._in_use[origin] = connections
        connections.users += 1
        try:
            yield connections
        finally:
            connections.users -= 1
            if not connections.users:
                await self._release(connections)

    async def _release(self, connections: OriginConnections) -> None:
        if self._in_use.get(connections.origin) is connections:
            del self._in_use[connections.origin]
            if connections.is_reusable:
                self._idle[connections.origin] = connections
                if len(self._idle) <= self.options.max_idle_origins:
                    return
                _, connections = self._idle.popitem(last=False)
        await connections.close()

    def session(self, addresses: tuple[str, ...]) -> aiohttp.ClientSession:
        """Return an HTTP session that can connect to these addresses and to no others."""
        connector = aiohttp.TCPConnector(
            resolver=_CheckedAddresses(addresses),
            socket_factory=self._open_socket,
            ssl=self._tls,
            limit=0,  # the host's slots bound them: waiting there takes nothing from an image's timeout
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.options.connect_timeout_s),
            read_bufsize=self.options.first_bytes,
        )

    def _open_socket(self, address_info: tuple[Any, ...]) -> socket.socket:
        """Make the socket of a connection; the last check of its address."""
        family, kind, proto, _, address = address_info
        if not self.may_connect(address[0]):
            raise PermissionError("this address must not be connected to")
        sock = socket.socket(family, kind, proto)
        if not self.options.same_content:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        return sock

    async def close(self) -> None:
        """Close every connection."""
        for connections in [*self._in_use.values(), *self._idle.values()]:
            await connections.close()
        self._idle.clear()
