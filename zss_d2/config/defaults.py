"""Configuration keys of zss_d2 on top of Detectron2's.

Keys shared by all methods stand here; the keys of one method stand, commented, in
``modeling/methods/<method>/defaults.yaml`` and appear as ``MODEL.<METHOD>``. Those files are read
as data, so a new method needs no change here; one from outside this package calls
`register_method_config`.
"""

from __future__ import annotations

import copy
from collections.abc import Collection

from detectron2.config import CfgNode as CN
from detectron2.config import get_cfg

from zss_d2.config.methods import known_methods
from zss_d2.config.rules import check_effects, check_values
from zss_d2.errors import ZssError


def add_zss_config(cfg: CN) -> None:
    """Add the keys of zss_d2, with their defaults, to ``cfg`` in place."""
    _add_data_config(cfg)
    _add_model_config(cfg)
    _add_solver_config(cfg)
    _add_test_config(cfg)


def default_config() -> CN:
    """Detectron2's config with the keys of zss_d2, all at their defaults."""
    cfg = get_cfg()
    add_zss_config(cfg)
    return cfg


def validate_config(cfg: CN, given: Collection[str] = ()) -> None:
    """Raise `ZssError` for what is legal yaml but can only be a mistake.

    Values out of range, keys that have no effect (`zss_d2.config.rules`), keys that exclude each
    other.

    Args:
        given: dotted keys that somebody names for this very run.
    """
    check_values(cfg)
    check_effects(cfg, default_config(), given)
    mean, std = cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD
    if len(mean) != len(std) or len(mean) not in (0, 3):
        raise ZssError(
            f"MODEL.PIXEL_MEAN is {mean} and MODEL.PIXEL_STD {std}; give three values for each, or "
            "leave both empty"
        )
    if mean and max(*mean, *std) <= 1:
        raise ZssError(
            f"MODEL.PIXEL_MEAN is {mean} and MODEL.PIXEL_STD {std}, but pixels are 0..255; "
            "multiply them by 255"
        )


