"""Column types as templates spell them, and as Iceberg holds them."""

import re

from pyiceberg.transforms import Transform, parse_transform
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    PrimitiveType,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

_SIMPLE: dict[str, PrimitiveType] = {
    "boolean": BooleanType(),
    "int": IntegerType(),
    "long": LongType(),
    "float": FloatType(),
    "double": DoubleType(),
    "date": DateType(),
    "time": TimeType(),
    "timestamp": TimestampType(),
    "timestamptz": TimestamptzType(),
    "string": StringType(),
    "uuid": UUIDType(),
    "binary": BinaryType(),
}
TYPE_NAMES = (*_SIMPLE, "decimal(p,s)")
TRANSFORM_NAMES = ("identity", "year", "month", "day", "hour", "bucket[N]", "truncate[N]")
TIME_TRANSFORMS = ("year", "month", "day", "hour")

_DECIMAL = re.compile(r"decimal\(\s*([0-9]{1,9})\s*,\s*([0-9]{1,9})\s*\)")
_TRANSFORM = re.compile(r"([a-z]+)(?:\[\s*([0-9]{1,10})\s*\]|\(\s*([0-9]{1,10})\s*\))?")
MAX_SPELLED = 100_000  # characters of a nested type
_MAX_INT = 2**31 - 1


def canonical_type(spelled: str) -> str:
    """The one spelling of a type ("decimal(9,2)" without spaces); ValueError says what is wrong."""
    if spelled in _SIMPLE:
        return spelled
    found = _DECIMAL.fullmatch(spelled)
    if found is None:
        raise ValueError("one of " + ", ".join(TYPE_NAMES))
    precision, scale = int(found[1]), int(found[2])
    if not 1 <= precision <= 38:
        raise ValueError("a decimal's precision between 1 and 38")
    if scale > precision:
        raise ValueError("a decimal's scale that is not above its precision")
    return f"decimal({precision},{scale})"


def any_type(spelled: str) -> str:
    """A type of a table that is not ours: canonical where it can be, else as Iceberg spells it."""
    try:
        return canonical_type(spelled)
    except ValueError as error:
        if not spelled.strip() or len(spelled) > MAX_SPELLED:
            raise ValueError(
                f"a type as Iceberg spells it, in at most {MAX_SPELLED:,} characters"
            ) from error
        return spelled


def iceberg_type(canonical: str) -> PrimitiveType:
    """The Iceberg type of a canonical one."""
    if canonical in _SIMPLE:
        return _SIMPLE[canonical]
    found = _DECIMAL.fullmatch(canonical)
    if found is None:
        raise ValueError(f"not a column type: {canonical}")
    return DecimalType(int(found[1]), int(found[2]))


def spell(found: IcebergType) -> str:
    """An Iceberg type as templates spell it. Nested ones, which only tables of others can have,
    are spelled with all that readers go by: field ids, and what is required."""
    match found:
        case StructType():
            fields = (f"{field.field_id}: {field.name}: {_spell(field)}" for field in found.fields)
            return f"struct<{', '.join(fields)}>"
        case ListType():
            return f"list<{found.element_id}: {_spell(found.element_field)}>"
        case MapType():
            key, value = found.key_field, found.value_field
            return f"map<{key.field_id}: {_spell(key)}, {value.field_id}: {_spell(value)}>"
        case _:
            return str(found).replace(", ", ",")


def _spell(field: NestedField) -> str:
    return f"{spell(field.field_type)}{' required' if field.required else ''}"


def canonical_transform(spelled: str) -> str:
    """The one spelling of a partition transform; ValueError says what is wrong.

    Accepted besides Iceberg's own: capitals, a plural (days), round brackets (bucket(16)).
    """
    found = _TRANSFORM.fullmatch(spelled.strip().lower())
    expected = "one of " + ", ".join(TRANSFORM_NAMES)
    if found is None:
        raise ValueError(expected)
    name, width = found[1], found[2] or found[3]
    if name in ("bucket", "truncate"):
        if width is None or not 1 <= int(width) <= _MAX_INT:
            raise ValueError(f"{name}[N] with N of at least 1")
        return f"{name}[{int(width)}]"
    name = name.removesuffix("s")
    if width is not None or name not in ("identity", *TIME_TRANSFORMS):
        raise ValueError(expected)
    return name


def transform_of(canonical: str) -> Transform[object, object]:
    """Iceberg's transform for a canonical spelling."""
    transform: Transform[object, object] = parse_transform(canonical)
    return transform


def widens(old: IcebergType, new: IcebergType) -> bool:
    """Whether Iceberg reads old values as the new type without loss (spec: "Schema Evolution").

    PyIceberg's own `promote` is not asked: it also lets string become binary, and lets a decimal
    change its scale, both of which the table spec forbids.
    """
    match old, new:
        case (IntegerType(), LongType()) | (FloatType(), DoubleType()):
            return True
        case DecimalType(), DecimalType():
            return new.scale == old.scale and new.precision > old.precision
        case _:
            return False
