"""From the config to the parts of `CLIPZSS`."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any

from detectron2.config import CfgNode
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from zss_d2.clip import ClipTowers
from zss_d2.clip.towers import joint_dim
from zss_d2.errors import ZssError
from zss_d2.modeling.attention import check_heads
from zss_d2.modeling.clip_segmentor import prompt_settings
from zss_d2.modeling.losses import NELLoss, SoftmaxLoss
from zss_d2.modeling.methods.clip_zss.classifier import TextClassifier
from zss_d2.modeling.methods.clip_zss.criterion import (
    DistillationCriterion,
    LocalLearning,
    PixelLosses,
)
from zss_d2.modeling.methods.clip_zss.glm import GLM
from zss_d2.modeling.methods.clip_zss.local.teaching import LocalSettings, RegionTeacher
from zss_d2.modeling.methods.clip_zss.plm.loss import PLM
from zss_d2.modeling.methods.clip_zss.plm.pseudo_labels import UNLABELLED
from zss_d2.modeling.methods.clip_zss.plm.regions import RegionSettings
from zss_d2.modeling.methods.clip_zss.plm.synthesizer import Synthesizer
from zss_d2.modeling.methods.clip_zss.students import build_student
from zss_d2.modeling.methods.clip_zss.teacher import Teacher
from zss_d2.modeling.segmentor import ZeroShotSegmentor

logger = logging.getLogger(__name__)

STATISTICS = {
    "imagenet": (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
    "clip": (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD),
}


def build_parts(cls: type[ZeroShotSegmentor], cfg: CfgNode) -> dict[str, Any]:
    """Arguments of `CLIPZSS`; CLIP is built only if ``MODEL.CLIP_ZSS.TEACHER``.

    Raises:
        ZssError: values that exclude each other.
    """
    settings = cfg.MODEL.CLIP_ZSS
    _check(settings)
    dim = joint_dim(cfg.MODEL.CLIP.NAME)
    if settings.TEACHER and _has_synthesizer(settings):
        check_heads(settings.SYNTHESIZER.NUM_HEADS, dim, "MODEL.CLIP_ZSS.SYNTHESIZER.NUM_HEADS")
    base_kwargs = cls.base_kwargs(cfg, *_statistics(settings.STATISTICS))
    student = build_student(cfg, dim)
    towers = ClipTowers.from_config(cfg, plain=True) if settings.TEACHER else None
    return {
        **base_kwargs,
        "size_divisibility": student.size_divisibility,
        "student": student,
        "classifier": _classifier(cfg, base_kwargs["classes"], dim, towers),
        "alpha": settings.ALPHA,
        "cosine": settings.COSINE,
        "learner": _criterion(cfg, base_kwargs, dim, towers) if towers else None,
        "leaky_oracle": cfg.ZERO_SHOT.LEAKY_ORACLE,
    }


def _check(settings: CfgNode) -> None:
    if settings.CE_WEIGHT == 0 and settings.NEL_WEIGHT == 0:
        raise ZssError("MODEL.CLIP_ZSS.CE_WEIGHT and NEL_WEIGHT are both 0; nothing uses labels")
    if settings.TEACHER and settings.LOCAL_WEIGHT > 0 and settings.LOCAL.MAX_REGIONS == 1:
        raise ZssError(
            "MODEL.CLIP_ZSS.LOCAL.MAX_REGIONS is 1 and LOCAL_WEIGHT "
            f"{settings.LOCAL_WEIGHT:g}: the only region has nothing to be told apart from, and "
            "the loss is 0; set MAX_REGIONS to 2 or more, or LOCAL_WEIGHT to 0"
        )
    untrained = settings.BCE_WEIGHT == 0 and settings.DETACH_PROTOTYPES
    if settings.TEACHER and _has_synthesizer(settings) and untrained:
        raise ZssError(
            "MODEL.CLIP_ZSS.DETACH_PROTOTYPES is True and BCE_WEIGHT is 0, so that nothing trains "
            "the synthesizer; set one of them otherwise"
        )


def _statistics(name: str) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation of RGB in 0..255."""
    mean, std = STATISTICS[name]
    return [255 * x for x in mean], [255 * x for x in std]


def _classifier(
    cfg: CfgNode, classes: Sequence[str], dim: int, towers: ClipTowers | None
) -> TextClassifier:
    classifier = TextClassifier(
        classes,
        dim,
        text_encoder=lambda: (towers or ClipTowers.from_config(cfg, plain=True)).text,
        prompt_settings=prompt_settings(cfg),
    ).to(cfg.MODEL.DEVICE)
    if towers:
        classifier.embed_own_classes()
    return classifier


