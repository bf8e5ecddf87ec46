"""The JSON Schema of a verb's options: a program that keeps them as a dictionary checks it before a run."""

import json
from typing import Any, Final

import typer
from pydantic import BaseModel

from s2v_tasks.cli.options import MORE_OF_CURATE
from s2v_tasks.cli.result import result
from s2v_tasks.settings import CurateParameters
from s2v_tasks.settings.fields import Declared, declared

_BARE: Final = {"type": "boolean", "default": False}


def show_schema(wanted: bool) -> None:
    """Print the schema of the options of ``s2v curate``, and end; the option's callback."""
    if wanted:
        found = option_schema(CurateParameters, MORE_OF_CURATE)
        result().details["schema"] = found
        typer.echo(json.dumps(found, indent=2))
        raise typer.Exit


def option_schema(model: type[BaseModel], more: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The options of a model, by their names on the command line without the two dashes.

    A bare flag is a boolean: true puts it on the command line. An option that may be repeated is an array.

    Args:
        model: Its fields declare the options.
        more: Schemas of options that are no fields, by name.
    """
    whole = model.model_json_schema()
    options = {one.flag.removeprefix("--"): one for one in declared(model) if one.flag}
    properties = {name: _property(whole, one) for name, one in options.items()}
    for one in options.values():
        for bare in one.more_options:
            described = {"title": one.title, "description": bare.help}
            properties[str(bare.flag).removeprefix("--")] = {**described, **_BARE}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Options of s2v curate",
        "type": "object",
        "properties": properties | more,
        "required": [name for name, one in options.items() if one.field.is_required()],
        "additionalProperties": False,
    }


def _property(whole: dict[str, Any], one: Declared) -> dict[str, Any]:
    described = {"title": one.title, "description": one.help}
    if one.flag_value is not None:
        return {**described, **_BARE}
    node = whole
    for name in one.path:
        node = _resolved(whole, node)["properties"][name]
    found = {**node, **described}
    if "anyOf" in found:  # without null: an option that has no value is left out
        (kind,) = (inner for inner in found.pop("anyOf") if inner.get("type") != "null")
        found |= kind
    if found.get("default", ...) is None:
        del found["default"]
    return found


def _resolved(whole: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """The node that a reference names."""
    name = node.get("$ref", "").rpartition("/")[2]
    return whole["$defs"][name] if name else node
