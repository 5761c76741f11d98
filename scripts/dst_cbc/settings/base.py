"""The base class of all settings, and the types of their values."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, Union

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
)


class Settings(BaseModel):
    """Base of all settings: unknown keys are refused, instances are immutable."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, coerce_numbers_to_str=True
    )

    added: ClassVar[tuple[str, ...]] = ()
    """Keys left out of JSON at their default: adding such a key keeps finished studies valid."""

    @model_serializer(mode="wrap")
    def _without_unused(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        content = handler(self)
        for key in self.added if info.mode_is_json() else ():
            if getattr(self, key) == type(self).model_fields[key].default:
                content.pop(key, None)
        return content

    def canonical(self) -> str:
        """JSON with sorted keys and without spaces; equal settings give equal text."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


def _exact_decimal(value: Any) -> Any:
    # By way of str: the float 0.2 must become the decimal 0.2, not 0.200000000000000011.
    return str(value) if isinstance(value, float | int) else value


def increasing(bounds: tuple[float, float]) -> tuple[float, float]:
    """Return `bounds` unchanged. Raises ValueError if the first number is above the second."""
    if bounds[0] > bounds[1]:
        raise ValueError("the first number must not be above the second")
    return bounds


def each_increasing(bounds: tuple[Size, Size]) -> tuple[Size, Size]:
    """Return `bounds`, the smallest and the largest size, unchanged.

    Raises ValueError if the smallest height or width is above the largest.
    """
    for low, high in zip(*bounds, strict=True):
        increasing((low, high))
    return bounds


def _strictly_increasing(bounds: tuple[int, int]) -> tuple[int, int]:
    if bounds[0] >= bounds[1]:
        raise ValueError("the first number must be below the second")
    return bounds


Alpha = Annotated[
    Decimal,
    BeforeValidator(_exact_decimal),
    PlainSerializer(lambda alpha: format(alpha.normalize(), "f"), return_type=str),
    Field(gt=0, le=1, decimal_places=30),
]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*$", max_length=60)]
ClassName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$", max_length=60)]
StudyName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=60)]
Colour = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]
MaskValue = Annotated[int, Field(ge=0, le=65535)] | Annotated[Colour, AfterValidator(str.lower)]
Positive = Annotated[int, Field(ge=1)]
Pixels = Annotated[int, Field(ge=1, le=65_536)]
Size = tuple[Pixels, Pixels]
BatchSize = Annotated[int, Field(ge=1, le=65_536)]
Sampling = Literal[1, 16]
NonNegative = Annotated[float, Field(ge=0)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Spread = Annotated[float, Field(ge=0.001, le=1000)]
Mean = tuple[_Share, _Share, _Share]
"""Mean of red, green and blue in 0..1, for normalisation."""
Deviation = tuple[_Spread, _Spread, _Spread]
"""Standard deviation of red, green and blue in 0..1."""
Interval = Annotated[tuple[float, float], AfterValidator(increasing)]
Factor = Annotated[float, Field(gt=0, le=100)]
FactorInterval = Annotated[tuple[Factor, Factor], AfterValidator(increasing)]
MOST_BANDS = 64
"""The largest number of channels of an image of which `bands` can choose."""


def _one_or_three(bands: tuple[int | str, ...]) -> tuple[int | str, ...]:
    if len(bands) not in (1, 3):
        raise ValueError("expected one channel (grey) or three (red, green, blue)")
    return bands


_BandName = Annotated[
    str, Field(strict=True, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*\S[^\x00-\x1f\x7f]*$")
]
Band = Annotated[int, Field(ge=1, le=MOST_BANDS)] | _BandName
"""The number of a channel, from 1, or its name in an OME-TIFF."""
Bands = Annotated[tuple[Band, ...], AfterValidator(_one_or_three)]
Window = Annotated[
    tuple[Annotated[int, Field(ge=0, le=65534)], Annotated[int, Field(ge=1, le=65535)]],
    AfterValidator(_strictly_increasing),
]


def one_of(classes: tuple[type[Settings], ...]) -> Any:
    """Type of a value that may be any of several settings classes; its key `name` selects one."""
    if len(classes) == 1:
        return classes[0]
    return Annotated[Union[classes], Field(discriminator="name")]  # noqa: UP007
