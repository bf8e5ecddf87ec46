"""Systemic refusals: responses that refuse every request with a code that no table lists. Pure.

The run stops as an account problem when `STREAK` different images in a row get a 4xx (or a redirect) with one
code that is unlisted or concerns the request. A verdict or a listed image code resets the count. Responses
that prove nothing about the request (origin, throttled, transient) neither count nor reset. An image takes
part in a second stop only if no verdict arrived since its first, and never in a third: then its response is
final.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from s2v_tasks.domain.detect import DetectResponse, Kind
from s2v_tasks.domain.error_body import normalize_code

STREAK: Final = 5
"""Images refused with one code before the run stops."""
MAX_STOPS: Final = 2
"""Stops that one image may take part in."""


@dataclass(frozen=True, slots=True)
class Refusals:
    """The systemic refusals of one run, as an immutable state.

    ``streak`` holds (image key, host) of the images refused in a row with ``code``; ``succeeded``: the run
    had a verdict. ``stop_counts`` counts the stops of each suspected image; the manifest stores it.
    """

    code: str = ""
    streak: tuple[tuple[str, str], ...] = ()
    succeeded: bool = False
    stopped: bool = False
    stop_counts: Mapping[str, int] = field(default_factory=dict)

    def after(self, image_key: str, host: str, response: DetectResponse) -> "Refusals":
        """The state after one more response."""
        if response.kind is Kind.VERDICT:
            return replace(
                self._reset(), succeeded=True, stop_counts=dict.fromkeys(self.stop_counts, MAX_STOPS)
            )
        if response.kind is Kind.IMAGE and response.listed:
            return self._reset()
        code = normalize_code(response.code or "") or f"HTTP {response.http_status}"
        if not self._counts(image_key, response) or (self.stopped and code != self.code):
            return self
        streak = (*(self.streak if code == self.code else ()), (image_key, host))
        stopped = len(streak) >= STREAK
        # An image whose call was in flight when the run stopped is suspected too.
        suspects = [key for key, _ in (streak[-1:] if self.stopped else streak)] if stopped else []
        stop_counts = {**self.stop_counts, **{key: self.stop_counts.get(key, 0) + 1 for key in suspects}}
        return replace(self, code=code, streak=streak, stopped=stopped, stop_counts=stop_counts)

    @property
    def avoided_host(self) -> str | None:
        """A host to avoid for the next image: all images of a nearly full streak are from it."""
        hosts = {host for _, host in self.streak}
        return hosts.pop() if len(self.streak) == STREAK - 1 and len(hosts) == 1 else None

    def is_refused(self, image_key: str) -> bool:
        """Whether an image was among those that stopped the run: its response is not its outcome."""
        return self.stopped and any(image_key == key for key, _ in self.streak)

    def _reset(self) -> "Refusals":
        return self if self.stopped else replace(self, code="", streak=())

    def _counts(self, image_key: str, response: DetectResponse) -> bool:
        if not response.systemic or (self.succeeded and response.kind is not Kind.UNRECOGNISED):
            return False
        again = any(image_key == key for key, _ in self.streak)
        return not again and self.stop_counts.get(image_key, 0) < MAX_STOPS


def message(sample: DetectResponse) -> str:
    """The message for a stop: the fact, then the fix."""
    return (
        f"the vendor refused {STREAK} different images in a row with one code about the request or the"
        f" account, not about an image: {sample.sample}. Check DASHSCOPE_HTTP_BASE_URL (it ends in /api/v1),"
        " the account in the vendor's console, and whether there is a newer s2v-tasks. Nothing was charged,"
        " and everything received is kept: run the same command again afterwards"
    )
