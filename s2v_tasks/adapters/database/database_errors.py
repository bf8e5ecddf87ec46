"""What a database's failure means, in words: the driver's own line, and what to do about the known ones."""

from typing import Final

from s2v_tasks.adapters.database.engines import CONNECTIONS
from s2v_tasks.errors import LedgerUnavailable

_CONFLICTS: Final = frozenset({"40001", "40P01"})
"""PostgreSQL ended this transaction in favour of another one: serialization failure, deadlock."""
_HINTS: Final = {
    "53300": f"a process takes up to {CONNECTIONS} connections",
    "statement pooling": "a pooler in statement mode can't be used: take its transaction or session mode, or"
    " the direct port",
    "unsupported startup parameter": "the pooler takes no such option: set it for the role instead of in the"
    " URL, or use the direct port",
    "QueuePool": f"all {CONNECTIONS} connections of this process were in use",
}
"""By SQLSTATE, or by a part of the message."""


def unavailable(shown: str, error: Exception) -> LedgerUnavailable:
    """The error of a ledger, ``shown`` by its URL, whose database or driver failed."""
    message = f"the ledger {shown} can't be used ({cause(error)}); fix that and run the same command again"
    found = LedgerUnavailable(message)
    found.lost_conflict = _sqlstate(error) in _CONFLICTS
    return found


def cause(error: Exception) -> str:
    """The driver's own words, in one line, with a hint."""
    original = getattr(error, "orig", None) or error
    words = " ".join(str(original).split())
    if isinstance(original, TimeoutError) and not words:
        return "it does not respond"
    line = f"{type(original).__name__}: {words}" if words else type(original).__name__
    hints = [hint for sign, hint in _HINTS.items() if sign == _sqlstate(error) or sign in words]
    return "; ".join([line, *hints])


def _sqlstate(error: Exception) -> str | None:
    return getattr(getattr(error, "orig", None) or error, "sqlstate", None)
