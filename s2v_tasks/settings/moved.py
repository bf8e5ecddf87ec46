"""Reads parameters by the names they had before: saved deployments and run folders of 0.1.0's first form.

`MOVED` is the one table, old path to new path. It holds for one release; `deprecation` is the warning.
"""

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidatorFunctionWrapHandler, model_validator

MOVED: Final[dict[str, str]] = {
    "run_id": "advanced.run_id",
    "source.limit": "advanced.limit",
    "source.seed": "advanced.seed",
    "source.stratify_by": "source.segment_column",
    "screening.allow_ports": "advanced.allow_ports",
    "screening.fresh_for_h": "advanced.header_cache_ttl_h",
    "screening.same_content": "screening.dedupe",
    "screening.runner": "advanced.runner",
    "screening.shards_at_once": "advanced.max_concurrent_shards",
    "screening.estimate_from": "advanced.estimate_sample_size",
    "screening.report_images": "advanced.report_images",
    "thresholds.allow_partial": "thresholds.publish",
    "thresholds.max_error_share": "advanced.max_error_share",
    "thresholds.max_unknown_share": "advanced.max_unknown_share",
    "spending.ledger": "advanced.ledger",
    "spending.account": "advanced.account",
    "spending.on_unknown": "spending.on_lost_response",
    "spending.approve_within_h": "advanced.approve_within_h",
    "output.keep_duplicates": "advanced.keep_duplicates",
    "output.shard_size": "advanced.shard_size",
}
"""Where each parameter was, and where it is."""

CHOICES: Final[dict[str, tuple[str, str]]] = {
    "screening.same_content": ("url", "bytes"),
    "thresholds.allow_partial": ("all", "within_budget"),
}
"""What a switch that became a choice meant: off, on."""


_FIRST: Final[dict[str, tuple[str, ...]]] = {
    "candidates": (),
    "budget_usd": (),
    "source": ("url_column", "limit", "sample", "seed", "stratify_by", "segment_column"),
    "screening": (
        "enabled", "allow_private_hosts", "allow_ports", "fresh_for_h", "same_content", "estimate_from",
    ),
    "spending": (
        "ledger", "ledger_block", "account", "credentials", "budget_name", "on_unknown", "approve_above_usd",
        "approve_within_h",
    ),
    "out": (),
    "thresholds": (
        "min_pass_rate", "max_unknown_share", "max_error_share", "max_unreachable_share", "allow_partial",
        "max_cost_usd", "max_cost_per_approved_usd",
    ),
    "output": ("keep_duplicates", "shard_size"),
}  # fmt: skip
"""What the first version recognised a run by, in its order; where the run screens is not among it."""


def identifying(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What makes two commands the same run, of dumped parameters, as the first version laid it out.

    So an unfinished run of it is recognised. A parameter that is new since must be added here if it decides
    what a run does, and only where it is not at its default.
    """

    def value(path: str) -> Any:
        if path == "source.stratify_by":
            return None
        group, _, name = MOVED.get(path, path).rpartition(".")
        found = parameters[group][name]
        return found == CHOICES[path][1] if path in CHOICES else found

    same = {
        group: {name: value(f"{group}.{name}") for name in names} if names else parameters[group]
        for group, names in _FIRST.items()
    }
    # A later option counts where it is used: a run of an earlier version, which lacks it, goes on without it.
    if (faces := value("screening.faces")) != "off":
        same["screening"]["faces"] = faces
    if (missed := value("thresholds.max_missed_share")) != 0.05:
        same["thresholds"]["max_missed_share"] = missed
    if value("thresholds.publish") == "passing_segments":
        same["thresholds"]["publish"] = "passing_segments"
    if (drop := value("thresholds.max_pass_rate_drop")) is not None:
        same["thresholds"]["max_pass_rate_drop"] = drop
    return same


def new_value(old: str, value: Any) -> Any:
    """A value as the new parameter takes it; what fits neither is left for its validation to refuse."""
    return CHOICES[old][value] if old in CHOICES and isinstance(value, bool) else value


def deprecation(old: Collection[str]) -> str:
    """The warning about parameters that were given by old names."""
    names = ", ".join(f"{name} is now {MOVED[name]}" for name in sorted(old))
    also = ""
    if "source.stratify_by" in old:
        also = " Each value of source.segment_column must also pass the gate on its own."
    return f"parameters have moved: {names}. The old names work until the next release.{also}"


class Group(BaseModel):
    """A group of parameters. Unknown names and bad values are refused; moved ones are read, and kept apart.

    A name that has moved within the group is read as the new one. A value that belongs into another group is
    kept in ``moved`` until the whole is put together. If the new name is given as well, it counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    place: ClassVar[str] = ""
    _moved: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def moved(self) -> Mapping[str, Any]:
        """What was given by old names, by old path."""
        return self._moved

    @classmethod
    def moved_names(cls) -> dict[str, str]:
        """The old names of this group, to their old paths."""
        return {path.rpartition(".")[2]: path for path in MOVED if path.rpartition(".")[0] == cls.place}

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> Any:
        """A form shows ``properties``; what matches ``patternProperties`` is taken without being shown."""
        schema = handler(core_schema)
        if names := cls.moved_names():
            handler.resolve_ref_schema(schema)["patternProperties"] = {f"^({'|'.join(names)})$": {}}
        return schema

    @model_validator(mode="wrap")
    @classmethod
    def _read_moved(cls, data: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        names = cls.moved_names()
        if not isinstance(data, dict) or not names.keys() & data.keys():
            return handler(data)
        kept = {name: value for name, value in data.items() if name not in names}
        moved = {
            path: new_value(path, data[name]) for name, path in names.items() if data.get(name) is not None
        }
        for path, value in moved.items():
            place, _, name = MOVED[path].rpartition(".")
            if place == cls.place and kept.get(name) is None:
                kept[name] = value
        group = handler(kept)
        group._moved = moved  # noqa: SLF001  (our own class)
        return group
