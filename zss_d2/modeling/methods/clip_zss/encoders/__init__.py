"""Student encoders; importing this package registers them as Detectron2 backbones."""

from zss_d2.modeling.methods.clip_zss.encoders.mscan import MSCAN
from zss_d2.modeling.methods.clip_zss.encoders.mscan_builder import build_mscan_backbone
from zss_d2.modeling.methods.clip_zss.encoders.smp_features import SmpFeatures
from zss_d2.modeling.methods.clip_zss.encoders.student import StudentEncoder, build_student
from zss_d2.modeling.methods.clip_zss.encoders.timm_features import TimmFeatures

__all__ = [
    "MSCAN",
    "SmpFeatures",
    "StudentEncoder",
    "TimmFeatures",
    "build_mscan_backbone",
    "build_student",
]
