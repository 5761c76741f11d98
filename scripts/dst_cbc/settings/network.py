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
from .choices import DeepLabV2, Head, Rates, Start

SHORT_FORMS = {"aspp_rates": "rates", "aspp_init": "init"}
"""Keys of the network that are short for keys of the head `deeplabv2`."""


class NetworkSettings(Settings):
    """The network: a backbone, and a head that turns features into logits (paper, section 4.2)."""

    added: ClassVar = ("head", "aspp_init")

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
    aspp_init: Start = Field(
        default="normal",
        description="random weights of a new head `deeplabv2`: `normal` or `torch`; short for its "
        "key `init`, and not allowed beside `head`",
    )
    head: Head | None = Field(
        default=None,
        description="the part of the network that turns the backbone's features into logits; "
        "`null`: `deeplabv2` with `aspp_rates` and `aspp_init`",
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
        """The settings of the head, whether they were given as `head` or in the short form."""
        if self.head is not None:
            return self.head
        return DeepLabV2(**{key: getattr(self, short) for short, key in SHORT_FORMS.items()})

    def without_start(self) -> NetworkSettings:
        """The same network, without the keys that say how its first weights are found."""
        head = self.chosen_head
        if isinstance(head, DeepLabV2):
            head = DeepLabV2(rates=head.rates)
        return self.model_copy(update={"head": head, "weights": None})

    @model_serializer(mode="wrap")
    def _one_form(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        """Write `deeplabv2` in the short form, so that studies older than `head` stay valid."""
        content = self._without_unused(handler, info)
        if info.mode_is_json() and self.head is not None:
            for short in SHORT_FORMS:
                content.pop(short, None)
            if isinstance(self.head, DeepLabV2):
                head = content.pop("head")
                content |= {short: head[key] for short, key in SHORT_FORMS.items() if key in head}
        return content

    @model_validator(mode="after")
    def _has_one_head(self) -> NetworkSettings:
        both = [key for key in SHORT_FORMS if key in self.model_fields_set]
        if self.head is not None and both:
            raise ValueError(
                f"found both head and {both[0]}, which is a short form of head; remove one of them"
            )
        return self

    @model_validator(mode="after")
    def _small_is_as_it_is(self) -> NetworkSettings:
        if self.backbone == "small" and (self.output_stride != 4 or self.weights or self.stages):
            raise ValueError(
                "backbone `small` has output_stride 4, and takes neither weights nor stages"
            )
        return self
