"""What becomes of the patch tokens at the end of the image tower: published ways, and anybody's.

``MODEL.CLIP.DENSE_TOKENS`` names one of `DENSE_TOKENS`. A further one is a function of `LastBlock`
that somebody registers under its name::

    @DENSE_TOKENS.register()
    def self_similarity(last: LastBlock) -> Tensor:
        ...

One with keys of its own is made from their values, and one that looks at earlier blocks says at
which::

    @DENSE_TOKENS.register()
    @with_settings("MODEL.MY_METHOD.DEPTH")
    def deep(depth: int) -> Deep:
        return Deep(depth)

    class Deep:
        def seen_blocks(self, layers: int) -> Sequence[int]:
            return range(layers - self.depth, layers)

        def __call__(self, last: LastBlock) -> Tensor:
            ...  # last.seen[0].inputs are the tokens that entered the first of these blocks
"""

from zss_d2.clip.dense_tokens import one_block, two_paths  # noqa: F401  registers them
from zss_d2.clip.dense_tokens.attention import with_residual
from zss_d2.clip.dense_tokens.registry import (
    DENSE_TOKENS,
    DenseTokens,
    LastBlock,
    SeenBlock,
    with_settings,
)

__all__ = [
    "DENSE_TOKENS",
    "DenseTokens",
    "LastBlock",
    "SeenBlock",
    "with_residual",
    "with_settings",
]
