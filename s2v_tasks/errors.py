"""Everything that can go wrong, as a tree.

A "no" (a picture that fails, a closed gate inside a report) is a value; an obstacle is one of these::

    S2VError                    exit  retryable
    ├── UsageError               2    no   bad option, missing key: nothing was asked
    │   ├── InputError           2    no   the candidates can't be used
    │   └── NoLedger             2    no   the database that was named holds no ledger
    ├── RunStopped               1    yes  the same command continues where it stopped
    │   ├── AccountRefused       1    yes  ... once the account is mended
    │   ├── Outage               1    yes  no answer for too long
    │   ├── LeaseLost            1    yes  another process took this run over
    │   ├── LedgerUnavailable    1    yes  the ledger can't be read or written
    │   ├── StorageUnavailable   1    yes  the object store can't be read or written
    │   ├── RunnerLost           1    yes  the task runner that screens is not there, or lost its work
    │   └── Interrupted          1    yes  a signal or a cancel
    ├── NotApproved              1    no   too dear without a person's yes: nothing was asked
    ├── GateClosed               3    no   the data set is not good enough, or too dear
    ├── BudgetSpent              4    no   not all was judged; more needs a new budget
    ├── SuiteError               1    no   a suite is broken, so nothing may pass it
    └── ConservationError        1    no   rows or money do not add up: a defect

``exit_status`` and ``retryable`` are facts of the class. Messages say what happened, to which item, and
what to do next; they never hold an API key or a URL's query string. All of them pickle.
"""

from typing import ClassVar


class S2VError(Exception):
    """Root of the tree; ``image_key`` and ``request_id`` say which call, where there was one."""

    exit_status: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, image_key: str | None = None, request_id: str | None = None) -> None:
        super().__init__(message, image_key, request_id)
        self.message = message
        self.image_key = image_key
        self.request_id = request_id

    def __str__(self) -> str:
        return self.message


class UsageError(S2VError):
    """The call can't be done as it was asked; nothing was written and nothing was asked."""

    exit_status = 2


class InputError(UsageError):
    """The candidates can't be read, or a column is missing or clashes."""


class NoLedger(UsageError):
    """The database holds no ledger, or one of an older version."""


class RunStopped(S2VError):
    """The run ended early with everything kept; the same command continues it."""

    retryable = True


class AccountRefused(RunStopped):
    """The vendor refuses the account (key, rights, debt): every further call would fail too."""


class Outage(RunStopped):
    """The service gave no usable answer for too long."""


class LeaseLost(RunStopped):
    """Another process holds this run now."""


class LedgerUnavailable(RunStopped):
    """The ledger's database does not answer, is locked or is full."""


class StorageUnavailable(RunStopped):
    """The object store that holds the output does not answer, or refuses."""


class RunnerLost(RunStopped):
    """The task runner that screens could not be started or reached, or lost what it was given."""


class Interrupted(RunStopped):
    """A signal or a cancel asked the run to stop."""


class NotApproved(S2VError):
    """The run would cost more than may be spent without a person's yes, and there was none."""


class GateClosed(S2VError):
    """An expectation about the data set failed; nothing was published."""

    exit_status = 3


class BudgetSpent(S2VError):
    """The budget ended before every image was judged."""

    exit_status = 4


class SuiteError(S2VError):
    """An expectation suite is missing, empty, broken or lost expectations while loading."""


class ConservationError(S2VError):
    """Rows or money do not add up; the message names them."""

    ADVICE: ClassVar[str] = "Nothing is published; start a new run (nothing is paid twice), and report this"
