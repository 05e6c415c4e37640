"""Sets of sentences that class names are put into."""

from __future__ import annotations

from open_clip import OPENAI_IMAGENET_TEMPLATES

from zss_d2.errors import ZssError

_PHOTOS = tuple(f"a photo of a {size}{{}}." for size in ("", "small ", "medium ", "large "))
_SCENES = (
    "a {} in the scene.",
    "a photo of a {} in the scene.",
    *(f"There is {article} {{}} in the scene." for article in ("a", "the")),
    *(f"This is {article} {{}} in the scene." for article in ("a", "the", "one")),
)

TEMPLATE_SETS: dict[str, tuple[str, ...]] = {
    # ZegCLIP on VOC, as its released code has it: no full stop.
    "single": ("a photo of a {}",),
    # ZegCLIP on COCO-Stuff, as its released code has them: 4 + 4 + 7.
    "coco15": (*_PHOTOS, *(f"This is {sentence}" for sentence in _PHOTOS), *_SCENES),
    # CLIP on ImageNet.
    "imagenet80": tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES),
}


def template_set(name: str) -> tuple[str, ...]:
    """Return a set by name.

    Raises:
        ZssError: there is no such set.
    """
    if name not in TEMPLATE_SETS:
        raise ZssError(
            f"MODEL.CLIP.TEMPLATE_SET is {name!r}; use one of {', '.join(TEMPLATE_SETS)}, or '' "
            "for the sentences of MODEL.CLIP.TEMPLATES"
        )
    return TEMPLATE_SETS[name]
