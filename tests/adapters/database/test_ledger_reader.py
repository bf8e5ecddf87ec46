"""What the ledger says about images, runs and charges, on SQLite and on a real PostgreSQL."""

from ledger_cases import (
    FREE,
    LOST,
    PASSED,
    PRICE,
    opened,
    reserved,
    send_and_settle,
)

from s2v_tasks.adapters.database.ledger import Ledger
from s2v_tasks.domain.ledger import State


async def test_image_statuses_distinguish_this_runs_calls_from_all(ledger: Ledger) -> None:
    """Attempts and charges of this run, charges and losses of all runs, and images that no run has sent."""
    first, second = await opened(ledger, "first"), await opened(ledger, "second")
    await send_and_settle(first, LOST, "a")
    await send_and_settle(second, FREE, "a")
    await send_and_settle(second, PASSED, "a")
    await reserved(second, "b")
    image_statuses = await second.image_statuses(["a", "b", "c"])
    a, b, c = image_statuses["a"], image_statuses["b"], image_statuses["c"]
    assert list(image_statuses) == ["a", "b", "c"]
    assert (a.calls_run, a.charges_run, a.charges, a.lost) == (2, PRICE, 2 * PRICE, 1)
    assert (b.calls_run, b.charges_run, b.charges, b.lost) == (1, PRICE, PRICE, 0)
    assert (c.calls_run, c.charges_run, c.charges, c.lost, c.verdict) == (0, 0, 0, 0, None)
    assert await second.image_statuses([]) == {}


async def test_statuses_of_ten_thousand_images_are_read_at_once(ledger: Ledger) -> None:
    """The largest shard there is."""
    lease = await opened(ledger)
    await send_and_settle(lease, PASSED, "1")
    image_statuses = await lease.image_statuses([str(n) for n in range(10_000)])
    assert len(image_statuses) == 10_000
    assert image_statuses["1"].verdict is not None


async def test_charges_are_this_runs_by_state(ledger: Ledger) -> None:
    """To the micro-dollar, other runs left out."""
    await send_and_settle(await opened(ledger, "other"), PASSED, "x")
    lease = await opened(ledger)
    assert set((await lease.charges()).values()) == {0}
    await send_and_settle(lease, PASSED, "a")
    await send_and_settle(lease, PASSED, "b")
    await send_and_settle(lease, FREE, "c")
    await send_and_settle(lease, LOST, "d")
    await reserved(lease, "e")
    charges = await lease.charges()
    assert charges[State.BILLED] == 2 * PRICE
    assert charges[State.UNKNOWN] == charges[State.RESERVED] == PRICE
