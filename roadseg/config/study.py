"""What is asked: tricks, the studies that compare recipes, and the plan of runs they need.

`params.yaml` is what people edit; `plan.yaml` is generated from it and lists every arm as its
difference from the defaults. Arms that several studies ask for are trained once.
"""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from pathlib import Path

import numpy as np

from roadseg.config.paths import ROOT
from roadseg.config.recipe import DEFAULTS, Recipe, check_knob
from roadseg.config.settings import (
    COURSE_LADDER,
    Problems,
    check_knobs,
    check_structure,
    is_text,
    read_lines,
)
from roadseg.config.settings import read_yaml as read_yaml  # which folder.py takes from here
from roadseg.errors import InputError, nearest
from roadseg.training.weights import start_digest

NAME = "letters, digits and single dashes, as in fcn-8s"

KINDS = ("networks", "ladder", "leave_one_out", "alone", "noise")
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
    goal : of a noise study, what its arm should reach and cost at most, {'miou': 0..1, 'gmacs':
        10^9 multiply-adds per image}; else empty
    """

    name: str
    question: str
    kind: str
    arms: dict[str, Recipe]
    effects: tuple[tuple[str, str, str], ...] = ()
    seeds: tuple[int, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    shared: tuple[str, ...] = ()
    goal: dict[str, float] = field(default_factory=dict)


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
    # path of keys and indices -> line of params.yaml; ('arms', NAME) is where it is asked for
    lines: dict[tuple, int] = field(compare=False, repr=False)

    @property
    def fcn(self) -> Study | None:
        """The first study that compares the baseline with FCN, if one does."""
        return next((study for study in self.studies.values() if _compares_fcn(study)), None)

    @property
    def baseline(self) -> str | None:
        """Name of an arm of the course's baseline, in the study `fcn` if there is one."""
        arms = {
            arm: recipe
            for arm, recipe in (self.fcn.arms if self.fcn else self.arms).items()
            # one whose layers a trick changes is another network
            if recipe.network.startswith("baseline") and recipe.architecture == recipe.network
        }
        return next(iter(arms), None)

    @property
    def compared(self) -> Study | None:
        """The study that compares most networks, if one does; of equals, rather not `fcn`."""
        kinds = [study for study in self.studies.values() if study.kind == "networks"]
        return max(kinds, key=lambda s: (len(s.arms), s is not self.fcn), default=None)

    def without(self, arms: Collection[str]) -> "Plan":
        """Return the plan without arms, by the names they are trained under.

        What is compared with one of them is compared no more; a study without any arm is left out.
        """
        studies = {}
        for study in self.studies.values():
            kept = {name: r for name, r in study.arms.items() if self.arm(r) not in arms}
            effects = tuple(effect for effect in study.effects if kept.keys() >= {*effect[1:]})
            if kept:
                studies[study.name] = replace(study, arms=kept, effects=effects)
        return replace(self, studies=studies)

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
            # a name such as 010 or true is quoted, so that it stays one
            lines.append(f"  {arm if is_text(arm) else json.dumps(arm)}:")
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


def load(params: str | Path = "params.yaml") -> Plan:
    """Read and check a study's `params.yaml` (a path from the project's root).

    Raises
    ------
    InputError : all missing, unknown and contradictory settings, each with its line
    """
    file = Path(params)
    content, problems = read_lines(ROOT / file, str(file).removeprefix(f"{ROOT}/"))
    return parse(content, problems)


