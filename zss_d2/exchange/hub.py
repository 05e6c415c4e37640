"""Model folders by the methods that huggingface_hub gives models: nothing else imports this.

HubModel.from_pretrained("SOMEBODY/ldvc-voc").predictor.predict("photo.jpg", ["cat", "sofa"])
HubModel(zss_d2.load_model("output/ldvc_voc")).push_to_hub("ME/ldvc-voc")
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from huggingface_hub import ModelHubMixin, snapshot_download

from zss_d2.api import load_model
from zss_d2.config.model_folder import ABOUT, CARD, CONFIG, WEIGHTS
from zss_d2.predict.predictor import Predictor

# The files of a folder; whatever else a repository holds is not fetched.
_PATTERNS = [ABOUT, CARD, CONFIG, WEIGHTS, "dataset_*.yaml"]


class HubModel(ModelHubMixin, library_name="zss_d2"):
    """A `Predictor` with ``from_pretrained``, ``save_pretrained`` and ``push_to_hub``.

    Nothing is uploaded but by ``push_to_hub``; what is written, and what of it is run (nothing), is
    the same as by `Predictor.save_pretrained` and `zss_d2.load_model`.
    """

    def __init__(self, predictor: Predictor):
        """
        Args:
            predictor: what `zss_d2.load_model` returns.
        """
        self.predictor = predictor

    def _save_pretrained(self, save_directory: Path) -> None:
        self.predictor.save_pretrained(save_directory)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        device: str = "auto",
        **others: Any,
    ) -> HubModel:
        """The model of a repository on the hub, or of a folder here.

        Args:
            model_id: ``OWNER/NAME``, or the path of a folder.
            revision, cache_dir, force_download, local_files_only, token: see ``snapshot_download``.
            device: see `zss_d2.load_model`.
            others: what another version of huggingface_hub hands on, of no use here.
        """
        folder = model_id
        if not os.path.isdir(model_id):
            folder = snapshot_download(
                model_id,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
                allow_patterns=_PATTERNS,
            )
        return cls(load_model(folder, device=device))
