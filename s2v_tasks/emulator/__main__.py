"""The child process of `Emulator`: options as one line of JSON on standard input, which then stays open.

Prints the base URL (or, in one line, why it can't start) and exits at end of file.
Users start the emulator by ``s2v emulator``.
"""

import os
import sys
import threading

from s2v_tasks.emulator import EmulatorOptions, serve
from s2v_tasks.errors import S2VError


def _end_with_parent() -> None:
    sys.stdin.read()
    # No graceful shutdown: no client is left, and every invoice line is written already.
    os._exit(0)


def main() -> int:
    """Serve until the parent closes the pipe; the exit status is that of the error that prevented it."""
    try:
        options = EmulatorOptions.from_json(sys.stdin.readline())
        threading.Thread(target=_end_with_parent, daemon=True).start()
        serve(options, ready=lambda base_url: print(base_url, flush=True))  # noqa: T201 - what the parent reads
    except S2VError as error:
        print(error, flush=True)  # noqa: T201 - what the parent reads
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
