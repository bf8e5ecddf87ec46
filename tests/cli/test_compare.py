"""``s2v compare``: two runs side by side, by their folders or by their ids."""

import re
from collections.abc import Callable
from pathlib import Path

import made_run
import old_run
import pytest
from made_run import row
from object_store import client

from s2v_tasks.domain.confidence import Tally

S2V = Callable[..., tuple[int, str, str]]
SIGNED = "https://a.example/1.jpg?Signature=sesame"
FIRST = made_run.verdicts(
    row("a.example", "web", "failed", 1, image_key="1", reason="no_human"),
    row("b.example", "web", "passed", 1, image_key="2"),
)
SECOND = made_run.verdicts(
    row("a.example", "web", "passed", 1, image_key="1", image_url=SIGNED),
    row("c.example", "lab", "passed", 1, image_key="3"),
    row("c.example", "lab", "skipped", image_key="4"),
)


@pytest.fixture
def runs(tmp_path: Path) -> tuple[str, str]:
    """The folders of two published runs, and of a third one between them that was not."""
    first = made_run.made(tmp_path / "out", "first", FIRST, 1, segment_column="source")
    made_run.made(tmp_path / "out", "closed", FIRST, 2, published=False)
    return first, made_run.made(tmp_path / "out", "second", SECOND, 3, segment_column="source")


def words(line: str) -> list[str]:
    return line.split()


def test_two_runs_stand_side_by_side(s2v: S2V, runs: tuple[str, str]) -> None:
    """Funnel, cost, sources, verdicts that changed with examples; no query string."""
    status, out, _ = s2v("compare", *runs)
    lines = [words(line) for line in out.splitlines()]
    assert (status, "sesame" in out) == (0, False)
    assert lines[0][:2] == ["A", runs[0]]
    assert ["candidates", "2", "3", "+1"] in lines
    assert ["pass", "rate", "50.0%", "100.0%"] in lines
    assert ["USD", "per", "approved", "image", "0.001148", "0.000574", "-0.000574"] in lines
    assert "1 images only in A, 2 only in B, 1 with another verdict" in out
    assert words("lab 0 -> 1 - -> 100.0% 0.0000 -> 0.0000 2 0 0") in lines
    assert ["1", "failed", "no_human", "passed"] in lines
    assert lines[-1] == ["0", "failed", "no_human", "passed", "https://a.example/1.jpg?..."]


def test_runs_are_named_by_id_current_and_previous(s2v: S2V, runs: tuple[str, str]) -> None:
    """Previous is what was published before, not the run that was not published."""
    by_folder = s2v("compare", *runs)
    assert by_folder[0] == 0
    assert s2v("compare", "previous", "current", "--out", "out") == by_folder
    assert s2v("compare", "first", "second", "--out", "out") == by_folder
    status, out, _ = s2v("compare", "closed", "first", "--out", "out")
    assert (status, "No verdict changed" in out) == (0, True)


def test_what_the_face_check_dropped_is_compared_with_its_bound(s2v: S2V, tmp_path: Path) -> None:
    """A step of its own, in runs that have one."""
    sample = {"audited": True, "audited_in_run": True}
    rows = [row("a.example", "web", "passed", 1, image_key=str(n), faces_seen=1, **sample) for n in range(9)]
    rows += [row("a.example", "web", "screened_out", reason="no_face", faces_seen=0, image_key="9")]
    both = (
        made_run.made(tmp_path / "out", "a", FIRST),
        made_run.made(tmp_path / "out", "b", made_run.verdicts(*rows), 2),
    )
    lines = [" ".join(words(line)) for line in s2v("compare", *both)[1].splitlines()]
    assert "dropped by the face check 0 1 +1" in lines
    assert "screened out for free 0 0" in lines
    assert f"missed share, at most - {Tally(0, 9).bounds.high:.1%}" in lines
    assert not any(line.startswith("left out as hopeless") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["previous", "current", "--out", "one"],
            "one has no publication before run .*; name a run by its id",
        ),
        (["nothing", "current", "--out", "one"], "one/runs/nothing is no run's folder"),
        (["../x", "current", "--out", "one"], "can't name a folder"),
        (["current", "current", "--out", "empty"], "nothing is published in .*/empty"),
        (["current", "previous"], "current is no run's folder"),
    ],
)
def test_a_run_that_is_not_there_is_one_line(
    s2v: S2V, tmp_path: Path, arguments: list[str], line: str
) -> None:
    """Exit status 2."""
    old_run.finished(tmp_path / "one")
    status, out, err = s2v("compare", *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert re.search(line, err)


def test_a_run_of_the_first_version_is_compared_and_is_a_publication(s2v: S2V, tmp_path: Path) -> None:
    """Its manifest does not say what it published; its number is 0."""
    old_run.finished(tmp_path / "out")
    made_run.made(tmp_path / "out", "second", SECOND)
    status, out, err = s2v("compare", "previous", "current", "--out", "out")
    assert status == 0, err
    assert "2 images only in A, 3 only in B, 0 with another verdict" in out


def test_many_sources_are_cut_with_their_number(s2v: S2V, tmp_path: Path) -> None:
    """The table has the twelve with most changes."""
    many = made_run.verdicts(*(row(f"h{n}.example", "x", "passed", image_key=str(n)) for n in range(40)))
    both = made_run.made(tmp_path / "out", "a", FIRST), made_run.made(tmp_path / "out", "b", many)
    out = s2v("compare", *both)[1]
    assert "and 28 more, with fewer changes" in out


def test_runs_in_a_store_are_compared(s2v: S2V, in_store: dict[str, str]) -> None:
    """By ids too."""
    client(in_store, "compared").put("there", b"")
    made_run.made("s3://compared/out", "first", FIRST, 1)
    made_run.made("s3://compared/out", "second", SECOND, 2)
    status, out, err = s2v("compare", "previous", "current", "--out", "s3://compared/out")
    assert status == 0, err
    assert "1 images only in A, 2 only in B, 1 with another verdict" in out
