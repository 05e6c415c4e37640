"""The text tower: from class names to a classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import open_clip
import torch
from open_clip.transformer import text_global_pool
from torch import Tensor, nn
from torch.nn import functional as F

# Sentences per pass of the text tower; bounds memory for thousands of names times templates.
_BATCH = 256


class TextEncoder(nn.Module):
    """Frozen text tower of open_clip with a cache of classifiers.

    The cache is keyed by (class names, templates) and dropped whenever the weights change or move.
    """

    def __init__(self, clip: open_clip.CLIP, tokenizer: Callable[[list[str]], Tensor]):
        super().__init__()
        self.tokenizer = tokenizer
        self.token_embedding = clip.token_embedding
        self.positional_embedding = clip.positional_embedding
        self.transformer = clip.transformer
        self.ln_final = clip.ln_final
        self.text_projection = clip.text_projection
        self.pool_type = clip.text_pool_type
        self.eos_id = clip.text_eos_id
        self.register_buffer("attn_mask", clip.attn_mask, persistent=False)
        self._classifiers: dict[tuple, Tensor] = {}
        self.register_load_state_dict_post_hook(lambda module, _: module._classifiers.clear())

    def train(self, mode: bool = True) -> TextEncoder:
        """The frozen tower stays in evaluation mode."""
        return super().train(False)

    def _apply(self, *args, **kwargs) -> TextEncoder:
        self._classifiers.clear()
        return super()._apply(*args, **kwargs)

    def encode(self, tokens: Tensor) -> Tensor:
        """Embed token ids (N, context) -> (N, C), not normalised.

        Attention is causal, so positions behind the last end-of-text token cannot change the result
        and are not computed.
        """
        if self.attn_mask is not None:
            tokens = tokens[:, : int(tokens.argmax(dim=1).max()) + 1]
        length = tokens.shape[1]
        mask = None if self.attn_mask is None else self.attn_mask[:length, :length]
        x = self.token_embedding(tokens) + self.positional_embedding[:length]
        x = self.ln_final(self.transformer(x, attn_mask=mask))
        x = text_global_pool(x, tokens, self.pool_type, eos_token_id=self.eos_id)
        if isinstance(self.text_projection, nn.Linear):
            return self.text_projection(x)
        return x if self.text_projection is None else x @ self.text_projection

    @torch.no_grad()
    def classifier(self, class_names: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Unit-norm class embeddings (K, C), each the normalised mean over the templates."""
        key = (tuple(class_names), tuple(templates))
        if key not in self._classifiers:
            device = self.ln_final.weight.device
            texts = [template.format(name) for name in class_names for template in templates]
            tokens = self.tokenizer(texts).to(device)
            # What is cached must serve training and evaluation, under any precision.
            with torch.autocast(device.type, enabled=False), torch.inference_mode(False):
                features = torch.cat([self.encode(chunk) for chunk in tokens.split(_BATCH)])
                features = F.normalize(features, dim=-1).unflatten(0, (len(class_names), -1))
                self._classifiers[key] = F.normalize(features.mean(dim=1), dim=-1)
        return self._classifiers[key]