def _add_data_config(cfg: CN) -> None:
    cfg.ZERO_SHOT = CN()
    # inductive: labels and names of unseen classes are hidden during training.
    # transductive: labels of unseen classes are hidden, their names are in the losses, and pixels
    # without a label get pseudo labels (docs/transductive.md).
    # supervised: every class is trained (upper bound).
    cfg.ZERO_SHOT.SETTING = "inductive"
    # Which training images are used. all: every one, their unseen pixels are ignored.
    # without_unseen: only images that show no unseen class at all, as some of the literature does.
    cfg.ZERO_SHOT.TRAIN_IMAGES = "all"
    # Upper bounds of CLIP-ZSS, whose training looks at the hidden labels of unseen classes:
    # "regions", their masks are the pseudo regions; "embeddings", a pseudo region has the text
    # embedding of its true class. Never a result; results.json names it in the protocol.
    cfg.ZERO_SHOT.LEAKY_ORACLE = ()

    cfg.ZERO_SHOT.SELF_TRAINING = CN()
    # Iteration from which on there are pseudo labels; until then the run is that of the inductive
    # setting, names of unseen classes included. 0: from the start, which MODEL.WEIGHTS must give.
    cfg.ZERO_SHOT.SELF_TRAINING.START = 0
    # Pixels that may get one. unlabelled: all without a seen label, void and unseen alike.
    # unseen_location: those whose ground truth is an unseen class, as in ZegCLIP's released code.
    # That is a leak: where unseen classes are is what a test asks.
    cfg.ZERO_SHOT.SELF_TRAINING.PIXELS = "unlabelled"
    # Whose scores. online: those of the same forward pass. ema: of the moving average of the
    # weights since START. frozen: of the weights at START, and again every ROUNDS iterations. The
    # latter two are without dropout, as in tests, and take a forward pass more. offline: none,
    # but the labels that zss predict has written for the training images.
    cfg.ZERO_SHOT.SELF_TRAINING.SOURCE = "online"
    # m of the moving average m w' + (1 - m) w.
    cfg.ZERO_SHOT.SELF_TRAINING.EMA_MOMENTUM = 0.999
    # 0: never again.
    cfg.ZERO_SHOT.SELF_TRAINING.ROUNDS = 0
    # Output folder of zss predict, with the format labels, for SOURCE offline.
    cfg.ZERO_SHOT.SELF_TRAINING.FOLDER = ""
    # Classes that a pseudo label may be of: "unseen", or "all", where a pixel for which a seen
    # class scores best gets that one.
    cfg.ZERO_SHOT.SELF_TRAINING.CANDIDATES = "unseen"
    # A pseudo label must have this score (0..1, as in tests), or there is none.
    cfg.ZERO_SHOT.SELF_TRAINING.THRESHOLD = 0.0
    # Of every class, this share of its pseudo labels, those of the lowest scores, is left out; by
    # the scores of the last steps (about 100) on all processes. 0: none.
    cfg.ZERO_SHOT.SELF_TRAINING.QUANTILE = 0.0
    # Scales at which an image, plain and mirrored, must get one and the same pseudo label; each is
    # two more forward passes. STRICT's are 1, 1.5, 1.75. Empty: off.
    cfg.ZERO_SHOT.SELF_TRAINING.AGREEMENT = ()
    # Share w of the losses that is taken on labels and pseudo labels together; the rest is taken on
    # labels alone: w L(both) + (1 - w) L(labels).
    cfg.ZERO_SHOT.SELF_TRAINING.WEIGHT = 1.0

    # Batches are padded anyway, and grouping would make the order of images depend on the number of
    # processes.
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = False

    # Descriptions (yaml, see datasets/README.md) of custom datasets; paths relative to the
    # working directory. They are registered as zss_<name>_<split>.
    cfg.DATASETS.CUSTOM = ()

    cfg.INPUT.FORMAT = "RGB"
    # (long, short) edge in px of the box that a training image is fitted into, keeping its aspect,
    # after the box is scaled by a factor drawn uniformly from SCALE_RANGE.
    cfg.INPUT.RESIZE_BASE = (2048, 512)
    cfg.INPUT.SCALE_RANGE = (0.5, 2.0)
    cfg.INPUT.CROP.TYPE = "absolute"
    # A crop in which one class covers more than this share of the labelled pixels is drawn again.
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 0.75
    # Pad training images that are smaller to CROP.SIZE, always; otherwise to the largest of their
    # batch. The padding is the mean colour and unlabelled.
    cfg.INPUT.CROP.PAD = False
    # Photometric distortion: brightness, contrast, saturation and hue, each with probability 0.5.
    cfg.INPUT.COLOR_AUG = True
    # Its arithmetic. detectron2: brightness scales, contrast is around the mean, saturation around
    # grey. mmsegmentation: brightness adds, contrast scales, saturation is that of HSV.
    cfg.INPUT.COLOR_STYLE = "detectron2"
    # Resize training and test images with antialiasing, as Detectron2 (Pillow) does, or without,
    # as mmsegmentation (OpenCV) does.
    cfg.INPUT.ANTIALIAS = True


