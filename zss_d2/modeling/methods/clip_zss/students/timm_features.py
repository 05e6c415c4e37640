"""Any timm model with feature maps as a Detectron2 backbone."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence

import timm
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from timm.layers import Format
from torch import Tensor, nn

from zss_d2.clip.weights.download import hub_file, names_on_hub
from zss_d2.errors import ZssError
from zss_d2.modeling.methods.clip_zss.students.weights import (
    bare_names,
    first_line,
    load_matching,
    read_weights,
    start_of,
    wish_for,
)

# What timm looks for in a repository of the hub, where it lists nothing else.
_ON_HUB = "pytorch_model.bin"


class TimmFeatures(Backbone):
    """``stage1``, ``stage2``, ... are the feature maps of a timm model, finest first."""

    def __init__(self, model: nn.Module, out_features: Sequence[str] = ()):
        """
        Args:
            model: made with ``features_only=True``.
            out_features: which maps are returned; empty: all.

        Raises:
            ValueError: there is no such map.
        """
        super().__init__()
        self.model = model
        self.channels_last = getattr(model, "output_fmt", None) == Format.NHWC
        channels, strides = model.feature_info.channels(), model.feature_info.reduction()
        self._names = [f"stage{i + 1}" for i in range(len(channels))]
        unknown = set(out_features) - set(self._names)
        if unknown:
            raise ValueError(f"no features {sorted(unknown)}; there are {', '.join(self._names)}")
        self._out_features = list(out_features or self._names)
        self._out_feature_channels = dict(zip(self._names, channels, strict=True))
        self._out_feature_strides = dict(zip(self._names, strides, strict=True))

    @property
    def size_divisibility(self) -> int:
        return max(self._out_feature_strides.values())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> {name: (B, C, H / stride, W / stride)}."""
        features = dict(zip(self._names, self.model(images), strict=True))
        if self.channels_last:
            features = {name: x.permute(0, 3, 1, 2) for name, x in features.items()}
        return {name: features[name] for name in self._out_features}


@BACKBONE_REGISTRY.register()
def build_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TimmFeatures:
    """The timm model of ``cfg.MODEL.CLIP_ZSS.ENCODER``.

    Raises:
        ZssError: unknown model, one without feature maps, or weights that are unavailable.
    """
    encoder = cfg.MODEL.CLIP_ZSS.ENCODER
    pretrained, path = start_of(cfg)
    if pretrained:
        fetch_timm_weights(encoder.NAME)
    try:
        backbone = TimmFeatures(_create(encoder.NAME, pretrained), encoder.OUT_FEATURES)
    except Exception as error:  # timm lets errors of several libraries through
        raise ZssError(
            f"MODEL.CLIP_ZSS.ENCODER.NAME {encoder.NAME!r} (PRETRAINED {pretrained}) cannot be "
            f"built: {first_line(error)}; see timm.list_models(), or set PRETRAINED False"
        ) from error
    if path:
        load_timm_weights(backbone.model, encoder.NAME, path)
    return backbone


def fetch_timm_weights(name: str) -> None:
    """Have the weights of a timm model in the hub's cache, where timm then finds them.

    A model that it does not know, or that lies elsewhere, is left to timm.

    Raises:
        ZssError: they cannot be downloaded.
    """
    listed = timm.models.get_pretrained_cfg(name)
    if listed is None or not listed.hf_hub_id:
        return
    repo, _, revision = listed.hf_hub_id.partition("@")
    names = names_on_hub(listed.hf_hub_filename or _ON_HUB)
    hub_file(repo, names, wish_for(name), revision or None)


def _create(name: str, pretrained: bool) -> nn.Module:
    options = {"pretrained": pretrained, "features_only": True}
    # Transformers with windows, or else with position embeddings, then take images of any size.
    # Some versions of timm let the first kind have the second option and do nothing about it.
    for any_size in ({"strict_img_size": False}, {"dynamic_img_size": True}):
        try:
            return timm.create_model(name, **any_size, **options)
        except TypeError:
            continue
    return timm.create_model(name, **options)


def load_timm_weights(features: nn.Module, name: str, path: str) -> None:
    """Load a file of the whole model ``name``, timm's or one that timm converts, into its features.

    Raises:
        ZssError: the file is missing, unreadable, or of another model.
    """
    whole = timm.create_model(name)
    state = read_weights(path)
    load_matching(
        features,
        _readings(state, whole),
        path,
        others=whole.state_dict(),
        remedy="give one of the timm model ENCODER.NAME",
    )


def _readings(state: Mapping[str, Tensor], whole: nn.Module) -> Iterator[Mapping[str, Tensor]]:
    """The tensors as they are named, without prefixes, and as timm converts older files."""
    bare = bare_names(state)
    yield from (state, bare)
    convert = getattr(sys.modules[type(whole).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return
    try:
        yield convert(dict(bare), whole)
    except Exception:  # it takes for granted that the file is one of those it knows
        return
