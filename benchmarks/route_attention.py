#!/usr/bin/env python
"""Route attention against full attention over the same tokens, forward and backward, in one run.

python benchmarks/route_attention.py --grids 32 64 --repeats 5

Memory is what a step leaves allocated at most, from torch's own record on a GPU and from its
profiler on a CPU.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from bench.timing import in_turn, ratios, spread, synchronise
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from zss_d2.modeling.methods.ldvc.route_attention import RouteAttention


class FullAttention(RouteAttention):
    """The same layer with one window: every token attends to every token."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__(dim, num_heads, windows=1, topk=1)


def step(layer: nn.Module, tokens: Tensor, backward: bool) -> None:
    """One pass; the results are thrown away."""
    with torch.set_grad_enabled(backward):
        out = layer(tokens)
        if backward:
            out.sum().backward()
    synchronise(tokens.device.type)


def peak_mib(layer: nn.Module, tokens: Tensor, backward: bool) -> float:
    """Most memory that a step has allocated at a time, MiB."""
    if tokens.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(layer, tokens, backward)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step(layer, tokens, backward)
    allocated = most = 0
    changes = (e for e in record.profiler.kineto_results.events() if e.name() == "[memory]")
    for event in sorted(changes, key=lambda e: e.start_ns()):
        allocated += event.nbytes()
        most = max(most, allocated)
    return most / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--grids", nargs="+", type=int, default=[32, 64], help="tokens per side")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--windows", type=int, default=4, help="per side")
    parser.add_argument("--topk", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5, help="paired measurements")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()

    routed = RouteAttention(args.dim, args.heads, args.windows, args.topk).to(args.device)
    full = FullAttention(args.dim, args.heads).to(args.device)
    print(
        f"{args.dim} channels, {args.heads} heads, {args.windows} x {args.windows} windows, "
        f"top {args.topk}; {args.device}, {torch.get_num_threads()} threads, fp32"
    )
    for grid in args.grids:
        tokens = torch.randn(1, grid, grid, args.dim, device=args.device, requires_grad=True)
        for backward in (False, True):
            for layer in (routed, full):
                step(layer, tokens, backward)
            calls = {
                "route": lambda b=backward, x=tokens: step(routed, x, b),
                "full": lambda b=backward, x=tokens: step(full, x, b),
            }
            rounds = in_turn(calls, args.repeats)
            ours, plain = (statistics.median(times[name] for times in rounds) for name in calls)
            memory = [peak_mib(layer, tokens, backward) for layer in (routed, full)]
            print(
                f"{grid} x {grid} {'forward + backward' if backward else 'forward':18s} "
                f"route {ours * 1e3:7.1f} ms {memory[0]:6.0f} MiB, "
                f"full {plain * 1e3:7.1f} ms {memory[1]:6.0f} MiB; time ratio "
                f"{spread(ratios(rounds, 'route', 'full'))}"
            )


if __name__ == "__main__":
    main()
