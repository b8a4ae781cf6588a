"""What is asked: tricks, the studies that compare recipes, and the plan of runs they need.

`params.yaml` is what people edit; `plan.yaml` is generated from it and lists every arm as its
difference from the defaults. Arms that several studies ask for are trained once.
"""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from roadseg.recipe import DEFAULTS, InputError, Recipe, check_knob, nearest
from roadseg.weights import start_digest

ROOT = Path(__file__).resolve().parent.parent
NAME = "letters, digits and single dashes, as in fcn-8s"

SETTINGS = {
    "study": str, "title": str, "root": str, "params": str, "plan": str, "data": dict,
    "seeds": list, "remarks": list, "base": dict, "tricks": dict, "networks": dict,
    "studies": dict,
}  # fmt: skip
DATA_SETTINGS = {
    "source": str, "path": str, "size": list, "block": int, "seed": int, "counts": dict,
}  # fmt: skip
KINDS = {
    "networks": (dict, list),
    "ladder": (list, str),
    "leave_one_out": list,
    "alone": list,
    "noise": list,
}
# The course study's ladder (data/reference_ladder.csv), for a study with `ladder: course`.
COURSE_LADDER = (
    "transfer", "adamw-poly", "class-balanced", "ohem", "multi-scale-training",
    "multi-scale-testing", "auxiliary-head",
)  # fmt: skip
STUDY_SETTINGS = {"question": str, "start": str, "tricks": list, **KINDS}
# What `make_network` reads of a recipe: building one takes a while, and many arms share theirs.
NETWORK_KNOBS = ("network", "batch_norm", "residual", "dropout", "aux_weight")


@dataclass(frozen=True)
class Trick:
    """A named change to a recipe: the knobs it sets, the idea in words, and where it comes from."""

    name: str
    knobs: dict
    idea: str
    source: str

    def __call__(self, recipe: Recipe) -> Recipe:
        """Return `recipe` with the trick applied; an InputError if that changes nothing."""
        try:
            changed = recipe.changed(self.knobs)
        except InputError as problem:
            raise InputError(f"tricks: {self.name}: {problem}") from None
        for knob in self.knobs:
            value = getattr(recipe, knob)
            if getattr(changed, knob) == value:
                raise InputError(
                    f"tricks: {self.name}: {knob} is {value!r} already without it; a trick must "
                    "change each knob it sets."
                )
        return changed


@dataclass(frozen=True)
class Network:
    """A network under the name that studies call it by, with its idea and where it comes from.

    `network` is what `models.build` takes.
    """

    name: str
    network: str
    idea: str
    source: str


