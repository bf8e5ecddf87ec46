"""The face check as a user runs it, on drawn images: whole files, the model, the service, the gate."""

from collections.abc import Callable

import polars as pl
import pytest
from many_images import ImageServer
from workbench import FAST_PER_S, Bench, Ran, set_rate

from s2v_tasks.domain.faces import COLUMNS

FIRST = 24
"""The number of the first drawn image; the detector finds no face in portrait 23, and one in the next 80."""


def outcomes(verdicts: pl.DataFrame, kind: str) -> dict[tuple[str, str | None], int]:
    """How many images of a kind have each outcome and reason."""
    found = verdicts.filter(kind=kind).group_by("outcome", "reason").len()
    return {(outcome, reason): n for outcome, reason, n in found.iter_rows()}


def curated(
    bench: Bench, command: Callable[..., Ran], images: dict[str, int], *options: object, origin: str = ""
) -> Ran:
    """The run over so many images of each kind; those of ``origin`` are called portraits, and show none."""
    kinds = [kind for kind, many in images.items() for _ in range(many)]
    urls = [
        f"{origin}/portrait-{n}.png" if kind == "hidden" else bench.url(n, kind)
        for n, kind in enumerate(kinds, FIRST)
    ]
    return command(*bench.curating(bench.candidates(urls, kind=kinds), "--min-pass-rate", 0.1, *options))


@pytest.mark.ci
def test_images_without_a_face_or_with_several_are_dropped_for_free(
    in_process: Bench, command: Callable[..., Ran]
) -> None:
    """All portraits pass; the random sample pays for some of the others, and their verdicts count.

    A later run over the same ledger pays for nothing: what it knows of faces is what the first one saw.
    """
    images = {"portrait": 40, "scenery": 50, "crowd": 40}
    options = "--faces", "drop_several", "--max-missed-share", 0.4
    ran = curated(in_process, command, images, *options)
    assert ran.status == 0, ran.out + ran.err
    assert outcomes(ran.verdicts, "portrait") == {("passed", None): 40}
    dropped = ran.verdicts.filter(outcome="screened_out")
    assert dropped["run_cost_usd"].sum() == dropped["audited_in_run"].sum() == 0
    reasons = {("scenery", "no_face"), ("crowd", "several_faces")}
    assert set(dropped.select("kind", "reason").rows()) == reasons
    assert len(in_process.billed_urls()) == 130 - dropped.height
    assert set(in_process.billed_urls()).isdisjoint(dropped["image_url"])
    sample = ran.verdicts.filter("audited")
    assert set(sample.select("kind", "outcome").rows()) == {
        ("portrait", "passed"),
        ("scenery", "failed"),
        ("crowd", "failed"),
    }
    overall = ran.gate["facts"][0]
    assert (overall["dropped"], overall["sampled"]) == (dropped.height, sample.height)
    assert overall["pass_rate"] == pytest.approx(sample["check_pass"].mean())
    assert overall["missed_share_upper"] <= 0.4
    again = curated(in_process, command, images, *options)
    assert again.status == 0, again.out + again.err
    assert len(in_process.billed_urls()) == 130 - dropped.height
    assert again.verdicts.select("outcome", "reason", "audited", *COLUMNS).equals(
        ran.verdicts.select("outcome", "reason", "audited", *COLUMNS)
    )


@pytest.mark.ci
def test_a_rule_that_drops_good_images_is_switched_off(
    in_process: Bench, command: Callable[..., Ran], caplog: pytest.LogCaptureFixture
) -> None:
    """The sample shows it, and what it dropped is checked; several faces are dropped by no rule of `drop`."""
    images = {"portrait": 30, "hidden": 60, "crowd": 6}
    set_rate(20)  # images are then chosen a few at a time
    try:
        with ImageServer() as server:
            options = "--faces", "drop", "--max-missed-share", 0.2
            ran = curated(in_process, command, images, *options, origin=server.origin)
    finally:
        set_rate(FAST_PER_S)
    assert ran.status == 0, ran.out + ran.err
    assert "the rule no_face drops no more images" in caplog.text
    assert set(ran.verdicts.filter(kind="hidden")["faces_seen"]) == {0}
    assert [outcomes(ran.verdicts, kind) for kind in images] == [
        {("passed", None): 30},
        {("passed", None): 60},
        {("failed", "several_humans"): 6},
    ]
    assert ran.gate["facts"][0]["dropped"] == 0
