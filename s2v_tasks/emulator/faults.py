"""Faults on demand: which admitted call gets which documented error, or a broken connection.

A fault is written as ``NAME[:option=value,...]``, for example ``Throttling.BurstRate:rate=0.05``,
``InvalidURL.Timeout:match=*/slow/*,times=2`` or ``drop:rate=0.01``. Names are the vendor's codes (see
``catalogue``) and the transport faults below.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from types import MappingProxyType

from s2v_tasks.emulator.catalogue import CATALOGUE
from s2v_tasks.errors import UsageError

TRANSPORT_FAULTS = MappingProxyType(
    {
        "drop": "checks and bills, then closes the connection without a response",
        "reset": "resets the connection before anything is checked or billed",
        "truncate": "checks and bills, sends half of the response's body, closes",
        "html": "503 with an HTML page, not billed",
        "empty": "503 with an empty body, not billed",
        "nojson": "checks and bills; a 200 has a body that is no JSON",
        "no_check_pass": "checks and bills; a 200 is JSON without check_pass",
        "no_path": "404 with an empty body, as for a wrong base URL; not billed",
        "stall": "checks and bills, responds only after delay_s seconds",
    }
)
"""Transport faults by name. Those that bill do so if the detector's response is a billed one."""
SHAPES = ("flat", "nested")


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault and the calls that it hits.

    ``match`` is a glob over the whole image URL if it holds a ``*``, else a part of it; None: every URL.
    ``rate`` is the share of matching calls (0 to 1, seeded), ``first`` skips that many matching calls,
    ``times`` hits at most that many. ``retry_after_s`` sends a Retry-After header, ``delay_s`` is how long a
    ``stall`` lasts; both in seconds. ``shape`` is that of an error's body: ``flat``, or ``nested`` below
    ``error``.

    Raises:
        UsageError: The name is unknown, or a value is out of range.
    """

    name: str
    match: str | None = None
    rate: float = 1.0
    first: int = 0
    times: int | None = None
    retry_after_s: float | None = None
    delay_s: float = 30.0
    shape: str = "flat"

    def __post_init__(self) -> None:
        if self.name not in TRANSPORT_FAULTS and self.name not in CATALOGUE:
            names = ", ".join([*TRANSPORT_FAULTS, *CATALOGUE])
            raise UsageError(f"no fault is called {self.name!r}. Choose one of {names}")
        if self.match is not None and (not self.match or "," in self.match):
            raise UsageError(f"a fault's match is a part of a URL without commas, not {self.match!r}")
        if self.shape not in SHAPES:
            raise UsageError(f"a fault's shape is {' or '.join(SHAPES)}, not {self.shape!r}")
        if not 0.0 <= self.rate <= 1.0:
            raise UsageError(f"a fault's rate is a share from 0 to 1, not {self.rate}")
        numbers = {"first": self.first, "times": self.times, "retry_after": self.retry_after_s}
        for option, value in {**numbers, "delay_s": self.delay_s}.items():
            # `not >=` also catches NaN.
            if value is not None and not value >= 0:
                raise UsageError(f"a fault's {option} is not below 0, but it was {value}")

    def matches(self, url: str) -> bool:
        """Whether the fault matches this image URL."""
        if self.match is None:
            return True
        return fnmatchcase(url, self.match) if "*" in self.match else self.match in url

    @property
    def spec(self) -> str:
        """The fault as text that `parse_fault` reads back."""
        values = {
            option: getattr(self, field.name)
            for field, option in _OPTION_OF_FIELD
            if getattr(self, field.name) != field.default
        }
        options = ",".join(f"{option}={value}" for option, value in values.items())
        return f"{self.name}:{options}" if options else self.name


_OPTION_NAMES = {"retry_after_s": "retry_after"}
_OPTION_OF_FIELD = [(f, _OPTION_NAMES.get(f.name, f.name)) for f in fields(Fault) if f.name != "name"]
_NUMBERS = {"rate": float, "first": int, "times": int, "retry_after": float, "delay_s": float}
_OPTIONS = tuple(option for _, option in _OPTION_OF_FIELD)


def parse_fault(spec: str) -> Fault:
    """Read ``NAME[:option=value,...]``.

    Raises:
        UsageError: A name or option is unknown, or a value has the wrong type; the message lists what is
        allowed.
    """
    name, _, rest = spec.strip().partition(":")
    values: dict[str, str | float | int] = {}
    for part in filter(None, rest.split(",")):
        option, equals, value = part.partition("=")
        if option not in _OPTIONS or not equals:
            allowed = ", ".join(f"{o}=..." for o in _OPTIONS)
            raise UsageError(f"fault {spec!r}: {part!r} is no option of a fault, which are {allowed}")
        try:
            values[option] = _NUMBERS[option](value) if option in _NUMBERS else value
        except ValueError:
            raise UsageError(f"fault {spec!r}: {option} takes a number, not {value!r}") from None
    by_field = {f.name: values[option] for f, option in _OPTION_OF_FIELD if option in values}
    return Fault(name, **by_field)  # type: ignore[arg-type]  # converted by _NUMBERS above


def parse_faults(faults: Iterable[Fault | str]) -> tuple[Fault, ...]:
    """Read faults given as text or as records.

    Raises:
        UsageError: See `parse_fault`.
    """
    return tuple(fault if isinstance(fault, Fault) else parse_fault(fault) for fault in faults)


class FaultPlan:
    """Gives each admitted call at most one fault: the first of the list that is due.

    A fault counts the matching calls that no fault before it took.
    """

    def __init__(self, faults: Sequence[Fault], seed: int) -> None:
        self._faults = tuple(faults)
        self._seen = [0] * len(self._faults)
        self._hits = [0] * len(self._faults)
        self._random = random.Random(seed)  # noqa: S311 - repeatable faults, nothing secret

    def pick(self, url: str) -> Fault | None:
        """Pick the fault for the next call, with this image URL; None: no fault."""
        for index, fault in enumerate(self._faults):
            if not fault.matches(url):
                continue
            self._seen[index] += 1
            spent = fault.times is not None and self._hits[index] >= fault.times
            if spent or self._seen[index] <= fault.first or self._random.random() >= fault.rate:
                continue
            self._hits[index] += 1
            return fault
        return None
