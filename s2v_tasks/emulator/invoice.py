"""The emulator's invoice and counters. No account is charged: the lines are for comparison with a ledger."""

import csv
import io
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO, TypedDict

from s2v_tasks.models import WAN22_S2V_DETECT


class InvoiceLine(TypedDict):
    """One billed call; ``billed_at`` is UTC in ISO 8601, ``micro_usd`` millionths of a US dollar."""

    request_id: str
    image_url: str
    billed_at: str
    micro_usd: int


class Arrival(TypedDict):
    """When a call arrived, in seconds of the service's monotonic clock, and whether it was admitted."""

    at_s: float
    admitted: bool


class CallsReport(TypedDict):
    """What reached the service since its start or last reset.

    ``received`` = ``admitted`` + ``throttled`` (by the rate window) + ``refused`` (key, model or body, before
    the window). ``by_status`` has the key ``none`` for a call that got no whole response, ``by_code`` the
    error codes, ``by_rule`` what the header ``x-emulator-rule`` says.
    """

    received: int
    admitted: int
    throttled: int
    refused: int
    billed: int
    by_status: dict[str, int]
    by_code: dict[str, int]
    by_rule: dict[str, int]
    arrivals: list[Arrival]


class Invoice:
    """Every billed call as a line: in memory and, with ``path``, appended to a file of JSON lines.

    A line is flushed to the operating system before `bill` returns, so it survives a SIGKILL of the service.
    An emulator started with an existing file appends to it.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.lines: list[InvoiceLine] = []
        self._file: TextIO | None = None
        if path is not None:
            if path.exists():
                self.lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            self._file = path.open("a", encoding="utf-8")

    def bill(self, request_id: str, image_url: str) -> None:
        """Write the line of one call at the list price."""
        line = InvoiceLine(
            request_id=request_id,
            image_url=image_url,
            billed_at=datetime.now(UTC).isoformat(timespec="microseconds"),
            micro_usd=WAN22_S2V_DETECT.price_micro_usd,
        )
        self.lines.append(line)
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def csv(self) -> str:
        """The lines as CSV with a header row."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(InvoiceLine.__annotations__))
        writer.writeheader()
        writer.writerows(self.lines)
        return text.getvalue()

    def clear(self) -> None:
        """Forget every line, in the file too."""
        self.lines.clear()
        if self._file is not None:
            self._file.truncate(0)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


class Calls:
    """Counts what reached the service."""

    def __init__(self) -> None:
        self._arrivals: list[Arrival] = []
        self._counts: Counter[str] = Counter()
        self._by_status: Counter[str] = Counter()
        self._by_code: Counter[str] = Counter()
        self._by_rule: Counter[str] = Counter()

    def arrived(self, at_s: float, result: str) -> None:
        """Count a call that arrived at ``at_s`` and was ``admitted``, ``throttled`` or ``refused``."""
        self._arrivals.append(Arrival(at_s=at_s, admitted=result == "admitted"))
        self._counts[result] += 1

    def record_response(self, status: int | None, code: str, rule: str) -> None:
        """Count a response; ``status`` None: no response, ``code`` empty: no error code."""
        self._by_status["none" if status is None else str(status)] += 1
        self._by_rule[rule] += 1
        if code:
            self._by_code[code] += 1

    def report(self, billed: int) -> CallsReport:
        """Everything counted so far, beside ``billed`` invoice lines."""
        return CallsReport(
            received=len(self._arrivals),
            admitted=self._counts["admitted"],
            throttled=self._counts["throttled"],
            refused=self._counts["refused"],
            billed=billed,
            by_status=dict(self._by_status),
            by_code=dict(self._by_code),
            by_rule=dict(self._by_rule),
            arrivals=self._arrivals,
        )