def _criterion(
    cfg: CfgNode, base_kwargs: dict[str, Any], dim: int, towers: ClipTowers
) -> DistillationCriterion:
    settings, oracle = cfg.MODEL.CLIP_ZSS, cfg.ZERO_SHOT.LEAKY_ORACLE
    global_on, pixel_on = settings.GLOBAL_WEIGHT > 0, settings.PSEUDO_WEIGHT > 0
    local_on = settings.LOCAL_WEIGHT > 0 or _has_local_memory(settings)
    if oracle:
        logger.warning(
            "ZERO_SHOT.LEAKY_ORACLE %s: a training looks at hidden labels of unseen classes; its "
            "scores are upper bounds, not results",
            list(oracle),
        )
    teacher = _teacher(settings, base_kwargs, towers) if global_on or pixel_on or local_on else None
    return DistillationCriterion(
        teacher=teacher,
        pixel_losses=_pixel_losses(cfg),
        regions=region_settings(settings) if pixel_on or local_on else None,
        global_learning=GLM(dim, settings.BANK_SIZE, settings.GLOBAL_TEMPERATURE)
        if global_on
        else None,
        pixel_learning=_plm(settings, dim, oracle) if pixel_on else None,
        local_learning=_local_learning(settings, teacher) if local_on else None,
        global_weight=settings.GLOBAL_WEIGHT,
        pseudo_weight=settings.PSEUDO_WEIGHT,
        bce_weight=settings.BCE_WEIGHT,
        loss_stride=settings.LOSS_STRIDE,
        oracle=oracle,
    )


def _local_learning(settings: CfgNode, teacher: Teacher) -> LocalLearning:
    local = settings.LOCAL
    how = LocalSettings(
        cls=local.CLS,
        fill=local.FILL,
        tight=local.TIGHT,
        size=local.SIZE,
        max_regions=local.MAX_REGIONS,
        blocks=local.BLOCKS,
    )
    return LocalLearning(RegionTeacher(teacher, how), settings.LOCAL_WEIGHT, local.TEMPERATURE)


def _teacher(settings: CfgNode, base_kwargs: dict[str, Any], towers: ClipTowers) -> Teacher:
    return Teacher(
        towers.image,
        pixel_mean=towers.pixel_mean,
        pixel_std=towers.pixel_std,
        student_mean=base_kwargs["pixel_mean"],
        student_std=base_kwargs["pixel_std"],
        size=settings.TEACHER_SIZE,
    )


def _pixel_losses(cfg: CfgNode) -> PixelLosses:
    settings, loss = cfg.MODEL.CLIP_ZSS, cfg.MODEL.LOSS
    ce = SoftmaxLoss(weight=settings.CE_WEIGHT, ignore_label=UNLABELLED)
    nel = NELLoss(
        focal_weight=settings.NEL_WEIGHT * loss.FOCAL_WEIGHT,
        focal_alpha=loss.FOCAL_ALPHA,
        focal_gamma=loss.FOCAL_GAMMA,
        dice_weight=settings.NEL_WEIGHT * loss.DICE_WEIGHT,
        ignore_label=UNLABELLED,
    )
    return PixelLosses(
        ce if settings.CE_WEIGHT > 0 else None,
        nel if settings.NEL_WEIGHT > 0 else None,
        settings.NEL_BIAS,
    )


def _has_synthesizer(settings: CfgNode) -> bool:
    return settings.PSEUDO_WEIGHT > 0 and settings.PROTOTYPES == "synthesizer"


def _has_local_memory(settings: CfgNode) -> bool:
    return _has_synthesizer(settings) and settings.SYNTHESIZER.MEMORY == "global_local"


def _plm(settings: CfgNode, dim: int, oracle: Collection[str]) -> PLM:
    parts = settings.SYNTHESIZER
    synthesizer = None
    if _has_synthesizer(settings) and "embeddings" not in oracle:
        synthesizer = Synthesizer(dim, parts.NUM_LAYERS, parts.NUM_HEADS, parts.FFN_DIM)
    return PLM(
        prototypes="oracle" if "embeddings" in oracle else settings.PROTOTYPES,
        synthesizer=synthesizer,
        alpha=settings.ALPHA,
        beta=settings.BETA,
        detach=settings.DETACH_PROTOTYPES,
        bce=settings.BCE_WEIGHT > 0,
        local_memory=_has_local_memory(settings),
    )


def region_settings(settings: CfgNode) -> RegionSettings:
    """How ``MODEL.CLIP_ZSS`` wants pseudo regions to be found."""
    return RegionSettings(
        windows=settings.WINDOWS,
        iterations=settings.ITERATIONS,
        threshold=settings.FUSION_THRESHOLD,
        min_tokens=settings.MIN_TOKENS,
        min_unlabeled_fraction=settings.MIN_UNLABELED_FRACTION,
        unannotated_only=settings.REGIONS == "unannotated",
    )
