"""The arithmetic of the state: never more than the rate in any sliding second, and never a stall."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from s2v_tasks.domain.rate_limit import (
    BASE_MARGIN_PPM,
    CLEAN_US,
    MAX_MARGIN_PPM,
    MAX_PAUSE_US,
    SECOND_US,
    SLOW_START,
    SLOW_START_US,
    RateLimitState,
    release_slot,
    reserve,
    throttled,
)

RATE = 5.0
HOUR_US = 3600 * SECOND_US
START_US = 100 * HOUR_US


def postpone(
    state: RateLimitState, send_us: int, next_us_after: int, now_us: int, lead_us: int, rate_per_s: float
) -> tuple[int, RateLimitState]:
    """What the ledger does with a missed send_us."""
    return reserve(release_slot(state, send_us, next_us_after), now_us, rate_per_s, lead_us)


steps = st.lists(
    st.tuples(
        # how far the clock goes on, which of three callers, and by how much a miss is moved (None: sent)
        st.one_of(st.integers(0, 50_000), st.integers(0, 3 * SECOND_US)),
        st.integers(0, 2),
        st.one_of(st.none(), st.integers(0, SECOND_US)),
    ),
    max_size=60,
)


def sent_times(steps: list[tuple[int, int, int | None]], rate_per_s: float) -> list[int]:
    """What three callers send, each with one outstanding reservation, that may miss send_times."""
    state, now_us, sent = RateLimitState(), START_US, []
    outstanding: dict[int, tuple[int, int]] = {}
    for wait_us, caller, lead_us in steps:
        now_us += wait_us
        if caller not in outstanding:
            send_us, state = reserve(state, now_us, rate_per_s)
            outstanding[caller] = send_us, state.next_us
        elif outstanding[caller][0] <= now_us:
            send_us, next_us_after = outstanding.pop(caller)
            if lead_us is not None and now_us > send_us:
                send_us, state = postpone(state, send_us, next_us_after, now_us, lead_us, rate_per_s)
                outstanding[caller] = send_us, state.next_us
                assert send_us >= now_us + lead_us
            else:
                sent.append(send_us)
    return sorted(sent + [send_us for send_us, _ in outstanding.values()])


@given(steps, st.sampled_from([5.0, 4.0, 1.0, 0.2]))
def test_no_sliding_second_holds_more_calls_than_the_rate(
    steps: list[tuple[int, int, int | None]], rate_per_s: float
) -> None:
    """Reservations, misses and pauses in any order: send times are apart, and never repeat."""
    sent = sent_times(steps, rate_per_s)
    interval_us = RateLimitState().interval_us(rate_per_s)
    assert all(later - earlier >= interval_us for earlier, later in itertools.pairwise(sent))
    calls = round(rate_per_s) or 1
    for first, sixth in zip(sent, sent[calls:], strict=False):
        assert sixth - first > SECOND_US


@given(st.lists(st.integers(0, 2 * SECOND_US), min_size=1, max_size=50))
def test_a_send_time_is_never_in_the_past(waits_us: list[int]) -> None:
    """A call is sent now or later, never in the past."""
    state, now_us = RateLimitState(), START_US
    for wait_us in waits_us:
        now_us += wait_us
        send_us, state = reserve(state, now_us, RATE)
        assert send_us >= now_us


def test_one_percent_stays_below_the_rate() -> None:
    """4.95 calls a second: all of the allowance but for the margin."""
    state, send_times = RateLimitState(), []
    for _ in range(496):
        send_us, state = reserve(state, send_times[-1] if send_times else START_US, RATE)
        send_times.append(send_us)
    rate_per_s = 495 / ((send_times[-1] - send_times[0]) / SECOND_US)
    assert rate_per_s == pytest.approx(5 / 1.01, rel=1e-6)
    assert 4.94 < rate_per_s < 4.96


def test_an_idle_account_saves_nothing_up() -> None:
    """After an hour of silence the next calls are as far apart as ever."""
    _, state = reserve(RateLimitState(), START_US, RATE)
    first, state = reserve(state, START_US + HOUR_US, RATE)
    second, _ = reserve(state, START_US + HOUR_US, RATE)
    assert (first, second - first) == (START_US + HOUR_US, 202_000)


def test_a_missed_send_time_moves_to_now_if_no_call_reserved_after_it() -> None:
    """No slot is lost to a caller that was late by itself."""
    send_us, state = reserve(RateLimitState(), START_US, RATE)
    moved_us, after = postpone(state, send_us, state.next_us, START_US + 90_000, 0, RATE)
    assert moved_us == START_US + 90_000
    assert after.next_us == moved_us + state.interval_us(RATE)


def test_a_missed_send_time_leaves_time_to_write_the_next_one_down() -> None:
    """On a slow disk an send_us of right now would be missed again."""
    send_us, state = reserve(RateLimitState(), START_US, RATE)
    moved_us, _ = postpone(state, send_us, state.next_us, START_US + 90_000, 16_000, RATE)
    assert moved_us == START_US + 106_000


def test_a_missed_send_time_goes_to_the_end_of_the_queue_otherwise() -> None:
    """It must not crowd those who reserved meanwhile."""
    send_us, mine = reserve(RateLimitState(), START_US, RATE)
    _, theirs = reserve(mine, START_US, RATE)
    moved_us, _ = postpone(theirs, send_us, mine.next_us, START_US + 90_000, 0, RATE)
    assert moved_us == theirs.next_us


def test_a_missed_send_time_obeys_a_rate_that_was_turned_down_meanwhile() -> None:
    """The next one after it keeps the new distance."""
    send_us, state = reserve(RateLimitState(), START_US, RATE)
    moved_us, state = postpone(state, send_us, state.next_us, START_US + 90_000, 0, 1.0)
    next_us, _ = reserve(state, START_US + 90_000, RATE)
    assert next_us - moved_us == 1_010_000


def test_a_missed_send_time_obeys_a_pause_that_began_meanwhile() -> None:
    """Being late is no way round a throttle."""
    send_us, state = reserve(RateLimitState(), START_US, RATE)
    next_us_after = state.next_us
    state = throttled(state, START_US - 1, START_US + 50_000)
    moved_us, _ = postpone(state, send_us, next_us_after, START_US + 90_000, 0, RATE)
    assert moved_us == START_US + 50_000 + SECOND_US


def test_the_first_throttle_pauses_everyone_for_a_second_and_widens_the_margin() -> None:
    """1 % becomes 1.5 %."""
    state = throttled(RateLimitState(), START_US, START_US + 80_000)
    send_us, state = reserve(state, START_US + 80_000, RATE)
    assert send_us == START_US + 80_000 + SECOND_US
    assert state.interval_us(RATE) == 203_000


def test_throttles_of_calls_under_way_count_once() -> None:
    """Five responses to five calls that were sent before the pause are one event, however late they come."""
    first = state = throttled(RateLimitState(), START_US, START_US + 80_000)
    for delay_us in (100_000, 300_000, 900_000, 5 * SECOND_US):
        state = throttled(state, START_US + 10_000, START_US + delay_us)
    assert (state.margin_ppm, state.pause_us) == (first.margin_ppm, first.pause_us)
    assert state.paused_until_us == START_US + 5 * SECOND_US  # no call is delayed after the last of them


def test_a_call_under_way_can_lengthen_the_pause_by_its_retry_after() -> None:
    """The vendor's Retry-After counts, whichever process gets it."""
    state = throttled(RateLimitState(), START_US, START_US + 80_000)
    state = throttled(state, START_US, START_US + 100_000, retry_after_us=7 * SECOND_US)
    assert reserve(state, START_US + 100_000, RATE)[0] == START_US + 100_000 + 7 * SECOND_US


