"""What benchmarks/gpu.py looks at beside the times of networks: precision, CPU = CUDA, files."""

from __future__ import annotations

import os
import statistics
import time
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from detectron2.engine import HookBase, TrainerBase
from detectron2.modeling import build_model
from torch import nn
from torch.profiler import ProfilerActivity, profile

from bench.photos import generate
from bench.timing import synchronise
from zss_d2.data.pipeline.loader import build_train_loader
from zss_d2.data.spec.benchmark import load_benchmark
from zss_d2.data.spec.locations import prepared_location
from zss_d2.engine import ZeroShotTrainer, load_config
from zss_d2.utils.cores import cpu_cores

if TYPE_CHECKING:
    from gpu import Run

Keep = Callable[[str, str, "bool | None"], None]
# Measures or looks, in a folder of its own, and keeps what it has found.
Check = Callable[["Run", Path, Keep], None]
ROOT = Path(__file__).resolve().parents[2]
# Largest difference of logits, relative to the largest of them, and of the two best scores of a
# pixel that may as well change places.
TOLERANCE = 1e-4


def items(number: int, size: int, device: str) -> list[dict[str, Any]]:
    """Random images with four stripes of labels, in page-locked memory for a GPU."""
    stripes = (torch.arange(size) * 4 // size).repeat(size, 1)
    generator = torch.Generator().manual_seed(0)
    pixels = [
        torch.randint(0, 256, (3, size, size), dtype=torch.uint8, generator=generator)
        for _ in range(number)
    ]
    if device.startswith("cuda"):
        pixels, stripes = [image.pin_memory() for image in pixels], stripes.pin_memory()
    return [{"image": image, "sem_seg": stripes} for image in pixels]


def launches(call: Callable[[], object], device: str) -> int:
    """Kernels (or graphs of them) that a call launches; on a CPU, calls of torch's operators."""
    on_gpu = device.startswith("cuda")
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=kinds) as record:
        call()
        synchronise(device)
    wanted = ("LaunchKernel", "GraphLaunch") if on_gpu else ("aten::",)
    averages = record.key_averages()
    return sum(e.count for e in averages if any(word in e.key for word in wanted))


def agree(name: str, run: Run, root: Path, keep: Keep) -> None:
    """The same weights and image, in fp32 without TF32, on the CPU and on the device."""
    cfg = run.config(name, "fp32", "MODEL.DEVICE", "cpu")
    torch.manual_seed(0)
    here, there = build_model(cfg).eval(), run.build(name, "fp32").eval()
    there.load_state_dict(here.state_dict())
    (item,) = items(1, run.size, "cpu")
    with torch.inference_mode():
        expected, found = (
            model.logits(model.normalise(item["image"])[None], model.classes).cpu()
            for model in (here, there)
        )
        a, b = (model([item])[0]["sem_seg"].cpu() for model in (here, there))
    error = ((found - expected).abs().max() / expected.abs().max()).item()
    best, second = a.topk(2, dim=0).values
    differ = a.argmax(dim=0) != b.argmax(dim=0)
    wrong = int((differ & (best - second > TOLERANCE)).sum())
    text = (
        f"logits differ by {error:.1e} of the largest; {int(differ.sum())} of {differ.numel()} "
        f"labels, {wrong} of them not as good as equal"
    )
    keep(f"{name} on CPU and {run.device}", text, error <= TOLERANCE and not wrong)


def layer_types(model: nn.Module, call: Callable[[], object]) -> Counter:
    """How many outputs of matrix products and convolutions there are of each type in a call."""
    seen: Counter = Counter()
    handles = [
        module.register_forward_hook(lambda _, __, out: seen.update([out.dtype]))
        for module in model.modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
    ]
    try:
        call()
    finally:
        for handle in handles:
            handle.remove()
    return seen


def autocast(run: Run, root: Path, keep: Keep) -> None:
    """Types that networks compute in, by the precision that is asked for."""
    default = run.config("ldvc_voc", "").MODEL.AUTOCAST
    for precision in ("fp32", "bf16", ""):
        model = run.build("ldvc_voc", precision).eval()
        with torch.inference_mode():
            seen = layer_types(model, lambda m=model: m(items(1, run.size, run.device)))
        half = seen[torch.bfloat16] / max(sum(seen.values()), 1)
        frozen = Counter(p.dtype for p in model.parameters() if not p.requires_grad)
        text = f"{half:.0%} of the layers compute in bfloat16; frozen weights " + ", ".join(
            f"{n} {str(dtype).removeprefix('torch.')}" for dtype, n in frozen.items()
        )
        ok = half > 0.5 if precision == "bf16" else half == 0 if precision else None
        keep(f"precision {precision or f'of the config ({default!r})'}", text, ok)


def prepared_photos(run: Run, root: Path) -> None:
    """Photos of VOC's size below ``root``, which becomes DETECTRON2_DATASETS."""
    os.environ["DETECTRON2_DATASETS"] = str(root)
    benchmark = load_benchmark("voc")
    for name, number in (("train", 6 if run.tiny else 64), ("val", 1)):
        location = prepared_location(benchmark, benchmark.splits[name])
        if not location.images.exists():
            generate(location.images, location.masks, number, 15, (500, 375))


