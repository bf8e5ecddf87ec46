"""Standard output and error of the command: what a run came to never depends on who reads its report."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Lenient(io.FileIO):
    """A standard stream to which every write succeeds; ``lost`` is the first error, but a closed pipe."""

    lost: OSError | None = None

    def write(self, content: "bytes | memoryview", /) -> int:  # type: ignore[override]
        """Write what can be written; the bytes given count as written."""
        try:
            return super().write(content) or 0
        except OSError as error:  # a reader that has what it wanted, as ``head`` has, loses nothing
            if error.errno != errno.EPIPE:
                self.lost = self.lost or error
            return memoryview(content).nbytes


def only_result_to_stdout() -> Lenient | None:
    """Where the result goes; from now on all else that is written to standard output goes to standard error.

    So does what libraries and child processes write, until the process has ended. None: standard output was
    closed before the command began.
    """
    try:
        number = sys.stdout.fileno() if sys.stdout is not None else None
    except (OSError, ValueError):
        number = None
    if sys.stdout is None or number is None:
        return None
    sys.stdout.flush()
    kept = os.dup(number)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere if sys.stderr is None else sys.stderr.fileno(), 1)
    os.close(nowhere)
    sys.stdout = sys.stderr
    return Lenient(kept, "w")


@contextmanager
def lenient_output() -> Iterator[list[Lenient]]:
    r"""Replace both streams for the block: no character and no reader's end is an error there.

    A character that the terminal's encoding lacks is written as an escape, such as in ``caf\xe9``.
    """
    before, raws = (sys.stdout, sys.stderr), []
    replaced: list[Any] = []
    for stream in before:
        raw, text = _replaced(stream)
        raws.append(raw)
        replaced.append(text)
    sys.stdout, sys.stderr = replaced
    try:
        yield [raw for raw in raws if raw is not None]
    finally:
        for text in replaced:
            if text is not None:
                text.flush()
        sys.stdout, sys.stderr = before


def _replaced(stream: Any) -> tuple[Lenient | None, Any]:
    """None: the stream was closed before the command began, or is no file (as under some test runners)."""
    try:
        number = stream.fileno() if stream is not None else None
    except (OSError, ValueError):
        return None, stream
    if stream is None or number is None:
        return None, None
    with contextlib.suppress(OSError, ValueError):
        stream.flush()
    raw = Lenient(number, "w", closefd=False)
    text = io.TextIOWrapper(
        io.BufferedWriter(raw),  # type: ignore[type-var]
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
    )
    return raw, text
