"""The classes of the mini world: things are a colour and a pattern, stuff is a texture."""

from __future__ import annotations

# Mean RGB of each colour; every texture variant shifts it a little.
COLOURS = {
    "red": (205, 45, 45),
    "green": (50, 170, 60),
    "blue": (50, 75, 210),
    "yellow": (225, 205, 45),
    "purple": (150, 55, 175),
}
PATTERNS = ("plain", "striped", "dotted", "checked", "meshed")
STUFF = (
    "grass",
    "sand",
    "water",
    "brick",
    "wood",
    "snow",
    "gravel",
    "tile",
    "cloud",
    "lava",
)
THINGS = tuple(f"{colour} {pattern} thing" for colour in COLOURS for pattern in PATTERNS)
CLASSES = THINGS + STUFF
VOID = 255


def is_thing(class_id: int) -> bool:
    return class_id < len(THINGS)


def thing_parts(class_id: int) -> tuple[str, str]:
    """Return the colour and the pattern of a thing's id."""
    colour, pattern = divmod(class_id, len(PATTERNS))
    return tuple(COLOURS)[colour], PATTERNS[pattern]


def phrase(class_id: int) -> str:
    """Return how a caption names the class: things take an article, stuff does not."""
    return f"a {CLASSES[class_id]}" if is_thing(class_id) else CLASSES[class_id]


def caption(class_ids: list[int] | tuple[int, ...]) -> str:
    """Describe a scene, things first, each group in the order given.

    For example "a photo of a red striped thing and a blue dotted thing on grass".
    """
    things = " and ".join(phrase(i) for i in class_ids if is_thing(i))
    stuff = " and ".join(phrase(i) for i in class_ids if not is_thing(i))
    return "a photo of " + " on ".join(part for part in (things, stuff) if part)
