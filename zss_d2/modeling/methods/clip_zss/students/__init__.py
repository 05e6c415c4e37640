"""Student encoders; importing this package registers them as Detectron2 backbones."""

from zss_d2.modeling.methods.clip_zss.students.mscan import MSCAN
from zss_d2.modeling.methods.clip_zss.students.mscan_builder import build_mscan_backbone
from zss_d2.modeling.methods.clip_zss.students.smp_features import SmpFeatures
from zss_d2.modeling.methods.clip_zss.students.student import StudentEncoder, build_student
from zss_d2.modeling.methods.clip_zss.students.timm_features import TimmFeatures

__all__ = [
    "MSCAN",
    "SmpFeatures",
    "StudentEncoder",
    "TimmFeatures",
    "build_mscan_backbone",
    "build_student",
]