def parse(content: dict, problems: Problems) -> Plan:
    """Return the plan that the content of a `params.yaml` asks for.

    What depends on something wrong is not judged: it may be right once that is mended.

    Raises
    ------
    InputError : `problems`, and all that are found here
    """
    check_structure(content, problems)

    lists = ("base", "tricks", "networks", "studies")
    parts = {key: content[key] for key in lists if isinstance(content.get(key), dict)}
    if isinstance(content.get("study"), str):
        _check_name(content["study"], problems, "study", at=("study",))
    base = _base(parts.get("base", {}), problems)
    tricks, networks = (
        {name: make(name, about, problems) for name, about in parts[key].items()}
        if key in parts else None
        for key, make in (("tricks", _trick), ("networks", _network))
    )  # fmt: skip
    known = _Known(base, tricks, networks, problems)
    if content.get("studies") == {}:
        problems.add("none is listed; name at least one.", "studies")
    studies = {}
    for name, about in parts.get("studies", {}).items():
        _check_name(name, problems, "studies")
        study = None if problems.touch("studies", name) else _study(name, about, known)
        if study:
            studies[name] = study
            known.arms |= study.arms
        else:
            kind = next((key for key in KINDS if isinstance(about, dict) and key in about), None)
            known.doubtful.add("with-" if kind == "ladder" else "")
    _check_arms(studies, known)
    problems.raise_any()
    return Plan(
        content["study"], content["title"], content["params"], content["plan"], content["data"],
        tuple(content["remarks"]), tuple(content["seeds"]), known.tricks, known.networks, studies,
        {**problems.lines, **{("arms", arm): problems.line(at) for arm, at in known.at.items()}},
    )  # fmt: skip


def _trick(name: str, about: dict, problems: Problems) -> Trick | None:
    """Return a trick; None, and its problems noted, if it has some."""
    _check_name(name, problems, "tricks")
    knobs = about.get("knobs") if isinstance(about, dict) else None
    if isinstance(knobs, dict):
        check_knobs(knobs, problems, "tricks", name, at=("tricks", name, "knobs"))
    if knobs == {}:
        problems.add("sets no knob; a trick must change something.", "tricks", name)
    return None if problems.touch("tricks", name) else Trick(name, knobs, *_origin(about))


def _network(name: str, about: dict, problems: Problems) -> Network | None:
    """Return a network of the list; None, and its problems noted, if it has some."""
    _check_name(name, problems, "networks")
    bad = problems.touch("networks", name)
    return None if bad else Network(name, about["network"], *_origin(about))


def _origin(about: dict) -> tuple[str, str]:
    return about.get("idea", ""), about.get("source", "")


def _base(knobs: dict, problems: Problems) -> Recipe | None:
    """Return the recipe that all arms start from; None, and its problems noted, if it has some."""
    check_knobs(knobs, problems, "base", at=("base",))
    if "seed" in knobs:
        problems.add("seed: set 'seeds' instead; every arm is trained once with each.", "base")
    if problems.touch("base"):
        return None
    rest, taken = dict(knobs), []
    while True:
        try:
            recipe = Recipe.of(rest)
        except InputError as problem:
            # one contradiction at a time, without the knobs that had one
            if not any(re.search(rf"\b{knob}\b", str(problem)) for knob in taken):
                problems.add(str(problem), "base")
            taken.append(str(problem).partition(":")[0])
            if rest.pop(taken[-1], None) is None:
                return None
        else:
            return None if taken else recipe


@dataclass
class _Known:
    """What studies can name; None stands for what has a problem that is noted already.

    Attributes
    ----------
    tricks, networks : None if their lists could not be read, so that any name may be right
    arms : those of the studies so far
    doubtful : how further arms' names begin, of studies that were refused
    at : arm -> path to where it is asked for
    told : problems of tricks that were noted for one arm, and are not for others
    """

    base: Recipe | None
    tricks: dict[str, Trick | None] | None
    networks: dict[str, Network | None] | None
    problems: Problems
    arms: dict[str, Recipe | None] = field(default_factory=dict)
    doubtful: set[str] = field(default_factory=set)
    at: dict[str, tuple] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)

    def listed(self, names: list, known: dict | None, what: str, *path) -> list[str]:
        """Return the names of a list at a path, each of which must be known and stand once."""
        found = []
        for index, name in enumerate(names):
            problem = None
            if name in found:
                problem = f"{path[-1]}: lists {name!r} twice; drop one."
            elif isinstance(name, str) and (known is None or name in known):
                found.append(name)
            elif known is not None:
                problem = f"{name!r} is {what}.{nearest(name, known)}"
            if problem:
                self.problems.add(problem, *path[:-1], at=(*path, index))
        return found

    def applied(self, recipe: Recipe | None, trick: str, at: tuple, *path) -> Recipe | None:
        """Return a recipe with a trick applied, or None where that is not possible."""
        change = (self.tricks or {}).get(trick)
        if recipe is None or change is None:
            return None
        try:
            return change(recipe)
        except InputError as problem:
            if str(problem) not in self.told:
                self.problems.add(str(problem), *path, at=at)
            self.told.add(str(problem))
            return None


