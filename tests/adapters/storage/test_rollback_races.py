"""Rollbacks at the same time as each other and as a publication: one after the other, in some order."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any, Final

import pytest
from test_history import publication, published

from s2v_tasks.adapters.storage import history, pointer
from s2v_tasks.adapters.storage.file_io import StoragePath
from s2v_tasks.adapters.storage.rollback import roll_back
from s2v_tasks.errors import Withdrawn

pytestmark = pytest.mark.ci

ROUNDS: Final = 4
RACES: Final = {
    "two rollbacks": (("r1",), {"r1"}),
    "two rollbacks and a later run": (("r1", 5), {"r1", "r5"}),
    "two rollbacks, a later run, a retry of what they withdraw": (("r1", 5, 4), {"r1", "r5"}),
}
"""What runs beside a rollback to r2, and what may be published in the end."""


def at_once(steps: list[Callable[[], Any]]) -> list[Any]:
    """Run the steps in threads that begin together; what each returns, or that its run was withdrawn."""
    barrier = Barrier(len(steps))

    def run(step: Callable[[], Any]) -> Any:
        barrier.wait(60)
        try:
            return step()
        except Withdrawn as refused:
            return refused

    with ThreadPoolExecutor(len(steps)) as pool:
        return list(pool.map(run, steps))


@pytest.mark.parametrize("race", RACES)
def test_rollbacks_in_a_race_leave_what_some_order_of_them_would(any_out: StoragePath, race: str) -> None:
    """The pointer names the last publication that is not withdrawn; the history keeps all, unchanged."""
    beside, ends = RACES[race]
    for number in range(ROUNDS):
        out = any_out / f"round-{number}"
        published(out, 1, 2, 3, 4)
        before = {one.name: one.publication for one in history.read(out, None)}
        steps: list[Callable[[], Any]] = [partial(roll_back, out, "r2")]
        for one in beside:
            if isinstance(one, str):
                steps.append(partial(roll_back, out, one))
            else:
                steps.append(partial(pointer.move, out, publication(out, one)))
        results = at_once(steps)
        current = pointer.read(out)
        assert current is not None
        assert current.run_id in ends, results
        after = history.read(out, None)
        assert before.items() <= {one.name: one.publication for one in after}.items()
        assert len(after) == len(before) + (5 in beside)
        live = [one.publication.run_id for one in after if not one.withdrawn]
        assert live == ["r1", "r5"][: 1 + (current.run_id == "r5")], results
