"""Seeds."""

import logging
import os
import random
import secrets

import numpy as np
import torch


def seed_all_rng(seed: int | None = None) -> None:
    """Seed python, numpy and torch (all devices); None draws a seed and logs it."""
    if seed is None:
        seed = secrets.randbelow(2**31)
        logging.getLogger(__name__).info("Using a random seed drawn now: %d", seed)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    os.environ["PYTHONHASHSEED"] = str(seed)  # read by processes started from here on
