"""Settings of the network: its backbone, its head and the initial weights."""

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
from .choices import DeepLabV2, Head, Rates


class NetworkSettings(Settings):
    """The network: a backbone, and a head that turns features into logits (paper, section 4.2)."""

    added: ClassVar = ("head",)

    backbone: str = Field(
        default="resnet101",
        max_length=100,
        description="`small` (four convolutions, without pretrained weights), the name of a timm "
        "model, or `resnet101_caffe` (timm's resnet101 with the strides and dilations for which "
        "the paper's COCO weights were trained)",
    )
    output_stride: Literal[4, 8, 14, 16, 32] = Field(
        default=8,
        description="number of input pixels from one feature to the next; must be 4 for `small`, "
        "and the patch size for a transformer",
    )
    stages: Positive | None = Field(
        default=None,
        description="keep only this many feature stages of the backbone, counted from the input; "
        "`null`: all",
    )
    aspp_rates: Rates = Field(
        default=(6, 12, 18, 24),
        description="dilation rates of the head `deeplabv2`; short for "
        "`head: {name: deeplabv2, rates: …}`, and not allowed beside `head`",
    )
    head: Head | None = Field(
        default=None,
        description="the part of the network that turns the backbone's features into logits; "
        "`null`: `deeplabv2` with `aspp_rates`",
    )
    weights: str | None = Field(
        default=None,
        max_length=4096,
        description="file with the initial weights of the backbone, and perhaps of the head: .pt, "
        ".pth or .safetensors, or `package:NAME/FILE` for a file of an installed Python package; "
        "`null`: random weights",
    )
    input_scale: Annotated[float, Field(ge=0.01, le=4)] = Field(
        default=1.0,
        description="factor by which images are resized before the network sees them; its output "
        "is resized back. Must be 1 if `prediction.size` or `evaluation.size` is set",
    )

    @property
    def chosen_head(self) -> Head:
        """The settings of the head, whether they were given as `head` or as `aspp_rates`."""
        return DeepLabV2(rates=self.aspp_rates) if self.head is None else self.head

    @model_serializer(mode="wrap")
    def _one_form(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        """Write `deeplabv2` as `aspp_rates` alone, so that studies older than `head` stay valid."""
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
            raise ValueError(
                "found both head and aspp_rates, which is a short form of head; remove one of them"
            )
        return self

    @model_validator(mode="after")
    def _small_is_as_it_is(self) -> NetworkSettings:
        if self.backbone == "small" and (self.output_stride != 4 or self.weights or self.stages):
            raise ValueError(
                "backbone `small` has output_stride 4, and takes neither weights nor stages"
            )
        return self