def loader(goal: float, run: Run, root: Path, keep: Keep) -> None:
    """Training images per second from eight workers, or as many as there are cores."""
    prepared_photos(run, root)
    workers = 1 if run.tiny else min(8, len(cpu_cores()))
    cfg = run.config("ldvc_voc", "fp32", "DATALOADER.NUM_WORKERS", workers)
    batches = iter(build_train_loader(cfg))
    size, first, number = cfg.SOLVER.IMS_PER_BATCH, 1 if run.tiny else 24, 1 if run.tiny else 48
    for _ in islice(batches, first):  # more than lie ready
        pass
    start = time.perf_counter()
    for _ in islice(batches, number):
        pass
    rate = number * size / (time.perf_counter() - start)
    del batches
    text = f"{rate:.0f} images/s of 512 px from {workers} workers, goal {goal:.0f} from 8"
    keep("loader", text, rate >= goal if workers == 8 and not run.tiny else None)


class Clock(HookBase):
    """Seconds of every iteration, until the device has finished it."""

    def __init__(self, device: str):
        self.device, self.seconds = device, []

    def before_step(self) -> None:
        self.start = time.perf_counter()

    def after_step(self) -> None:
        synchronise(self.device)
        self.seconds.append(time.perf_counter() - self.start)


def train(cfg: Any, steps: int) -> tuple[ZeroShotTrainer, Clock]:
    """A training without evaluations and checkpoints."""
    trainer = ZeroShotTrainer(cfg)
    clock = Clock(cfg.MODEL.DEVICE)
    trainer._hooks.clear()
    trainer.register_hooks([clock])
    TrainerBase.train(trainer, 0, steps)
    return trainer, clock


def whole_run(run: Run, root: Path, keep: Keep) -> None:
    """Seconds per iteration of a real training, images from files and the optimizer included."""
    prepared_photos(run, root)
    workers = 0 if run.tiny else min(12, len(cpu_cores()))
    steps = 2 if run.tiny else 12
    for precision in ("bf16", "fp32"):
        opts = ["OUTPUT_DIR", str(root / "out"), "DATALOADER.NUM_WORKERS", workers]
        cfg = run.config("ldvc_voc", precision, *opts)
        trainer, clock = train(cfg, steps)
        data = [value for value, _ in trainer.storage.history("data_time").values()]
        late = slice(steps // 2, None)
        text = (
            f"{statistics.median(clock.seconds[late]):.3f} s per iteration of "
            f"{cfg.SOLVER.IMS_PER_BATCH} images, {statistics.median(data[late]):.3f} of them "
            f"waiting for {workers} workers"
        )
        keep(f"whole run of ldvc_voc, {precision}", text, None)


def amp(run: Run, root: Path, keep: Keep) -> None:
    """Whether SOLVER.AMP.ENABLED of a training reaches the networks."""
    if not run.device.startswith("cuda"):
        keep("AMP", "is of trainings on a GPU", None)
        return
    prepared_photos(run, root)
    opts = ["MODEL.DEVICE", run.device, "SOLVER.AMP.ENABLED", True, "DATALOADER.NUM_WORKERS", 0]
    path = ROOT / "configs" / "ldvc_voc_tiny_cpu.yaml"
    cfg = load_config(path, [*opts, "OUTPUT_DIR", str(root / "out")])
    trainer = ZeroShotTrainer(cfg)
    trainer._hooks.clear()
    seen = layer_types(trainer.model, lambda: TrainerBase.train(trainer, 0, 2))
    share = seen[torch.float16] / max(sum(seen.values()), 1)
    keep("AMP", f"{share:.0%} of the layers of a training step compute in float16", share > 0.5)


def predict(run: Run, root: Path, keep: Keep) -> None:
    """Photos per second, from files to labels, one and a batch at a time."""
    from zss_d2.predict.predictor import Predictor

    prepared_photos(run, root)
    benchmark = load_benchmark("voc")
    location = prepared_location(benchmark, benchmark.splits["train"])
    files = sorted(location.images.iterdir())[: 2 if run.tiny else 48]
    cfg = run.config("ldvc_voc", "bf16")
    predictor = Predictor(cfg, run.build("ldvc_voc", "bf16").eval())
    words = list(benchmark.classes)
    rates = []
    for batch in (1, run.batch):
        predictor.predict(files[:batch], words, batch=batch)
        start = time.perf_counter()
        results = predictor.predict(files, words, batch=batch)
        rates.append(len(files) / (time.perf_counter() - start))
        assert all(isinstance(result.labels, np.ndarray) for result in results)
    text = f"{rates[0]:.1f} photos/s one at a time, {rates[1]:.1f} in batches of {run.batch}"
    keep("predict with ldvc_voc, bf16", text, None)
