"""Counting parameters and multiply-adds."""

import pytest
import torch
from detectron2.modeling import build_model
from fvcore.nn import FlopCountAnalysis
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from tests.conftest import ROOT, TINY_CONFIG
from zss_d2.analysis import complexity
from zss_d2.analysis.commands.complexity import main
from zss_d2.modeling.inference import FixedClasses


class Attention(torch.nn.Module):
    def forward(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v)


def test_attention_by_hand():
    """2 x 3 heads: 5 queries x 7 keys x 4 channels, then 5 x 7 weights x 6 channels."""
    q, k, v = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 7, 4), torch.randn(2, 3, 7, 6)
    analysis = FlopCountAnalysis(Attention(), (q, k, v))
    analysis.set_op_handle("aten::scaled_dot_product_attention", complexity.attention_multiply_adds)
    assert analysis.total() == 2 * 3 * (5 * 7 * 4 + 5 * 7 * 6)


@pytest.mark.parametrize("method", ["LDVC", "ZegCLIP"])
def test_against_the_counter_of_torch(make_cfg, method):
    """That one counts two operations per multiply-add, and only matrix products."""
    model = build_model(make_cfg("MODEL.META_ARCHITECTURE", method)).eval()
    numbers = complexity.count(model, 64)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    model.requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        FixedClasses(model, model.classes)(torch.zeros(1, 3, 64, 64))
    products = counter.get_total_flops() / 2 / 1e9
    # Norms and the like, which fvcore also counts, weigh more in a model as small as this.
    assert products < numbers["total"] < 1.1 * products
    assert 0 < numbers["encoder"] < numbers["total"]
    assert numbers["trained"] == pytest.approx(trained / 1e6)


def test_the_table(capsys):
    assert main([str(TINY_CONFIG), "--size", "64"]) == 0
    header, _, line = capsys.readouterr().out.splitlines()
    assert "trained M" in header
    assert line.startswith("| ldvc_voc_tiny_cpu |        20 |")


def test_configs_of_one_name_are_told_apart(tmp_path, capsys):
    configs = [tmp_path / name / "007.yaml" for name in "ab"]
    for path in configs:
        path.parent.mkdir()
        path.write_text(f"_BASE_: {TINY_CONFIG}")
    assert main([*map(str, configs), "--size", "64"]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[1] for line in lines] == ["a/007", "b/007"]
    assert main([str(configs[0]), "--size", "64"]) == 0
    assert capsys.readouterr().out.splitlines()[2].startswith("| 007 ")
    assert main([str(configs[0]), str(configs[0])]) == 2
    assert "given twice" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["1", "100"])
def test_a_size_that_would_be_padded_is_refused(size, capsys):
    assert main([str(TINY_CONFIG), "--size", size]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == (f"error: --size {size}: ldvc_voc_tiny_cpu takes images of multiples of 16 px")


def test_weights_that_a_student_starts_from_do_not_matter(capsys):
    """They need be neither here nor within reach."""
    config = str(ROOT / "configs/clip_zss_mini.yaml")
    key = "MODEL.CLIP_ZSS.ENCODER."
    counted = []
    for opts in ([key + "PRETRAINED", "False"], [key + "PRETRAINED", "True"]):
        assert main([config, "--size", "64", "--opts", *opts]) == 0
        counted.append(capsys.readouterr().out)
    assert counted[0] == counted[1]