def test_the_pause_doubles_only_while_throttles_follow_each_other() -> None:
    """1, 2, 4 ... 60 seconds while the first call after each pause is throttled, then 1 again."""
    state, now_us, pauses = RateLimitState(), START_US, []
    for _ in range(8):
        sent_us, state = reserve(state, now_us, RATE)
        now_us = sent_us + 80_000
        state = throttled(state, sent_us, now_us)
        pauses.append((state.paused_until_us - now_us) // SECOND_US)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert state.margin_ppm == MAX_MARGIN_PPM
    later_us = state.paused_until_us + 3 * SECOND_US
    state = throttled(state, later_us, later_us + 80_000)
    assert state.paused_until_us == later_us + 80_000 + SECOND_US


def test_retry_after_is_obeyed_when_it_is_longer_than_the_pause() -> None:
    """A longer wait is obeyed, a shorter one is not taken for a promise."""
    long = throttled(RateLimitState(), START_US, START_US, retry_after_us=9 * SECOND_US)
    short = throttled(RateLimitState(), START_US, START_US, retry_after_us=1)
    assert reserve(long, START_US, RATE)[0] == START_US + 9 * SECOND_US
    assert reserve(short, START_US, RATE)[0] == START_US + SECOND_US


@given(st.integers(1, 40))
def test_the_margin_never_grows_over_a_fifth(events: int) -> None:
    """However often the account is throttled."""
    state, now_us = RateLimitState(), START_US
    for _ in range(events):
        before = state.margin_ppm
        now_us += 3 * MAX_PAUSE_US
        state = throttled(state, now_us, now_us)
        assert state.margin_ppm == min(round(before * 1.5), 200_000)


def test_each_clean_minute_takes_a_third_of_the_excess_back() -> None:
    """From 20 % down to 1 %, step by step, and not below."""
    state = RateLimitState(margin_ppm=MAX_MARGIN_PPM, throttled_us=START_US, pause_us=SECOND_US)
    assert reserve(state, START_US + CLEAN_US - 1, RATE)[1].margin_ppm == MAX_MARGIN_PPM
    now_us, margins = START_US, []
    for _ in range(20):
        now_us += CLEAN_US
        _, state = reserve(state, now_us, RATE)
        _, state = reserve(state, now_us + 1, RATE)  # once a minute, not once a call
        margins.append(state.margin_ppm)
    assert margins[:3] == [136_666, 94_444, 66_296]
    assert margins[-1] == BASE_MARGIN_PPM
    assert margins == sorted(margins, reverse=True)


def test_a_minute_of_pause_is_no_clean_minute() -> None:
    """No call was sent: the margin stays, and a 429 right after it pauses for as long again."""
    state = RateLimitState(margin_ppm=MAX_MARGIN_PPM, throttled_us=START_US, pause_us=MAX_PAUSE_US)
    end_us = START_US + MAX_PAUSE_US
    state = replace(state, paused_until_us=end_us, next_us=end_us)
    first_us, state = reserve(state, START_US + 1, RATE)
    _, state = reserve(state, end_us + 1, RATE)
    assert state.margin_ppm == MAX_MARGIN_PPM
    state = throttled(state, first_us, end_us + 80_000)
    assert state.paused_until_us == end_us + 80_000 + MAX_PAUSE_US


def test_a_throttle_after_a_clean_minute_pauses_for_a_second_again() -> None:
    """The doubling is forgotten."""
    state = RateLimitState(
        margin_ppm=40_000, throttled_us=START_US, pause_us=32 * SECOND_US, paused_until_us=START_US
    )
    sent_us, state = reserve(state, START_US + CLEAN_US, RATE)
    assert throttled(state, sent_us, sent_us).paused_until_us == sent_us + SECOND_US


@given(
    callers=st.integers(0, 8),
    pause_us=st.one_of(st.none(), st.integers(0, MAX_PAUSE_US)),
    back_us=st.integers(0, START_US),
)
@example(callers=8, pause_us=MAX_PAUSE_US, back_us=HOUR_US)
@example(callers=1, pause_us=None, back_us=START_US)
def test_a_clock_that_is_set_back_changes_no_wait(callers: int, pause_us: int | None, back_us: int) -> None:
    """By a moment, by an hour, or to zero as at a restart: no call waits longer, and none is sent sooner."""
    state = RateLimitState()
    for _ in range(callers):
        _, state = reserve(state, START_US, RATE)
    if pause_us is not None:
        state = throttled(state, START_US, START_US, pause_us)
    expected_us, _ = reserve(state, START_US, RATE)
    now_us = START_US - back_us if callers or pause_us is not None else START_US
    send_us, after = reserve(state, now_us, RATE)
    assert send_us - now_us == expected_us - START_US
    assert after.throttled_us <= now_us  # so that the margin relaxes again one day


@given(st.integers(0, 8), st.integers(0, HOUR_US))
def test_a_clock_that_is_set_forward_lets_no_two_calls_leave_at_once(callers: int, forward_us: int) -> None:
    """What comes after the jump is as far apart as ever."""
    state = RateLimitState()
    for _ in range(callers):
        _, state = reserve(state, START_US, RATE)
    first_us, state = reserve(state, START_US + forward_us, RATE)
    second_us, _ = reserve(state, START_US + forward_us, RATE)
    assert second_us - first_us == 202_000
    assert first_us - START_US - forward_us <= callers * 202_000


def test_after_a_burst_that_was_refused_calls_start_slowly() -> None:
    """A quarter of the rate after the pause, all of it a minute later; and no slower than that for long."""
    state = throttled(RateLimitState(), START_US, START_US, burst=True)
    began_us, _ = reserve(state, START_US, RATE)
    send_times = []
    while not send_times or send_times[-1] < began_us + 70 * SECOND_US:
        send_us, state = reserve(state, began_us, RATE)
        send_times.append(send_us)
    gaps = [later - earlier for earlier, later in itertools.pairwise(send_times)]
    assert gaps[0] == pytest.approx(SLOW_START * 203_000)
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] == 203_000
    assert 130 <= sum(send_us < began_us + SLOW_START_US for send_us in send_times) <= 145


