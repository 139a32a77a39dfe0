"""Values between Arrow, Feast's protobuf and Python."""

from __future__ import annotations

import warnings
from typing import Any

import pyarrow as pa

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import feast
    from feast.protos.feast.types.Value_pb2 import DoubleList, Int64List, StringList, Value


def protos(column: pa.Array) -> list[Value]:
    """A column as Feast values; an empty value for a null."""
    values = column.to_pylist()
    kind = column.type
    if pa.types.is_list(kind):
        if pa.types.is_string(kind.value_type):
            return [Value() if v is None else Value(string_list_val=StringList(val=v)) for v in values]
        if pa.types.is_integer(kind.value_type):
            return [Value() if v is None else Value(int64_list_val=Int64List(val=v)) for v in values]
        return [Value() if v is None else Value(double_list_val=DoubleList(val=v)) for v in values]
    if pa.types.is_string(kind):
        return [Value() if v is None else Value(string_val=v) for v in values]
    if pa.types.is_integer(kind):
        return [Value() if v is None else Value(int64_val=v) for v in values]
    return [Value() if v is None else Value(double_val=v) for v in values]


def python_value(value: Value | None, is_list: bool) -> Any:
    """A Feast value as Python: None for a missing one, an empty list for a missing list."""
    kind = value.WhichOneof("val") if value is not None else None
    if kind is None:
        return [] if is_list else None
    held = getattr(value, kind)
    return list(held.val) if is_list else held


def arrow_type(dtype: Any) -> pa.DataType:
    """The Arrow type of a Feast type that our views use."""
    if isinstance(dtype, feast.types.Array):
        return pa.list_(arrow_type(dtype.base_type))
    return {feast.types.Int64: pa.int64(), feast.types.Float64: pa.float64()}.get(dtype, pa.string())
