"""Schema union: one schema for many files, whose types hold all their values unchanged."""

from collections.abc import Sequence
from typing import Final

import polars as pl

_SIGNED: Final = (pl.Int8, pl.Int16, pl.Int32, pl.Int64)
_UNSIGNED: Final = (pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)
_INTEGERS: Final = (*_SIGNED, *_UNSIGNED)
_DIGITS: Final = 38
"""Digits of a decimal that parquet readers support."""


class NoCommonType(Exception):
    """No type holds the values of both types."""


def union_schema(schemas: Sequence[pl.Schema]) -> tuple[pl.Schema, tuple[int, str] | None]:
    """The columns of all schemas, in order of appearance, each with a type that holds all values.

    Also the number of the first schema that does not fit, with its column; None if all fit.
    """
    whole: dict[str, pl.DataType] = {}
    for number, schema in enumerate(schemas):
        for name, dtype in schema.items():
            try:
                whole[name] = _common_type(whole.get(name, pl.Null()), dtype)
            except NoCommonType:
                return pl.Schema(whole), (number, name)
    return pl.Schema(whole), None


def _common_type(one: pl.DataType, other: pl.DataType) -> pl.DataType:
    if one == other or other == pl.Null:
        return one
    if one == pl.Null:
        return other
    if isinstance(one, pl.List) and isinstance(other, pl.List):
        return pl.List(_common_type(_dtype(one.inner), _dtype(other.inner)))
    if isinstance(one, pl.Struct) and isinstance(other, pl.Struct):
        fields, bad = union_schema([pl.Schema(one), pl.Schema(other)])
        if bad is None:
            return pl.Struct(fields)
    for first, second in ((one, other), (other, one)):
        if (wider := _wider(first, second)) is not None:
            return wider
    raise NoCommonType


def _wider(one: pl.DataType, other: pl.DataType) -> pl.DataType | None:
    """A type that holds all values of ``other``, and as many of ``one`` as `is_exact` must confirm."""
    if one.is_integer() and other.is_integer():
        return _integer(one, other)
    if other.is_float() and (one.is_integer() or one.is_float()):
        small = one in {pl.Int8, pl.UInt8, pl.Int16, pl.UInt16, pl.Float16} and other == pl.Float32
        return pl.Float32() if small else pl.Float64()
    if isinstance(one, pl.Categorical | pl.Enum) and isinstance(other, pl.String | pl.Categorical | pl.Enum):
        return pl.String()
    if isinstance(one, pl.Decimal) and isinstance(other, pl.Decimal):
        scale = max(one.scale, other.scale)
        digits = max((d.precision or _DIGITS) - d.scale for d in (one, other)) + scale
        return pl.Decimal(min(digits, _DIGITS), scale)  # a value that has more digits stops the reading
    if isinstance(one, pl.Datetime) and isinstance(other, pl.Datetime) and one.time_zone == other.time_zone:
        finer = max(one.time_unit, other.time_unit, key=("ms", "us", "ns").index)
        return pl.Datetime(finer, one.time_zone)
    if isinstance(one, pl.Duration) and isinstance(other, pl.Duration):
        return pl.Duration(max(one.time_unit, other.time_unit, key=("ms", "us", "ns").index))
    return None


def _integer(one: pl.DataType, other: pl.DataType) -> pl.DataType | None:
    """The narrowest integer of 64 bits or less; readers of parquet know no wider one."""
    for dtype in _INTEGERS:
        if all(_fits(inner, dtype) for inner in (one, other)):
            return dtype()
    return None


def _fits(dtype: pl.DataType, outer: type[pl.DataType]) -> bool:
    for kinds in (_SIGNED, _UNSIGNED):
        if dtype in kinds and outer in kinds:
            return kinds.index(type(dtype)) <= kinds.index(outer)
    if dtype in _UNSIGNED and outer in _SIGNED:
        return _UNSIGNED.index(type(dtype)) < _SIGNED.index(outer)
    return False


def _dtype(dtype: object) -> pl.DataType:
    return dtype() if isinstance(dtype, type) else dtype  # type: ignore[return-value]


def lossy_columns(schema: pl.Schema, whole: pl.Schema) -> list[str]:
    """Columns that may lose precision in the common type: integers that become floats."""
    return [name for name, dtype in schema.items() if _has_integer_to_float(dtype, whole[name])]


def _has_integer_to_float(dtype: pl.DataType, whole: pl.DataType) -> bool:
    if isinstance(dtype, pl.List) and isinstance(whole, pl.List):
        return _has_integer_to_float(_dtype(dtype.inner), _dtype(whole.inner))
    if isinstance(dtype, pl.Struct) and isinstance(whole, pl.Struct):
        outer = dict(whole)
        return any(_has_integer_to_float(_dtype(inner), _dtype(outer[name])) for name, inner in dtype)
    return dtype.is_integer() and whole.is_float()


def is_exact(rows: pl.LazyFrame, name: str, whole: pl.Schema) -> bool:
    """Whether every value of a column survives the cast to the common type; reads the column."""
    dtype = rows.collect_schema()[name]
    there_and_back = pl.col(name).cast(whole[name]).cast(dtype, strict=False)
    changed = rows.select(there_and_back.ne_missing(pl.col(name)).any())
    return not changed.collect(engine="streaming").item()


def cast_to_schema(rows: pl.LazyFrame, whole: pl.Schema) -> pl.LazyFrame:
    """The rows with the columns of the common schema; missing columns are null."""
    schema = rows.collect_schema()
    if schema == whole:
        return rows
    columns = [
        (pl.col(name).cast(dtype) if name in schema else pl.lit(None, dtype)).alias(name)
        for name, dtype in whole.items()
    ]
    return rows.select(columns)