def test_slow_rates_with_many_callers_keep_their_distance_through_a_throttle() -> None:
    """At one call in 20 s five send_times lie 80 s ahead: none of them is given out again."""
    state, given_out = RateLimitState(), []
    for _ in range(5):
        send_us, state = reserve(state, START_US, 0.05)
        given_out.append(send_us)
    state = throttled(state, START_US, START_US + 80_000)
    send_us, _ = reserve(state, START_US + 80_000, 0.05)
    assert send_us >= given_out[-1] + 20 * SECOND_US


@given(
    st.lists(
        st.tuples(st.integers(-2 * HOUR_US, HOUR_US), st.sampled_from(["reserve", "throttled"])),
        max_size=30,
    )
)
def test_the_row_stays_sane_whatever_the_clock_does(moves: list[tuple[int, str]]) -> None:
    """Margin within its bounds, no pause over a minute, no call waits longer than the calls before."""
    state, now_us, calls = RateLimitState(), START_US, 0
    for step_us, what in moves:
        now_us = max(0, now_us + step_us)
        if what == "throttled":
            state = throttled(state, now_us, now_us)
        else:
            send_us, state = reserve(state, now_us, RATE)
            assert now_us <= send_us <= now_us + calls * SECOND_US + MAX_PAUSE_US
            calls += 1
        assert BASE_MARGIN_PPM <= state.margin_ppm <= MAX_MARGIN_PPM
        assert 0 <= state.pause_us <= MAX_PAUSE_US


def test_a_rate_turned_up_counts_from_the_next_call_on() -> None:
    """Nothing that was reserved at the old rate moves."""
    first_us, state = reserve(RateLimitState(), START_US, 1.0)
    second_us, state = reserve(state, START_US, RATE)
    third_us, _ = reserve(state, START_US, RATE)
    assert (second_us - first_us, third_us - second_us) == (1_010_000, 202_000)


def test_a_row_without_history_is_the_default() -> None:
    """A fresh account starts at once, with the base margin."""
    after = replace(RateLimitState(), next_us=START_US + 202_000, written_us=START_US)
    assert reserve(RateLimitState(), START_US, RATE) == (START_US, after)
