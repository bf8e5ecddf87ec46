"""Errors: the exception tree of the package, each class with its exit status.

A "no" (an image that fails, a closed gate inside a report) is a value; an obstacle is one of these::

    S2VError                     exit  retryable
    ├── UsageError               2    no   bad option, missing key: nothing was sent
    │   ├── InputError           2    no   the candidates can't be used
    │   ├── RunFinished          2    no   the run that was named has ended already
    │   ├── Withdrawn            2    no   a rollback withdrew the run that would be published
    │   ├── LedgerNotFound       2    no   the database that was named is empty
    │   └── LedgerRefused        2    no   it holds something else, or a ledger that can't be used now
    ├── RunStopped               1    yes  the same command continues where it stopped
    │   ├── AccountRefused       1    yes  ... once the account is fixed
    │   ├── Outage               1    yes  no usable response for too long
    │   ├── LeaseLost            1    yes  another process holds this run
    │   ├── LedgerUnavailable    1    yes  the ledger can't be read or written
    │   ├── StorageUnavailable   1    yes  the output can't be read or written
    │   ├── PrefectUnavailable   1    yes  Prefect's server does not respond
    │   ├── TaskRunnerLost       1    yes  the task runner that screens is not there, or lost its work
    │   └── Interrupted          1    yes  a signal or a cancel
    ├── GateClosed               3    no   the dataset is not good enough, or too expensive
    ├── BudgetExhausted          4    no   not all was checked; more needs a new budget
    ├── NotApproved              5    no   too expensive without approval: nothing was sent
    ├── SuiteError               5    no   a suite is broken, so nothing may pass it
    └── DataIntegrityError       5    no   rows or money do not add up: a defect

With status 1 the same command continues the run, for ``AccountRefused`` once the account is in order: a
scheduler may repeat the command on 1 alone. 0 is a published dataset. What has no class of its own is a
defect, status 5.

``exit_status``, ``retryable`` and ``kind``, which is what ``--json`` calls such an end, belong to the class.
A message states the fact with its item, then the fix; it never holds an API key or a URL's query string. All
exceptions can be pickled.
"""

from typing import ClassVar


class S2VError(Exception):
    """Root of the tree; ``image_key`` and ``request_id`` identify the call, where there was one."""

    kind: ClassVar[str] = "failed"
    exit_status: ClassVar[int] = 5
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, image_key: str | None = None, request_id: str | None = None) -> None:
        super().__init__(message, image_key, request_id)
        self.message = message
        self.image_key = image_key
        self.request_id = request_id

    def __str__(self) -> str:
        return self.message


class UsageError(S2VError):
    """The call can't be done as given; nothing was written and nothing was sent."""

    kind = "usage"
    exit_status = 2


class InputError(UsageError):
    """The candidates can't be read, or a column is missing or clashes."""

    kind = "bad_input"


class RunFinished(UsageError):
    """The run is finished and is never reopened; its folder holds how it ended."""

    kind = "run_finished"


class Withdrawn(UsageError):
    """A rollback withdrew the run's publication, so it is published again only on purpose."""

    kind = "withdrawn"


class LedgerNotFound(UsageError):
    """The database does not exist, or is empty."""

    kind = "ledger_not_found"


class LedgerRefused(UsageError):
    """The database is no ledger, or a ledger that can't be used: newer, damaged, or in use by old runs."""

    kind = "ledger_refused"


class RunStopped(S2VError):
    """The run ended early and everything received is kept; the same command continues it."""

    kind = "stopped"
    exit_status = 1
    retryable = True


class AccountRefused(RunStopped):
    """The vendor refuses the account (key, rights, debt): every further call would fail too."""

    kind = "account"


class Outage(RunStopped):
    """The service gave no usable response for too long."""

    kind = "outage"


class LeaseLost(RunStopped):
    """Another process holds the lease of this run."""

    kind = "lease_lost"


class LedgerUnavailable(RunStopped):
    """The ledger's database does not respond, is locked or is full."""

    kind = "ledger_unavailable"
    lost_conflict: bool = False
    """Whether nothing is wrong: another transaction went first, and this one can be repeated."""


class StorageUnavailable(RunStopped):
    """What holds the output does not respond, refuses, or is full."""

    kind = "storage_unavailable"


class PrefectUnavailable(RunStopped):
    """Prefect's server does not respond."""

    kind = "prefect_unavailable"


class TaskRunnerLost(RunStopped):
    """The task runner that screens could not be started or reached, or lost a shard."""

    kind = "task_runner_lost"


class Interrupted(RunStopped):
    """A signal or a cancellation stopped the run."""

    kind = "interrupted"

    @classmethod
    def by(cls, signal_name: str) -> "Interrupted":
        """The error of a run that a signal stopped."""
        return cls(f"stopped by {signal_name}; everything received is kept: the same command continues")


class NotApproved(S2VError):
    """The run would cost more than may be spent without approval, and there was none."""

    kind = "not_approved"


class GateClosed(S2VError):
    """An expectation about the dataset failed; nothing was published."""

    kind = "gate_closed"
    exit_status = 3


class BudgetExhausted(S2VError):
    """The budget ended before every image was checked."""

    kind = "budget_exhausted"
    exit_status = 4


class SuiteError(S2VError):
    """An expectation suite is missing, empty or broken, or lost expectations while loading."""

    kind = "broken_suite"


class DataIntegrityError(S2VError):
    """Rows or money do not add up; the message names them."""

    kind = "data_integrity"
    ADVICE: ClassVar[str] = "Nothing is published; start a new run (nothing is paid twice), and report this"
