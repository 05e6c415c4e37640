"""Data: benchmark specs, their registration with Detectron2, and the way into a model."""
