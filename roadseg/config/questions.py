"""Tricks, networks, and the questions that compare recipes."""

import re
from dataclasses import dataclass, field
from functools import reduce

from roadseg.config.params import COURSE_LADDER, check_hyperparameters
from roadseg.config.recipe import DEFAULTS, Recipe, check_hyperparameter
from roadseg.config.yaml import Problems
from roadseg.errors import InputError, nearest

NAME = "letters, digits and single dashes, as in fcn-8s"
TRICK, NETWORK = "no trick of tricks.yaml", "no network of networks.yaml"
KINDS = ("networks", "ladder", "leave_one_out", "alone", "length", "noise")


@dataclass(frozen=True)
class Trick:
    """A named change to a recipe: the hyperparameters it sets, its idea and its source."""

    name: str
    hyperparameters: dict
    idea: str
    source: str

    def __call__(self, recipe: Recipe) -> Recipe:
        """Return `recipe` with the trick applied; an InputError if that changes nothing."""
        try:
            changed = recipe.changed(self.hyperparameters)
        except InputError as problem:
            raise InputError(f"trick {self.name}: {problem}") from None
        for name in self.hyperparameters:
            value = getattr(recipe, name)
            if getattr(changed, name) == value:
                raise InputError(
                    f"trick {self.name}: {name} is {value!r} already without it; a trick must "
                    "change each hyperparameter it sets."
                )
        return changed


@dataclass(frozen=True)
class Network:
    """A network under the name that questions call it by, with its idea and where it comes from.

    `network` is what `models.build` takes.
    """

    name: str
    network: str
    idea: str
    source: str


