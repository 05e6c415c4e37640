"""The image tower: CLS token and dense tokens, with deep visual prompts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from open_clip.transformer import VisionTransformer
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from zss_d2.clip.block import apply_block
from zss_d2.clip.dense_tokens import DenseTokens, LastBlock, SeenBlock
from zss_d2.clip.frozen import FrozenCopy, remembered
from zss_d2.clip.prompts import with_prompts
from zss_d2.clip.region_cls import region_cls_tokens
from zss_d2.errors import ZssError
from zss_d2.utils.weights import is_traced, stamp_of

# Sizes of images whose position embeddings are remembered, a megabyte or two each.
_GRIDS = 8


class ImageFeatures(NamedTuple):
    """Tokens in CLIP's joint space, not normalised."""

    cls: Tensor  # (B, C), of the last layer
    dense: Tensor  # (B, C, h, w), of the last layer
    layers: tuple[Tensor, ...] = ()  # dense tokens (B, C, h, w) of each of the feature layers
    entered: tuple[Tensor, ...] = ()  # (B, 1 + h * w, width) into each of the last blocks, if kept


class VisualPrompts(nn.Module):
    """A set of learnable tokens for every transformer layer (VPT-deep, arXiv 2203.12119).

    Initialised uniformly in +-sqrt(6 / (3 * patch area + width)), the Xavier bound that VPT uses.
    With ``project`` all of them pass one shared linear layer, as VPT has it and ZegCLIP uses it,
    whose bias starts as torch's own do. Dropout is drawn for every image by itself.
    """

    def __init__(
        self,
        layers: int,
        length: int,
        width: int,
        patch: tuple[int, int],
        dropout: float,
        project: bool = False,
    ):
        super().__init__()
        self.length = length
        self.tokens = nn.Parameter(torch.empty(layers, length, width))
        self.projection = nn.Linear(width, width) if project else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        if project:
            nn.init.kaiming_normal_(self.projection.weight, mode="fan_out")
        bound = (6 / (3 * patch[0] * patch[1] + width)) ** 0.5
        nn.init.uniform_(self.tokens, -bound, bound)

    def forward(self, batch: int) -> tuple[Tensor, ...]:
        """The prompts (B, length, C) of every layer for ``batch`` images."""
        prompts = self.projection(self.tokens)[:, None].expand(-1, batch, -1, -1)
        return self.dropout(prompts).unbind()


