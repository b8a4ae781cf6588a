"""One training run as a value: every setting that decides it, and its digest."""

import dataclasses
import difflib
import hashlib
import json
from dataclasses import dataclass, field


class InputError(ValueError):
    """Something the user gave is wrong; the message says what, where, and how to mend it."""


def nearest(name: str, known) -> str:
    """Return ' Did you mean ...?' and the known names, for the end of an error message."""
    known = sorted(map(str, known))
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    listed = ", ".join(known) if len(known) <= 30 else f"{', '.join(known[:30])}, ..."
    return f"{hint} Known: {listed}."


def rule(default, allowed: str, check):
    """Return a dataclass field that carries its own range: `check(value)` must hold."""
    return field(default=default, metadata={"allowed": allowed, "check": check})


def _one_of(default, *choices):
    return rule(default, "one of " + ", ".join(choices), lambda v: v in choices)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides one training run, seed included.

    Two recipes with equal settings are the same run, whatever they are called. A knob that
    belongs to a trick has a *neutral* default, at which the trick is absent from the computation
    and not merely weak. Defaults may be added to, never edited: `digest` hashes what differs
    from them, and an edited default would give an old run a new meaning.

    Raises
    ------
    InputError : a value of the wrong type or out of range, or settings that contradict each other
    """

    seed: int = rule(0, "a whole number >= 0", lambda v: v >= 0)

    # Network: 'baseline[:WIDTH]', 'baseline-unpool[:WIDTH]', 'fcn32s|fcn16s|fcn8s:ENCODER' or
    # 'smp:ARCHITECTURE:ENCODER' (see models.build).
    network: str = rule("baseline", "a network's name", bool)

    # Budget, in steps: a trick that alters data or batch must not silently alter training time.
    steps: int = rule(1000, "a whole number >= 1", lambda v: v >= 1)
    batch_size: int = rule(4, "a whole number >= 1", lambda v: v >= 1)

    # Optimisation. The defaults are the course baseline's: Adam, 3e-4, fixed.
    optimizer: str = _one_of("adam", "adam", "adamw")
    lr: float = rule(0.0003, "a number > 0", lambda v: v > 0)
    weight_decay: float = rule(0.0, "a number >= 0", lambda v: v >= 0)
    schedule: str = _one_of("fixed", "fixed", "poly")
    poly_power: float = rule(0.9, "a number > 0", lambda v: v > 0)
    warmup_steps: int = rule(0, "a whole number >= 0", lambda v: v >= 0)

    # Augmentation, neutral at these values.
    flip: float = rule(0.0, "a probability in [0, 1]", lambda v: 0 <= v <= 1)
    scale_jitter: float = rule(1.0, "a zoom factor in [1, 8]", lambda v: 1 <= v <= 8)
    colour_jitter: float = rule(0.0, "a strength in [0, 1)", lambda v: 0 <= v < 1)

    # 'auto' is bf16 where the device computes it natively, else fp32; the record says which.
    precision: str = _one_of("auto", "auto", "bf16", "fp32")

    def __post_init__(self):
        for knob in dataclasses.fields(self):
            value = getattr(self, knob.name)
            if knob.type is float and type(value) is int:
                value = float(value)
                object.__setattr__(self, knob.name, value)
            if type(value) is not knob.type or not knob.metadata["check"](value):
                hint = _float_hint(value) if knob.type is float else ""
                raise InputError(
                    f"{knob.name}: {value!r} is not allowed; it must be "
                    f"{knob.metadata['allowed']}.{hint}"
                )
        if self.warmup_steps >= self.steps:
            raise InputError(
                f"warmup_steps: {self.warmup_steps} leaves nothing of steps: {self.steps}; "
                "it must be smaller."
            )
        if self.schedule == "fixed" and self.poly_power != 0.9:
            raise InputError("poly_power: has no effect with schedule: fixed; leave it out.")

    @classmethod
    def of(cls, settings: dict) -> "Recipe":
        """Return the recipe with these knobs set; a misspelt knob is an InputError."""
        known = [knob.name for knob in dataclasses.fields(cls)]
        for name in settings:
            if name not in known:
                raise InputError(f"{name}: no such knob.{nearest(name, known)}")
        return cls(**settings)

    def changed(self, changes: dict) -> "Recipe":
        """Return a copy with these knobs set; a misspelt knob is an InputError."""
        return Recipe.of({**dataclasses.asdict(self), **changes})

    def differences(self) -> dict:
        """Return the knobs that differ from their defaults, in order of declaration."""
        return {
            knob.name: getattr(self, knob.name)
            for knob in dataclasses.fields(self)
            if getattr(self, knob.name) != knob.default
        }

    @property
    def digest(self) -> str:
        """Twelve hex digits that name the run: equal settings, equal digest."""
        text = json.dumps(self.differences(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _float_hint(value) -> str:
    try:
        float(value)
    except (TypeError, ValueError):
        return ""
    return f" Write it without quotes, as {float(value)!r}." if isinstance(value, str) else ""
