"""Pretraining of the mini CLIP on captions of generated scenes."""

from __future__ import annotations

import hashlib
import math
import pickle
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip.transformer import PatchDropout
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from zss_d2.clip.image import ImageEncoder
from zss_d2.clip.towers import ClipTowers, assemble_towers, build_clip_towers
from zss_d2.errors import ZssError
from zss_d2.mini_clip.pairs import Batch, ScenePool, draw_pool, random_captions, sample_batch
from zss_d2.mini_clip.probe import Probe, normalise, probe
from zss_d2.mini_clip.recipe import Recipe
from zss_d2.utils.writing import write_atomic

_LOG_PERIOD = 25
_SAVE_PERIOD = 100
_MAX_LOGIT_SCALE = math.log(100)
_TEXT_STREAM = 1_000_000  # a step number that pretraining never reaches
_TEXT_BATCH = 128
_TEXT_LR = 2e-3
_READOUT_SCALE = 10.0  # unit-norm embeddings need it to give confident logits


class Pretraining:
    """Model, optimiser and step counter of one run; everything random follows (seed, step)."""

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self.step = 0
        torch.manual_seed(recipe.seed)
        self.clip = open_clip.create_model("mini", force_patch_dropout=recipe.patch_drop)
        self.towers = self._assemble()
        # Tells from an embedding, of either tower, which words the caption holds; not shipped.
        self.readout = nn.Linear(
            self.clip.text_projection.shape[1], self.towers.text.tokenizer.vocab_size
        )
        learning = [*self.clip.parameters(), *self.readout.parameters()]
        matrices = [p for p in learning if p.ndim > 1]
        vectors = [p for p in learning if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors}],
            betas=(0.9, 0.98),
            weight_decay=0.0,
        )

    def warm_up_text(self) -> float:
        """Let text embeddings tell which words a caption holds, and return the last loss.

        Captions alone are enough for that. A new text tower gives captions that differ in one word
        almost the same embedding; then neither tower has anything to learn the word from, and the
        contrastive loss stays on a plateau for most of the budget.
        """
        torch.manual_seed(self.recipe.seed)
        rng = np.random.default_rng([self.recipe.seed, _TEXT_STREAM])
        encoder = self.towers.text
        tower = [p for name, p in self.clip.named_parameters() if not name.startswith("visual.")]
        optimizer = torch.optim.AdamW([*tower, *self.readout.parameters()], lr=_TEXT_LR)
        loss = torch.zeros(())
        for _ in range(self.recipe.text_warmup):
            tokens = encoder.tokenizer(random_captions(rng, _TEXT_BATCH))
            loss = self._word_loss(F.normalize(encoder.encode(tokens), dim=-1), tokens)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    def run_step(self, pool: ScenePool) -> float:
        """Learn from one batch and return its loss."""
        recipe = self.recipe
        torch.manual_seed(recipe.seed * 1_000_003 + self.step)
        rng = np.random.default_rng([recipe.seed, self.step])
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(recipe, self.step)
        dropout = self.clip.visual.patch_dropout
        if isinstance(dropout, PatchDropout) and self.step >= recipe.steps * (1 - recipe.unmasked):
            dropout.prob = 0.0
        self.clip.train()
        loss = self._loss(sample_batch(pool, rng, recipe.batch))
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.clip.parameters(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            self.clip.logit_scale.clamp_(max=_MAX_LOGIT_SCALE)
        self.step += 1
        return float(loss.detach())

    def _loss(self, batch: Batch) -> Tensor:
        image = self.clip.encode_image(normalise(batch.images, self.towers), normalize=True)
        encoder = self.towers.text
        tokens = encoder.tokenizer(batch.captions)
        text = F.normalize(encoder.encode(tokens), dim=-1)
        logits = self.clip.logit_scale.exp() * image @ text.T
        words = self._word_loss(image, tokens) + self._word_loss(text, tokens)
        return contrastive_loss(logits, batch.mentioned) + self.recipe.word_weight * words

    def _word_loss(self, embedding: Tensor, tokens: Tensor) -> Tensor:
        """Mean binary cross-entropy of the caption's words, read out of unit-norm (B, C)."""
        logits = self.readout(_READOUT_SCALE * embedding)
        words = torch.zeros_like(logits).scatter_(1, tokens, 1.0)
        return F.binary_cross_entropy_with_logits(logits, words)

    def probe(self) -> Probe:
        """Probe the weights of now, on fewer scenes than the final report."""
        self.clip.eval()
        # New towers: those at hand may remember text embeddings of older weights.
        return probe(self._assemble(), per_class=4, dense_scenes=40)

    def _assemble(self) -> ClipTowers:
        image = ImageEncoder(self.clip.visual, prompt_length=0, prompt_dropout=0.0)
        return assemble_towers(self.clip, image, "mini")

    def state(self) -> dict:
        return {
            "recipe": asdict(self.recipe),
            "step": self.step,
            "clip": self.clip.state_dict(),
            "readout": self.readout.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load(self, path: Path) -> None:
        """Continue from a saved state; raises ZssError if it is none, or of another recipe."""
        try:
            state = torch.load(path, weights_only=True)
        except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
            raise ZssError(
                f"{path} cannot be read ({type(error).__name__}), so the unfinished run cannot go "
                "on; move the file away to begin again"
            ) from None
        if not isinstance(state, dict) or "recipe" not in state:
            raise ZssError(f"{path} is no unfinished run of this program; move the file away")
        if state["recipe"] != asdict(self.recipe):
            raise ZssError(
                f"{path}: an unfinished run with other settings, {state['recipe']}; repeat those "
                "or move the file away"
            )
        self.clip.load_state_dict(state["clip"])
        self.readout.load_state_dict(state["readout"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then half a cosine down to 0."""
    if step < recipe.warmup:
        return recipe.lr * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.lr * (1 + math.cos(math.pi * done)) / 2


def contrastive_loss(logits: Tensor, mentioned: list[tuple[int, ...]]) -> Tensor:
    """CLIP's symmetric cross-entropy; captions that say the same share the target evenly.

    Args:
        logits: (B, B), rows images.
        mentioned: what each caption speaks of; equal entries say the same.
    """
    numbers = {ids: number for number, ids in enumerate(dict.fromkeys(mentioned))}
    codes = torch.tensor([numbers[ids] for ids in mentioned])
    target = (codes[:, None] == codes).float()
    target /= target.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def pretrain(recipe: Recipe, output: Path, *, workers: int, probe_period: int) -> None:
    """Train, log and write ``output``; an unfinished run lies beside it as ``*.resume``."""
    resume = output.with_name(f"{output.name}.resume")
    run = Pretraining(recipe)
    if resume.is_file():
        run.load(resume)
        print(f"{resume}: continuing at step {run.step}", flush=True)
    else:
        print(f"text warm-up: loss {run.warm_up_text():.3f}", flush=True)
    pool = draw_pool(recipe.scenes, recipe.seed, workers)
    start, first, losses = time.monotonic(), run.step, []
    while run.step < recipe.steps:
        losses.append(run.run_step(pool))
        if run.step % _LOG_PERIOD == 0 or run.step == recipe.steps:
            rate = (time.monotonic() - start) / (run.step - first)
            print(
                f"step {run.step}/{recipe.steps}  loss {np.mean(losses):.3f}  "
                f"{rate:.2f} s/step  ETA {rate * (recipe.steps - run.step) / 60:.1f} min",
                flush=True,
            )
            losses.clear()
        if run.step % _SAVE_PERIOD == 0:
            write_atomic(resume, lambda path: torch.save(run.state(), path))
        if probe_period and run.step % probe_period == 0:
            print(f"step {run.step}  probe: {run.probe()}", flush=True)
    write_weights(output, run)
    resume.unlink(missing_ok=True)
    report(output)


def write_weights(output: Path, run: Pretraining) -> None:
    """Write the weights in fp16, with the recipe in the file's header."""
    weights = {key: value.half().contiguous() for key, value in run.clip.state_dict().items()}
    header = {key: str(value) for key, value in asdict(run.recipe).items()}
    write_atomic(output, lambda path: save_file(weights, path, metadata=header))


def report(output: Path) -> None:
    """Print size, checksum and probe of a weights file, read back as a user would."""
    data = output.read_bytes()
    print(f"{output}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")
    print(f"probe of the file: {probe(build_clip_towers('mini', str(output)))}", flush=True)
