"""The command against an account that is refused, and the same command once that is fixed."""

from collections.abc import Callable

import pytest
from workbench import Bench, Ran, pointer, set_rate

IMAGES = 10
MAX_CALLS = 8
"""6 + 5 x the latency in seconds, which on a busy machine is up to 0.4."""


@pytest.mark.ci
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("Arrearage:shape=nested", "pay the account's balance"),
        pytest.param("Emulator.Unlisted", "Emulator.Unlisted", marks=pytest.mark.slow),
    ],
)
def test_a_refused_account_stops_the_command_and_the_same_one_goes_on(
    in_process: Bench, command: Callable[..., Ran], fault: str, message: str
) -> None:
    """Exit 1 after a few calls, with a message that helps; then every image is billed once and published."""
    bench = in_process
    set_rate(5)
    arguments = bench.curating(bench.candidates(bench.portraits(IMAGES)))
    bench.emulator.set_faults([fault])
    refused = command(*arguments)
    assert refused.status == 1, refused.err
    assert message in refused.err
    assert bench.received() <= MAX_CALLS
    assert set(refused.verdicts["outcome"]) == {"skipped"}
    bench.emulator.set_faults([])
    done = command(*arguments)
    assert done.status == 0, done.err
    assert done.run_dir == refused.run_dir
    assert sorted(bench.billed_urls()) == sorted(bench.portraits(IMAGES))
    assert pointer(bench.out).rows == IMAGES
