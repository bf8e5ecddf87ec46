"""The arithmetic of the pace: never more than the rate in any sliding second, and never a stall."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from s2v_tasks.pace import (
    BASE_MARGIN_PPM,
    CLEAN_US,
    MAX_MARGIN_PPM,
    MAX_PAUSE_US,
    SECOND_US,
    SLOW_START,
    SLOW_START_US,
    Pace,
    give_back,
    reserve,
    throttled,
)

RATE = 5.0
HOUR_US = 3600 * SECOND_US
START_US = 100 * HOUR_US


def postpone(
    pace: Pace, instant_us: int, after_us: int, now_us: int, lead_us: int, rate_per_s: float
) -> tuple[int, Pace]:
    """What the ledger does with a missed instant."""
    return reserve(give_back(pace, instant_us, after_us), now_us, rate_per_s, lead_us)


steps = st.lists(
    st.tuples(
        # how far the clock goes on, which of three callers, and by how much a miss is moved (None: sent)
        st.one_of(st.integers(0, 50_000), st.integers(0, 3 * SECOND_US)),
        st.integers(0, 2),
        st.one_of(st.none(), st.integers(0, SECOND_US)),
    ),
    max_size=60,
)


def sent_instants(steps: list[tuple[int, int, int | None]], rate_per_s: float) -> list[int]:
    """What three callers send, each with one outstanding reservation, that may miss instants."""
    pace, now_us, sent = Pace(), START_US, []
    outstanding: dict[int, tuple[int, int]] = {}
    for wait_us, caller, lead_us in steps:
        now_us += wait_us
        if caller not in outstanding:
            instant_us, pace = reserve(pace, now_us, rate_per_s)
            outstanding[caller] = instant_us, pace.next_us
        elif outstanding[caller][0] <= now_us:
            instant_us, after_us = outstanding.pop(caller)
            if lead_us is not None and now_us > instant_us:
                instant_us, pace = postpone(pace, instant_us, after_us, now_us, lead_us, rate_per_s)
                outstanding[caller] = instant_us, pace.next_us
                assert instant_us >= now_us + lead_us
            else:
                sent.append(instant_us)
    return sorted(sent + [instant_us for instant_us, _ in outstanding.values()])


@given(steps, st.sampled_from([5.0, 4.0, 1.0, 0.2]))
def test_no_sliding_second_holds_more_calls_than_the_rate(
    steps: list[tuple[int, int, int | None]], rate_per_s: float
) -> None:
    """Whoever reserves, misses and postpones in whatever order: instants are apart, and never repeat."""
    sent = sent_instants(steps, rate_per_s)
    interval_us = Pace().interval_us(rate_per_s)
    assert all(later - earlier >= interval_us for earlier, later in itertools.pairwise(sent))
    calls = round(rate_per_s) or 1
    for first, sixth in zip(sent, sent[calls:], strict=False):
        assert sixth - first > SECOND_US


@given(st.lists(st.integers(0, 2 * SECOND_US), min_size=1, max_size=50))
def test_an_instant_is_never_in_the_past(waits_us: list[int]) -> None:
    """A call that may leave may leave now, or later."""
    pace, now_us = Pace(), START_US
    for wait_us in waits_us:
        now_us += wait_us
        instant_us, pace = reserve(pace, now_us, RATE)
        assert instant_us >= now_us


def test_one_percent_stays_below_the_rate() -> None:
    """4.95 calls a second: all of the allowance but for the margin."""
    pace, instants = Pace(), []
    for _ in range(496):
        instant_us, pace = reserve(pace, instants[-1] if instants else START_US, RATE)
        instants.append(instant_us)
    rate_per_s = 495 / ((instants[-1] - instants[0]) / SECOND_US)
    assert rate_per_s == pytest.approx(5 / 1.01, rel=1e-6)
    assert 4.94 < rate_per_s < 4.96


def test_an_idle_account_saves_nothing_up() -> None:
    """After an hour of silence the next calls are as far apart as ever."""
    _, pace = reserve(Pace(), START_US, RATE)
    first, pace = reserve(pace, START_US + HOUR_US, RATE)
    second, _ = reserve(pace, START_US + HOUR_US, RATE)
    assert (first, second - first) == (START_US + HOUR_US, 202_000)


def test_a_missed_instant_moves_to_now_if_nobody_reserved_after_it() -> None:
    """No slot is lost to a caller that was late by itself."""
    instant_us, pace = reserve(Pace(), START_US, RATE)
    moved_us, after = postpone(pace, instant_us, pace.next_us, START_US + 90_000, 0, RATE)
    assert moved_us == START_US + 90_000
    assert after.next_us == moved_us + pace.interval_us(RATE)


def test_a_missed_instant_leaves_time_to_write_the_next_one_down() -> None:
    """On a slow disk an instant of right now would be missed again."""
    instant_us, pace = reserve(Pace(), START_US, RATE)
    moved_us, _ = postpone(pace, instant_us, pace.next_us, START_US + 90_000, 16_000, RATE)
    assert moved_us == START_US + 106_000


def test_a_missed_instant_goes_to_the_end_of_the_queue_otherwise() -> None:
    """It must not crowd those who reserved meanwhile."""
    instant_us, mine = reserve(Pace(), START_US, RATE)
    _, theirs = reserve(mine, START_US, RATE)
    moved_us, _ = postpone(theirs, instant_us, mine.next_us, START_US + 90_000, 0, RATE)
    assert moved_us == theirs.next_us


def test_a_missed_instant_obeys_a_rate_that_was_turned_down_meanwhile() -> None:
    """The next one after it keeps the new distance."""
    instant_us, pace = reserve(Pace(), START_US, RATE)
    moved_us, pace = postpone(pace, instant_us, pace.next_us, START_US + 90_000, 0, 1.0)
    next_us, _ = reserve(pace, START_US + 90_000, RATE)
    assert next_us - moved_us == 1_010_000


def test_a_missed_instant_obeys_a_pause_that_began_meanwhile() -> None:
    """Being late is no way round a throttle."""
    instant_us, pace = reserve(Pace(), START_US, RATE)
    after_us = pace.next_us
    pace = throttled(pace, START_US - 1, START_US + 50_000)
    moved_us, _ = postpone(pace, instant_us, after_us, START_US + 90_000, 0, RATE)
    assert moved_us == START_US + 50_000 + SECOND_US


def test_the_first_throttle_pauses_everyone_for_a_second_and_widens_the_margin() -> None:
    """1 % becomes 1.5 %."""
    pace = throttled(Pace(), START_US, START_US + 80_000)
    instant_us, pace = reserve(pace, START_US + 80_000, RATE)
    assert instant_us == START_US + 80_000 + SECOND_US
    assert pace.interval_us(RATE) == 203_000


def test_throttles_of_calls_under_way_count_once() -> None:
    """Five answers to five calls that left before the pause are one event, however late they come."""
    first = pace = throttled(Pace(), START_US, START_US + 80_000)
    for delay_us in (100_000, 300_000, 900_000, 5 * SECOND_US):
        pace = throttled(pace, START_US + 10_000, START_US + delay_us)
    assert (pace.margin_ppm, pace.pause_us) == (first.margin_ppm, first.pause_us)
    assert pace.paused_until_us == START_US + 5 * SECOND_US  # nobody is held back after the last of them


def test_a_call_under_way_can_lengthen_the_pause_by_its_retry_after() -> None:
    """The vendor's own word counts, whoever brings it."""
    pace = throttled(Pace(), START_US, START_US + 80_000)
    pace = throttled(pace, START_US, START_US + 100_000, retry_after_us=7 * SECOND_US)
    assert reserve(pace, START_US + 100_000, RATE)[0] == START_US + 100_000 + 7 * SECOND_US


