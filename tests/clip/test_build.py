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


def test_weights_of_another_model_are_an_error(tmp_path):
    torch.save(open_clip.create_model("zss-tiny").state_dict(), tmp_path / "clip.pt")
    with pytest.raises(ZssError, match="clip.pt.* does not fit for ViT-B-32"):
        build_clip_towers("ViT-B-32", str(tmp_path / "clip.pt"))


def test_damaged_weights_are_an_error(tmp_path):
    (tmp_path / "clip.pt").write_bytes(b"no weights")
    with pytest.raises(ZssError, match="clip.pt.* does not fit"):
        build_clip_towers("zss-tiny", str(tmp_path / "clip.pt"))


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
