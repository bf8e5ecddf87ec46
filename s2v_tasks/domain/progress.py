"""Progress of a run, for the terminal and the Prefect UI."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress: ``done`` of ``total`` unique images; ``left_s`` None while it can't be estimated."""

    done: int
    total: int
    passed: int
    run_cost_usd: float
    rate_per_s: float
    left_s: float | None

    @property
    def percent(self) -> float:
        """0 to 100."""
        return 100.0 * self.done / self.total if self.total else 100.0

    def __str__(self) -> str:
        left = f", about {self.left_s / 60:.0f} min left" if self.left_s else ""
        return (
            f"{self.done:,} of {self.total:,} images, {self.passed:,} passed, USD {self.run_cost_usd:.4f},"
            f" {self.rate_per_s:.2f} calls/s{left}"
        )
