"""Pool of child processes that decode untrusted images: bytes in, facts and bytes or a refusal out.

A child has limits on memory, pixels and CPU time, a low priority, no environment, no file and no network
connection of its own. It is ended when it takes too long, replaced after a crash, and ends with this process:
its standard input is a pipe of this process.
"""

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, cast, get_args

from s2v_tasks.errors import S2VError

Function = Literal["thumbnail", "faces"]
"""What a child can do with an image; each program has its own."""
Refusal = Literal["unreadable", "too_large", "time_limit", "memory_limit", "crashed"]
"""Why there is no result: no image of a known format, too many pixels, a limit, or the decoder's crash."""

DECODER: Final = Path(__file__).with_name("decoder.py")
"""The program of a child, if no other is named: it makes thumbnails."""
_START_S: Final = 60.0
_MAX_LINE: Final = 65_536
_MAX_RESULT: Final = 1_048_576
_PASSED_ON: Final = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME")
"""What Python and Pillow may need to be found; nothing else of the environment, which holds secrets."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one child.

    ``memory_bytes``: more than it has at its start (Linux). ``max_pixels``: of an image, by its header.
    ``cpu_s``, ``wall_s``: for one image.
    """

    memory_bytes: int = 402_653_184
    max_pixels: int = 50_000_000
    cpu_s: int = 5
    wall_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a function made of an image: ``facts``, such as sides in pixels, and bytes."""

    facts: dict[str, Any]
    data: bytes = field(repr=False)


class _ChildEnded(Exception):
    """The child ended, or wrote what it must not."""


class _Child:
    """One child process; `request` is called by one task at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._stdin = cast("asyncio.StreamWriter", process.stdin)
        self._stdout = cast("asyncio.StreamReader", process.stdout)

    @classmethod
    async def start(cls, program: Path, limits: Limits) -> Self:
        """Start a child, and wait until it is ready.

        Raises:
            S2VError: It ended at once; an installation without a working Pillow.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-B", "-P", str(program)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=_MAX_LINE,
            cwd="/",
            env=_environment(),
            start_new_session=True,  # only the command receives a Ctrl-C in the terminal
        )
        child = cls(process)
        try:
            async with asyncio.timeout(_START_S):
                await child._exchange(asdict(limits))
        except (_ChildEnded, TimeoutError):
            await child.end()
            raise S2VError("no image can be decoded: the decoder's process does not start") from None
        except BaseException:
            await child.end()
            raise
        return child

    async def request(self, function: Function, data: bytes) -> Decoded | Refusal:
        """Have an image decoded."""
        facts, result = await self._exchange({"function": function, "bytes": len(data)}, data)
        refusal = facts.get("refusal")
        if refusal in get_args(Refusal):
            return cast("Refusal", refusal)
        return Decoded(facts, result)

    async def _exchange(self, head: dict[str, Any], data: bytes = b"") -> tuple[dict[str, Any], bytes]:
        """Send a message and receive one; what comes back is checked: hostile bytes were decoded there."""
        try:
            self._stdin.write(json.dumps(head).encode() + b"\n" + data)
            await self._stdin.drain()
            facts = json.loads(await self._stdout.readline())
            size = facts.pop("bytes", 0)
            if not 0 <= size <= _MAX_RESULT:
                raise _ChildEnded
            return facts, await self._stdout.readexactly(size)
        except (OSError, EOFError, ValueError, TypeError, AttributeError, RecursionError):
            raise _ChildEnded from None

    async def end(self) -> int:
        """End the child and wait for it; the status says how it ended, if it had ended itself."""
        with suppress(ProcessLookupError):
            self._process.kill()
        self._stdin.close()
        return await self._process.wait()


class DecoderPool:
    """Child processes that decode images; an async context manager. They start when they are needed.

    Args:
        limits: Of each child.
        size: Children at a time.
        program: What each child runs.
    """

    def __init__(self, limits: Limits | None = None, size: int = 2, *, program: Path = DECODER) -> None:
        self.limits = limits or Limits()
        self.program = program
        self._free: list[_Child] = []
        self._slots = asyncio.Semaphore(size)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._free:
            await self._free.pop().end()

    async def run(self, function: Function, data: bytes) -> Decoded | Refusal:
        """Have an image decoded by a child.

        Args:
            function: What is done with it.
            data: The file, untrusted.

        Returns:
            The result, or why there is none: a limit that was met and a crash are values.

        Raises:
            S2VError: No child can be started.
        """
        async with self._slots:
            child = self._free.pop() if self._free else await _Child.start(self.program, self.limits)
            try:
                async with asyncio.timeout(self.limits.wall_s):
                    result = await child.request(function, data)
            except TimeoutError:
                await child.end()
                return "time_limit"
            except _ChildEnded:
                status = await child.end()
                return "time_limit" if status == -signal.SIGXCPU else "crashed"
            except BaseException:  # cancelled: what it would respond is no longer waited for
                await child.end()
                raise
            self._free.append(child)
            return result


def _environment() -> dict[str, str]:
    """Where Python finds its libraries, as in this process; no setting and no secret."""
    paths = [path for path in sys.path if path and Path(path).is_absolute()]
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(paths)}
