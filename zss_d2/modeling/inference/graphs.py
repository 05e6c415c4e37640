"""Launches of the network, recorded once as a CUDA graph and replayed.

A network in half precision needs a few milliseconds of a GPU for one image, and several times as
long to be launched, kernel by kernel. A replay is one launch.

A graph is a list of kernels with addresses: it is right as long as what it reads lies where it lay
and stands for what it stood for. So a record holds on to all that it reads, and records end with
every change of the weights.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from zss_d2.utils.weights import is_traced, stamp_of

logger = logging.getLogger(__name__)

Compute = Callable[[Tensor], Tensor]

# Graphs that are kept: the ones that were used last.
MOST_GRAPHS = 8
# An input of a size is computed as ever so many times before its launches are recorded, which
# costs a few passes: sizes of single images are not worth it.
BEFORE_RECORDING = 2
# Kinds of input that are counted for that.
_COUNTED = 256
# Once there are MOST_GRAPHS, one gives way to another at most every so many calls: else images of
# very many sizes would be recorded over and over.
REST = 64
# Passes on the stream of the recording before it, which let libraries choose their kernels.
_WARM_UP = 2


class Recorder(Protocol):
    """Makes replays that share their memory: they are not run at the same time."""

    def __call__(self, compute: Compute, images: Tensor) -> Compute:
        """A function that does to images of this shape and type what ``compute`` does."""


class _Record(NamedTuple):
    replay: Compute
    held: list[Tensor]  # read by the graph, and not made by it


class GraphedLogits:
    """Logits by replaying graphs where that is possible, and computed as ever otherwise.

    They are computed in training mode or with gradients, on another device, while a model is
    compiled, exported or traced, for inputs of a kind that has not come up often enough, and from
    the first recording on that fails, which is said once.
    """

    def __init__(
        self, new_recorder: Callable[[], Recorder] | None = None, device_type: str = "cuda"
    ):
        """
        Args:
            new_recorder: called for the first recording, and for the first one after a change.
            device_type: of the images that are served.
        """
        self._new_recorder = new_recorder or CudaRecorder
        self._device_type = device_type
        self._lock = threading.Lock()
        self._failed = False
        self.clear()

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy of a model, or one in another process, records for itself.
        return type(self), (self._new_recorder, self._device_type)

    def clear(self) -> None:
        """Forget all graphs; their memory is free again."""
        self._records: OrderedDict[Hashable, _Record] = OrderedDict()
        self._counts: OrderedDict[Hashable, int] = OrderedDict()
        self._rest = 0  # calls
        self._recorder: Recorder | None = None
        self._weights: list[tuple[int, int, bool]] | None = None
        # Where they are; faster than a walk through all modules at every call.
        self._modules: list[nn.Module] = []

    def __len__(self) -> int:
        return len(self._records)

    def __call__(
        self, module: nn.Module, key: Hashable, compute: Compute, images: Tensor
    ) -> Tensor:
        """What ``compute(images)`` gives.

        Args:
            module: whose weights it depends on.
            key: all else that it depends on, but for shape and type of the images.
            images: (B, 3, H, W).
        """
        if not self._serves(module, images):
            return compute(images)
        autocast = (
            torch.is_autocast_enabled(images.device.type),
            torch.get_autocast_dtype(images.device.type),
        )
        key = (key, images.shape, images.dtype, images.device, autocast)
        with self._lock:
            self._forget_if_changed(module)
            self._rest -= 1
            record = self._records.get(key)
            if record is None and self._is_due(key):
                record = self._record(key, compute, images)
            if record is not None:
                self._records.move_to_end(key)
                return record.replay(images)
        return compute(images)

    def _serves(self, module: nn.Module, images: Tensor) -> bool:
        return not (
            self._failed
            or images.device.type != self._device_type
            or module.training
            or torch.is_grad_enabled()
            or is_traced()
        )

    def _forget_if_changed(self, module: nn.Module) -> None:
        """Forget the graphs of weights that were replaced or written to.

        Not all that trains them leaves a trace: a segmentor forgets them in training mode too.
        """
        self._modules = self._modules or list(module.modules())
        weights = [
            stamp_of(x)
            for part in self._modules
            for tensors in (part._parameters, part._buffers)
            for x in tensors.values()
            if x is not None
        ]
        if weights != self._weights:
            modules = self._modules
            self.clear()
            self._weights, self._modules = weights, modules

    def _is_due(self, key: Hashable) -> bool:
        count = self._counts.pop(key, 0)
        self._counts[key] = count + 1
        if len(self._counts) > _COUNTED:
            self._counts.popitem(last=False)
        return count >= BEFORE_RECORDING and self._rest <= 0

    def _record(self, key: Hashable, compute: Compute, images: Tensor) -> _Record | None:
        try:
            # Tensors that are made in inference mode cannot be written to outside of it later.
            with torch.inference_mode(False), torch.no_grad(), _no_autocast_cache():
                self._recorder = self._recorder or self._new_recorder()
                static = images.clone()
                held = tensors_read(compute, static)
                record = _Record(self._recorder(compute, static), held)
        except RuntimeError as error:
            logger.warning(
                "TEST.CUDA_GRAPHS has no effect from here on: recording failed (%s)",
                str(error).partition("\n")[0],
            )
            self.clear()
            self._failed = True
            return None
        self._records[key] = record
        if len(self._records) > MOST_GRAPHS:
            self._records.popitem(last=False)
        if len(self._records) == MOST_GRAPHS:
            self._rest = REST
        return record


class CudaRecorder:
    """Records `torch.cuda.CUDAGraph` s, whose memory is one pool."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, compute: Compute, images: Tensor) -> Compute:
        """See `Recorder`; ``images`` become the input of the graph."""
        with torch.cuda.device(images.device):
            stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP):
                    compute(images)
            torch.cuda.current_stream().wait_stream(stream)
            # thread_local: other threads, such as one that pins memory, may go on.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"
            ):
                result = compute(images)

        def replay(new: Tensor) -> Tensor:
            images.copy_(new)
            graph.replay()
            # The next replay, of any graph of the pool, writes there.
            return result.clone()

        return replay


def tensors_read(compute: Compute, images: Tensor) -> list[Tensor]:
    """The tensors that ``compute(images)`` reads and does not make, ``images`` not counted.

    Weights, but also embeddings of class names that a cache may let go of.
    """
    with _Reads() as reads:
        reads.made[images] = True
        compute(images)
    return list(reads.others.keys())


class _Reads(TorchDispatchMode):
    """Sees every operation: what it is given, and what it makes."""

    def __init__(self) -> None:
        super().__init__()
        self.made = WeakIdKeyDictionary()
        self.others: dict[Tensor, bool] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for x in tree_leaves((args, kwargs or {})):
            if isinstance(x, Tensor) and x not in self.made:
                self.others[x] = True
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            # What is given back as it came was not made.
            if isinstance(x, Tensor) and x not in self.others:
                self.made[x] = True
        return result


@contextmanager
def _no_autocast_cache() -> Iterator[None]:
    """Cast weights where they are used, within the graph: the cache ends with the context."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)
