"""Default configuration: names and values as in Detectron2, only what this slice honours."""

_MODEL = {
    "DEVICE": "cuda",
    "META_ARCHITECTURE": "GeneralizedRCNN",
    "WEIGHTS": "",  # file to start from; empty: from scratch
    "PIXEL_MEAN": [103.530, 116.280, 123.675],  # in the channel order of INPUT.FORMAT
    "PIXEL_STD": [1.0, 1.0, 1.0],
    "BACKBONE": {"NAME": "build_resnet_backbone"},
    "SEM_SEG_HEAD": {"NAME": "SemSegFPNHead", "NUM_CLASSES": 54, "IGNORE_VALUE": 255},
}
_INPUT = {  # for mappers to read
    "MIN_SIZE_TRAIN": (800,),  # pixels of the shorter side; MAX_: of the longer
    "MIN_SIZE_TRAIN_SAMPLING": "choice",  # or "range": between two sizes
    "MAX_SIZE_TRAIN": 1333,
    "MIN_SIZE_TEST": 800,  # 0: keep the size
    "MAX_SIZE_TEST": 1333,
    "RANDOM_FLIP": "horizontal",  # or "vertical", "none"
    "CROP": {"ENABLED": False, "TYPE": "relative_range", "SIZE": [0.9, 0.9]},
    "FORMAT": "BGR",
}
_DATALOADER = {
    "NUM_WORKERS": 4,  # per process
    "ASPECT_RATIO_GROUPING": True,  # batch wide with wide, tall with tall
    "SAMPLER_TRAIN": "TrainingSampler",
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
    "GAMMA": 0.1,
    "STEPS": (30000,),  # iterations from which the rate is multiplied by GAMMA once more
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
DEFAULTS = {
    "VERSION": 2,
    "MODEL": _MODEL,
    "INPUT": _INPUT,
    "DATASETS": {"TRAIN": (), "TEST": ()},  # names of registered data sets
    "DATALOADER": _DATALOADER,
    "SOLVER": _SOLVER,
    # EXPECTED_RESULTS: [[task, metric, value, tolerance], ...]; EVAL_PERIOD 0: at the end only.
    "TEST": {"EXPECTED_RESULTS": [], "EVAL_PERIOD": 0},
    "OUTPUT_DIR": "./output",
    "SEED": -1,  # negative: drawn at start
    "CUDNN_BENCHMARK": False,
}
