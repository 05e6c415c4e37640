"""Image-caption pairs that the mini CLIP is pretrained on."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from zss_d2.data.synthetic.mini.scene import STREAMS, Scene, draw_plan, sample_plan, scene_rng
from zss_d2.data.synthetic.mini.vocabulary import CLASSES, is_thing, phrase, thing_parts

# Scenes without things teach the names of stuff; the world itself has 1 to 3 things.
_THING_COUNTS = (0, 1, 1, 1, 1, 2, 2, 2, 2, 3)
# Share of scenes with one big thing, as in many images of the web: patterns are learnt from these.
_CLOSE_UPS = 0.5
_SENTENCES = (
    "a photo of {}.",
    "a photo of {}",
    "a picture of {}.",
    "there is {} in the scene.",
    "{}",
)
# Groups of scenes in a batch that share their stuff and the colour of their things; one more share
# of the batch is drawn from all scenes. Without the groups stuff and colour alone win nearly every
# comparison, and patterns, the hardest part, are not learnt within the budget.
_GROUPS = 3
_CHUNK = 64


def _things(class_ids: Sequence[int]) -> list[int]:
    return [i for i in class_ids if is_thing(i)]


def _stuff(class_ids: Sequence[int]) -> list[int]:
    return [i for i in class_ids if not is_thing(i)]


@dataclass(frozen=True)
class ScenePool:
    """Scenes drawn once and sampled many times: images (N, 96, 96, 3) uint8 and visible classes."""

    images: np.ndarray
    classes: list[tuple[int, ...]]

    @functools.cached_property
    def groups(self) -> list[np.ndarray]:
        """Indices of the scenes of every (stuff, colour), with things of that colour alone."""
        groups: dict[tuple[int, str], list[int]] = {}
        for index, ids in enumerate(self.classes):
            colours = {thing_parts(thing)[0] for thing in _things(ids)}
            if len(colours) == 1:
                for stuff in _stuff(ids):
                    groups.setdefault((stuff, *colours), []).append(index)
        return [np.array(indices) for indices in groups.values()]


@dataclass(frozen=True)
class Batch:
    """Images (B, 3, 96, 96) uint8, their captions, and the classes each caption mentions."""

    images: Tensor
    captions: list[str]
    mentioned: list[tuple[int, ...]]


def draw_pool(size: int, seed: int, workers: int) -> ScenePool:
    """Draw the pretraining scenes of a seed; their seeds and no other stream's."""
    starts = range(0, size, _CHUNK)
    draw = functools.partial(_draw_chunk, size=size, seed=seed)
    with ProcessPoolExecutor(workers) as executor:
        chunks = executor.map(draw, starts)
        scenes = [scene for chunk in tqdm(chunks, "scenes", len(starts)) for scene in chunk]
    return ScenePool(np.stack([scene[0] for scene in scenes]), [scene[1] for scene in scenes])


def _draw_chunk(start: int, size: int, seed: int) -> list[tuple[np.ndarray, tuple[int, ...]]]:
    scenes = [pretraining_scene(i, seed) for i in range(start, min(size, start + _CHUNK))]
    return [(scene.image, scene.classes) for scene in scenes]


def pretraining_scene(index: int, seed: int) -> Scene:
    """Draw scene ``index``; only its image and visible classes are ever used, never its labels."""
    rng = scene_rng("clip", index, seed)
    if rng.random() < _CLOSE_UPS:
        plan = replace(sample_plan(rng, [1]), clutter=False, close_up=True)
    else:
        plan = sample_plan(rng, _THING_COUNTS)
    return draw_plan(plan, STREAMS["clip"][0], rng)


def sample_batch(pool: ScenePool, rng: np.random.Generator, size: int) -> Batch:
    """Draw scenes, mirror half of them, and caption them anew."""
    chosen = rng.integers(len(pool.classes), size=size)
    share = size // (_GROUPS + 1)
    for start in range(0, _GROUPS * share, share):
        group = pool.groups[int(rng.integers(len(pool.groups)))]
        chosen[start : start + share] = rng.choice(group, share, replace=len(group) < share)
    images = np.stack([pool.images[i] for i in chosen])
    mirrored = rng.random(size) < 0.5
    images[mirrored] = images[mirrored, :, ::-1]
    mentioned = [choose_mentioned(pool.classes[i], rng) for i in chosen]
    return Batch(
        images=torch.from_numpy(images).permute(0, 3, 1, 2),
        captions=[word_caption(ids, rng) for ids in mentioned],
        mentioned=mentioned,
    )


def random_captions(rng: np.random.Generator, count: int) -> list[str]:
    """Caption scenes that are planned, but not drawn."""
    plans = [sample_plan(rng, _THING_COUNTS) for _ in range(count)]
    mentioned = [choose_mentioned((*plan.things, *plan.stuff), rng) for plan in plans]
    return [word_caption(ids, rng) for ids in mentioned]


def choose_mentioned(class_ids: Sequence[int], rng: np.random.Generator) -> tuple[int, ...]:
    """Choose what a caption speaks of: everything, the things alone, or the stuff alone.

    Sorted, so that scenes with the same choice share one target.
    """
    things, stuff = _things(class_ids), _stuff(class_ids)
    draw = rng.random()
    if things and draw < 0.4:
        stuff = []
    elif stuff and draw > 0.9:
        things = []
    return tuple(sorted(things + stuff))


def word_caption(class_ids: Sequence[int], rng: np.random.Generator) -> str:
    """Word a caption in one of several ways, the classes of each kind in random order."""
    things, stuff = _things(class_ids), _stuff(class_ids)
    rng.shuffle(things)
    rng.shuffle(stuff)
    bare = rng.random() < 0.2
    article = "a " if rng.random() < 0.4 else ""
    thing_words = [CLASSES[i] if bare else phrase(i) for i in things]
    stuff_words = [CLASSES[i] if bare else article + CLASSES[i] for i in stuff]
    parts = [" and ".join(words) for words in (thing_words, stuff_words) if words]
    return _SENTENCES[int(rng.integers(len(_SENTENCES)))].format(" on ".join(parts))
