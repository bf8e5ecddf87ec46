"""What is measured: the rows of the comparison, and the scenarios beside it. A run gives figures by name."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import psutil
from _fleet import Backends, Meter, Service, Worker, cpu_s, workers
from _measure import (
    Arrivals,
    fairness,
    longest_gap_s,
    most_in_a_second,
    over_the_limit,
    quantile,
    share_used,
)
from _parent import Orders

Figures = dict[str, Any]
Wait = Callable[[float], None]
"""Wait some seconds and move the progress bar."""

RATE_PER_S: Final = 5.0
AFTER_KILL_S: Final = 10.0
ADAPTING_S: Final = 60.0
"""Left out at the start of the jitter scenario."""
JITTER_S: Final = 0.05
NEWCOMERS: Final = 5
WAYMARKS: Final = (0.1, 0.5, 1.0)
"""Of the images of the memory scenario."""
SLOW_RESPONSE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Row:
    """A mechanism with a number of processes. ``limit`` and ``decay`` are of a Prefect concurrency limit."""

    key: str
    label: str
    mechanism: str
    processes: int
    backend: str = ""
    limit: int = 0
    decay: float = 0.0
    rate_per_s: float = RATE_PER_S
    jitter_s: float = 0.0
    response_s: float = 0.0

    @property
    def is_ours(self) -> bool:
        """Whether this is the project's own mechanism."""
        return self.mechanism == "engine"


def _engine(backend: str, processes: int) -> Row:
    names = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "pgbouncer": "PgBouncer, transaction mode"}
    return Row(f"{backend}-{processes}", f"s2v-tasks, {names[backend]}", "engine", processes, backend)


OURS: Final = tuple(_engine(b, n) for b in ("sqlite", "postgresql") for n in (1, 4))

ROWS: Final = (
    *([_engine("pgbouncer", 4)] if shutil.which("pgbouncer") else ()),
    *OURS,
    Row("prefect-best-1", "Prefect rate_limit, limit 1 decay 5", "prefect", 1, limit=1, decay=5.0),
    Row("prefect-best-4", "Prefect rate_limit, limit 1 decay 5", "prefect", 4, limit=1, decay=5.0),
    Row("prefect-written-1", "Prefect rate_limit, limit 5 decay 5", "prefect", 1, limit=5, decay=5.0),
    Row("prefect-written-4", "Prefect rate_limit, limit 5 decay 5", "prefect", 4, limit=5, decay=5.0),
    Row(
        "prefect-tasks",
        "Prefect task per image, rate_limit 5/5",
        "prefect_task_per_image",
        1,
        limit=5,
        decay=5.0,
    ),
    Row("per-process", "limiter in each process", "per_process", 4),
)
"""The comparison, all at 5 calls a second."""

JITTER_ROWS: Final = (
    replace(OURS[0], key="quiet-1", label="s2v-tasks, no jitter"),
    *(
        replace(
            _engine("sqlite", n),
            key=f"jitter-{n}",
            label=f"s2v-tasks, {1e3 * JITTER_S:.0f} ms jitter",
            jitter_s=JITTER_S,
        )
        for n in (1, 4)
    ),
)

RATE_ROWS: Final = (
    *(
        replace(row, key=f"{row.key}-at-{rate:.0f}", rate_per_s=rate)
        for rate in (50.0, 500.0)
        for row in (*OURS, Row("bare-1", "client without a ledger", "bare", 1))
    ),
    replace(
        OURS[0],
        key="slow-responses-at-50",
        label=f"s2v-tasks, SQLite, responses take {SLOW_RESPONSE_S:.0f} s",
        rate_per_s=50.0,
        response_s=SLOW_RESPONSE_S,
    ),
)


def orders_of(row: Row, run: str, service: Service, backends: Backends, images: int = 0) -> list[Orders]:
    """The arguments of the callers of a row, which share one ledger or one limit."""
    ledger = getattr(backends, row.backend)() if row.backend else ""
    limit_name = backends.prefect_limit(row.limit, row.decay) if row.limit else ""
    return [
        Orders(
            row.mechanism,
            number,
            run,
            service.base_url,
            row.rate_per_s,
            ledger=ledger,
            limit_name=limit_name,
            images=images,
        )
        for number in range(row.processes)
    ]


def _meter(row: Row, fleet: list[Worker], service: Service, backends: Backends) -> Meter:
    servers = [] if row.backend == "sqlite" else backends.postgresql_pids
    servers = backends.prefect_pids if row.limit else servers
    return Meter([worker.pid for worker in fleet], servers, [service.pid])


def _go(fleet: list[Worker]) -> float:
    for worker in fleet:
        worker.say("go")
    return time.monotonic()


def _figures(arrivals: Arrivals, row: Row, used: Figures) -> Figures:
    calls = len(arrivals.at_s)
    per_1000 = 1000 / max(1, calls)
    return {
        "calls": calls,
        "share": share_used(arrivals.at_s, row.rate_per_s),
        "most_in_a_second": most_in_a_second(arrivals.at_s),
        "over": over_the_limit(arrivals.at_s, round(row.rate_per_s)),
        "fairness": fairness(arrivals.worker, row.processes) if row.processes > 1 else None,
        "cpu_s_per_1000": used["callers_cpu_s"] * per_1000,
        "server_cpu_s_per_1000": used["servers_cpu_s"] * per_1000,
        **used,
    }


