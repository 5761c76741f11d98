"""The network: a backbone, a head, the weights that they start from."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from .base import Positive, Settings
from .choices import DeepLabV2, Head


class NetworkSettings(Settings):
    """A backbone, and a head that makes logits of its features (paper, section 4.2)."""

    added: ClassVar = ("head",)

    backbone: str = Field(
        default="resnet101",
        description="`small` (from scratch), a name of timm, or `resnet101_caffe`, whose geometry "
        "is that of the paper's COCO weights",
    )
    output_stride: Literal[4, 8, 14, 16, 32] = Field(
        default=8,
        description="input pixels a feature pixel; `small` has 4, a transformer its patch",
    )
    stages: Positive | None = Field(
        default=None, description="keep only this many of the backbone's feature stages"
    )
    aspp_rates: tuple[Positive, ...] = Field(
        default=(6, 12, 18, 24),
        min_length=1,
        description="short for `head: {name: deeplabv2, rates: …}`: dilations of its convolutions",
    )
    head: Head | None = Field(
        default=None,
        description="makes logits of the backbone's features; none: `deeplabv2` with `aspp_rates`",
    )
    weights: str | None = Field(
        default=None,
        description="initial weights of the backbone: a .pt, .pth or .safetensors file, or "
        "`package:NAME/FILE` of an installed package; none: random",
    )
    input_scale: Annotated[float, Field(gt=0, le=4)] = Field(
        default=1.0, description="images are resized by this factor before the network sees them"
    )

    @property
    def chosen_head(self) -> Head:
        """The head's settings, however they were written."""
        return DeepLabV2(rates=self.aspp_rates) if self.head is None else self.head

    @model_serializer(mode="wrap")
    def _one_form(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        """In JSON `deeplabv2` is what it was before there were other heads: `aspp_rates`."""
        content = self._without_unused(handler, info)
        if info.mode_is_json() and self.head is not None:
            if isinstance(self.head, DeepLabV2):
                content["aspp_rates"] = content.pop("head")["rates"]
            else:
                content.pop("aspp_rates")
        return content

    @model_validator(mode="after")
    def _has_one_head(self) -> NetworkSettings:
        if self.head is not None and "aspp_rates" in self.model_fields_set:
            raise ValueError("found both head and aspp_rates, which is short for it; remove one")
        return self

    @model_validator(mode="after")
    def _small_is_as_it_is(self) -> NetworkSettings:
        if self.backbone == "small" and (self.output_stride != 4 or self.weights or self.stages):
            raise ValueError("backbone `small` has output_stride 4, no weights and no stages")
        return self