@dataclass(frozen=True)
class Study:
    """A question, and the arms whose comparison answers it.

    Attributes
    ----------
    kind : 'networks'; 'ladder', where each arm is the one before it and one trick more;
        'leave_one_out', the recipe with all tricks, and with all but one; 'alone', the start, and
        the start with one trick; 'noise', one recipe and many seeds
    arms : name of each arm -> its recipe (at seed 0)
    effects : (trick, arm, against) of each comparison that the study is made for
    seeds : of a noise study, the seeds that its arm is trained with beside the plan's; else empty
    labels : of a networks study, arm -> the network's name there; else empty
    shared : of a networks study, the tricks that all its arms have; else empty
    """

    name: str
    question: str
    kind: str
    arms: dict[str, Recipe]
    effects: tuple[tuple[str, str, str], ...] = ()
    seeds: tuple[int, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    shared: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Everything `params.yaml` says, checked: data, tricks, networks, studies and their runs."""

    name: str
    title: str
    params: str
    plan: str
    data: dict
    remarks: tuple[str, ...]
    seeds: tuple[int, ...]
    tricks: dict[str, Trick]
    networks: dict[str, Network]
    studies: dict[str, Study]

    @property
    def baseline(self) -> str:
        """Name of the baseline's arm in the study that compares it with FCN."""
        arms = self.fcn.arms.items()
        return next(arm for arm, recipe in arms if recipe.network.startswith("baseline"))

    @property
    def fcn(self) -> Study:
        """The first study that compares the baseline with FCN."""
        return next(study for study in self.studies.values() if _compares_fcn(study))

    @property
    def compared(self) -> Study:
        """The study that compares most networks."""
        kinds = [study for study in self.studies.values() if study.kind == "networks"]
        return max(kinds, key=lambda study: len(study.arms))

    # Kept once made: what is asked of a plan for each of many arms goes through all of them here.
    @cached_property
    def arms(self) -> dict[str, Recipe]:
        """Each distinct recipe under the first name it was asked for, at seed 0."""
        return {name: recipe for recipe, name in self._names.items()}

    @cached_property
    def _names(self) -> dict[Recipe, str]:
        names = {}
        for study in self.studies.values():
            for name, recipe in study.arms.items():
                names.setdefault(recipe, name)
        return names

    def arm(self, recipe: Recipe) -> str:
        """Return the name under which a study's recipe is trained."""
        return self._names[recipe]

    def seeds_of(self, arm: str) -> tuple[int, ...]:
        """Return the seeds an arm is trained with: the plan's, and a noise study's."""
        recipe = self.arms[arm]
        more = [s.seeds for s in self.studies.values() if s.seeds and recipe in s.arms.values()]
        return tuple(dict.fromkeys([*self.seeds, *(seed for seeds in more for seed in seeds)]))

    @cached_property
    def runs(self) -> dict[str, Recipe]:
        """Each run by name, ARM-sSEED."""
        return {
            f"{arm}-s{seed}": recipe.changed({"seed": seed})
            for arm, recipe in self.arms.items()
            for seed in self.seeds_of(arm)
        }

    @property
    def trainings(self) -> dict[Recipe, str]:
        """Each distinct training, as its recipe, and the run that it is first needed for."""
        distinct = {}
        for run, recipe in self.runs.items():
            distinct.setdefault(recipe.training, run)
        return distinct

    @property
    def written(self) -> dict:
        """What `plan.yaml` holds: each arm's seeds, and how it differs from the defaults."""
        written = {}
        for arm, recipe in self.arms.items():
            seeds = self.seeds_of(arm)
            written[arm] = {"seeds": list(seeds), **recipe.differences()}
            # DVC sees no file that a recipe names: another content is another plan
            digests = [start_digest(self.runs[f"{arm}-s{seed}"]) for seed in seeds]
            if any(digests):
                written[arm]["starts_from"] = digests
        return written

    def text(self) -> str:
        """Return the text of `plan.yaml`."""
        lines = [f"# Generated by: python -m roadseg plan {self.params}", "arms:"]
        for arm, settings in self.written.items():
            lines.append(f"  {arm}:")
            lines += [f"    {knob}: {_scalar(value)}" for knob, value in settings.items()]
        return "\n".join(lines) + "\n"

    def folder(self, arm: str, seed: int) -> Path:
        """Folder of one run's record."""
        return self.build / "runs" / arm / f"s{seed}"

    @property
    def prepared(self) -> Path:
        """Folder of the prepared scenes."""
        return ROOT / "data" / "prepared" / self.name

    @property
    def build(self) -> Path:
        """Folder of what can be made again: runs, executed notebooks."""
        return ROOT / "build" / self.name

    @property
    def results(self) -> Path:
        """Folder of the tables that git keeps."""
        return ROOT / "results" / self.name

    @property
    def report(self) -> Path:
        """Folder of the rendered report."""
        return ROOT / "reports" / self.name


def network_alone(recipe: Recipe) -> Recipe:
    """Return a recipe without all that its network does not show: equal ones, equal networks."""
    return Recipe(**{knob: getattr(recipe, knob) for knob in NETWORK_KNOBS})


def _scalar(value) -> str:
    if isinstance(value, float):
        # '0.0003', never '3e-4': YAML 1.1 readers take the latter for a string.
        return np.format_float_positional(value, trim="0")
    if isinstance(value, list):
        return f"[{', '.join(map(_scalar, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    # quoted where YAML would read something else: true, 1.0, '#'
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)


