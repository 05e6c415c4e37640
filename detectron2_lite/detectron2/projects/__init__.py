"""The parts of Detectron2's bundled projects that are covered."""
