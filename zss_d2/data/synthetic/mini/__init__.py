"""The mini world: generated scenes with seen and unseen classes; see docs/mini.md."""

from zss_d2.data.synthetic.mini.scene import (
    Plan,
    Scene,
    draw_plan,
    draw_scene,
    sample_plan,
    scene_rng,
)
from zss_d2.data.synthetic.mini.vocabulary import CLASSES, STUFF, THINGS, VOID, caption

__all__ = [
    "CLASSES",
    "STUFF",
    "THINGS",
    "VOID",
    "Plan",
    "Scene",
    "caption",
    "draw_plan",
    "draw_scene",
    "sample_plan",
    "scene_rng",
]
