"""Configuration nodes, their defaults, and building objects from them."""

from detectron2.config.config import CfgNode as CfgNode
from detectron2.config.config import configurable as configurable
from detectron2.config.config import get_cfg as get_cfg
