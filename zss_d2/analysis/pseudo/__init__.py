"""Pseudo labels of self-training against the ground truth."""
