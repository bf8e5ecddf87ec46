"""Which publication a sensor waits for; nothing here needs Airflow."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any


def wanted(result: Mapping[str, Any], published_after: str | None) -> dict[str, Any] | None:
    """What is published, if its gate was evaluated after that time (ISO 8601); None: there is none yet.

    Args:
        result: What ``s2v publications OUT --json`` prints.
        published_after: None: any publication will do.
    """
    current = result.get("current")
    if not current:
        return None
    if published_after is None:
        return dict(current)
    opened_at = datetime.fromisoformat(current["gate"]["checked_at"])
    return dict(current) if opened_at > datetime.fromisoformat(published_after) else None
