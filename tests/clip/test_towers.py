import open_clip
import pytest
import torch

from zss_d2.clip import build_clip_towers
from zss_d2.errors import ZssError


def test_towers_are_frozen_and_know_their_image_statistics():
    towers = build_clip_towers("zss-tiny", "", prompt_length=2)
    learning = [name for name, p in towers.image.named_parameters() if p.requires_grad]
    assert learning == ["prompts.tokens"]
    assert not any(p.requires_grad for p in towers.text.parameters())
    assert towers.pixel_mean == pytest.approx((122.77, 116.75, 104.09), abs=0.01)
    assert towers.pixel_std == pytest.approx((68.50, 66.63, 70.32), abs=0.01)


def test_weights_come_from_a_file(tmp_path):
    clip = open_clip.create_model("zss-tiny")
    torch.save(clip.state_dict(), tmp_path / "clip.pt")
    towers = build_clip_towers("zss-tiny", str(tmp_path / "clip.pt"))
    assert torch.equal(towers.image.visual.proj, clip.visual.proj)
    assert torch.equal(towers.text.token_embedding.weight, clip.token_embedding.weight)


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        ("ViT-Z-16", "", "'ViT-Z-16', which open_clip does not know"),
        ("RN50", "", "no CLIP with a plain ViT"),
        ("ViT-B-16", "opennai", "neither a file nor a tag of ViT-B-16 .*openai"),
        ("zss-tiny", "missing.pt", "'missing.pt': neither a file nor a tag"),
    ],
)
def test_wrong_names_are_explained(name, pretrained, message):
    with pytest.raises(ZssError, match=message):
        build_clip_towers(name, pretrained)
