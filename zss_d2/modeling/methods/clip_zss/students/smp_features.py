"""Architectures of segmentation_models_pytorch (Segformer, UPerNet, DeepLabV3+, ...)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn

from zss_d2.clip.weights.download import hub_file
from zss_d2.errors import ZssError
from zss_d2.modeling.methods.clip_zss.students.timm_features import fetch_timm_weights
from zss_d2.modeling.methods.clip_zss.students.weights import (
    bare_names,
    first_line,
    load_matching,
    read_weights,
    start_of,
    wish_for,
)

# Large enough for the coarsest pooling of any architecture, px.
_PROBE_SIDE = 256


class SmpFeatures(Backbone):
    """Encoder and decoder of a segmentation model, without its classifier: one map, ``decoder``."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.encoder, self.decoder = model.encoder, model.decoder
        self._out_features = ["decoder"]
        was_training = model.training
        with torch.no_grad():
            probe = self.eval()(torch.zeros(1, 3, _PROBE_SIDE, _PROBE_SIDE))["decoder"]
        self.train(was_training)
        self._out_feature_channels = {"decoder": probe.shape[1]}
        self._out_feature_strides = {"decoder": _PROBE_SIDE // probe.shape[2]}

    @property
    def size_divisibility(self) -> int:
        return 32

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> {"decoder": (B, C, H / stride, W / stride)}."""
        return {"decoder": self.decoder(self.encoder(images))}


@BACKBONE_REGISTRY.register()
def build_smp_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> SmpFeatures:
    """The model ``<architecture>/<encoder>`` of ``cfg.MODEL.CLIP_ZSS.ENCODER.NAME``.

    Raises:
        ZssError: the package is missing, the name is unknown, weights are unavailable, or maps are
            chosen of which there is but one.
    """
    encoder = cfg.MODEL.CLIP_ZSS.ENCODER
    if encoder.OUT_FEATURES:
        raise ZssError(
            f"MODEL.CLIP_ZSS.ENCODER.OUT_FEATURES is {list(encoder.OUT_FEATURES)}, but models of "
            "segmentation_models_pytorch give one map, that of their decoder; set it to '[]'"
        )
    architecture, _, encoder_name = encoder.NAME.partition("/")
    pretrained, path = start_of(cfg)
    try:
        # Only who uses it pays for its import.
        import segmentation_models_pytorch as smp

        weights = "imagenet" if pretrained else None
        if weights:
            _fetch_weights(encoder_name, smp.encoders.encoders)
        model = smp.create_model(architecture, encoder_name, encoder_weights=weights)
        backbone = SmpFeatures(model)
    except ZssError:
        raise
    except Exception as error:  # smp lets errors of several libraries through
        raise ZssError(
            f"MODEL.CLIP_ZSS.ENCODER.NAME {encoder.NAME!r} (PRETRAINED {pretrained}) cannot be "
            f"built: {first_line(error)}; name '<architecture>/<encoder>' of "
            "segmentation_models_pytorch such as 'segformer/mit_b2', or set PRETRAINED False"
        ) from error
    if path:
        load_smp_weights(backbone, path)
    return backbone


def _fetch_weights(name: str, known: Mapping[str, Any]) -> None:
    """Have the weights of an encoder in the hub's cache, where the library then finds them.

    Args:
        known: its list of encoders; one that is not there is left to the library.
    """
    if name.startswith("tu-"):
        fetch_timm_weights(name.removeprefix("tu-"))
    elif source := known.get(name, {}).get("pretrained_settings", {}).get("imagenet"):
        for file in ("config.json", "model.safetensors"):
            hub_file(source["repo_id"], [file], wish_for(name), source["revision"])


def load_smp_weights(backbone: SmpFeatures, path: str) -> None:
    """Load a file of the whole model (encoder and decoder) or of its encoder alone.

    Raises:
        ZssError: the file is missing, unreadable, or of another model.
    """
    state = read_weights(path)
    bare = bare_names(state)
    whole = any(name.startswith("decoder.") for name in bare)
    load_matching(
        backbone if whole else backbone.encoder,
        [state, bare],
        path,
        remedy="give one of the model of ENCODER.NAME or its encoder",
    )
