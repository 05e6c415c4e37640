"""Every way to dense tokens against loops over heads and tokens, written from the papers' maths."""

from __future__ import annotations

import math
import operator

import open_clip
import pytest
import torch
from torch import Tensor, nn

from tests.conftest import DEVICES
from zss_d2.clip import ImageEncoder
from zss_d2.clip.block import apply_block
from zss_d2.clip.dense_tokens import DENSE_TOKENS, DenseTokens, LastBlock, with_settings
from zss_d2.clip.dense_tokens.attention import gaussian_window
from zss_d2.clip.prompts import with_prompts
from zss_d2.errors import ZssError

PATCH, NATIVE = 16, 8  # px, patches on a side
SIGMA, WEIGHT, BLOCKS = (
    "MODEL.CLIP.DENSE.NACLIP_SIGMA",
    "MODEL.CLIP.DENSE.RESCLIP_WEIGHT",
    "MODEL.CLIP.DENSE.RESCLIP_BLOCKS",
)
SURGERY, DEPTH, STEPS = (
    "MODEL.CLIP.DENSE.SURGERY_DEPTH",
    "MODEL.CLIP.DENSE.GEM_DEPTH",
    "MODEL.CLIP.DENSE.GEM_STEPS",
)
OFF = {WEIGHT: 0.0, BLOCKS: [5, 6, 7, 8]}
RES = {WEIGHT: 0.3, BLOCKS: [0, -2]}
MODES = {
    "sclip": ("sclip", OFF),
    "clearclip": ("clearclip", OFF),
    "naclip": ("naclip", {SIGMA: 5.0, **OFF}),
    "naclip, narrow": ("naclip", {SIGMA: 0.7, **OFF}),
    "resclip on sclip": ("sclip", RES),
    "resclip on clearclip": ("clearclip", RES),
    "resclip on naclip": ("naclip", {SIGMA: 5.0, **RES}),
    "resclip alone": ("naclip", {SIGMA: 5.0, WEIGHT: 1.0, BLOCKS: [1]}),
    "clip_surgery": ("clip_surgery", {SURGERY: 2}),
    "clip_surgery, all blocks": ("clip_surgery", {SURGERY: 3}),
    "gem": ("gem", {DEPTH: 2, STEPS: 1}),
    "gem, two steps, all blocks": ("gem", {DEPTH: 3, STEPS: 2}),
    "gem, no step": ("gem", {DEPTH: 1, STEPS: 0}),
}


@pytest.fixture(scope="module")
def clip() -> open_clip.CLIP:
    """Random weights, with the biases and norms that open_clip starts at 0 and 1 moved."""
    torch.manual_seed(3)
    clip = open_clip.create_model("zss-tiny").eval().requires_grad_(False)
    for name, parameter in clip.visual.named_parameters():
        if name.endswith("bias") or "ln_" in name:
            parameter.add_(0.2 * torch.randn_like(parameter))
        if "in_proj_weight" in name:  # so that attention is not nearly uniform
            parameter.mul_(4)
    return clip


def encoder(clip: open_clip.CLIP, mode: str, prompts: int = 0) -> ImageEncoder:
    name, settings = MODES[mode]
    return ImageEncoder(
        clip.visual,
        prompt_length=prompts,
        prompt_dropout=0.0,
        dense_tokens=DenseTokens.of(name, settings),
    ).eval()


def inputs_of_blocks(model: ImageEncoder, images: Tensor) -> tuple[list[Tensor], tuple[int, int]]:
    """The tokens (B, N, C) that enter every block."""
    tokens, grid = model._embed(images)
    entering = []
    for layer, block in enumerate(model.visual.transformer.resblocks):
        if model.prompts is not None:
            replaced = model.prompts.length if layer else 0
            tokens = with_prompts(tokens, model.prompts(len(images))[layer], replaced)
        entering.append(tokens)
        tokens = apply_block(block, tokens)
    return entering, grid


