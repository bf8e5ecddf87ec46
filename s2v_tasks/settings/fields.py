"""Declares a parameter once: what its pydantic field says makes the form, the command's option, and the docs.

A field has a title, a description, bounds and a default. Two markers in ``Annotated`` add what a form has no
place for: `Option`, how the command spells it, and `Limit`, which fact of a dataset it limits. `declared`
lists the fields of a model with all of this; nothing else repeats it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]
RUN_ID: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Option:
    """How the command spells a field, where that is not ``--name-of-the-field``.

    ``flag`` None: the command has no such option. ``value``: what a bare flag means, such as False for
    ``--no-screen``, with its own ``help``; of a field that is a switch it is True without being named.
    """

    flag: str | None
    value: object = None
    help: str | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """Marks a threshold: the fact of `s2v_tasks.models.Facts` that it limits, and from which side.

    ``parameter``: what the expectation calls the limit, if not by the field's name. ``values``: the limit for
    each choice, if the field is no number itself; None switches it off.
    """

    fact: str
    side: Literal["at least", "at most"]
    parameter: str | None = None
    values: tuple[tuple[str, float | None], ...] = ()

    def holds(self, observed: float | None, limit: float | None) -> bool:
        """Whether a value of its fact holds; one that is missing does, another expectation is for that."""
        if observed is None or limit is None:
            return True
        return observed >= limit if self.side == "at least" else observed <= limit


@dataclass(frozen=True, slots=True)
class Declared:
    """A field of a model or of a group in it; ``path`` leads to it, such as ``("thresholds", "publish")``."""

    path: tuple[str, ...]
    group: str | None
    field: FieldInfo

    @property
    def name(self) -> str:
        """The field's own name, the last of its path."""
        return self.path[-1]

    @property
    def title(self) -> str:
        """What is above it in a form."""
        return _text(self.field, "title")

    @property
    def description(self) -> str:
        """What is below it in a form."""
        return _text(self.field, "description")

    @property
    def flag(self) -> str | None:
        """The command's option; None if it has none."""
        option = _marker(self.field, Option)
        return option.flag if option else "--" + self.name.replace("_", "-")

    @property
    def flag_value(self) -> object:
        """What the bare flag means; None if the option takes a value."""
        option = _marker(self.field, Option)
        if option and option.value is not None:
            return option.value
        return True if self.field.annotation is bool else None

    @property
    def more_options(self) -> tuple[Option, ...]:
        """Bare options for other values of it."""
        return tuple(marker for marker in self.field.metadata if isinstance(marker, Option))[1:]

    @property
    def help(self) -> str:
        """What the command's help says of it."""
        option = _marker(self.field, Option)
        if option and option.help:
            return option.help
        return f"{self.title}: {self.description}" if self.group else self.description

    @property
    def limit(self) -> Limit | None:
        """The fact that it limits, if it is a threshold."""
        return _marker(self.field, Limit)


def described(title: str, description: str, **more: Any) -> Any:
    """A flow's parameter with title and description: given in another way, Prefect overwrites both."""
    return Field(json_schema_extra={"title": title, "description": description}, **more)


def declared(
    model: type[BaseModel], path: tuple[str, ...] = (), group: str | None = None
) -> Iterator[Declared]:
    """Every field of a model, those of its groups included, in the order of the form."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from declared(kind, (*path, name), _text(field, "title"))
        else:
            yield Declared((*path, name), group, field)


def limits(*groups: BaseModel) -> dict[str, float | None]:
    """What the thresholds in these groups are set to, by the names of the expectations' parameters."""
    found: dict[str, float | None] = {}
    for group in groups:
        for one in declared(type(group)):
            if one.limit is not None:
                value = getattr(group, one.name)
                found[one.limit.parameter or one.name] = dict(one.limit.values).get(value, value)
    return found


def _marker(field: FieldInfo, kind: type[M]) -> M | None:
    return next((marker for marker in field.metadata if isinstance(marker, kind)), None)


def _text(field: FieldInfo, name: str) -> str:
    extra = field.json_schema_extra
    value = getattr(field, name) or (extra.get(name) if isinstance(extra, dict) else None)
    return str(value or "")