def _inside(reports: list[Figures]) -> Figures:
    """What the callers saw, put together: the most for times, the sum for counts."""
    names = {name for report in reports for name in report}
    return {
        name: (max if "_ms_" in name else sum)(report.get(name, 0) for report in reports)
        for name in sorted(names)
    }


def compare(row: Row, run: str, backends: Backends, seconds: float, wait: Wait) -> Figures:
    """All callers start together, against a service that counts and admits every call."""
    images = 2 * round(RATE_PER_S * seconds)
    with (
        Service() as service,
        workers(orders_of(row, run, service, backends, images)) as fleet,
    ):
        meter = _meter(row, fleet, service, backends)
        from_s = _go(fleet)
        wait(seconds)
        to_s, used = time.monotonic(), meter.read()
        living = fleet
        if row.processes > 1:
            fleet[0].kill()
            living = fleet[1:]
            wait(AFTER_KILL_S)
        over_s = time.monotonic()
        reports = [worker.stop() for worker in living]
        arrivals = service.arrivals()
    figures = _figures(arrivals.between(from_s, to_s), row, used)
    gap_s = longest_gap_s(arrivals.at_s, to_s, over_s) if row.processes > 1 else None
    return {**figures, "gap_after_kill_s": gap_s, **_inside(reports)}


def jitter(row: Row, run: str, backends: Backends, seconds: float, wait: Wait) -> Figures:
    """A service with a sliding window of 5 that refuses; the first minute is not counted."""
    with (
        Service(limit=row.rate_per_s, jitter_s=row.jitter_s) as service,
        workers(orders_of(row, run, service, backends)) as fleet,
    ):
        meter = _meter(row, fleet, service, backends)
        from_s = _go(fleet)
        wait(ADAPTING_S)
        adapted_s = time.monotonic()
        wait(seconds)
        to_s, used = time.monotonic(), meter.read()
        reports = [worker.stop() for worker in fleet]
        arrivals = service.arrivals()
    first, counted = arrivals.between(from_s, adapted_s), arrivals.between(adapted_s, to_s)
    return {
        "calls": len(counted.at_s),
        "share": sum(counted.admitted) / (to_s - adapted_s) / row.rate_per_s,
        "throttled": counted.throttled,
        "throttled_share": counted.throttled / max(1, len(counted.at_s)),
        "throttled_at_first": first.throttled,
        **used,
        **_inside(reports),
    }


def rates(row: Row, run: str, backends: Backends, seconds: float, wait: Wait) -> Figures:
    """A larger allowance, and what the time goes into."""
    with (
        Service(response_s=row.response_s) as service,
        workers(orders_of(row, run, service, backends)) as fleet,
    ):
        meter = _meter(row, fleet, service, backends)
        from_s = _go(fleet)
        wait(seconds)
        to_s, used = time.monotonic(), meter.read()
        reports = [worker.stop() for worker in fleet]
        arrivals = service.arrivals()
    return {**_figures(arrivals.between(from_s, to_s), row, used), **_inside(reports)}


def newcomer(row: Row, run: str, backends: Backends, _seconds: float, wait: Wait) -> Figures:
    """Four are at work; others come, one after another: from being ready to the first call's arrival."""
    with Service() as service:
        all_orders = orders_of(replace(row, processes=4 + NEWCOMERS), run, service, backends)
        with workers(all_orders[:4]) as fleet:
            _go(fleet)
            wait(5)
            waits_s = []
            for orders in all_orders[4:]:
                with workers([orders]) as (joined,):
                    joined.say("go")
                    wait(3)
                    joined.stop()
                ours = [
                    at
                    for at, worker in zip(service.arrivals().at_s, service.arrivals().worker, strict=False)
                    if worker == orders.number
                ]
                waits_s.append(ours[0] - joined.ready_s if ours else float("inf"))
            for worker in fleet:
                worker.stop()
    return {
        "newcomer_s_p50": quantile(waits_s, 0.5),
        "newcomer_s_max": max(waits_s),
        "waits_s": [round(each, 3) for each in waits_s],
    }


def memory(row: Row, run: str, backends: Backends, images: float, wait: Wait) -> Figures:
    """One caller as fast as it goes, over ``images`` images."""
    fast = replace(row, rate_per_s=1e6)
    marks = tuple(round(part * images) for part in WAYMARKS)
    with Service() as service:
        orders = [replace(each, report_at=marks) for each in orders_of(fast, run, service, backends)]
        with workers(orders) as (worker,):
            figures: Figures = {"rss_mb_0": psutil.Process(worker.pid).memory_info().rss / 1e6}
            before_s = cpu_s([worker.pid])
            meter = _meter(fast, [worker], service, backends)
            began_s = _go([worker])
            for part in WAYMARKS:
                seen = worker.hear()
                done, after = seen["done"], f"{part:.0%}"
                figures[f"rss_mb_{after}"] = seen["rss_mb"]
                figures[f"cpu_ms_per_image_{after}"] = 1e3 * (seen["cpu_s"] - before_s) / done
                figures[f"images_per_s_{after}"] = done / (seen["at_s"] - began_s)
                wait(part)
            used = meter.read()
            report = worker.stop()
    return {"images": images, **figures, **used, **report}