class ImageEncoder(nn.Module):
    """Frozen ViT of open_clip that returns all tokens; only the prompts learn.

    Takes any input size that is a multiple of the patch. Without prompts nothing is kept for the
    backward pass; with them and ``checkpoint_blocks`` only what goes into every block is, and the
    inside of the blocks is computed a second time there.
    """

    def __init__(
        self,
        visual: VisionTransformer,
        *,
        prompt_length: int,
        prompt_dropout: float,
        prompt_projection: bool = False,
        prompt_norm: bool = False,
        dense_tokens: str | DenseTokens = "tokens",
        feature_layers: Sequence[int] = (-1,),
        position_resize: str = "bilinear",
        checkpoint_blocks: bool = False,
    ):
        """
        Args:
            visual: the tower, frozen by the caller.
            prompt_length: learnable tokens per layer, 0 for none.
            prompt_dropout: dropout on them.
            prompt_projection: pass them through one shared linear layer.
            prompt_norm: a trained LayerNorm on the output tokens, before CLIP's own.
            dense_tokens: what the patch tokens of the last block are; the name alone will do for
                those of `DENSE_TOKENS` without settings.
            feature_layers: blocks, 0-based or from the end, whose dense tokens are returned too.
            position_resize: how position embeddings are brought to another grid, "bilinear" or
                "bicubic", without antialiasing.
            checkpoint_blocks: keep less for the backward pass, see above.

        Raises:
            ZssError: there is no such block or mode.
        """
        super().__init__()
        self.visual = visual
        if isinstance(dense_tokens, str):
            dense_tokens = DenseTokens.of(dense_tokens)
        self.dense_tokens = dense_tokens
        self.position_resize = position_resize
        self.checkpoint_blocks = checkpoint_blocks
        self.patch_size: tuple[int, int] = tuple(visual.patch_size)
        self.embed_dim: int = visual.output_dim
        layers, width = visual.transformer.layers, visual.transformer.width
        if not all(-layers <= layer < layers for layer in feature_layers):
            raise ZssError(
                f"MODEL.CLIP.FEATURE_LAYERS is {list(feature_layers)}, but the tower has {layers} "
                f"blocks; name some of 0..{layers - 1}, or of -{layers}..-1 from the end"
            )
        self.feature_layers = tuple(layer % layers for layer in feature_layers)
        # How many of the last blocks `region_cls` is to have the tokens of.
        self.kept_blocks = 0
        self._seen_blocks = dense_tokens.seen_blocks(layers)
        self.prompts: VisualPrompts | None = None
        if prompt_length > 0:
            self.prompts = VisualPrompts(
                layers, prompt_length, width, self.patch_size, prompt_dropout, prompt_projection
            )
        self.prompt_norm = nn.LayerNorm(width, eps=1e-6) if prompt_norm else nn.Identity()
        self._frozen: FrozenCopy[VisionTransformer] = FrozenCopy()
        self._positions: OrderedDict[tuple, Tensor] = OrderedDict()
        self.register_load_state_dict_post_hook(lambda module, _: module._follow())

    def _follow(self) -> None:
        """After new weights."""
        self._positions.clear()
        self._frozen.refresh(self.visual)

    def _apply(self, *args, **kwargs) -> ImageEncoder:
        self._positions.clear()
        self._frozen.clear()
        return super()._apply(*args, **kwargs)

    def train(self, mode: bool = True) -> ImageEncoder:
        """As usual, but the frozen tower stays in evaluation mode."""
        super().train(mode)
        self.visual.eval()
        return self

    def forward(self, images: Tensor) -> ImageFeatures:
        """Encode normalised images (B, 3, H, W); H and W are multiples of the patch size."""
        learns = any(parameter.requires_grad for parameter in self.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and learns):
            visual = self._frozen.of(self.visual, images.device)
            tokens, grid = self._embed(images, visual)
            patches, of_layer, entered = slice(-grid[0] * grid[1], None), {}, {}
            first_kept, kept = len(visual.transformer.resblocks) - self.kept_blocks, []
            prompts = () if self.prompts is None else self.prompts(images.shape[0])
            for index, block in enumerate(visual.transformer.resblocks):
                if prompts:
                    replaced = self.prompts.length if index else 0
                    tokens = with_prompts(tokens, prompts[index], replaced)
                before, tokens = tokens, self._block(block, tokens)  # (B, 1 + P + N, C)
                if index >= first_kept:
                    kept.append(before)
                if index in self.feature_layers:
                    of_layer[index] = tokens[:, patches]
                if index in self._seen_blocks:
                    entered[index] = SeenBlock(block, before)
            seen = tuple(entered[index] for index in self._seen_blocks)
            last = self.dense_tokens.mode(LastBlock(block, before, tokens, grid, seen))
            joint = self._to_joint(torch.cat([tokens[:, :1], last], dim=1), visual)
            dense = _to_grid(joint[:, 1:], grid)
            layers = tuple(
                dense if layer == index else _to_grid(self._to_joint(of_layer[layer], visual), grid)
                for layer in self.feature_layers
            )
        return ImageFeatures(joint[:, 0], dense, layers, tuple(kept))

    @torch.no_grad()
    def cls(self, images: Tensor) -> Tensor:
        """The CLS tokens (B, C) of `forward` alone, of a tower without prompts.

        The last block computes no other token.
        """
        visual = self._frozen.of(self.visual, images.device)
        tokens, _ = self._embed(images, visual)
        *blocks, last = visual.transformer.resblocks
        for block in blocks:
            tokens = apply_block(block, tokens)
        everything = tokens.new_ones(len(tokens), 1, tokens.shape[1] - 1, dtype=torch.bool)
        cls = region_cls_tokens([last], [tokens], everything)
        return self._to_joint(cls, visual)[:, 0]

    @torch.no_grad()
    def region_cls(self, entered: Sequence[Tensor], masks: Tensor) -> Tensor:
        """CLS tokens (B, R, C) of regions in joint space, see `region_cls_tokens`.

        Args:
            entered: of `ImageFeatures`, with ``kept_blocks``; of a tower without prompts.
            masks: (B, R, h * w) bool, patches of every region.
        """
        visual = self._frozen.of(self.visual, masks.device)
        blocks = list(visual.transformer.resblocks)[-len(entered) :]
        return self._to_joint(region_cls_tokens(blocks, entered, masks), visual)

    def _block(self, block: nn.Module, tokens: Tensor) -> Tensor:
        if self.checkpoint_blocks and tokens.requires_grad:
            # Nothing random is in a block; the prompts, which have dropout, are outside.
            return checkpoint(
                apply_block, block, tokens, use_reentrant=False, preserve_rng_state=False
            )
        return apply_block(block, tokens)

    def _to_joint(self, tokens: Tensor, visual: VisionTransformer | None = None) -> Tensor:
        """With ``visual`` for the tower, or a copy of it, also below."""
        visual = visual or self.visual
        return visual.ln_post(self.prompt_norm(tokens)) @ visual.proj

    def _embed(
        self, images: Tensor, visual: VisionTransformer | None = None
    ) -> tuple[Tensor, tuple[int, int]]:
        visual = visual or self.visual
        patches, grid = _embed_patches(visual.conv1, images)
        cls = visual.class_embedding.to(patches.dtype).expand(images.shape[0], 1, -1)
        tokens = torch.cat([cls, patches], dim=1)
        return visual.ln_pre(tokens + self._position(grid, tokens.dtype)), grid

    def _position(self, grid: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """Position embeddings (1, 1 + h * w, C) of a grid, remembered of the last few."""
        learned = self.visual.positional_embedding
        if is_traced() or learned.requires_grad:
            return self._resampled(grid).to(dtype)

        def make() -> Tensor:
            with torch.inference_mode(False), torch.no_grad():
                return self._resampled(grid).to(dtype)

        return remembered(self._positions, (grid, dtype, stamp_of(learned)), make, _GRIDS)

    def _resampled(self, grid: tuple[int, int]) -> Tensor:
        return resample_abs_pos_embed(
            self.visual.positional_embedding[None],
            list(grid),
            list(self.visual.grid_size),
            num_prefix_tokens=1,
            interpolation=self.position_resize,
            antialias=False,
        )


def _embed_patches(conv: nn.Conv2d, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Tokens (B, h * w, C) of the patches of images (B, 3, H, W), and (h, w).

    A convolution whose stride is its kernel is one matrix product, of which cuDNN makes ten times
    as much work.
    """
    (high, wide), weight = conv.kernel_size, conv.weight
    if weight.dtype != images.dtype and weight.dtype != torch.float32:  # before they are copied
        images = images.to(weight.dtype)
    patches = images.unflatten(3, (-1, wide)).unflatten(2, (-1, high))  # (B, 3, h, high, w, wide)
    grid = (patches.shape[2], patches.shape[4])
    patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    return F.linear(patches, weight.flatten(1), conv.bias), grid


def _to_grid(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, N, C) -> (B, C, h, w)."""
    return tokens.transpose(1, 2).unflatten(2, grid)