def heads(block: nn.Module, tokens: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """q, k and v (N, d) of every head, for the tokens (N, C) of one image."""
    x, attention = block.ln_1(tokens), block.attn
    q, k, v = (
        x @ attention.in_proj_weight[part].T + attention.in_proj_bias[part]
        for part in torch.arange(3 * x.shape[1]).chunk(3)
    )
    width = x.shape[1] // attention.num_heads
    parts = [slice(start, start + width) for start in range(0, x.shape[1], width)]
    return [(q[:, part], k[:, part], v[:, part]) for part in parts]


def attention_map(a: Tensor, b: Tensor, scale: float, window: Tensor | None = None) -> Tensor:
    """(N, N), entry by entry."""
    rows, a, b = [], a.tolist(), b.tolist()
    for i, one in enumerate(a):
        scores = [scale * sum(map(operator.mul, one, other)) for other in b]
        if window is not None:
            scores = [score + float(window[i, j]) for j, score in enumerate(scores)]
        highest = max(scores)
        exponentials = [math.exp(score - highest) for score in scores]
        rows.append([x / sum(exponentials) for x in exponentials])
    return torch.tensor(rows)


def window_of(grid: tuple[int, int], sigma: float, prefix: int) -> Tensor:
    places = [(i, j) for i in range(grid[0]) for j in range(grid[1])]
    window = torch.zeros(prefix + len(places), prefix + len(places))
    for a, (i, j) in enumerate(places):
        for b, (m, n) in enumerate(places):
            distance = (i - m) ** 2 + (j - n) ** 2
            window[prefix + a, prefix + b] = math.exp(-distance / (2 * sigma**2))
    return window


def one_block(name: str, settings: dict, blocks, entering: list[Tensor], grid) -> Tensor:
    """Patch tokens (h * w, C) of one image."""
    block, tokens, count = blocks[-1], entering[-1], grid[0] * grid[1]
    window, results = None, []
    if name == "naclip":
        window = window_of(grid, settings[SIGMA], len(tokens) - count)
    for head, (q, k, v) in enumerate(heads(block, tokens)):
        scale = q.shape[1] ** -0.5
        map_ = {
            "sclip": lambda q, k, s: attention_map(q, q, s) + attention_map(k, k, s),
            "clearclip": lambda q, k, s: attention_map(q, q, s),
            "naclip": lambda q, k, s: attention_map(k, k, s, window),
        }[name](q, k, scale)
        if weight := settings[WEIGHT]:
            maps = []
            for index in settings[BLOCKS]:
                earlier_q, earlier_k, _ = heads(blocks[index], entering[index])[head]
                maps.append(attention_map(earlier_q, earlier_k, scale))
            map_ = 2 * ((1 - weight) * map_ + weight * sum(maps) / len(maps))
        results.append(map_ @ v)
    y = block.attn.out_proj(torch.cat(results, dim=1))
    if name == "sclip":
        y = tokens + y
        y = y + block.mlp(block.ln_2(y))
    return y[-count:]


def grouped(z: Tensor, v: Tensor, sharpness: float, steps: int) -> Tensor:
    for _ in range(steps):
        z = z / z.norm(dim=1, keepdim=True)
        z = attention_map(z, z, sharpness) @ z
    z = z / z.norm(dim=1, keepdim=True)
    return attention_map(z, z, sharpness) @ v


def two_paths(name: str, settings: dict, blocks, entering: list[Tensor], grid) -> Tensor:
    depth = settings[SURGERY if name == "clip_surgery" else DEPTH]
    path = entering[-depth]
    for block, tokens in list(zip(blocks, entering, strict=True))[-depth:]:
        norms = [float(x.norm()) for x in block.ln_1(tokens)]
        results = []
        for q, k, v in heads(block, tokens):
            scale = q.shape[1] ** -0.5
            if name == "clip_surgery":
                results.append(attention_map(v, v, scale) @ v)
            else:
                sharpness = scale * sum(norms) / len(norms)
                terms = [grouped(z, v, sharpness, settings[STEPS]) for z in (q, k, v)]
                results.append(sum(terms) / 3)
        path = path + block.attn.out_proj(torch.cat(results, dim=1))
    return path[-grid[0] * grid[1] :]


def reference(model: ImageEncoder, mode: str, images: Tensor) -> Tensor:
    """Dense tokens (B, C, h, w) in the joint space."""
    name, settings = MODES[mode]
    entering, grid = inputs_of_blocks(model, images)
    compute = two_paths if name in ("clip_surgery", "gem") else one_block
    blocks, visual = model.visual.transformer.resblocks, model.visual
    found = []
    for index in range(len(images)):
        tokens = compute(name, settings, blocks, [x[index] for x in entering], grid)
        found.append((visual.ln_post(tokens) @ visual.proj).T.unflatten(1, grid))
    return torch.stack(found)


# An oblong grid, one that is larger than the trained one in a direction, and a single patch.
SIZES = [(3, 4), (2, 9), (1, 1)]


@pytest.mark.parametrize("prompts", [0, 2])
@pytest.mark.parametrize("mode", MODES)
@torch.no_grad()
def test_it_is_what_loops_over_heads_and_tokens_give(clip, mode, prompts):
    """With learned prompts in the tower too, which take part as CLS does."""
    model = encoder(clip, mode, prompts)
    for size in SIZES[: 1 if prompts else None]:
        images = torch.randn(2, 3, PATCH * size[0], PATCH * size[1])
        features, expected = model(images), reference(model, mode, images)
        torch.testing.assert_close(features.dense, expected, atol=1e-5, rtol=1e-5)
        plain = ImageEncoder(clip.visual, prompt_length=0, prompt_dropout=0.0).eval()
        if not prompts:
            assert torch.equal(features.cls, plain(images).cls)


@torch.no_grad()
def test_every_registered_one_is_tested_and_another_from_each_other(clip):
    """In this file, or as of the value alone in test_image.py."""
    assert {name for name, _ in DENSE_TOKENS} == {name for name, _ in MODES.values()} | {
        *("tokens", "value", "value_residual")
    }
    images = torch.randn(1, 3, 48, 64)
    found = [encoder(clip, mode)(images).dense for mode in MODES]
    for i, one in enumerate(found):
        for other in found[:i]:
            assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", MODES)
@torch.no_grad()
def test_any_device_and_bfloat16_stay_near(clip, mode, device):
    """bfloat16 moves the tokens of the plain tower by 4 % here, in norm; these hardly more."""
    model = encoder(clip, mode)
    images = torch.randn(2, 3, 48, 80)
    expected = model(images).dense
    model.to(device)
    try:
        got = model(images.to(device)).dense.cpu()
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
        with torch.autocast(device, torch.bfloat16):
            half = model(images.to(device)).dense.float().cpu()
    finally:
        model.to("cpu")
    assert 0 < (half - expected).norm() < 0.05 * expected.norm()


def test_the_window_of_naclip_by_hand():
    """Three patches in a row behind CLS, sigma 1."""
    near, far = math.exp(-0.5), math.exp(-2)
    expected = [[0, 0, 0, 0], [0, 1, near, far], [0, near, 1, near], [0, far, near, 1]]
    for grid in ((1, 3), (3, 1)):
        window = gaussian_window(grid, 1.0, 1, torch.empty(0))
        torch.testing.assert_close(window, torch.tensor(expected).float())


@torch.no_grad()
def test_what_is_learnt_gets_gradients_through_all_of_them(clip):
    for mode in ("resclip on sclip", "naclip", "clip_surgery", "gem"):
        model = encoder(clip, mode, prompts=2).train()
        with torch.enable_grad():
            model(torch.randn(1, 3, 48, 64)).dense.square().mean().backward()
        assert model.prompts.tokens.grad.isfinite().all()
        assert (model.prompts.tokens.grad.flatten(1).norm(dim=1) > 0).any()


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("gem", {DEPTH: 4, STEPS: 1}, "GEM_DEPTH is 4, but the tower has 3 blocks; use 3 or less"),
        ("clip_surgery", {SURGERY: 7}, "SURGERY_DEPTH is 7, but the tower has 3 blocks"),
        ("sclip", {WEIGHT: 0.5, BLOCKS: [0, -3]}, r"\[0, -3\], which names a block of the 3 twice"),
        ("sclip", {WEIGHT: 0.5, BLOCKS: [1, 3]}, r"RESCLIP_BLOCKS is \[1, 3\], .* some of 0..2"),
        ("sclip", {}, "DENSE_TOKENS 'sclip' reads MODEL.CLIP.DENSE.RESCLIP_WEIGHT"),
        ("slip", {}, "'slip'; use one of 'tokens', .*'sclip'"),
    ],
)
def test_what_a_tower_cannot_have_is_refused(clip, name, settings, message):
    with pytest.raises(ZssError, match=message):
        ImageEncoder(
            clip.visual,
            prompt_length=0,
            prompt_dropout=0.0,
            dense_tokens=DenseTokens.of(name, settings),
        )


