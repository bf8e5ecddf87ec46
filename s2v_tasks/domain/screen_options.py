"""The parameters that the free screen goes by, of the groups that hold them."""

from dataclasses import dataclass
from typing import Self

from s2v_tasks.settings import Advanced, Screening


@dataclass(frozen=True, slots=True)
class ScreenOptions:
    """What the free screen goes by, of two groups."""

    allow_private_hosts: bool
    allow_ports: tuple[int, ...]
    header_cache_ttl_h: float
    compares_bytes: bool

    @classmethod
    def of(cls, screening: Screening | None = None, advanced: Advanced | None = None) -> Self:
        """As the groups say, or by default."""
        screening, advanced = screening or Screening(), advanced or Advanced()
        return cls(
            screening.allow_private_hosts,
            advanced.allow_ports,
            advanced.header_cache_ttl_h,
            screening.dedupe == "bytes",
        )

    @property
    def allowed(self) -> str:
        """Where images may be fetched from, beyond what every screen may."""
        ports = sorted(set(self.allow_ports))
        return f"{'private' if self.allow_private_hosts else 'public'} {','.join(map(str, ports))}".strip()