def _study(name: str, about: dict, known: _Known) -> Study | None:
    """Return a study, in which a recipe is None if it could not be made; None if it has none."""
    problems, path = known.problems, ("studies", name)
    kinds = [kind for kind in KINDS if kind in about]
    if len(kinds) != 1:
        problems.add(f"give exactly one of {', '.join(KINDS)}.", *path)
        return None
    (kind,) = kinds
    unused = "start" if kind == "networks" else "tricks"
    for key in (unused, *(["goal"] if kind != "noise" else [])):
        if key in about:
            problems.add(f"{key}: has no effect here; leave it out.", *path)
    make = _networks if kind == "networks" else _from_start
    made = make(name, kind, about, known)
    if made is None:
        return None
    arms, effects, labels, shared = made
    for arm in arms:
        if not _check_name(arm, problems, *path, "arm", at=known.at[arm]):
            known.doubtful.add("")
    more = tuple(about[kind]) if kind == "noise" else ()
    goal = about.get("goal", {})
    return Study(name, about["question"], kind, arms, tuple(effects), more, labels, shared, goal)


def _networks(name: str, kind: str, about: dict, known: _Known):
    """Return arms, effects, labels and tricks of a study of networks; None if it has no arms.

    It lists names of the settings' `networks`, or gives its own as 'label: network'.
    """
    problems, path, asked = known.problems, ("studies", name), about[kind]
    shared = known.listed(about.get("tricks", []), known.tricks, "no trick", *path, "tricks")
    apart = _apart(shared, known, *path)
    if isinstance(asked, dict):
        chosen = dict(asked)
        for label, network in asked.items():
            try:
                check_knob("network", network)
            except InputError as problem:
                chosen[label] = None
                problems.add(str(problem), *path, at=(*path, kind, label))
    else:
        what = "none of the settings' networks"
        names = known.listed(asked, known.networks, what, *path, kind)
        found = {label: (known.networks or {}).get(label) for label in names}
        chosen = {label: network and network.network for label, network in found.items()}
    if not asked:
        problems.add(f"{kind}: lists no network; name one or more.", *path)
    sound = [network for network in chosen.values() if network]
    if len(set(sound)) < len(sound):
        problems.add(f"{kind}: two arms are the same network; drop one.", *path)
    if problems.touch(*path):
        return None
    arms, labels = {}, {}
    for label, network in chosen.items():
        at = (*path, kind, label if isinstance(asked, dict) else asked.index(label))
        recipe = None
        if known.base and network and apart:
            recipe = known.base.changed({"network": network})
        for trick in shared:
            recipe = known.applied(recipe, trick, at, *path)
        # Another recipe than the network has elsewhere, so another name.
        arm = f"{label}-{name}" if shared else label
        arms[arm], labels[arm] = recipe, label
        known.at.setdefault(arm, at)
    return arms, (), labels, tuple(shared)


def _from_start(name: str, kind: str, about: dict, known: _Known):
    """Return arms, effects, no labels and no tricks of a study that starts from an arm.

    None, if it has no arms.
    """
    problems, path, first = known.problems, ("studies", name), about.get("start")
    if first is None:
        problems.add("start: missing; name an arm of an earlier study.", *path)
    elif first not in known.arms and not first.startswith(tuple(known.doubtful)):
        hint = nearest(first, known.arms)
        problems.add(f"start: {first!r} is no arm of an earlier study.{hint}", *path)
    if kind == "noise":
        if first not in known.arms:
            return None
        known.at.setdefault(first, (*path, "start"))
        return {first: known.arms[first]}, (), {}, ()
    asked = list(COURSE_LADDER) if about[kind] == "course" else about[kind]
    tricks = known.listed(asked, known.tricks, "no trick", *path, kind)
    least = 2 if kind == "leave_one_out" else 1
    if len(asked) < least:
        problems.add(
            f"{kind}: lists {len(asked)} tricks; a comparison needs "
            f"{'two' if least == 2 else 'one'} or more.", *path,
        )  # fmt: skip
    apart = kind == "alone" or _apart(tricks, known, *path)
    if first not in known.arms or problems.touch(*path, kind) or len(tricks) < len(asked):
        return None

    def at(trick: str) -> tuple:
        return (*path, kind, asked.index(trick))

    def apply(recipe: Recipe | None, trick: str, *note: str) -> Recipe | None:
        return known.applied(recipe, trick, at(trick), *path, *note) if apart else None

    arms, effects = TRICK_STUDIES[kind](first, known.arms[first], tricks, apply)
    for trick, *pair in effects:
        for arm in pair:
            known.at.setdefault(arm, at(trick) if arm.endswith(f"-{trick}") else (*path, kind))
    return arms, effects, {}, ()


