"""Default configuration: names and values as in Detectron2, only what this slice honours."""

from __future__ import annotations

from detectron2.config.config import CfgNode

_SEM_SEG_HEAD = {
    "NAME": "SemSegFPNHead",
    "IN_FEATURES": ["p2", "p3", "p4", "p5"],
    "IGNORE_VALUE": 255,  # label of pixels that count for nothing
    "NUM_CLASSES": 54,
    "CONVS_DIM": 128,
    "COMMON_STRIDE": 4,
    "NORM": "GN",
    "LOSS_WEIGHT": 1.0,
}
_MODEL = {
    "DEVICE": "cuda",
    "META_ARCHITECTURE": "GeneralizedRCNN",
    "WEIGHTS": "",  # file to start from; empty: from scratch
    "PIXEL_MEAN": [103.530, 116.280, 123.675],  # in the channel order of INPUT.FORMAT
    "PIXEL_STD": [1.0, 1.0, 1.0],
    "BACKBONE": {"NAME": "build_resnet_backbone", "FREEZE_AT": 2},
    "SEM_SEG_HEAD": _SEM_SEG_HEAD,
}
_INPUT = {
    "MIN_SIZE_TRAIN": (800,),  # pixels of the shorter side; MAX_: of the longer
    "MIN_SIZE_TRAIN_SAMPLING": "choice",  # or "range": between two sizes
    "MAX_SIZE_TRAIN": 1333,
    "MIN_SIZE_TEST": 800,  # 0: keep the size
    "MAX_SIZE_TEST": 1333,
    "RANDOM_FLIP": "horizontal",  # or "vertical", "none"
    # TYPE is "relative" or "relative_range" (fractions), "absolute" or "absolute_range" (pixels).
    "CROP": {"ENABLED": False, "TYPE": "relative_range", "SIZE": [0.9, 0.9]},
    "FORMAT": "BGR",
    "MASK_FORMAT": "polygon",
}
_DATALOADER = {
    "NUM_WORKERS": 4,  # per process
    "ASPECT_RATIO_GROUPING": True,  # batch wide with wide, tall with tall
    "SAMPLER_TRAIN": "TrainingSampler",
    "REPEAT_THRESHOLD": 0.0,
    "REPEAT_SQRT": True,
    "FILTER_EMPTY_ANNOTATIONS": True,
}
_SOLVER = {
    "LR_SCHEDULER_NAME": "WarmupMultiStepLR",
    "MAX_ITER": 40000,
    "BASE_LR": 0.001,
    "BASE_LR_END": 0.0,  # where WarmupCosineLR ends
    "MOMENTUM": 0.9,
    "NESTEROV": False,
    "WEIGHT_DECAY": 0.0001,
    "WEIGHT_DECAY_NORM": 0.0,
    "WEIGHT_DECAY_BIAS": None,  # None: WEIGHT_DECAY
    "BIAS_LR_FACTOR": 1.0,
    "GAMMA": 0.1,
    "STEPS": (30000,),  # iterations from which the rate is multiplied by GAMMA once more
    "NUM_DECAYS": 3,
    "WARMUP_FACTOR": 0.001,
    "WARMUP_ITERS": 1000,
    "WARMUP_METHOD": "linear",
    "RESCALE_INTERVAL": False,
    "CHECKPOINT_PERIOD": 5000,  # iterations
    "IMS_PER_BATCH": 16,  # over all processes
    "REFERENCE_WORLD_SIZE": 0,
    # CLIP_TYPE is "value" or "norm", of each parameter by itself.
    "CLIP_GRADIENTS": {"ENABLED": False, "CLIP_TYPE": "value", "CLIP_VALUE": 1.0, "NORM_TYPE": 2.0},
    "AMP": {"ENABLED": False},
}
_TEST_AUG = {
    "ENABLED": False,
    "MIN_SIZES": (400, 500, 600, 700, 800, 900, 1000, 1100, 1200),
    "MAX_SIZE": 4000,
    "FLIP": True,
}

DEFAULTS = CfgNode(
    {
        "VERSION": 2,
        "MODEL": _MODEL,
        "INPUT": _INPUT,
        "DATASETS": {"TRAIN": (), "TEST": ()},  # names of registered data sets
        "DATALOADER": _DATALOADER,
        "SOLVER": _SOLVER,
        # EXPECTED_RESULTS: [[task, metric, value, tolerance], ...]; EVAL_PERIOD 0: at the end only.
        "TEST": {"EXPECTED_RESULTS": [], "EVAL_PERIOD": 0, "AUG": _TEST_AUG},
        "OUTPUT_DIR": "./output",
        "SEED": -1,  # negative: drawn at start
        "CUDNN_BENCHMARK": False,
        "FLOAT32_PRECISION": "",  # "highest", "high", "medium"; empty: torch's own
        "VIS_PERIOD": 0,  # iterations; 0: never
        "GLOBAL": {"HACK": 1.0},
    }
)