def _add_model_config(cfg: CN) -> None:
    # Mean and standard deviation of RGB in 0..255; empty: those the CLIP weights were trained with.
    cfg.MODEL.PIXEL_MEAN = []
    cfg.MODEL.PIXEL_STD = []

    # What networks compute in; similarities, losses, pseudo labels and scores are made in single
    # precision whatever it is. auto: bfloat16 on a CUDA device that has it, else float32.
    # bfloat16, float32: that, on any device. "": float32, of earlier versions. Detectron2's
    # SOLVER.AMP, float16 with scaled gradients, is for trainings on a GPU only. There it goes
    # before auto and ""; with the other two it is refused.
    cfg.MODEL.AUTOCAST = "auto"
    # On CUDA, let the networks' products and convolutions that are left in float32 use TF32, ten
    # bits of mantissa. Detectron2's FLOAT32_PRECISION, where it is set, goes before it.
    cfg.MODEL.TF32 = True
    # Keep only what goes into the blocks of the image tower for the backward pass of learned
    # prompts, and compute the rest a second time: less memory, slower.
    cfg.MODEL.CHECKPOINT_BLOCKS = False
    # Backend of torch.compile for the parts of the model, such as "inductor", which needs a C++
    # compiler; empty: off. The first steps, and the first image of a new size, then take longer.
    cfg.MODEL.COMPILE = ""

    cfg.MODEL.CLIP = CN()
    # Any ViT of open_clip.list_models(), or one of zss_d2/clip/model_configs.
    cfg.MODEL.CLIP.NAME = "ViT-B-16"
    # A tag of open_clip (downloaded once), a file, or "" for random weights.
    cfg.MODEL.CLIP.PRETRAINED = "openai"
    # Both towers come with MODEL.WEIGHTS, as in folders of `save_pretrained`; PRETRAINED only says
    # which weights they are, and is not looked for.
    cfg.MODEL.CLIP.FROM_WEIGHTS = False
    # Whether those weights were trained with QuickGELU: "true", "false", or "auto", as is known of
    # them. Of some files nothing is, then GELU is used, with a warning (docs/clip.md).
    cfg.MODEL.CLIP.QUICK_GELU = "auto"
    # What becomes of the patch tokens in the last blocks (docs/training_free.md): "tokens" (the
    # output of the last block), "value" (its value projection only, as MaskCLIP proposes),
    # "value_residual" (that, the residual and the MLP), "sclip", "clearclip", "naclip",
    # "clip_surgery", "gem", or another one that is registered in zss_d2/clip/dense_tokens.
    cfg.MODEL.CLIP.DENSE_TOKENS = "tokens"
    # Their settings.
    cfg.MODEL.CLIP.DENSE = CN()
    # Standard deviation of naclip's window, in patches; the paper's.
    cfg.MODEL.CLIP.DENSE.NACLIP_SIGMA = 5.0
    # l of ResCLIP, with sclip, clearclip and naclip: their attention A becomes
    # 2 ((1 - l) A + l mean(attention of RESCLIP_BLOCKS)); 0: it stays A. Its authors choose it for
    # every data set, from 0.2 to 0.6.
    cfg.MODEL.CLIP.DENSE.RESCLIP_WEIGHT = 0.0
    # Counted from 0 or, negative, from the last one. The paper's are blocks 6 to 9 of 12, which are
    # taken to be counted from 1.
    cfg.MODEL.CLIP.DENSE.RESCLIP_BLOCKS = [5, 6, 7, 8]
    # The last so many blocks have clip_surgery's second path, and gem's. (GEM's package calls six
    # of them depth 7.)
    cfg.MODEL.CLIP.DENSE.SURGERY_DEPTH = 6
    cfg.MODEL.CLIP.DENSE.GEM_DEPTH = 6
    # Steps in which gem draws queries, keys and values to their neighbours.
    cfg.MODEL.CLIP.DENSE.GEM_STEPS = 1
    # How position embeddings are brought to another grid than the trained one: "bilinear", or
    # "bicubic", as training-free methods do; neither is antialiased.
    cfg.MODEL.CLIP.POSITION_RESIZE = "bilinear"
    # Sentences that a class name is put into; their embeddings are averaged per class. ZegCLIP's
    # for VOC has no full stop, and is TEMPLATE_SET "single".
    cfg.MODEL.CLIP.TEMPLATES = ["a photo of a {}."]
    # A set of sentences to use instead: "single", "coco15" or "imagenet80" (clip/templates.py).
    cfg.MODEL.CLIP.TEMPLATE_SET = ""
    # Average over the other names of a class, where its benchmark has some, as well.
    cfg.MODEL.CLIP.SYNONYMS = False
    # Blocks whose dense tokens a decoder gets, counted from 0 or, negative, from the last one.
    cfg.MODEL.CLIP.FEATURE_LAYERS = [-1]

    cfg.MODEL.VISUAL_PROMPTS = CN()
    # Learnable tokens between CLS and patches, a fresh set at every layer; 0 turns them off.
    cfg.MODEL.VISUAL_PROMPTS.LENGTH = 10
    cfg.MODEL.VISUAL_PROMPTS.DROPOUT = 0.1
    # Pass all prompts through one shared linear layer, as ZegCLIP does.
    cfg.MODEL.VISUAL_PROMPTS.PROJECTION = False
    # A trained LayerNorm on the output tokens before CLIP's own, as ZegCLIP has it.
    cfg.MODEL.VISUAL_PROMPTS.NORM = False

    cfg.MODEL.TEXT_PROMPTS = CN()
    # Learnable tokens before the class name, a fresh set at every layer of the text tower; 0 turns
    # them off. With them the sentence is the prompt and the name, and TEMPLATES are not used.
    cfg.MODEL.TEXT_PROMPTS.LENGTH = 0
    # Hand-crafted prompt that they start from, repeated or cut to LENGTH tokens. LDVC says that
    # there is one, "a photo of a ..."; its length is unknown.
    cfg.MODEL.TEXT_PROMPTS.INIT = "a photo of a"
    cfg.MODEL.TEXT_PROMPTS.DROPOUT = 0.0

    # What becomes of class embeddings before the decoder. descriptor: Linear(concat[T * V_g, T])
    # with the CLS token V_g (ZegCLIP's relation descriptor, also LDVC's); none: they stay; or
    # another one that is registered in zss_d2/modeling/two_tower/adapter.py.
    cfg.MODEL.TEXT_ADAPTER = CN()
    cfg.MODEL.TEXT_ADAPTER.NAME = "descriptor"
    # Whether the descriptor starts as the identity on T (unknown for LDVC; ours) or at random, as
    # ZegCLIP's does.
    cfg.MODEL.TEXT_ADAPTER.IDENTITY_INIT = True

    cfg.MODEL.LOSS = CN()
    # nel: every class a yes-or-no of its own, focal + dice (ZegCLIP). softmax: cross-entropy. Or
    # another one that is registered in zss_d2/modeling/losses.
    cfg.MODEL.LOSS.NAME = "nel"
    # Pixels without label in the NEL loss. masked: they take no part. negatives: they show none of
    # the seen classes, which ZegCLIP's released code does; unseen objects are among them.
    cfg.MODEL.LOSS.IGNORED = "masked"
    # Weight of the same loss on the logits of every earlier decoder layer; 0: the last one only.
    cfg.MODEL.LOSS.AUX_WEIGHT = 0.0
    cfg.MODEL.LOSS.CE_WEIGHT = 1.0
    cfg.MODEL.LOSS.FOCAL_WEIGHT = 100.0
    cfg.MODEL.LOSS.FOCAL_ALPHA = 0.25
    cfg.MODEL.LOSS.FOCAL_GAMMA = 2.0
    cfg.MODEL.LOSS.DICE_WEIGHT = 1.0

    for method in known_methods():
        taken = cfg.MODEL.get(method.name.upper(), method.defaults)
        if set(taken) != set(method.defaults):
            raise ZssError(
                f"method {method.name!r}: {method.node} is a key of all methods; give another name"
            )
        cfg.MODEL[method.name.upper()] = CN(copy.deepcopy(dict(method.defaults)))


