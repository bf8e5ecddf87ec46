"""Behind a proxy image hosts can't be reached directly: that is said before anything is paid."""

import pytest

from s2v_tasks.errors import UsageError
from s2v_tasks.models import Screened
from s2v_tasks.runtime.curation import check_reached

UNREACHED = [Screened("a", "no_such_host"), Screened("b", "timeout"), Screened("c", "refused"), Screened("d")]


def test_a_run_that_can_reach_no_image_is_refused_behind_a_proxy() -> None:
    """It names the variable and what to do; without a proxy the gate decides, as before."""
    with pytest.raises(UsageError, match=r"none of 4 sampled images .* HTTPS_PROXY is set: .* --no-screen"):
        check_reached(UNREACHED, "HTTPS_PROXY")
    check_reached(UNREACHED, None)


@pytest.mark.parametrize(
    "reached", [Screened("e", "not_found"), Screened("e", None, 512, 600, "jpeg"), Screened("e", "web_page")]
)
def test_one_image_that_can_be_reached_is_enough(reached: Screened) -> None:
    """Any response of a host; and nothing is known where no image was fetched."""
    check_reached([*UNREACHED, reached], "HTTPS_PROXY")
    check_reached([], "HTTPS_PROXY")