def test_a_tower_with_another_attention_is_refused():
    """Queries that are normalised first, say, which the maths here does not know."""
    vit = open_clip.transformer.VisionTransformer(
        *(32, 16, 32, 2, 2, 2.0), output_dim=32, block_type="custom", qk_norm=True
    )
    model = ImageEncoder(
        vit,
        prompt_length=0,
        prompt_dropout=0.0,
        dense_tokens=DenseTokens.of("naclip", {SIGMA: 5.0, **OFF}),
    )
    with pytest.raises(ZssError, match="the tower has a Attention, use 'tokens'"):
        model(torch.randn(1, 3, 32, 32))


def test_one_with_keys_and_earlier_blocks_is_registered_from_outside(clip):
    """It says which keys it is made of, and which blocks it looks at."""

    class Mean:
        def __init__(self, blocks: list[int]):
            self.blocks = blocks

        def seen_blocks(self, layers: int) -> list[int]:
            return [block % layers for block in self.blocks]

        def __call__(self, last: LastBlock) -> Tensor:
            return torch.stack([last.patches(x.inputs) for x in last.seen]).mean(dim=0)

    @with_settings(BLOCKS)
    def mean(blocks: list[int]) -> Mean:
        return Mean(blocks)

    DENSE_TOKENS.register(mean)
    try:
        chosen = DenseTokens.of("mean", {BLOCKS: [-1, 1]})
    finally:
        del DENSE_TOKENS._obj_map["mean"]
    model = ImageEncoder(clip.visual, prompt_length=0, prompt_dropout=0.0, dense_tokens=chosen)
    images = torch.randn(1, 3, 48, 64)
    entering, _ = inputs_of_blocks(model, images)
    expected = (entering[2] + entering[1])[:, 1:] / 2
    expected = clip.visual.ln_post(expected) @ clip.visual.proj
    torch.testing.assert_close(model(images).dense.flatten(2).mT, expected)