def _add_solver_config(cfg: CN) -> None:
    # lr(t) = MIN_LR + (lr(0) - MIN_LR) * (1 - t / MAX_ITER) ** POLY_POWER after the warm-up, where
    # lr(0) is BASE_LR times the factor of LR_FACTORS; MIN_LR is the same for all parameters.
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupPolyLR"
    cfg.SOLVER.POLY_POWER = 0.9
    cfg.SOLVER.MIN_LR = 1e-6
    # The first WARMUP_ITERS iterations. linear: a straight line from WARMUP_FACTOR * lr(0) to where
    # the decay is at their end. linear_factor: the decay times a factor that rises from
    # WARMUP_FACTOR to 1, as mmcv has it. constant: WARMUP_FACTOR * lr(0).
    cfg.SOLVER.WARMUP_METHOD = "linear"
    # [name, factor]: parameters whose qualified name starts with `name` learn at factor * BASE_LR.
    cfg.SOLVER.LR_FACTORS = []
    # Parts that a batch of SOLVER.IMS_PER_BATCH images goes through the network in, one after the
    # other, to need less memory; their gradients are averaged. Must divide each process's share.
    cfg.SOLVER.ACCUMULATE = 1
    # Minutes after the last checkpoint at which another one is written, whatever CHECKPOINT_PERIOD
    # says; 0: off.
    cfg.SOLVER.CHECKPOINT_MINUTES = 0.0
    # Checkpoints model_<iteration>.pth that are kept, the newest, beside model_final.pth and
    # model_best.pth; 0: all.
    cfg.SOLVER.CHECKPOINT_KEEP = 5
    # Metric of the first test set, such as "hIoU" or "mIoU-U", whose best value decides what
    # model_best.pth is; "": there is none. It is measured every TEST.EVAL_PERIOD.
    cfg.SOLVER.CHECKPOINT_BEST = ""


