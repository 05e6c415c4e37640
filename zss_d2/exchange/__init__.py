"""Models that come from elsewhere, or go there: released checkpoints, formats of other programs."""