@dataclass(frozen=True)
class Question:
    """A question, and the arms whose comparison answers it.

    Attributes
    ----------
    kind : 'networks'; 'ladder', where each arm is the one before it and one trick more;
        'leave_one_out', the recipe with all tricks, and with all but one; 'alone', the start, and
        the start with one trick; 'length', the same at each of several numbers of training steps;
        'noise', one recipe and many seeds
    arms : name of each arm -> its recipe (at seed 0)
    effects : (trick, arm, against) of each comparison that the question is made for; in a length
        question the trick is named with its number of steps, as in 'flip at 300 steps'
    seeds : of a noise question, those that its arm is trained with beside the study's; else empty
    labels : of a networks question, arm -> the network's name there; else empty
    shared : of a networks question, the tricks that all its arms have; else empty
    """

    name: str
    asks: str
    kind: str
    arms: dict[str, Recipe]
    effects: tuple[tuple[str, str, str], ...] = ()
    seeds: tuple[int, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    shared: tuple[str, ...] = ()


def make_trick(name: str, about: dict, problems: Problems) -> Trick | None:
    """Return a trick; None, and its problems noted, if it has some."""
    note_name(name, problems, "tricks")
    hyperparameters = about.get("set") if isinstance(about, dict) else None
    if isinstance(hyperparameters, dict):
        check_hyperparameters(hyperparameters, problems, "tricks", name, at=("tricks", name, "set"))
    if hyperparameters == {}:
        problems.add("sets no hyperparameter; a trick must change something.", "tricks", name)
    return None if problems.touch("tricks", name) else Trick(name, hyperparameters, *_origin(about))


def make_network_entry(name: str, about: dict, problems: Problems) -> Network | None:
    """Return a network of the list; None, and its problems noted, if it has some."""
    note_name(name, problems, "networks")
    bad = problems.touch("networks", name)
    return None if bad else Network(name, about["network"], *_origin(about))


def _origin(about: dict) -> tuple[str, str]:
    return about.get("idea", ""), about.get("source", "")


def base_recipe(hyperparameters: dict, problems: Problems) -> Recipe | None:
    """Return the recipe that all arms start from; None, and its problems noted, if it has some."""
    check_hyperparameters(hyperparameters, problems, "base", at=("base",))
    if "seed" in hyperparameters:
        problems.add("seed: set 'seeds' instead; every arm is trained once with each.", "base")
    if problems.touch("base"):
        return None
    rest, taken = dict(hyperparameters), []
    while True:
        try:
            recipe = Recipe.of(rest)
        except InputError as problem:
            # one contradiction at a time, without the hyperparameters that had one
            if not any(re.search(rf"\b{name}\b", str(problem)) for name in taken):
                problems.add(str(problem), "base")
            taken.append(str(problem).partition(":")[0])
            if rest.pop(taken[-1], None) is None:
                return None
        else:
            return None if taken else recipe


@dataclass
class Known:
    """What questions can name; None stands for what has a problem that is noted already.

    Attributes
    ----------
    tricks, networks : None if their lists could not be read, so that any name may be right
    arms : those of the questions so far
    doubtful : how further arms' names begin, of questions that were refused
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
                problem = f"{name!r} is {what}.{_nearest(name, known)}"
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


def ask(name: str, about: dict, known: Known) -> Question | None:
    """Return a question, in which a recipe is None if it could not be made; None if it has none."""
    problems, path = known.problems, ("questions", name)
    kinds = [kind for kind in KINDS if kind in about]
    if len(kinds) != 1:
        problems.add(f"give exactly one of {', '.join(KINDS)}.", *path)
        return None
    (kind,) = kinds
    belongs = {"tricks": "networks", "steps": "length"}
    unused = [key for key in belongs if kind != belongs[key]]
    for key in unused + ["start"] * (kind == "networks"):
        if key in about:
            problems.add(f"{key}: has no effect here; leave it out.", *path)
    make = _networks if kind == "networks" else _from_start
    made = make(name, kind, about, known)
    if made is None:
        return None
    arms, effects, labels, shared = made
    for arm in arms:
        if not note_name(arm, problems, *path, "arm", at=known.at[arm]):
            known.doubtful.add("")
    more = tuple(about[kind]) if kind == "noise" else ()
    return Question(name, about["asks"], kind, arms, tuple(effects), more, labels, shared)


def _networks(name: str, kind: str, about: dict, known: Known):
    """Return arms, effects, labels and tricks of a question of networks; None if it has no arms.

    It lists names of the catalogue, or gives its own as 'label: network'.
    """
    problems, path, asked = known.problems, ("questions", name), about[kind]
    shared = known.listed(about.get("tricks", []), known.tricks, TRICK, *path, "tricks")
    apart = _apart(shared, known, *path)
    if isinstance(asked, dict):
        chosen = dict(asked)
        for label, network in asked.items():
            try:
                check_hyperparameter("network", network)
            except InputError as problem:
                chosen[label] = None
                problems.add(str(problem), *path, at=(*path, kind, label))
    else:
        names = known.listed(asked, known.networks, NETWORK, *path, kind)
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


def _from_start(name: str, kind: str, about: dict, known: Known):
    """Return arms, effects, no labels and no tricks of a question that starts from an arm.

    None, if it has no arms.
    """
    problems, path, first = known.problems, ("questions", name), about.get("start")
    if first is None:
        problems.add("start: missing; name an arm of an earlier question.", *path)
    elif first not in known.arms and not first.startswith(tuple(known.doubtful)):
        hint = _nearest(first, known.arms)
        problems.add(f"start: {first!r} is no arm of an earlier question.{hint}", *path)
    if kind == "noise":
        if first not in known.arms:
            return None
        known.at.setdefault(first, (*path, "start"))
        return {first: known.arms[first]}, (), {}, ()
    if kind == "length" and not about.get("steps"):
        problems.add("steps: missing; list the numbers of training steps.", *path)
        return None
    asked = list(COURSE_LADDER) if about[kind] == "course" else about[kind]
    tricks = known.listed(asked, known.tricks, TRICK, *path, kind)
    least = 2 if kind == "leave_one_out" else 1
    if len(asked) < least:
        problems.add(
            f"{kind}: lists {len(asked)} tricks; a comparison needs "
            f"{'two' if least == 2 else 'one'} or more.", *path,
        )  # fmt: skip
    apart = kind in ("alone", "length") or _apart(tricks, known, *path)
    if first not in known.arms or problems.touch(*path, kind) or len(tricks) < len(asked):
        return None

    def at(trick: str) -> tuple:
        return (*path, kind, asked.index(trick))

    def apply(recipe: Recipe | None, trick: str, *note: str) -> Recipe | None:
        return known.applied(recipe, trick, at(trick), *path, *note) if apart else None

    if kind == "length":
        for trick in tricks:
            if "steps" in getattr((known.tricks or {}).get(trick), "hyperparameters", ()):
                problem = f"{trick} sets steps, as this question does; leave it out."
                known.problems.add(problem, *path, at=at(trick))
        if problems.touch(*path):
            return None
        starts = _shortened(known.arms[first], about["steps"], known, path)
        arms, effects = _length(first, starts, tricks, apply)
        for arm in arms:
            known.at.setdefault(arm, (*path, "steps"))
        return arms, effects, {}, ()
    arms, effects = TRICK_QUESTIONS[kind](first, known.arms[first], tricks, apply)
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


def _shortened(start: Recipe | None, steps: list[int], known: Known, path) -> dict:
    """Return a recipe at several numbers of steps; None, noted, where that is not possible."""
    found = {}
    for index, n in enumerate(steps):
        try:
            found[n] = start and start.changed({"steps": n})
        except InputError as problem:
            found[n] = known.problems.add(str(problem), *path, at=(*path, "steps", index))
    return found


def _length(first: str, starts: dict[int, Recipe | None], tricks: list[str], apply):
    """Return arms and effects of one trick at a time, at each of several numbers of steps."""
    arms, effects = {}, []
    for n, start in starts.items():
        plain = f"{first}-{n}-steps"
        arms[plain] = start
        for trick in tricks:
            arm = f"{first}-{trick}-{n}-steps"
            arms[arm] = apply(start, trick)
            effects.append((f"{trick} at {n} steps", arm, plain))
    return arms, effects


TRICK_QUESTIONS = {"ladder": _ladder, "leave_one_out": _leave_one_out, "alone": _alone}


def _nearest(name, known: dict) -> str:
    return nearest(name, known) if known else " There is none."


def _apart(tricks: list[str], known: Known, *path) -> bool:
    """Return whether no two tricks of a recipe set the same hyperparameter; note those that do."""
    setters, apart = {}, True
    for trick in tricks:
        change = (known.tricks or {}).get(trick)
        for name in change.hyperparameters if change else ():
            if name in setters:
                known.problems.add(
                    f"{setters[name]} and {trick} both set {name}; the second would undo the "
                    "first, so let only one of them set it.", *path,
                )  # fmt: skip
                apart = False
            setters.setdefault(name, trick)
    return apart


def check_arms(questions: dict[str, Question], known: Known) -> None:
    """Note each arm whose name means another recipe in another question."""
    seen: dict[str, tuple[str, Recipe]] = {}
    for question in questions.values():
        for name, recipe in question.arms.items():
            if recipe is None:
                continue
            other, first = seen.setdefault(name, (question.name, recipe))
            if first != recipe:
                differing = [k for k in DEFAULTS if getattr(first, k) != getattr(recipe, k)]
                known.problems.add(
                    f"arm {name} is another recipe in {other} "
                    f"({', '.join(sorted(differing))} differ); rename one. "
                    "A rung is named after its trick: list the trick again under another name.",
                    "questions", question.name,
                )  # fmt: skip


def check_name(where: str, name) -> None:
    """Raise InputError unless a name can stand in file names and run names."""
    if problem := _name_problem(name):
        raise InputError(f"{where}: {problem}")


def _name_problem(name) -> str:
    words = str(name).split("-")
    if all(word.isascii() and word.isalnum() for word in words) and len(str(name)) <= 60:
        return ""
    return f"{name!r} cannot name a file; use {NAME}, at most 60."


def note_name(name: str, problems: Problems, *path, at: tuple | None = None) -> bool:
    """Return whether a name can stand in file names, and note it if it cannot."""
    problem = _name_problem(name)
    if problem:
        problems.add(problem, *path, at=at or (*path, name))
    return not problem
