"""What only a card can show: of losses of coarse logits, and of a student's convolutions."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.modeling.clip_zss.students.depthwise import check_depthwise
from tests.modeling.clip_zss.students.test_folding import IMAGES, in_testing, mscan_student
from tests.modeling.losses.test_coarse_logits import criteria, example
from zss_d2.utils.tf32 import tf32

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("criterion", criteria(), ids=["nel", "negatives", "softmax"])
def test_they_wait_for_no_value_and_use_no_tf32(criterion):
    logits, targets = example(40, (8, 8), (128, 128))
    results = []
    for device in ("cpu", "cuda"):
        x, labels = logits.to(device).requires_grad_(), targets.to(device)
        module = copy.deepcopy(criterion).to(device)
        sum(module(x, labels).values()).backward()  # the first one in a process waits
        x.grad = None
        torch.cuda.set_sync_debug_mode("error")  # of no consequence for a CPU
        try:
            with tf32(True):
                loss = sum(module(x, labels).values())
                loss.backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        results.append((loss.detach().cpu(), x.grad.cpu()))
    (expected, slope), (got, found) = results
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    assert (found - slope).norm() < 1e-5 * slope.norm()


def test_depthwise_convolutions_of_a_student_are_tritons():
    student = mscan_student().cuda()
    in_testing(student, IMAGES.cuda())
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        in_testing(student, IMAGES.cuda())
    kernels = " ".join(event.key for event in profile.key_averages())
    assert "_forward" in kernels and "depthwise" not in kernels, kernels


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (1, 21), (21, 1)])
def test_a_depthwise_convolution_and_its_gradients_are_torchs(kernel, dtype):
    """In the steps of the type; 72 channels, so that a tile is half empty."""
    values, expected = check_depthwise(kernel, (2, 72, 40, 35), "cuda", dtype)
    bound = 1e-5 if dtype == torch.float32 else 1e-2
    for name, value in values.items():
        error = (value - expected[name]).norm() / expected[name].norm()
        assert error < bound, (name, error)
