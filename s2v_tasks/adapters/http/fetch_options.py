"""Options of image fetches: their bounds and the User-Agent."""

from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version

from s2v_tasks.domain.opt_out import USER_AGENT_TOKEN
from s2v_tasks.domain.ssrf import WEB_PORTS


def user_agent(contact: str | None = None) -> str:
    """The User-Agent, with a contact if given: some hosts refuse agents that name no contact."""
    try:
        name = f"{USER_AGENT_TOKEN}/{version('s2v-tasks')}"
    except PackageNotFoundError:  # run from a folder that is not installed
        name = USER_AGENT_TOKEN
    return f"{name} ({contact})" if contact else name


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """Options of image fetches.

    Args:
        allow_private_hosts: Allow private and loopback addresses at every port; never link-local and
            metadata addresses.
        ports: Ports that may be connected to on public hosts.
        same_content: Fetch all bytes of images that are kept, up to ``max_image_bytes``, to find equal files.
        timeout_s: For all requests of one header fetch, without waits for slots and backoff.
        connect_timeout_s: For one connection and for one DNS lookup.
        max_bytes: Bytes read for one header.
        max_image_bytes: Bytes read of one whole image.
        first_bytes: Bytes of the first request.
        max_redirects: Redirects followed for one image.
        max_requests: Requests for one image, its late retry included.
        pause_s: Backoff of a host that throttles and names no pause.
        max_in_flight: Requests at a time, to all hosts.
        per_host: Requests at a time, to one host.
        max_idle_origins: Origins whose connections stay open for the next shard.
        dns_threads: DNS lookups at a time.
        user_agent: The User-Agent header.
    """

    allow_private_hosts: bool = False
    ports: frozenset[int] = WEB_PORTS
    same_content: bool = False
    timeout_s: float = 10.0
    connect_timeout_s: float = 5.0
    max_bytes: int = 1_048_576
    max_image_bytes: int = 33_554_432
    first_bytes: int = 4096
    max_redirects: int = 3
    max_requests: int = 16
    pause_s: float = 1.0
    max_in_flight: int = 256
    per_host: int = 8
    max_idle_origins: int = 32
    dns_threads: int = 64
    user_agent: str = field(default_factory=user_agent)

    def within(self, room: int) -> "FetchOptions":
        """These options, bounded so that at most ``room`` files and sockets are open at a time."""
        at_a_time = max(1, min(self.max_in_flight, room // 5))
        return replace(
            self,
            max_in_flight=at_a_time,
            per_host=min(self.per_host, at_a_time),
            max_idle_origins=min(self.max_idle_origins, room // 5 // self.per_host),
            dns_threads=min(self.dns_threads, at_a_time),  # a lookup may take two
        )
