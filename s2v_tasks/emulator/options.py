"""Options of the emulator."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from s2v_tasks.emulator.faults import Fault, parse_faults
from s2v_tasks.emulator.windows import make_window
from s2v_tasks.errors import UsageError


@dataclass(frozen=True, slots=True)
class EmulatorOptions:
    """How the emulator behaves.

    ``port`` 0 takes a free one. ``window`` is one of `windows.WINDOW_NAMES`, ``limit`` in calls per second,
    None for no limit. ``api_key`` None accepts any key that is not empty. A call arrives up to
    ``arrival_jitter_s`` late, as on a network, and its check takes ``latency_s`` plus up to ``jitter_s``
    seconds. ``faults`` are records or their text. ``seed`` repeats jitter and faults. ``invoice_path`` gets
    the invoice as JSON lines. With ``fetch_images`` False only the names of images
    decide; else each image is fetched, within ``fetch_timeout_s``.

    Raises:
        UsageError: A value is out of range.
    """

    host: str = "127.0.0.1"
    port: int = 0
    window: str = "sliding"
    limit: float | None = 5.0
    api_key: str | None = None
    latency_s: float = 0.0
    jitter_s: float = 0.0
    arrival_jitter_s: float = 0.0
    faults: tuple[Fault | str, ...] = ()
    seed: int = 0
    invoice_path: Path | None = None
    fetch_images: bool = True
    fetch_timeout_s: float = 5.0

    def __post_init__(self) -> None:
        make_window(self.window, self.limit)
        parse_faults(self.faults)
        if not 0 <= self.port <= 65_535:
            raise UsageError(f"a port is a number from 0 to 65535, not {self.port}")
        if min(self.latency_s, self.jitter_s, self.arrival_jitter_s) < 0 or self.fetch_timeout_s <= 0:
            raise UsageError("latency and jitter are not below 0, fetch_timeout_s is above 0 (seconds)")

    def to_json(self) -> str:
        """One line of JSON that `from_json` reads back."""
        plain = asdict(replace(self, faults=()))
        plain["faults"] = [fault.spec for fault in parse_faults(self.faults)]
        plain["invoice_path"] = None if self.invoice_path is None else str(Path(self.invoice_path).absolute())
        return json.dumps(plain)

    @classmethod
    def from_json(cls, line: str) -> "EmulatorOptions":
        """Read what `to_json` wrote."""
        plain = json.loads(line)
        plain["faults"] = tuple(plain["faults"])
        plain["invoice_path"] = None if plain["invoice_path"] is None else Path(plain["invoice_path"])
        return cls(**plain)
