"""The text tower: from class names to a classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import open_clip
import torch
from open_clip.transformer import text_global_pool
from torch import Tensor, nn
from torch.nn import functional as F

from zss_d2.errors import ZssError

# Sentences per pass of the text tower; bounds memory for thousands of names times templates.
_BATCH = 256
_NO_SYNONYMS: Mapping[str, Sequence[str]] = MappingProxyType({})


class TextPrompts(nn.Module):
    """Learnable tokens in front of the class name, a set for every layer (LDVC, arXiv 2403.08426).

    They start as what the frozen tower has there, layer by layer, for a hand-crafted prompt.
    """

    def __init__(self, start: Tensor, dropout: float):
        """
        Args:
            start: (layers, length, C), inputs of every layer at the places of the prompt.
            dropout: on the tokens.
        """
        super().__init__()
        self.tokens = nn.Parameter(start.clone())
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, layer: int) -> Tensor:
        """Put the tokens of ``layer`` behind the start-of-text token of x (N, T, C)."""
        prompts = self.dropout(self.tokens[layer]).expand(len(x), -1, -1).to(x)
        return torch.cat([x[:, :1], prompts, x[:, 1 + prompts.shape[1] :]], dim=1)


class TextEncoder(nn.Module):
    """Frozen text tower of open_clip with a cache of classifiers.

    The cache is keyed by the class names, the sentences and the state of the prompts, and dropped
    whenever the weights change or move. Without prompts (`add_prompts`) nothing learns.
    """

    def __init__(self, clip: open_clip.CLIP, tokenizer: Callable[[list[str]], Tensor]):
        super().__init__()
        self.prompts: TextPrompts | None = None
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

    @torch.no_grad()
    def add_prompts(self, length: int, words: str, dropout: float) -> None:
        """Let ``length`` learnable tokens stand in front of every class name from now on.

        Args:
            words: hand-crafted prompt they start from, repeated or cut to ``length`` tokens.

        Raises:
            ZssError: the tower is not causal, or the prompt is empty.
        """
        sentence = self.tokenizer([words])
        ids = sentence[0, 1 : int(sentence.argmax(dim=1))]
        if self.attn_mask is None or not len(ids):
            raise ZssError(
                f"MODEL.TEXT_PROMPTS.INIT is {words!r}: language prompts need words to start from "
                "and a causal text tower; set MODEL.TEXT_PROMPTS.LENGTH 0"
            )
        ids = ids.repeat(-(-length // len(ids)))[:length]
        tokens = torch.cat([sentence[0, :1], ids])[None].to(self.token_embedding.weight.device)
        *inputs, _ = self._layer_inputs(tokens)
        self.prompts = TextPrompts(torch.cat(inputs)[:, 1:], dropout)
        self._prompt_ids = ids

    def train(self, mode: bool = True) -> TextEncoder:
        """The frozen tower stays in evaluation mode; only the prompts' dropout goes along."""
        super().train(False)
        if self.prompts is not None:
            self.prompts.train(mode)
        return self

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
        for states in self._layer_inputs(tokens):
            last = states
        x = text_global_pool(self.ln_final(last), tokens, self.pool_type, eos_token_id=self.eos_id)
        if isinstance(self.text_projection, nn.Linear):
            return self.text_projection(x)
        return x if self.text_projection is None else x @ self.text_projection

    def _layer_inputs(self, tokens: Tensor) -> Iterator[Tensor]:
        """What enters every layer for token ids (N, T), prompts included, and the last output."""
        length = tokens.shape[1]
        mask = None if self.attn_mask is None else self.attn_mask[:length, :length]
        x = self.token_embedding(tokens) + self.positional_embedding[:length]
        for layer, block in enumerate(self.transformer.resblocks):
            if self.prompts is not None:
                x = self.prompts(x, layer)
            yield x
            x = block(x, attn_mask=mask)
        yield x

    def classifier(
        self,
        class_names: Sequence[str],
        templates: Sequence[str],
        synonyms: Mapping[str, Sequence[str]] = _NO_SYNONYMS,
    ) -> Tensor:
        """Unit-norm class embeddings (K, C).

        Each is the normalised mean over the class's names and the templates. With prompts, which
        stand in for the templates, the sentence is the prompt and the name.

        Args:
            templates: sentences with one ``{}``.
            synonyms: further names of a class.
        """
        if self.prompts is not None and self.prompts.training and torch.is_grad_enabled():
            return self._embed_classes(class_names, templates, synonyms)
        words = tuple((name, *synonyms.get(name, ())) for name in class_names)
        # In-place updates of a parameter, such as an optimizer's, count up its version.
        state = None if self.prompts is None else self.prompts.tokens._version
        key = (words, tuple(templates), state)
        if key not in self._classifiers:
            if self.prompts is not None:
                self._classifiers.clear()
            # What is cached must serve training and evaluation.
            with torch.inference_mode(False), torch.no_grad():
                self._classifiers[key] = self._embed_classes(class_names, templates, synonyms)
        return self._classifiers[key]

    def _embed_classes(
        self,
        class_names: Sequence[str],
        templates: Sequence[str],
        synonyms: Mapping[str, Sequence[str]],
    ) -> Tensor:
        device = self.ln_final.weight.device
        sentences, owner = [], []
        for index, name in enumerate(class_names):
            for word in (name, *synonyms.get(name, ())):
                texts = [word] if self.prompts is not None else [t.format(word) for t in templates]
                sentences += texts
                owner += [index] * len(texts)
        tokens = self._tokenize(sentences).to(device)
        owner = torch.tensor(owner, device=device)
        # Small, and its result must not depend on the precision of what asked first.
        with torch.autocast(device.type, enabled=False):
            features = torch.cat([self.encode(chunk) for chunk in tokens.split(_BATCH)])
            features = F.normalize(features, dim=-1)
            total = features.new_zeros(len(class_names), features.shape[1])
            return F.normalize(total.index_add(0, owner, features), dim=-1)

    def _tokenize(self, sentences: list[str]) -> Tensor:
        """Token ids (N, context), with room for the prompts behind the first."""
        tokens = self.tokenizer(sentences)
        if self.prompts is None:
            return tokens
        room = self._prompt_ids.expand(len(tokens), -1)
        longest = int(tokens.argmax(dim=1).max()) + 1 + room.shape[1]
        if longest > tokens.shape[1]:
            raise ZssError(
                f"MODEL.TEXT_PROMPTS.LENGTH is {room.shape[1]}: with the longest class name that "
                f"makes {longest} tokens, the tower takes {tokens.shape[1]}; shorten the prompt"
            )
        return torch.cat([tokens[:, :1], room, tokens[:, 1 : tokens.shape[1] - room.shape[1]]], 1)