def _ladder(first: str, start: Recipe | None, tricks: list[str], apply):
    """Return arms and effects where each rung adds one trick to the rung before it."""
    arms, effects, before = {first: start}, [], first
    for trick in tricks:
        rung = f"with-{trick}"
        arms[rung] = apply(arms[before], trick)
        effects.append((trick, rung, before))
        before = rung
    return arms, effects


def _leave_one_out(first: str, start: Recipe | None, tricks: list[str], apply):
    """Return arms and effects of the recipe with all tricks against all but one of them."""
    arms, effects = {f"{first}-all": reduce(apply, tricks, start)}, []
    for left in tricks:
        name = f"{first}-all-but-{left}"
        rest, note = [trick for trick in tricks if trick != left], f"without {left}"
        arms[name] = reduce(
            lambda recipe, trick, note=note: apply(recipe, trick, note), rest, start
        )
        effects.append((left, f"{first}-all", name))
    return arms, effects


def _alone(first: str, start: Recipe | None, tricks: list[str], apply):
    """Return arms and effects of one trick at a time on the start."""
    arms = {first: start} | {f"{first}-{trick}": apply(start, trick) for trick in tricks}
    return arms, [(trick, f"{first}-{trick}", first) for trick in tricks]


TRICK_STUDIES = {"ladder": _ladder, "leave_one_out": _leave_one_out, "alone": _alone}


def _apart(tricks: list[str], known: _Known, *path) -> bool:
    """Return whether no two tricks of one recipe set the same knob, and note those that do."""
    setters, apart = {}, True
    for trick in tricks:
        change = (known.tricks or {}).get(trick)
        for knob in change.knobs if change else ():
            if knob in setters:
                known.problems.add(
                    f"{setters[knob]} and {trick} both set {knob}; the second would undo the "
                    "first, so let only one of them set it.", *path,
                )  # fmt: skip
                apart = False
            setters.setdefault(knob, trick)
    return apart


def _check_arms(studies: dict[str, Study], known: _Known) -> None:
    """Note each arm whose name means another recipe in another study."""
    seen: dict[str, tuple[str, Recipe]] = {}
    for study in studies.values():
        for name, recipe in study.arms.items():
            if recipe is None:
                continue
            other, first = seen.setdefault(name, (study.name, recipe))
            if first != recipe:
                differing = [k for k in DEFAULTS if getattr(first, k) != getattr(recipe, k)]
                known.problems.add(
                    f"arm {name} is another recipe in {other} "
                    f"({', '.join(sorted(differing))} differ); rename one. "
                    "A rung is named after its trick: list the trick again under another name.",
                    "studies", study.name,
                )  # fmt: skip


def _compares_fcn(study: Study) -> bool:
    names = [recipe.network for recipe in study.arms.values()]
    return study.kind == "networks" and all(
        any(name.startswith(kind) for name in names) for kind in ("baseline", "fcn")
    )


def check_name(where: str, name) -> None:
    """Raise InputError unless a name can stand in file names and run names."""
    words = str(name).split("-")
    if not all(word.isascii() and word.isalnum() for word in words) or len(str(name)) > 60:
        raise InputError(f"{where}: {name!r} cannot name a file; use {NAME}, at most 60.")


def _check_name(name: str, problems: Problems, *path, at: tuple | None = None) -> bool:
    try:
        check_name(path[-1], name)
    except InputError as problem:
        problems.add(str(problem), *path[:-1], at=at or (*path, name))
        return False
    return True
