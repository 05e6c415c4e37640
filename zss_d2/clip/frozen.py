"""Frozen weights in the precision of an autocast, cast once instead of at every call."""

from __future__ import annotations

import copy
import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

from zss_d2.utils.weights import is_traced, stamp_of

T = TypeVar("T")

# Beside those of linear layers and convolutions: weights of open_clip that enter products.
_IN_PRODUCTS = ("in_proj_weight", "in_proj_bias", "proj", "class_embedding")


class FrozenCopy(Generic[T]):
    """Stands in for frozen modules while `torch.autocast` is on.

    Autocast remembers casts of weights that learn, for the time of a step, and makes those of
    frozen ones anew at every call. The copy shares everything with the original but the weights of
    products, convolutions and LayerNorms, which it has in half precision: two bytes more for each
    of them. Products give what they give under autocast, bit for bit. So do LayerNorms of single
    precision. Tokens in half precision, which autocast brings to single and back for them, they
    read and write as they are; what they add up is in single precision all the same.

    The copy is no part of the state. It follows when weights are written to, in place where their
    shapes allow it (so that a captured CUDA graph stays right), and is left behind when its owner
    is copied or pickled.
    """

    def __init__(self) -> None:
        self._held: _Held | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type, tuple]:
        return FrozenCopy, ()

    def of(self, source: T, device: torch.device) -> T:
        """``source``, or its copy where autocast is on.

        Args:
            source: a module, or a tuple of modules, parameters and None.

        Returns:
            ``source`` itself if no autocast is on for the device, for a graph that is traced, which
            would not know the copy's weights, or if one of the weights learns.
        """
        if not torch.is_autocast_enabled(device.type) or is_traced():
            return source
        dtype, held = torch.get_autocast_dtype(device.type), self._held
        if held is None or held.dtype != dtype or held.stamp != _stamp(source, held.modules):
            with self._lock:
                held = self._held = _renewed(self._held, source, dtype)
        return held.copy

    def refresh(self, source: T) -> None:
        """Bring the copy, if there is one, in step with the weights now, not at the next call."""
        with self._lock:
            if self._held is not None:
                self._held = _renewed(self._held, source, self._held.dtype)

    def clear(self) -> None:
        """Give its memory back."""
        self._held = None


class _Held(NamedTuple):
    dtype: torch.dtype
    copy: Any
    modules: list[nn.Module]  # of the source
    stamp: list[tuple]
    pairs: list[tuple[Tensor, Tensor]]  # all weights of the source and what stands for them


def remembered(cache: OrderedDict[tuple, T], key: tuple, make: Callable[[], T], limit: int) -> T:
    """What ``cache`` has for a key, made if it has nothing; what was not used for longest goes.

    Other threads may add to the cache or clear it at any point.
    """
    value = cache.pop(key, None)
    if value is None:
        value = make()
    cache[key] = value
    with suppress(KeyError):  # nothing is left to go
        while len(cache) > limit:
            cache.popitem(last=False)
    return value


def _parts(source: Any) -> tuple:
    return source if isinstance(source, tuple) else (source,)


def _stamp(source: Any, modules: list[nn.Module]) -> list[tuple]:
    bare = [part for part in _parts(source) if isinstance(part, Tensor)]
    inside = [p for m in modules for p in m._parameters.values() if p is not None]
    return [stamp_of(parameter) for parameter in (*bare, *inside)]


def _weights(source: Any, modules: list[nn.Module]) -> Iterator[tuple[Tensor, bool]]:
    """All weights, and of each whether the copy has it in half precision."""
    for part in _parts(source):
        if isinstance(part, Tensor):
            yield part, True
    for module in modules:
        halved = isinstance(module, (nn.Linear, _ConvNd, nn.LayerNorm))
        for name, parameter in module._parameters.items():
            if parameter is not None:
                yield parameter, halved or name in _IN_PRODUCTS


@torch.no_grad()
def _renewed(held: _Held | None, source: Any, dtype: torch.dtype) -> _Held:
    """The copy of the weights now; in the memory of the one before if that fits."""
    parts = [part for part in _parts(source) if isinstance(part, nn.Module)]
    modules = [module for part in parts for module in part.modules()]
    weights = list(_weights(source, modules))
    stamp = _stamp(source, modules)
    if any(parameter.requires_grad for parameter, _ in weights):
        return _Held(dtype, source, modules, stamp, [])
    with torch.inference_mode(False):  # it must serve training too
        if held is not None and held.dtype == dtype and _fits(held, weights):
            for (now, is_cast), (_, half) in zip(weights, held.pairs, strict=True):
                if is_cast:
                    half.copy_(now)
            return held._replace(modules=modules, stamp=stamp)
        pairs = [
            (p, nn.Parameter(p.detach().to(dtype, copy=True), False) if is_cast else p)
            for p, is_cast in weights
        ]
    memo: dict[int, Any] = {id(parameter): other for parameter, other in pairs}
    for module in modules:
        memo |= {id(buffer): buffer for buffer in module._buffers.values()}
        # The same ones: who watches a module of the original watches that of the copy.
        memo |= {id(value): value for key, value in vars(module).items() if "hooks" in key}
    stand_in = copy.deepcopy(source, memo)
    copied = [part for part in _parts(stand_in) if isinstance(part, nn.Module)]
    for module, norm in zip(modules, (m for part in copied for m in part.modules()), strict=True):
        if isinstance(norm, nn.LayerNorm):
            norm.forward = functools.partial(_normed, module, norm, dtype)
    return _Held(dtype, stand_in, modules, stamp, pairs)


def _normed(single: nn.LayerNorm, half: nn.LayerNorm, dtype: torch.dtype, x: Tensor) -> Tensor:
    """What a LayerNorm of the copy does."""
    norm = half if x.dtype == dtype else single
    with torch.autocast(x.device.type, enabled=False):
        x = x.to(norm.weight)
        return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def _fits(held: _Held, weights: list[tuple[Tensor, bool]]) -> bool:
    """Whether the weights can be written into the copy, which shares the others."""
    return len(weights) == len(held.pairs) and all(
        (now.shape, now.device) == (half.shape, half.device) if is_cast else now is half
        for (now, is_cast), (_, half) in zip(weights, held.pairs, strict=True)
    )