def test_the_pause_doubles_only_while_throttles_follow_each_other() -> None:
    """1, 2, 4 ... 60 seconds while the first call after each pause is throttled, then 1 again."""
    pace, now_us, pauses = Pace(), START_US, []
    for _ in range(8):
        sent_us, pace = reserve(pace, now_us, RATE)
        now_us = sent_us + 80_000
        pace = throttled(pace, sent_us, now_us)
        pauses.append((pace.paused_until_us - now_us) // SECOND_US)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert pace.margin_ppm == MAX_MARGIN_PPM
    later_us = pace.paused_until_us + 3 * SECOND_US
    pace = throttled(pace, later_us, later_us + 80_000)
    assert pace.paused_until_us == later_us + 80_000 + SECOND_US


def test_retry_after_is_obeyed_when_it_is_longer_than_the_pause() -> None:
    """A longer wait is obeyed, a shorter one is not taken for a promise."""
    long = throttled(Pace(), START_US, START_US, retry_after_us=9 * SECOND_US)
    short = throttled(Pace(), START_US, START_US, retry_after_us=1)
    assert reserve(long, START_US, RATE)[0] == START_US + 9 * SECOND_US
    assert reserve(short, START_US, RATE)[0] == START_US + SECOND_US


@given(st.integers(1, 40))
def test_the_margin_never_grows_over_a_fifth(events: int) -> None:
    """However often the account is throttled."""
    pace, now_us = Pace(), START_US
    for _ in range(events):
        before = pace.margin_ppm
        now_us += 3 * MAX_PAUSE_US
        pace = throttled(pace, now_us, now_us)
        assert pace.margin_ppm == min(round(before * 1.5), 200_000)


def test_each_clean_minute_takes_a_third_of_the_excess_back() -> None:
    """From 20 % down to 1 %, step by step, and not below."""
    pace = Pace(margin_ppm=MAX_MARGIN_PPM, throttled_us=START_US, pause_us=SECOND_US)
    assert reserve(pace, START_US + CLEAN_US - 1, RATE)[1].margin_ppm == MAX_MARGIN_PPM
    now_us, margins = START_US, []
    for _ in range(20):
        now_us += CLEAN_US
        _, pace = reserve(pace, now_us, RATE)
        _, pace = reserve(pace, now_us + 1, RATE)  # once a minute, not once a call
        margins.append(pace.margin_ppm)
    assert margins[:3] == [136_666, 94_444, 66_296]
    assert margins[-1] == BASE_MARGIN_PPM
    assert margins == sorted(margins, reverse=True)


def test_a_minute_of_pause_is_no_clean_minute() -> None:
    """Nobody called: the margin stays, and a throttle right after it pauses for as long again."""
    pace = Pace(margin_ppm=MAX_MARGIN_PPM, throttled_us=START_US, pause_us=MAX_PAUSE_US)
    end_us = START_US + MAX_PAUSE_US
    pace = replace(pace, paused_until_us=end_us, next_us=end_us)
    first_us, pace = reserve(pace, START_US + 1, RATE)
    _, pace = reserve(pace, end_us + 1, RATE)
    assert pace.margin_ppm == MAX_MARGIN_PPM
    pace = throttled(pace, first_us, end_us + 80_000)
    assert pace.paused_until_us == end_us + 80_000 + MAX_PAUSE_US


def test_a_throttle_after_a_clean_minute_pauses_for_a_second_again() -> None:
    """The doubling is forgotten."""
    pace = Pace(margin_ppm=40_000, throttled_us=START_US, pause_us=32 * SECOND_US, paused_until_us=START_US)
    sent_us, pace = reserve(pace, START_US + CLEAN_US, RATE)
    assert throttled(pace, sent_us, sent_us).paused_until_us == sent_us + SECOND_US


@given(
    callers=st.integers(0, 8),
    pause_us=st.one_of(st.none(), st.integers(0, MAX_PAUSE_US)),
    back_us=st.integers(0, START_US),
)
@example(callers=8, pause_us=MAX_PAUSE_US, back_us=HOUR_US)
@example(callers=1, pause_us=None, back_us=START_US)
def test_a_clock_that_is_set_back_changes_no_wait(callers: int, pause_us: int | None, back_us: int) -> None:
    """By a moment, by an hour, or to zero as at a restart: nobody waits longer, and nobody sooner."""
    pace = Pace()
    for _ in range(callers):
        _, pace = reserve(pace, START_US, RATE)
    if pause_us is not None:
        pace = throttled(pace, START_US, START_US, pause_us)
    expected_us, _ = reserve(pace, START_US, RATE)
    now_us = START_US - back_us if callers or pause_us is not None else START_US
    instant_us, after = reserve(pace, now_us, RATE)
    assert instant_us - now_us == expected_us - START_US
    assert after.throttled_us <= now_us  # so that the margin relaxes again one day


@given(st.integers(0, 8), st.integers(0, HOUR_US))
def test_a_clock_that_is_set_forward_lets_no_two_calls_leave_at_once(callers: int, forward_us: int) -> None:
    """What comes after the jump is as far apart as ever."""
    pace = Pace()
    for _ in range(callers):
        _, pace = reserve(pace, START_US, RATE)
    first_us, pace = reserve(pace, START_US + forward_us, RATE)
    second_us, _ = reserve(pace, START_US + forward_us, RATE)
    assert second_us - first_us == 202_000
    assert first_us - START_US - forward_us <= callers * 202_000


def test_after_a_burst_that_was_refused_calls_start_slowly() -> None:
    """A quarter of the rate after the pause, all of it a minute later; and no slower than that for long."""
    pace = throttled(Pace(), START_US, START_US, burst=True)
    began_us, _ = reserve(pace, START_US, RATE)
    instants = []
    while not instants or instants[-1] < began_us + 70 * SECOND_US:
        instant_us, pace = reserve(pace, began_us, RATE)
        instants.append(instant_us)
    gaps = [later - earlier for earlier, later in itertools.pairwise(instants)]
    assert gaps[0] == pytest.approx(SLOW_START * 203_000)
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] == 203_000
    assert 130 <= sum(instant_us < began_us + SLOW_START_US for instant_us in instants) <= 145


