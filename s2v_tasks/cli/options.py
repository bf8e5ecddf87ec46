"""Builds a verb's options from the fields of its parameters, and reads them back into the validated model.

`takes` is the decorator: the verb's function has a parameter ``given``, and ``--help`` shows the options of
the model in its place, in a panel for each group. An option that is left out is not in ``given``, so the
model's own default holds. The spellings of moved parameters are taken with a warning, and are not shown.
"""

import inspect
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from types import UnionType
from typing import Annotated, Any, Final, Literal, Optional, TypeVar, Union, get_args, get_origin

import typer
from pydantic import BaseModel, ValidationError

from s2v_tasks.errors import UsageError
from s2v_tasks.settings import GROUPS, CurateParameters
from s2v_tasks.settings.fields import Declared, Option, declared
from s2v_tasks.settings.moved import CHOICES, MOVED, new_value

M = TypeVar("M", bound=BaseModel)

Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and Prefect's own log.")]
"""Read by `s2v_tasks.cli.app.main`, wherever it is on the line."""

QUERY_HELP: Final = "Instead: a SELECT to the database that S2V_SOURCE_URL names."
NEW_RUN_HELP: Final = "Start a new run, even if an unfinished one could be continued."
_CANDIDATES = next(one for one in declared(CurateParameters) if one.name == "candidates")
Candidates = Annotated[str | None, typer.Argument(help=_CANDIDATES.help, show_default=False)]
Query = Annotated[str | None, typer.Option(help=QUERY_HELP)]

MORE_OF_CURATE: Final[dict[str, dict[str, Any]]] = {
    "query": {"type": "string", "title": "Query", "description": QUERY_HELP},
    "new-run": {"type": "boolean", "title": "New run", "description": NEW_RUN_HELP, "default": False},
}
"""The JSON Schema of options of ``s2v curate`` that are no parameters of a run."""


def verb() -> typer.Typer:
    """A Typer application for one verb; its help has a panel for each group of options."""
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@dataclass(slots=True)
class Given:
    """The options that stand on the command line: nested values, as the model takes them."""

    values: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def put(self, path: tuple[str, ...], value: object) -> None:
        """Set one value."""
        group = self.values
        for name in path[:-1]:
            group = group.setdefault(name, {})
        group[path[-1]] = value

    def as_model(self, model: type[M], **more: object) -> M:
        """The validated parameters.

        The ledger's URL goes by the environment and is no parameter: Prefect stores parameters, and a URL may
        hold a password.

        Raises:
            UsageError: A value is refused; the message names its option.
        """
        advanced = self.values.get("advanced", {})
        if (url := advanced.pop("ledger", None)) is not None:
            os.environ["S2V_LEDGER_URL"] = url
        return checked(model, {**self.values, **more})


