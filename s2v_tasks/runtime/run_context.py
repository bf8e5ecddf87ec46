"""An open run: its resources, which stay the same, and its state, which changes as the run works."""

from dataclasses import dataclass
from typing import Protocol

from s2v_tasks.adapters.database.run_ledger import RunLedger
from s2v_tasks.adapters.storage import pointer
from s2v_tasks.adapters.storage.run_folder import Manifest, RunFolder
from s2v_tasks.errors import LeaseLost, RunStopped
from s2v_tasks.runtime.canonical import CanonicalResolver
from s2v_tasks.runtime.engine import Engine
from s2v_tasks.runtime.image_queue import ImageQueue
from s2v_tasks.runtime.partitions import PartitionStore
from s2v_tasks.runtime.run_state import RunState
from s2v_tasks.runtime.screener import CachedScreener
from s2v_tasks.settings import CurateParameters


class RateLimit(Protocol):
    """The account's rate limit, calls a second, and where that number is from; both may change."""

    @property
    def rate_per_s(self) -> float:
        """Calls a second; 0 pauses."""
        ...

    @property
    def source(self) -> str:
        """Where the number is from."""
        ...


@dataclass(frozen=True, slots=True)
class RunContext:
    """The resources of one open run.

    Attributes:
        parameters: What the run does.
        folder: Where its files are.
        manifest: As it was written when the run opened.
        ledger: The ledger under the run's lease.
        engine: Sends the paid calls.
        screener: Screens images for free.
        partitions: The rows, and the results of the stages.
        queue: The images that still need a check.
        canonical: Resolves images with the same content.
        rate_limit: The account's.
        state: The counters, and the status that the run ended with.
    """

    parameters: CurateParameters
    folder: RunFolder
    manifest: Manifest
    ledger: RunLedger
    engine: Engine
    screener: CachedScreener
    partitions: PartitionStore
    queue: ImageQueue
    canonical: CanonicalResolver
    rate_limit: RateLimit
    state: RunState

    @property
    def stopped(self) -> RunStopped | None:
        """Why the run sends nothing more, if so."""
        return self.engine.stopped

    @property
    def is_published(self) -> bool:
        """Whether an earlier process of the run died after its publication: its data stays as it is."""
        published = pointer.read(self.folder.out)
        return published is not None and published.run_id == self.folder.run_id

    def check_lease(self) -> None:
        """Check that no other process works in the run's folder, before writing into it.

        Raises:
            LeaseLost: Another process has taken the run over.
        """
        if isinstance(self.stopped, LeaseLost):
            raise self.stopped