def test_slow_rates_with_many_callers_keep_their_distance_through_a_throttle() -> None:
    """At one call in 20 s five instants lie 80 s ahead: none of them is given out again."""
    pace, given_out = Pace(), []
    for _ in range(5):
        instant_us, pace = reserve(pace, START_US, 0.05)
        given_out.append(instant_us)
    pace = throttled(pace, START_US, START_US + 80_000)
    instant_us, _ = reserve(pace, START_US + 80_000, 0.05)
    assert instant_us >= given_out[-1] + 20 * SECOND_US


@given(
    st.lists(
        st.tuples(st.integers(-2 * HOUR_US, HOUR_US), st.sampled_from(["reserve", "throttled"])),
        max_size=30,
    )
)
def test_the_row_stays_sane_whatever_the_clock_does(moves: list[tuple[int, str]]) -> None:
    """Margin within its bounds, no pause over a minute, nobody told to wait longer than the calls before."""
    pace, now_us, calls = Pace(), START_US, 0
    for step_us, what in moves:
        now_us = max(0, now_us + step_us)
        if what == "throttled":
            pace = throttled(pace, now_us, now_us)
        else:
            instant_us, pace = reserve(pace, now_us, RATE)
            assert now_us <= instant_us <= now_us + calls * SECOND_US + MAX_PAUSE_US
            calls += 1
        assert BASE_MARGIN_PPM <= pace.margin_ppm <= MAX_MARGIN_PPM
        assert 0 <= pace.pause_us <= MAX_PAUSE_US


def test_a_rate_turned_up_counts_from_the_next_call_on() -> None:
    """Nothing that was reserved at the old rate moves."""
    first_us, pace = reserve(Pace(), START_US, 1.0)
    second_us, pace = reserve(pace, START_US, RATE)
    third_us, _ = reserve(pace, START_US, RATE)
    assert (second_us - first_us, third_us - second_us) == (1_010_000, 202_000)


def test_a_row_without_history_is_the_default() -> None:
    """A fresh account starts at once, with the base margin."""
    after = replace(Pace(), next_us=START_US + 202_000, written_us=START_US)
    assert reserve(Pace(), START_US, RATE) == (START_US, after)