def _add_test_config(cfg: CN) -> None:
    # Images or windows that the network sees at once, mirrored ones counted, and images that an
    # evaluation loads at once; more need more memory. Scores change by rounding only. 0: 16 on a
    # GPU, 1 on a CPU.
    cfg.TEST.BATCH = 0
    # On a GPU, record the launches of the network as a CUDA graph for inputs of a size that comes
    # up again, such as windows, and replay them: one image at a time is five times as fast.
    cfg.TEST.CUDA_GRAPHS = True
    cfg.TEST.SLIDE = CN()
    # Average the scores of overlapping square windows instead of one pass over the whole image.
    cfg.TEST.SLIDE.ENABLED = False
    # Window side and step in px of the resized image.
    cfg.TEST.SLIDE.CROP = 512
    cfg.TEST.SLIDE.STRIDE = 426
    # Average with the scores of the mirrored image.
    cfg.TEST.FLIP = False
    # Factors on the size of the resized image; the scores at all of them are averaged.
    cfg.TEST.SCALES = (1.0,)
    # Subtracted from the scores (0..1) of the classes that the model was trained on, to make up for
    # their advantage. ZegCLIP's released code uses 0.1.
    cfg.TEST.SEEN_BIAS = 0.0
    # Pixels whose best score (0..1, less the bias) is lower belong to the class "background", which
    # every test set must have; 0: off.
    cfg.TEST.BACKGROUND_BELOW = 0.0
    # Score maps (K, height, width) of more MiB than this are never built: the model gives the
    # labels alone. Nor does it hold the maps of more images than fit into that. Scores at the size
    # the network sees are still held for TEST.SCALES, or where that size is not the image's.
    cfg.TEST.MAX_SCORES_MIB = 1024
    # Write the predicted labels, in the raw ids of the data set, below OUTPUT_DIR/predictions:
    # "png" (an image each), "json" (Detectron2's sem_seg_predictions.json) or "none".
    cfg.TEST.PREDICTIONS = "none"
    # Images of every test set, evenly spaced, that each evaluation during training shows in
    # TensorBoard: image, ground truth and prediction beside each other; 0: none.
    cfg.TEST.SHOW_IMAGES = 4
    # Keep the confusion matrix of every image, without its zeros (a few KB each), which the report
    # needs for intervals and for its choice of pictures.
    cfg.TEST.PER_IMAGE = True
    # Also measure how fragmented and how consistent predicted regions are, and boundary IoU, on the
    # CPU; what that costs is in docs/evaluation.md.
    cfg.TEST.FRAGMENTATION = True