def takes(
    model: type[BaseModel], only: Collection[str] | None = None, *, show_default: bool = True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a verb the options of a model's fields; ``only`` those, by their paths joined with dots.

    ``show_default`` False: the verb takes what is left out from elsewhere than the model.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        fields = (one for one in declared(model) if only is None or ".".join(one.path) in only)
        options = sorted((one for one in fields if one.flag), key=_place)
        spelled = [each for one in options for each in _spellings(one, show_default=show_default)]

        def run(ctx: typer.Context, **arguments: Any) -> None:
            given = Given()
            for each in spelled:
                value = arguments.pop(each.parameter.name)
                source = ctx.get_parameter_source(each.parameter.name)
                if source is None or source.name != "COMMANDLINE":
                    continue
                given.put(each.field.path, each.value_of(value))
                if each.old is not None:
                    new = f"{_flag(each.old)} is now {each.field.flag}"
                    given.warnings.append(f"{new}; the old spelling will go")
            command(**arguments, given=given)

        own = inspect.signature(command, eval_str=True).parameters.values()
        parameters = [inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
        for parameter in own:
            shown = [each.parameter for each in spelled] if parameter.name == "given" else [parameter]
            parameters += [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in shown]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        return run

    return decorate


def checked(model: type[M], values: dict[str, Any]) -> M:
    """A validated model.

    Raises:
        UsageError: A value is refused; the one line names its option.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        names = [str(part) for part in first["loc"] if isinstance(part, str)]
        flags = {one.name: one.flag for one in declared(model)}
        flag = next((flags[name] for name in reversed(names) if flags.get(name)), f"--{names[-1]}")
        raise UsageError(f"{flag}: {first['msg']} (given: {first['input']!r})") from None


def one_of(candidates: str | None, query: str | None) -> str:
    """The candidates, named in one of two ways.

    Raises:
        UsageError: In neither, or in both.
    """
    if query is None and candidates is not None:
        return candidates
    if query is None or candidates is not None:
        raise UsageError("name the CANDIDATES, or a --query: one of them")
    return f"sql:{query}"


def _place(one: Declared) -> int:
    """The place of a field's group; first come those of no group."""
    return GROUPS.index(one.path[0]) if one.path[0] in GROUPS else -1


@dataclass(frozen=True, slots=True)
class _Spelling:
    """One way to give a field: its option, a bare option for the value ``bare``, or its ``old`` name."""

    parameter: inspect.Parameter
    field: Declared
    bare: object = None
    old: str | None = None

    def value_of(self, typed: object) -> object:
        """What the field gets."""
        if self.old is not None:
            return new_value(self.old, typed)
        return typed if self.bare is None else self.bare


def _spellings(one: Declared, *, show_default: bool) -> list[_Spelling]:
    """The ways to give a field; if several are used, the last one counts."""
    found = [_Spelling(_moved(old, one), one, old=old) for old in _old_spellings(one)]
    found.append(_Spelling(_parameter(one, show_default=show_default), one, one.flag_value))
    return found + [_Spelling(_bare(one, option), one, option.value) for option in one.more_options]


def _bare(one: Declared, option: Option) -> inspect.Parameter:
    name = f"{'__'.join(one.path)}__{option.value}"
    return _option(name, bool, False, one, str(option.flag), text=option.help)


def _parameter(one: Declared, *, show_default: bool) -> inspect.Parameter:
    kind = bool if one.flag_value is not None else _kind(one.field.annotation)
    default: Any = inspect.Parameter.empty
    if kind is bool:
        default = False
    elif not one.field.is_required():
        default = one.field.default or None if get_origin(kind) is list else one.field.default
    return _option("__".join(one.path), kind, default, one, str(one.flag), show_default=show_default)


def _old_spellings(one: Declared) -> list[str]:
    """The old paths of a parameter whose option had another name."""
    new = ".".join(one.path)
    return [old for old, path in MOVED.items() if path == new and old.rpartition(".")[2] != one.name]


def _moved(old: str, one: Declared) -> inspect.Parameter:
    kind = bool if old in CHOICES else _kind(one.field.annotation)
    default = False if kind is bool else None
    return _option(f"moved__{old.replace('.', '__')}", kind, default, one, _flag(old), hidden=True)


def _option(
    name: str,
    kind: Any,
    default: object,
    one: Declared,
    flag: str,
    *,
    text: str | None = None,
    hidden: bool = False,
    show_default: bool = True,
) -> inspect.Parameter:
    text = (text or one.help).replace("[", r"\[")  # no markup
    info = typer.Option(flag, help=text, rich_help_panel=one.group, hidden=hidden, show_default=show_default)
    annotation = Annotated[kind if default is not None else Optional[kind], info]  # type: ignore[valid-type] # noqa: UP045
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _flag(old: str) -> str:
    return "--" + old.rpartition(".")[2].replace("_", "-")


def _kind(annotation: Any) -> Any:
    """The type that the command line reads: bounds are the model's to check."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0])
    if origin in (Union, UnionType):
        return _kind(next(one for one in arguments if one is not type(None)))
    if origin is tuple:
        return list[_kind(arguments[0])]  # type: ignore[misc]
    return annotation if origin is Literal else (origin or annotation)
