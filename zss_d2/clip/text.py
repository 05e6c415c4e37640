"""The text tower: from class names to a classifier."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import open_clip
import torch
from open_clip.transformer import text_global_pool
from torch import Tensor, nn
from torch.nn import functional as F

from zss_d2.clip.block import apply_block
from zss_d2.clip.frozen import FrozenCopy, remembered
from zss_d2.clip.identity import ClipIdentity, fingerprint, has_quick_gelu
from zss_d2.clip.prompts import with_prompts
from zss_d2.clip.wording import ClassTokens, PromptSettings, Tokenizer, class_tokens
from zss_d2.errors import ZssError
from zss_d2.utils.tf32 import tf32
from zss_d2.utils.transfer import sent
from zss_d2.utils.weights import stamp_of

# Sentences per pass of the text tower; bounds memory for thousands of names times templates.
_BATCH = 256
# Vocabularies that are remembered: more than a run trains and tests in turns.
_VOCABULARIES = 8


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

    def forward(self) -> tuple[Tensor, ...]:
        """The tokens (length, C) of every layer."""
        return self.dropout(self.tokens).unbind()


class TextEncoder(nn.Module):
    """Frozen text tower of open_clip that remembers the last few classifiers.

    They are forgotten as soon as a weight moves or changes, by whatever way the prompts change.
    Without prompts (`add_prompts`) nothing learns.
    """

    def __init__(
        self, clip: open_clip.CLIP, tokenizer: Tokenizer, name: str = "", pretrained: str = ""
    ):
        """
        Args:
            clip: whose text tower this is; frozen by the caller.
            tokenizer: sentences -> token ids (N, context).
            name, pretrained: for `identity`.
        """
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
        self._name, self._pretrained = name, pretrained
        self._tokens: OrderedDict[tuple, ClassTokens] = OrderedDict()
        self._classifiers: OrderedDict[tuple, Tensor] = OrderedDict()
        self._made_with: tuple[list, Tensor | None] = ([], None)
        # Where the frozen weights are; faster than a walk through all modules at every call. Not
        # their dicts, which torch.export replaces.
        self._modules_watched = list(self.modules())
        self._frozen: FrozenCopy[tuple] = FrozenCopy()
        self.register_load_state_dict_post_hook(lambda module, _: module._follow())

    def _follow(self) -> None:
        """After new weights."""
        self._classifiers.clear()
        self._frozen.refresh(self._in_products)

    @property
    def _in_products(self) -> tuple:
        return self.transformer, self.text_projection

    @property
    def identity(self) -> ClipIdentity:
        """Which CLIP this is the text tower of."""
        quick_gelu = has_quick_gelu(self.transformer)
        return ClipIdentity(self._name, self._pretrained, quick_gelu, self._fingerprint)

    def _fingerprint(self) -> str:
        state = self.state_dict()
        return fingerprint({key: state[key] for key in state if not key.startswith("prompts.")})

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
        room = len(self.positional_embedding) - 3
        if length > room:
            raise ZssError(
                f"MODEL.TEXT_PROMPTS.LENGTH is {length}; beside it a class name of one token must "
                f"fit into the text tower, so use {room} or less"
            )
        ids = ids.repeat(-(-length // len(ids)))[:length]
        tokens = torch.cat([sentence[0, :1], ids])[None].to(self.token_embedding.weight.device)
        *inputs, _ = self._layer_inputs(tokens, self.transformer)
        self.prompts = TextPrompts(torch.cat(inputs)[:, 1:], dropout)
        self._prompt_ids = ids
        self._tokens.clear()

    def train(self, mode: bool = True) -> TextEncoder:
        """The frozen tower stays in evaluation mode; only the prompts' dropout goes along."""
        super().train(False)
        if self.prompts is not None:
            self.prompts.train(mode)
            if mode:  # what was remembered ends here, also for a graph that is traced later
                self._classifiers.clear()
        return self

    def _apply(self, *args, **kwargs) -> TextEncoder:
        self._classifiers.clear()
        self._tokens.clear()
        self._frozen.clear()
        return super()._apply(*args, **kwargs)

    def encode(self, tokens: Tensor) -> Tensor:
        """Embed token ids (N, context) -> (N, C), not normalised.

        Attention is causal, so positions behind the last end-of-text token cannot change the result
        and are not computed.
        """
        tokens = self._to_device(self._shortened(tokens))
        transformer, projection = self._frozen.of(self._in_products, tokens.device)
        for states in self._layer_inputs(tokens, transformer):
            last = states
        x = text_global_pool(self.ln_final(last), tokens, self.pool_type, eos_token_id=self.eos_id)
        if isinstance(projection, nn.Linear):
            return projection(x)
        return x if projection is None else x @ projection

    def _shortened(self, tokens: Tensor) -> Tensor:
        """Without positions behind the last end of a text, where that changes nothing."""
        if self.attn_mask is None:
            return tokens
        return tokens[:, : int(tokens.argmax(dim=1).max()) + 1]

    def _to_device(self, tokens: Tensor) -> Tensor:
        return sent(tokens, self.ln_final.weight.device)

    def _layer_inputs(self, tokens: Tensor, transformer: nn.Module) -> Iterator[Tensor]:
        """What enters every layer for token ids (N, T), prompts included, and the last output."""
        length = tokens.shape[1]
        mask = None if self.attn_mask is None else self.attn_mask[:length, :length]
        x = self.token_embedding(tokens) + self.positional_embedding[:length]
        prompts = () if self.prompts is None else self.prompts()
        for layer, block in enumerate(transformer.resblocks):
            if prompts:  # behind the start-of-text token
                of_all = prompts[layer].expand(len(x), -1, -1)
                x = with_prompts(x, of_all, replaced=of_all.shape[1])
            yield x
            x = apply_block(block, x, mask)
        yield x

    def classifier(self, class_names: Sequence[str], prompts: PromptSettings) -> Tensor:
        """Unit-norm class embeddings (K, C).

        Each is the normalised mean over the class's names and the templates. With language prompts
        (`add_prompts`), which stand in for the templates, the sentence is the prompt and the name;
        in training mode it is embedded anew, with the prompts' dropout.

        A graph that is traced (`torch.export`) takes them as constants, remembered from before.

        Raises:
            ZssError: see `class_tokens`; nothing is remembered for a graph that is traced.
        """
        if self.prompts is not None:
            prompts = replace(prompts, templates=None)
        words = tuple(map(prompts.names_of, class_names))
        key = (words, None if prompts.templates is None else tuple(prompts.templates))
        learns = self.prompts is not None and self.prompts.training
        if torch.compiler.is_compiling() and not learns:
            return self._constant(key)
        sentences = remembered(
            self._tokens, key, lambda: self._tokenize(class_names, prompts), _VOCABULARIES
        )
        if learns:
            return self._embed_classes(sentences, len(words))
        self._forget_if_changed()

        def remember() -> Tensor:
            # It must serve training and evaluation, whichever of them comes first.
            device = self.ln_final.weight.device.type
            with (
                torch.inference_mode(False),
                torch.no_grad(),
                torch.autocast(device, enabled=False),
                tf32(False),
            ):
                return self._embed_classes(sentences, len(words))

        return remembered(self._classifiers, key, remember, _VOCABULARIES)

    def _constant(self, key: tuple) -> Tensor:
        known = self._classifiers.get(key)
        if known is None:
            raise ZssError(
                "a model is exported with the embeddings of its class names, and there are none of "
                f"{key[0][0][0]!r} yet; run it on an image with the same class names before"
            )
        return known

    def _forget_if_changed(self) -> None:
        """Drop the classifiers of other weights.

        The frozen tower counts as changed when a tensor is replaced or written to. The prompts are
        compared by value: not all that trains them leaves a trace. On a GPU that would have the CPU
        wait at every image; there they count as the tower does, and training mode forgets all.
        """
        tower = [
            stamp_of(parameter)
            for module in self._modules_watched
            for parameter in module._parameters.values()
            if parameter is not None
        ]
        prompts = None if self.prompts is None else self.prompts.tokens.detach()
        if prompts is not None and prompts.device.type != "cpu":
            tower, prompts = [*tower, stamp_of(self.prompts.tokens)], None
        if self._made_with[0] != tower or not _same(self._made_with[1], prompts):
            self._classifiers.clear()
            self._made_with = (tower, None if prompts is None else prompts.clone())

    def _embed_classes(self, sentences: ClassTokens, classes: int) -> Tensor:
        """The tower in the precision that is on, the means over sentences in single precision."""
        features = torch.cat([self.encode(chunk) for chunk in sentences.tokens.split(_BATCH)])
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        features = F.normalize(features, dim=-1)
        total = features.new_zeros(classes, features.shape[1])
        total = total.index_add(0, self._to_device(sentences.owner), features)
        return F.normalize(total, dim=-1)

    def _tokenize(self, class_names: Sequence[str], prompts: PromptSettings) -> ClassTokens:
        """Token ids (N, context) of all sentences, with room for the prompts behind the first."""
        tokens, owner = class_tokens(self.tokenizer, class_names, prompts)
        if self.prompts is None:
            return ClassTokens(tokens, owner)
        room = self._prompt_ids.expand(len(tokens), -1)
        longest = int(tokens.argmax(dim=1).max()) + 1 + room.shape[1]
        if longest > tokens.shape[1]:
            raise ZssError(
                f"MODEL.TEXT_PROMPTS.LENGTH is {room.shape[1]}: with the longest class name that "
                f"makes {longest} tokens, the tower takes {tokens.shape[1]}; shorten the prompt"
            )
        with_room = [tokens[:, :1], room, tokens[:, 1 : tokens.shape[1] - room.shape[1]]]
        return ClassTokens(torch.cat(with_room, dim=1), owner)


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.device == other.device and one.dtype == other.dtype and torch.equal(one, other)
