"""A rollback, then a retry of the abandoned run, then a later run: the pointer is right each time."""

from collections.abc import Callable

import pytest
from fleet import events
from workbench import Bench, Ran, flow_runs, pointer, wait_until

from s2v_tasks.errors import Withdrawn

pytestmark = pytest.mark.ci


def test_the_pointer_is_right_after_a_rollback_a_retry_and_a_later_run(
    in_process: Bench, command: Callable[..., Ran]
) -> None:
    """The commands of docs/guides/looking-at-results.md, as a user gives them."""
    bench = in_process
    good, bad, late = (
        bench.curating(bench.candidates(bench.portraits(2, first), f"{name}.parquet"), "--run-id", name)
        for first, name in ((0, "good"), (2, "bad"), (4, "late"))
    )
    for arguments in (good, bad):
        assert command(*arguments).status == 0
    back = command("rollback", bench.out, "good")
    assert back.status == 0, back.err
    assert "withdrawn: bad" in back.out
    assert pointer(bench.out).run_id == "good"
    (run,) = flow_runs("rollback")
    assert wait_until(lambda: events("s2v.dataset.rolled_back", run.id))
    assert not events("s2v.dataset.published", run.id)  # so no training starts
    for refused in (command(*bad), command("gate", bench.out / "runs" / "bad", "--publish")):
        assert refused.status == Withdrawn.exit_status, refused.out
        assert "--publish --again" in refused.out + refused.err
        assert pointer(bench.out).run_id == "good"
    later = command(*late)
    assert later.status == 0, later.err
    assert pointer(bench.out).run_id == "late"
    listed = command("publications", bench.out)
    runs = [(line.split()[2], line.split()[-1]) for line in listed.out.splitlines()[1:]]
    assert (len(runs), runs[1], runs[-1]) == (3, ("bad", "withdrawn"), ("late", "current"))
    assert command("rollback", bench.out, "good").status == 0
    again = command("gate", bench.out / "runs" / "bad", "--publish", "--again")
    assert again.status == 0, again.err
    assert pointer(bench.out).run_id == "bad"
