"""One training run as a value: every setting that decides it, and its digest."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field

from roadseg.errors import InputError, nearest, not_allowed


def rule(default, allowed: str, check):
    """Return a dataclass field that carries its own range: `check(value)` must hold."""
    return field(default=default, metadata={"allowed": allowed, "check": check})


def _one_of(default, *choices):
    return rule(default, "one of " + ", ".join(choices), lambda v: v in choices)


FORMS_OF_WEIGHTS = "imagenet, scenes:N, study:NAME/ARM, file:PATH or hub:NAME"


def _is_source(text: str) -> bool:
    kind, _, rest = text.partition(":")
    if text == "imagenet":
        return True
    if kind == "scenes":
        return rest.isascii() and rest.isdigit() and int(rest) > 0
    if kind == "study":
        return rest.count("/") == 1 and all(rest.split("/"))
    return kind in ("file", "hub") and bool(rest)


# Hyperparameters that only change what another one does: (name, what must be set for it, in words).
COMPANIONS = (
    ("poly_power", lambda r: r.schedule == "poly", "schedule: poly"),
    ("cycles", lambda r: r.schedule == "cosine", "schedule: cosine"),
    ("ohem_kept", lambda r: r.ohem_threshold < 1, "ohem_threshold below 1"),
    ("pretrained_part", lambda r: r.pretrained, "pretrained"),
    ("pretrain_steps", lambda r: r.pretrained.startswith("scenes:"), "pretrained: scenes:N"),
    ("freeze_stages", lambda r: r.pretrained, "pretrained"),
    ("freeze_norm", lambda r: r.pretrained, "pretrained"),
    ("teacher", lambda r: r.distill_weight > 0, "distill_weight above 0"),
    ("distill_weight", lambda r: r.teacher, "a teacher"),
    ("distill_temperature", lambda r: r.teacher, "a teacher"),
    ("lr_search_steps", lambda r: r.lr_search != (1.0,), "lr_search"),
)
TEST_HYPERPARAMETERS = ("test_scales", "test_flip")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides one training run, seed included.

    Two recipes with equal settings are the same run, whatever they are called. A hyperparameter
    that belongs to a trick has a *neutral* default, at which the trick is absent from the
    computation and not merely weak. Defaults may be added to, never edited:
    `digest` hashes what differs from them, and an edited default would give an old run a new
    meaning.

    Raises
    ------
    InputError : a value of the wrong type or out of range, or settings that contradict each other
    """

    seed: int = rule(0, "a whole number >= 0", lambda v: v >= 0)

    # A network's name: 'baseline:0.25', 'fcn8s:vgg16', 'smp:unet:resnet18', ... (see
    # models.build). The next two are for the baselines only.
    network: str = rule("baseline", "a network's name", bool)
    batch_norm: bool = rule(False, "true or false", lambda v: True)
    residual: bool = rule(False, "true or false", lambda v: True)
    dropout: float = rule(0.0, "a probability in [0, 1)", lambda v: 0 <= v < 1)

    # Where the weights start. '' is at random; otherwise 'imagenet', 'scenes:N', 'study:NAME/ARM',
    # 'file:PATH' or 'hub:NAME' (see training/warm_start.py).
    pretrained: str = rule("", FORMS_OF_WEIGHTS, lambda v: not v or _is_source(v))
    pretrained_part: str = _one_of("encoder", "encoder", "network")
    pretrain_steps: int = rule(1000, "a whole number >= 1", lambda v: v >= 1)
    # What of the encoder keeps the weights it starts with (see models/freeze.py).
    freeze_stages: int = rule(0, "a whole number in 0..5", lambda v: 0 <= v <= 5)
    freeze_norm: bool = rule(False, "true or false", lambda v: True)

    # Budget, in steps: a trick that alters data or batch must not silently alter training time.
    steps: int = rule(1000, "a whole number >= 1", lambda v: v >= 1)
    batch_size: int = rule(4, "a whole number >= 1", lambda v: v >= 1)

    # Optimisation. The defaults are the course baseline's: Adam, 3e-4, fixed.
    optimizer: str = _one_of("adam", "adam", "adamw")
    lr: float = rule(0.0003, "a number > 0", lambda v: v > 0)
    # Factors on lr that short trainings try first (see training/lr_search.py); at (1.0,) none do.
    lr_search: tuple = rule(
        (1.0,), "a list of different factors in [0.001, 1000]",
        lambda v: v and len(set(v)) == len(v) and all(0.001 <= factor <= 1000 for factor in v),
    )  # fmt: skip
    lr_search_steps: int = rule(300, "a whole number >= 1", lambda v: v >= 1)
    encoder_lr: float = rule(1.0, "a factor in (0, 10]", lambda v: 0 < v <= 10)
    weight_decay: float = rule(0.0, "a number >= 0", lambda v: v >= 0)
    schedule: str = _one_of("fixed", "fixed", "poly", "cosine")
    poly_power: float = rule(0.9, "a number > 0", lambda v: v > 0)
    cycles: int = rule(1, "a whole number >= 1", lambda v: v >= 1)
    warmup_steps: int = rule(0, "a whole number >= 0", lambda v: v >= 0)
    ema_decay: float = rule(0.0, "a number in [0, 1)", lambda v: 0 <= v < 1)

    # Augmentation, neutral at these values.
    flip: float = rule(0.0, "a probability in [0, 1]", lambda v: 0 <= v <= 1)
    scale_jitter: float = rule(1.0, "a zoom factor in [1, 8]", lambda v: 1 <= v <= 8)
    colour_jitter: float = rule(0.0, "a strength in [0, 1)", lambda v: 0 <= v < 1)
    hue_jitter: float = rule(0.0, "an angle in [0, 180] degrees", lambda v: 0 <= v <= 180)
    crop: float = rule(1.0, "a share of each side in (0, 1]", lambda v: 0 < v <= 1)
    size_jitter: float = rule(1.0, "a size factor in [1, 4]", lambda v: 1 <= v <= 4)

    # The loss: cross-entropy over labelled pixels, with these at their neutral values.
    class_balance: float = rule(0.0, "a number in [0, 1]", lambda v: 0 <= v <= 1)
    class_power: float = rule(0.0, "an exponent in [0, 1]", lambda v: 0 <= v <= 1)
    ohem_threshold: float = rule(1.0, "a probability in (0, 1]", lambda v: 0 < v <= 1)
    ohem_kept: int = rule(10000, "a whole number >= 1", lambda v: v >= 1)
    label_smoothing: float = rule(0.0, "a number in [0, 1)", lambda v: 0 <= v < 1)
    focal_gamma: float = rule(0.0, "an exponent in [0, 10]", lambda v: 0 <= v <= 10)
    dice_weight: float = rule(0.0, "a weight in [0, 100]", lambda v: 0 <= v <= 100)
    lovasz_weight: float = rule(0.0, "a weight in [0, 100]", lambda v: 0 <= v <= 100)
    aux_weight: float = rule(0.0, "a weight in [0, 100]", lambda v: 0 <= v <= 100)

    # Distillation: the teacher is a network's name or 'study:NAME/ARM' (training/warm_start.py).
    teacher: str = rule("", "a network's name or study:NAME/ARM", lambda v: True)
    distill_weight: float = rule(0.0, "a weight in [0, 100]", lambda v: 0 <= v <= 100)
    distill_temperature: float = rule(4.0, "a number > 0", lambda v: v > 0)

    # Testing: probabilities are averaged over these sizes, and over mirrored images.
    test_scales: tuple = rule(
        (1.0,), "a list of different factors in [0.25, 4]",
        lambda v: v and len(set(v)) == len(v) and all(0.25 <= scale <= 4 for scale in v),
    )  # fmt: skip
    test_flip: bool = rule(False, "true or false", lambda v: True)

    # 'auto' is bf16 where the device computes it natively, else fp32; the record says which.
    precision: str = _one_of("auto", "auto", "bf16", "fp32")

    def __post_init__(self):
        for name in DEFAULTS:
            object.__setattr__(self, name, check_hyperparameter(name, getattr(self, name)))
        for name, contradiction in contradictions(self):
            raise InputError(f"{name}: {contradiction}")

    @classmethod
    def of(cls, settings: dict) -> "Recipe":
        """Return the recipe with these hyperparameters set; a misspelt one is an InputError."""
        for name, value in settings.items():
            check_hyperparameter(name, value)
        return cls(**settings)

    def changed(self, changes: dict) -> "Recipe":
        """Return a copy with these hyperparameters set; a misspelt one is an InputError."""
        return Recipe.of({**dataclasses.asdict(self), **changes})

    @property
    def training(self) -> "Recipe":
        """The recipe without what only testing sees: recipes that share it share their weights."""
        return dataclasses.replace(self, **{name: DEFAULTS[name] for name in TEST_HYPERPARAMETERS})

    @property
    def testing(self) -> dict:
        """How test images are predicted: the arguments of `evaluate`."""
        return {"precision": self.precision, "scales": self.test_scales, "flip": self.test_flip}

    def at_lr(self, lr: float) -> "Recipe":
        """The recipe once its learning rate is chosen: recipes that share it are one training."""
        neutral = {name: DEFAULTS[name] for name in ("lr_search", "lr_search_steps")}
        return dataclasses.replace(self, lr=lr, **neutral)

    @property
    def architecture(self) -> str:
        """The network's name with what the recipe changes about its layers in use."""
        extras = [name for name in ("batch_norm", "residual") if getattr(self, name)]
        return "+".join([self.network, *extras])

    @property
    def passes(self) -> tuple[float, ...]:
        """The scale of each forward pass that a test image goes through."""
        return tuple(scale for scale in self.test_scales for _ in range(1 + self.test_flip))

    def differences(self) -> dict:
        """Return the hyperparameters that differ from their defaults, in order of declaration."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, default in DEFAULTS.items()
            if (value := getattr(self, name)) != default
        }

    @property
    def digest(self) -> str:
        """Twelve hex digits that name the run: equal settings, equal digest."""
        text = json.dumps(self.differences(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


HYPERPARAMETERS = {field.name: field for field in dataclasses.fields(Recipe)}
DEFAULTS = {name: field.default for name, field in HYPERPARAMETERS.items()}


def contradictions(recipe) -> list[tuple[str, str]]:
    """Return what of a recipe contradicts the rest: hyperparameter, and why it cannot be so.

    `recipe` is one, or anything else with its attributes.
    """
    found = []

    def contradiction(name: str, why: str) -> None:
        found.append((name, why))

    if recipe.warmup_steps >= recipe.steps:
        contradiction(
            "warmup_steps",
            f"{recipe.warmup_steps} leaves nothing of steps: {recipe.steps}; it must be smaller.",
        )
    for name, companion, words in COMPANIONS:
        if getattr(recipe, name) != DEFAULTS[name] and not companion(recipe):
            contradiction(name, f"has no effect without {words}; leave it out.")
    if recipe.class_balance and recipe.class_power:
        contradiction(
            "class_power", "class_balance weighs the classes already; set only one of them."
        )
    baseline = recipe.network.startswith("baseline")
    for name in ("batch_norm", "residual"):
        if getattr(recipe, name) and not baseline:
            contradiction(
                name,
                f"is a change to the baseline, and network is {recipe.network!r}; leave it out, or "
                "let network be a baseline.",
            )
    if recipe.dropout and baseline:
        contradiction(
            "dropout", "the baselines have their own (half of the channels, twice); leave it out."
        )
    return found


def check_hyperparameter(name: str, value):
    """Return a hyperparameter's value in its own type.

    Raises
    ------
    InputError : no such hyperparameter, a value of another type, or one out of range
    """
    if name not in HYPERPARAMETERS:
        raise InputError(f"{name}: no such hyperparameter.{nearest(name, HYPERPARAMETERS)}")
    known, given = HYPERPARAMETERS[name], value
    if known.type is float and type(value) is int:
        value = float(value)
    if known.type is tuple and isinstance(value, list | tuple):
        numbers = all(type(item) in (int, float) for item in value)
        value = tuple(map(float, value)) if numbers else None
    infinite = known.type is float and value in (float("inf"), float("-inf"))
    if type(value) is not known.type or infinite or not known.metadata["check"](value):
        raise InputError(f"{name}: {not_allowed(given)}; it must be {known.metadata['allowed']}.")
    return value