def read_yaml(file: Path) -> dict:
    """Read a YAML 1.2 mapping; duplicate keys and objects are errors.

    Raises
    ------
    InputError : the file is missing, or no such mapping, with the line
    """
    try:
        content = YAML(typ="safe", pure=True).load(Path(file).read_text("utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{file}: no such file.") from None
    except UnicodeDecodeError:
        raise InputError(f"{file}: is no UTF-8 text; save it in that encoding.") from None
    except ValueError as problem:  # of a date that is none, for instance
        raise InputError(f"{file}: not valid YAML ({problem}).") from None
    except YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        what = getattr(problem, "problem", None) or str(problem).splitlines()[0]
        raise InputError(
            f"{file}:{line} not valid YAML ({what}). Look here and one line above: "
            "indent with spaces, not tabs, and put a space after each colon."
        ) from None
    if content is None:
        raise InputError(f"{file}: must hold 'key: value' lines, is empty.")
    if not isinstance(content, dict):
        raise InputError(f"{file}: must hold 'key: value' lines, holds {type(content).__name__}.")
    return content


def load(params: str | Path = "params.yaml") -> Plan:
    """Read and check a study's `params.yaml` (a path from the project's root).

    Raises
    ------
    InputError : a missing, unknown or contradictory setting, named with its place
    """
    file = Path(params)
    try:
        return _parse(read_yaml(ROOT / file))
    except InputError as problem:
        text = str(problem).replace(f"{ROOT}/", "")
        raise InputError(text if text.startswith(f"{file}:") else f"{file}: {text}") from None


def _parse(settings: dict) -> Plan:
    _check_keys("", settings, SETTINGS, required=set(SETTINGS))
    check_name("study", settings["study"])
    data = settings["data"]
    _check_keys("data: ", data, DATA_SETTINGS, required={"source", "path", "size", "block"})
    size = data["size"]
    if len(size) != 2 or not all(type(n) is int and 32 <= n <= 8192 for n in size):
        raise InputError(
            f"data: size: {size!r} is not allowed; give [height, width], each 32 to 8192 pixels."
        )
    if data["block"] < 1:
        raise InputError(f"data: block: {data['block']} is not allowed; give 1 frame or more.")
    if data["source"] == "synthetic":
        counts = data.get("counts", {})
        if set(counts) != {"train", "val", "test"} or not all(
            type(n) is int and n >= 1 for n in counts.values()
        ):
            raise InputError(
                f"data: counts: {counts!r} is not allowed; give train, val and test, each >= 1."
            )
        if type(data.get("seed")) is not int:
            raise InputError("data: seed: give a whole number; the scenes depend on it.")
    seeds = _seeds("seeds", settings["seeds"])
    if "seed" in settings["base"]:
        raise InputError("base: seed: set 'seeds' instead; every arm is trained once with each.")
    try:
        base = Recipe.of(settings["base"])
    except InputError as problem:
        raise InputError(f"base: {problem}") from None
    tricks = {}
    for name, trick in settings["tricks"].items():
        check_name("tricks", name)
        known = {"knobs": dict, "idea": str, "source": str}
        _check_keys(f"tricks: {name}: ", trick, known, required={"knobs"})
        if not trick["knobs"]:
            raise InputError(f"tricks: {name}: sets no knob; a trick must change something.")
        for knob, value in trick["knobs"].items():
            try:
                check_knob(knob, value)
            except InputError as problem:
                raise InputError(f"tricks: {name}: {problem}") from None
        tricks[name] = Trick(name, trick["knobs"], trick.get("idea", ""), trick.get("source", ""))
    networks = {}
    for name, network in settings["networks"].items():
        check_name("networks", name)
        known = {"network": str, "idea": str, "source": str}
        _check_keys(f"networks: {name}: ", network, known, required={"network"})
        networks[name] = Network(
            name, network["network"], network.get("idea", ""), network.get("source", "")
        )
    if not settings["studies"]:
        raise InputError("studies: none is listed; name at least one.")
    studies, known = {}, {}
    for name, study in settings["studies"].items():
        studies[name] = _study(name, study, base, tricks, networks, known)
        known |= studies[name].arms
    _check_chapters(studies)
    return _checked(
        Plan(
            settings["study"],
            settings["title"],
            settings["params"],
            settings["plan"],
            data,
            tuple(map(str, settings["remarks"])),
            seeds,
            tricks,
            networks,
            studies,
        )  # fmt: skip
    )


def _study(
    name: str,
    settings: dict,
    base: Recipe,
    tricks: dict[str, Trick],
    networks: dict[str, Network],
    known: dict[str, Recipe],
) -> Study:
    check_name("studies", name)
    where = f"studies: {name}: "
    _check_keys(where, settings, STUDY_SETTINGS, required={"question"})
    kinds = [kind for kind in KINDS if kind in settings]
    if len(kinds) != 1:
        raise InputError(f"{where}give exactly one of {', '.join(KINDS)}.")
    (kind,) = kinds
    unused = "start" if kind == "networks" else "tricks"
    if unused in settings:
        raise InputError(f"{where}{unused}: has no effect here; leave it out.")

    def trick(name: str) -> Trick:
        if not isinstance(name, str) or name not in tricks:
            raise InputError(f"{where}{name!r} is no trick.{nearest(name, tricks)}")
        return tricks[name]

    if kind == "networks":
        chosen, arms, labels = [trick(rung) for rung in settings.get("tricks", [])], {}, {}
        _check_apart(chosen, where)
        for label, network in _named(settings["networks"], networks, where).items():
            recipe = base.changed({"network": network})
            for rung in chosen:
                recipe = rung(recipe)
            # Another recipe than the network has elsewhere, so another name.
            arm = f"{label}-{name}" if chosen else label
            arms[arm], labels[arm] = recipe, label
        if len(set(arms.values())) < len(arms):
            raise InputError(f"{where}networks: two arms are the same network; drop one.")
        if len(arms) < 2:
            raise InputError(f"{where}has {len(arms)} arm; a comparison needs two or more.")
        effects, more, shared = (), (), tuple(trick.name for trick in chosen)
    else:
        labels, shared, first = {}, (), settings.get("start")
        if first is None:
            raise InputError(f"{where}start: missing; name an arm of an earlier study.")
        if first not in known:
            raise InputError(
                f"{where}start: {first!r} is no arm of an earlier study." + nearest(first, known)
            )
        listed = settings[kind]
        if isinstance(listed, str):
            if listed != "course":
                raise InputError(
                    f"{where}ladder: {listed!r} is not allowed; list tricks, or write 'course' for "
                    f"the course study's: {', '.join(COURSE_LADDER)}."
                )
            listed = list(COURSE_LADDER)
        if kind == "noise":
            arms, effects = {first: known[first]}, ()
            more = _seeds(f"{where}noise", listed)
        else:
            more = ()
            chosen = [trick(rung) for rung in listed]
            if len(set(listed)) < len(listed):
                raise InputError(f"{where}{kind}: lists a trick twice; drop one.")
            least = 2 if kind == "leave_one_out" else 1
            if len(chosen) < least:
                raise InputError(
                    f"{where}{kind}: lists {len(chosen)} tricks; a comparison needs "
                    f"{'two' if least == 2 else 'one'} or more."
                )
            arms, effects = TRICK_STUDIES[kind](first, known[first], chosen, where)
    for arm in arms:
        check_name(where + "arm", arm)
    return Study(
        name, settings["question"], kind, arms, tuple(effects), tuple(more), labels, shared
    )


def _named(asked: dict | list, networks: dict[str, Network], where: str) -> dict[str, str]:
    """Return label -> network's name of a networks study.

    It lists names of the settings' `networks`, or gives its own as 'label: network'.
    """
    if isinstance(asked, dict):
        return asked
    for name in asked:
        if not isinstance(name, str) or name not in networks:
            raise InputError(
                f"{where}networks: {name!r} is none of the settings' networks."
                + nearest(name, networks)
            )
    if len(set(asked)) < len(asked):
        raise InputError(f"{where}networks: lists a network twice; drop one.")
    return {name: networks[name].network for name in asked}


def _ladder(first: str, start: Recipe, tricks: list[Trick], where: str):
    """Return arms and effects where each rung adds one trick to the rung before it."""
    _check_apart(tricks, where)
    arms, effects, before = {first: start}, [], first
    for rung in tricks:
        arms[f"with-{rung.name}"] = rung(arms[before])
        effects.append((rung.name, f"with-{rung.name}", before))
        before = f"with-{rung.name}"
    return arms, effects


def _leave_one_out(first: str, start: Recipe, tricks: list[Trick], where: str):
    """Return arms and effects of the recipe with all tricks against all but one of them."""
    _check_apart(tricks, where)

    def applied(chosen: list[Trick]) -> Recipe:
        recipe = start
        for trick in chosen:
            recipe = trick(recipe)
        return recipe

    arms, effects = {f"{first}-all": applied(tricks)}, []
    for left in tricks:
        name = f"{first}-all-but-{left.name}"
        try:
            arms[name] = applied([trick for trick in tricks if trick is not left])
        except InputError as problem:
            raise InputError(f"{where}without {left.name}: {problem}") from None
        effects.append((left.name, f"{first}-all", name))
    return arms, effects


def _alone(first: str, start: Recipe, tricks: list[Trick], where: str):
    """Return arms and effects of one trick at a time on the start."""
    arms = {first: start} | {f"{first}-{trick.name}": trick(start) for trick in tricks}
    return arms, [(trick.name, f"{first}-{trick.name}", first) for trick in tricks]


TRICK_STUDIES = {"ladder": _ladder, "leave_one_out": _leave_one_out, "alone": _alone}


def _check_apart(tricks: list[Trick], where: str) -> None:
    """Raise InputError where two tricks of one recipe set the same knob."""
    setters = {}
    for trick in tricks:
        for knob in trick.knobs:
            if knob in setters:
                raise InputError(
                    f"{where}{setters[knob]} and {trick.name} both set {knob}; the second would "
                    "undo the first, so let only one of them set it."
                )
            setters[knob] = trick.name


def _seeds(where: str, seeds) -> tuple[int, ...]:
    """Return seeds if they are different whole numbers >= 0, else raise InputError."""
    if (
        not isinstance(seeds, list)
        or not seeds
        or not all(type(s) is int and s >= 0 for s in seeds)
        or len(set(seeds)) < len(seeds)
    ):
        raise InputError(f"{where}: {seeds!r} is not allowed; list different whole numbers >= 0.")
    return tuple(seeds)


def _checked(plan: Plan) -> Plan:
    """Return the plan if each arm's name means one recipe in all studies, else an InputError."""
    seen: dict[str, tuple[str, Recipe]] = {}
    for study in plan.studies.values():
        for name, recipe in study.arms.items():
            other, known = seen.setdefault(name, (study.name, recipe))
            if known != recipe:
                differing = [k for k in DEFAULTS if getattr(known, k) != getattr(recipe, k)]
                raise InputError(
                    f"studies: {study.name}: arm {name} is another recipe in {other} "
                    f"({', '.join(sorted(differing))} differ); rename one. "
                    "A rung is named after its trick: list the trick again under another name."
                )
    return plan


def _compares_fcn(study: Study) -> bool:
    names = [recipe.network for recipe in study.arms.values()]
    return study.kind == "networks" and all(
        any(name.startswith(kind) for name in names) for kind in ("baseline", "fcn")
    )


def _check_chapters(studies: dict[str, Study]) -> None:
    """Raise InputError unless the studies have what every chapter of the report reads."""
    if not any(map(_compares_fcn, studies.values())):
        raise InputError(
            "studies: the report compares the baseline with FCN; give one study whose networks "
            "include a baseline and an FCN, such as baseline:0.25 and fcn8s:resnet18."
        )
    if not any(study.kind == "ladder" for study in studies.values()):
        raise InputError(
            "studies: the report needs a ladder; give one study with ladder: and start:."
        )


def _check_keys(where: str, settings, known: dict[str, type], required: set[str]) -> None:
    if not isinstance(settings, dict):
        raise InputError(f"{where.rstrip(': ')}: must hold 'key: value' lines, is {settings!r}.")
    for key, value in settings.items():
        if key not in known:
            raise InputError(f"{where}{key}: no such setting.{nearest(key, known)}")
        if not isinstance(value, known[key]):
            kind = {
                dict: "'key: value' lines", list: "a list", str: "text", int: "a whole number",
                (dict, list): "a list of names, or 'name: network' lines",
                (list, str): "a list of tricks, or 'course'",
            }  # fmt: skip
            raise InputError(f"{where}{key}: {value!r} is not allowed; give {kind[known[key]]}.")
    for key in sorted(required - set(settings)):
        raise InputError(f"{where}{key}: missing.")


def check_name(where: str, name) -> None:
    """Raise InputError unless a name can stand in file names and run names."""
    words = str(name).split("-")
    if not all(word.isascii() and word.isalnum() for word in words) or len(str(name)) > 60:
        raise InputError(f"{where}: {name!r} cannot name a file; use {NAME}, at most 60.")
