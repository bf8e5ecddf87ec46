"""The command as a child process: each line of its log as it comes, its result at the end."""

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from s2v_airflow.command import Ended, parse

_POLL_S = 0.05


class CommandProcess:
    """One command, in a session of its own: signals of the worker's terminal or group do not reach it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._status: int | None = None

    def run(self, command: Sequence[str], env: Mapping[str, str], log: Callable[[str], None]) -> Ended:
        """Run it to its end; ``log`` gets each line of its standard error.

        Raises:
            OSError: There is no such command.
        """
        process = subprocess.Popen(
            command,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._process = process
        out: list[bytes] = []
        # Threads, because `stop` waits for the end inside a signal's handler, and the pipes must not fill up.
        self._status = None
        threading.Thread(target=self._wait, args=(process,), daemon=True).start()
        readers = [
            threading.Thread(target=_read_lines, args=(process.stderr, log), daemon=True),
            threading.Thread(target=lambda: out.extend(process.stdout or ()), daemon=True),
        ]
        for reader in readers:
            reader.start()
        try:
            status = self._ended()
        except BaseException:  # the task's time limit, or its end by a signal
            self.stop()
            raise
        for reader in readers:
            reader.join()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        return parse(status, b"".join(out))

    def stop(self) -> None:
        """Stop it in order, and wait: every response that is under way is settled."""
        process = self._process
        if process is not None and self._status is None:
            process.send_signal(signal.SIGTERM)
            self._ended()

    def _wait(self, process: "subprocess.Popen[bytes]") -> None:
        self._status = process.wait()

    def _ended(self) -> int:
        """The exit status, when there is one; no lock, for which a signal's handler would wait in vain."""
        while self._status is None:
            time.sleep(_POLL_S)
        return self._status


def _read_lines(stream: object, log: Callable[[str], None]) -> None:
    for line in stream:  # type: ignore[attr-defined]
        log(line.decode(errors="replace").rstrip())
