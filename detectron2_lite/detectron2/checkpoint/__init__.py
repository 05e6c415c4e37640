"""Saving and loading training state."""

from typing import Any

from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from fvcore.common.checkpoint import Checkpointer
from fvcore.common.checkpoint import PeriodicCheckpointer as PeriodicCheckpointer
from torch import nn


class DetectionCheckpointer(Checkpointer):
    """Saves on rank 0; every rank loads the file by itself, and a model in DDP without the wrapper.

    Loading is not strict: missing, unexpected and misshapen entries are logged, never raised, so
    whoever needs a complete match has to check.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool | None = None,
        **checkpointables: Any,
    ) -> None:
        save_to_disk = comm.is_main_process() if save_to_disk is None else save_to_disk
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.path_manager = PathManager

    def _load_file(self, f: str) -> dict[str, Any]:
        """The file's content; a bare state dict is taken as the model's."""
        loaded = super()._load_file(f)
        return loaded if "model" in loaded else {"model": loaded}
