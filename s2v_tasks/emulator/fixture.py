"""pytest fixtures that start the emulator. Loaded into every pytest session, so it imports nothing heavy."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from s2v_tasks.emulator import Emulator, EmulatorOptions


class EmulatorFactory(Protocol):
    """Starts an emulator with the given options; without any, the default ones."""

    def __call__(self, options: "EmulatorOptions | None" = None) -> "Emulator":
        """Start it; the fixture closes it."""


@pytest.fixture
def s2v_emulator_factory() -> Iterator[EmulatorFactory]:
    """Start emulators with options of your own; all are closed after the test."""
    from s2v_tasks.emulator import Emulator

    with ExitStack() as stack:

        def start(options: "EmulatorOptions | None" = None) -> "Emulator":
            return stack.enter_context(Emulator(options))

        yield start


@pytest.fixture
def s2v_emulator(s2v_emulator_factory: EmulatorFactory) -> "Emulator":
    """A running emulator with default options: images are fetched and checked, 5 calls in any second."""
    return s2v_emulator_factory()
