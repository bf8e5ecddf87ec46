"""Turns exceptions of libraries, of any class, into errors of this package."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import polars as pl

from s2v_tasks.errors import S2VError

LIBRARY_ERRORS: Final[tuple[type[BaseException], ...]] = (Exception, pl.exceptions.PanicException)
"""All exceptions but signals, exits and cancellation; a panic of polars is no ``Exception``."""
_SHOWN_CHARACTERS: Final = 300


@contextmanager
def wrap_library_errors(make_error: Callable[[str], S2VError]) -> Iterator[None]:
    """Raise ``make_error(message)`` for a library's exception; an ``S2VError`` passes unchanged.

    Raises:
        S2VError: What ``make_error`` returns.
    """
    try:
        yield
    except S2VError:
        raise
    except LIBRARY_ERRORS as error:
        raise make_error(error_line(error)) from None


def error_line(error: BaseException) -> str:
    """Class and message of an exception, in one line of bounded length."""
    cause = getattr(error, "orig", None) or error
    message = next((line.strip() for line in str(cause).splitlines() if line.strip()), "")
    return f"{type(cause).__name__}: {message[:_SHOWN_CHARACTERS]}" if message else type(cause).__name__
