"""One emulator for the tests of this folder, and a client for it."""

from collections.abc import Iterator

import httpx
import pytest
from emulator_caller import Caller

from s2v_tasks.emulator import Emulator, EmulatorOptions

# Loaded here too, in case the package and its entry point are not installed.
from s2v_tasks.emulator.fixture import s2v_emulator, s2v_emulator_factory  # noqa: F401


@pytest.fixture(scope="session")
def http_client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def shared_emulator() -> Iterator[Emulator]:
    with Emulator(EmulatorOptions(limit=None, fetch_timeout_s=30)) as emulator:
        yield emulator


@pytest.fixture
def caller(shared_emulator: Emulator, http_client: httpx.Client) -> Caller:
    """A caller of an emulator without a rate limit, freshly reset."""
    shared_emulator.set_faults([])
    shared_emulator.reset()
    return Caller(shared_emulator, http_client)
