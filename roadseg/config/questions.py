"""Tricks, networks, and the questions that compare recipes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import reduce

from roadseg.config.params import COURSE_LADDER
from roadseg.config.recipe import DEFAULTS, Recipe
from roadseg.config.yaml import Problems
from roadseg.errors import InputError, nearest, not_allowed

NAME = "up to 60 letters, digits and single dashes, as in fcn-8s"
TRICK, NETWORK = "no trick of tricks.yaml", "no network of networks.yaml"
KINDS = ("networks", "ladder", "leave_one_out", "alone", "length", "noise")


@dataclass(frozen=True)
class Trick:
    """A named change to a recipe: the hyperparameters it sets, its title, idea and source."""

    name: str
    hyperparameters: dict
    title: str
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
    """A network under the name that questions call it by, with its title, idea and source.

    `network` is what `models.build` takes.
    """

    name: str
    network: str
    title: str
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
    start : name of the arm that the tricks are tried on; of a networks question empty
    effects : (trick, arm, against) of each comparison that the question is made for; in a length
        question the trick is named with its number of steps, as in 'flip at 300 steps'
    seeds : of a noise question, those that its arm is trained with beside the study's; else empty
    labels : of a networks question, arm -> the network's name there; of a length question, the
        arm's name without the number of steps; else empty
    shared : of a networks question, the tricks that all its arms have; else empty
    """

    name: str
    asks: str
    kind: str
    arms: dict[str, Recipe]
    start: str = ""
    effects: tuple[tuple[str, str, str], ...] = ()
    seeds: tuple[int, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    shared: tuple[str, ...] = ()


@dataclass
class Context:
    """What questions can name, and what is found out about them.

    Attributes
    ----------
    base : the recipe that all arms start from
    tricks, networks : the catalogue
    arms : those of the questions so far
    places : arm -> path to where it is asked for
    has_refused : a question was refused, so that a name that is not among `arms` may be its arm's
    """

    base: Recipe
    tricks: dict[str, Trick]
    networks: dict[str, Network]
    problems: Problems
    arms: dict[str, Recipe] = field(default_factory=dict)
    places: dict[str, tuple] = field(default_factory=dict)
    has_refused: bool = False


class _Refused(Exception):
    """A question has a problem that is noted, and is not judged any further."""


def build_question(name: str, about: dict, context: Context) -> Question | None:
    """Return a question; None, and its problems noted, if it has some."""
    problems, path = context.problems, ("questions", name)
    kinds, number = [kind for kind in KINDS if kind in about], len(problems)
    note_name(name, problems, "questions", at=path)
    try:
        if len(kinds) != 1:
            problems.add(f"give exactly one of {', '.join(KINDS)}.", *path)
            raise _Refused
        (kind,) = kinds
        for key, has_effect in (
            ("tricks", kind == "networks"), ("steps", kind == "length"),
            ("start", kind != "networks"),
        ):  # fmt: skip
            if key in about and not has_effect:
                problems.add("has no effect here; leave it out.", *path, key)
        build_arms = _network_arms if kind == "networks" else _arms_from_start
        question = build_arms(Question(name, about["asks"], kind, {}), about, context)
        for arm in question.arms:
            context.places.setdefault(arm, (*path, kind))
            note_name(arm, problems, *path, "arm", at=context.places[arm])
        if len(problems) > number:
            raise _Refused
    except _Refused:
        context.has_refused = True
        return None
    context.arms |= question.arms
    return question


def _network_arms(question: Question, about: dict, context: Context) -> Question:
    """Return a question of networks with its arms, labels and tricks.

    It lists names of the catalogue, or gives its own as 'label: network'.
    """
    problems, path, entries = context.problems, ("questions", question.name), about["networks"]
    number = len(problems)
    shared = _known_names(about.get("tricks", []), context.tricks, TRICK, problems, *path, "tricks")
    _check_disjoint(shared, context, *path, "tricks")
    if isinstance(entries, dict):
        networks, places = entries, {label: (*path, "networks", label) for label in entries}
        for label, network in entries.items():
            if not isinstance(network, str) or not network:
                problems.add(f"{not_allowed(network)}; give a network's name.", *places[label])
    else:
        names = _known_names(entries, context.networks, NETWORK, problems, *path, "networks")
        networks = {name: context.networks[name].network for name in names}
        places = {name: (*path, "networks", entries.index(name)) for name in names}
    if len(problems) > number:
        raise _Refused
    if not networks:
        problems.add("lists no network; name one or more.", *path, "networks")
    if len(set(networks.values())) < len(networks):
        problems.add("two arms are the same network; drop one.", *path, "networks")
    arms, labels = {}, {}
    for label, network in networks.items():
        recipe = context.base.changed({"network": network})
        # With tricks, another recipe than the network has elsewhere, so another name.
        arm = f"{label}-{question.name}" if shared else label
        arms[arm] = reduce(_applier(context, lambda _, at=places[label]: at), shared, recipe)
        labels[arm] = label
        context.places.setdefault(arm, places[label])
    return replace(question, arms=arms, labels=labels, shared=tuple(shared))


def _arms_from_start(question: Question, about: dict, context: Context) -> Question:
    """Return a question that starts from an arm of an earlier one, with its arms and effects."""
    problems, path, kind = context.problems, ("questions", question.name), question.kind
    number, start = len(problems), about.get("start")
    if start is None:
        problems.add("missing; name an arm of an earlier question.", *path, "start")
    elif start not in context.arms:
        if not context.has_refused:
            hint = _nearest(start, context.arms)
            problems.add(f"{start!r} is no arm of an earlier question.{hint}", *path, "start")
        start = None
    if kind == "length" and not about.get("steps"):
        problems.add("missing; list the numbers of training steps.", *path, "steps")
    tricks, places = [], {}
    if kind != "noise":
        listed = list(COURSE_LADDER) if about[kind] == "course" else about[kind]
        tricks = _known_names(listed, context.tricks, TRICK, problems, *path, kind)
        places = {trick: (*path, kind, listed.index(trick)) for trick in tricks}
        needed = 2 if kind == "leave_one_out" else 1
        if len(listed) < needed:
            count = f"{len(listed)} trick{'s' * (len(listed) != 1)}"
            problems.add(f"lists {count}; give {needed} or more.", *path, kind)
        if kind in ("ladder", "leave_one_out"):
            _check_disjoint(tricks, context, *path, kind)
    for trick in tricks if kind == "length" else ():
        if "steps" in context.tricks[trick].hyperparameters:
            problem = f"{trick} sets steps, as this question does; leave it out."
            problems.add(problem, *path, kind, at=places[trick])
    if len(problems) > number or start is None:
        raise _Refused
    question, recipe = replace(question, start=start), context.arms[start]
    apply_trick = _applier(context, places.get)
    if kind == "noise":
        return replace(question, arms={start: recipe}, seeds=tuple(about["noise"]))
    if kind == "length":
        return _length_arms(question, recipe, about["steps"], tricks, apply_trick, context)
    arms, effects = ARMS_OF_TRICKS[kind](start, recipe, tricks, apply_trick)
    for arm in arms:
        trick = next((trick for trick in tricks if arm.endswith(f"-{trick}")), None)
        context.places.setdefault(arm, places.get(trick, (*path, kind)))
    return replace(question, arms=arms, effects=tuple(effects))


def _ladder_arms(start: str, recipe: Recipe, tricks: list[str], apply_trick: Callable):
    """Return arms and effects where each rung adds one trick to the rung before it."""
    arms, effects, previous = {start: recipe}, [], start
    for trick in tricks:
        rung = f"with-{trick}"
        arms[rung] = apply_trick(arms[previous], trick)
        effects.append((trick, rung, previous))
        previous = rung
    return arms, effects


def _leave_one_out_arms(start: str, recipe: Recipe, tricks: list[str], apply_trick: Callable):
    """Return arms and effects of the recipe with all tricks against all but one of them."""
    arms, effects = {f"{start}-all": reduce(apply_trick, tricks, recipe)}, []
    for omitted in tricks:
        arm = f"{start}-all-but-{omitted}"
        arms[arm] = reduce(apply_trick, [trick for trick in tricks if trick != omitted], recipe)
        effects.append((omitted, f"{start}-all", arm))
    return arms, effects


def _alone_arms(start: str, recipe: Recipe, tricks: list[str], apply_trick: Callable):
    """Return arms and effects of one trick at a time on the start."""
    arms = {f"{start}-{trick}": apply_trick(recipe, trick) for trick in tricks}
    return {start: recipe} | arms, [(trick, f"{start}-{trick}", start) for trick in tricks]


ARMS_OF_TRICKS = {
    "ladder": _ladder_arms,
    "leave_one_out": _leave_one_out_arms,
    "alone": _alone_arms,
}


def _length_arms(
    question: Question, recipe: Recipe, lengths: list[int], tricks: list[str],
    apply_trick: Callable, context: Context,
) -> Question:  # fmt: skip
    """Return a question with arms of one trick at a time, at several numbers of steps."""
    arms, effects, labels = {}, [], {}
    place = ("questions", question.name, "steps")
    for index, steps in enumerate(lengths):
        try:
            at_length = recipe.changed({"steps": steps})
        except InputError as problem:
            context.problems.add(str(problem), *place, index)
            raise _Refused from None
        named = {question.start: at_length} | {
            f"{question.start}-{trick}": apply_trick(at_length, trick) for trick in tricks
        }
        arms |= {f"{name}-{steps}-steps": recipe for name, recipe in named.items()}
        labels |= {f"{name}-{steps}-steps": name for name in named}
        reference, *others = (f"{name}-{steps}-steps" for name in named)
        effects += [
            (f"{trick} at {steps} steps", arm, reference)
            for trick, arm in zip(tricks, others, strict=True)
        ]
    for arm in arms:
        context.places.setdefault(arm, place)
    return replace(question, arms=arms, effects=tuple(effects), labels=labels)


def _applier(context: Context, place_of: Callable[[str], tuple]) -> Callable:
    """Return a function of a recipe and a trick that applies it, or notes why it cannot."""

    def apply_trick(recipe: Recipe, trick: str) -> Recipe:
        try:
            return context.tricks[trick](recipe)
        except InputError as problem:
            context.problems.add(str(problem), *place_of(trick))
            raise _Refused from None

    return apply_trick


def _known_names(names: list, known: dict, what: str, problems: Problems, *path) -> list[str]:
    """Return the names of a list at a path, each of which must be known and stand once."""
    valid = []
    for index, name in enumerate(names):
        if name in valid:
            problems.add(f"lists {name!r} twice; drop one.", *path, index)
        elif isinstance(name, str) and name in known:
            valid.append(name)
        else:
            problems.add(f"{name!r} is {what}.{_nearest(name, known)}", *path, index)
    return valid


def _nearest(name, known: dict) -> str:
    return nearest(name, known) if known else " There is none."


def _check_disjoint(tricks: list[str], context: Context, *path) -> None:
    """Note each hyperparameter that two tricks of one recipe set."""
    setters: dict[str, str] = {}
    for trick in tricks:
        for name in context.tricks[trick].hyperparameters:
            if name in setters:
                context.problems.add(
                    f"{setters[name]} and {trick} both set {name}; the second would undo the "
                    "first, so let only one of them set it.", *path,
                )  # fmt: skip
            setters.setdefault(name, trick)


def check_arms(questions: Iterable[Question], problems: Problems) -> None:
    """Note each arm whose name means another recipe in another question."""
    seen: dict[str, tuple[str, Recipe]] = {}
    for question in questions:
        for name, recipe in question.arms.items():
            other, first = seen.setdefault(name, (question.name, recipe))
            if first != recipe:
                differing = [key for key in DEFAULTS if getattr(first, key) != getattr(recipe, key)]
                problems.add(
                    f"arm {name} is another recipe in question {other}, with another "
                    f"{' and '.join(sorted(differing))}. A rung is called after its trick: list "
                    "the trick a second time, under another name.",
                    "questions", question.name,
                )  # fmt: skip


def with_one_name(questions: dict[str, Question]) -> dict[str, Question]:
    """Return questions in which each recipe has the name under which the first one asks for it."""
    arms = {name: r for question in questions.values() for name, r in question.arms.items()}
    first: dict[Recipe, str] = {}
    for name, recipe in arms.items():
        first.setdefault(recipe, name)
    new = {name: first[recipe] for name, recipe in arms.items()}
    return {
        name: replace(
            question,
            arms={new[arm]: recipe for arm, recipe in question.arms.items()},
            start=new.get(question.start, ""),
            effects=tuple((trick, new[arm], new[other]) for trick, arm, other in question.effects),
            labels={new[arm]: label for arm, label in question.labels.items()},
        )
        for name, question in questions.items()
    }


def check_name(where: str, name: str) -> None:
    """Raise InputError unless a name can stand in file names and run names."""
    if problem := _name_problem(name):
        raise InputError(f"{where}: {problem}")


def note_name(name: str, problems: Problems, *path, at: tuple | None = None) -> None:
    """Note a name that cannot stand in file names and run names."""
    if problem := _name_problem(name):
        problems.add(problem, *path, at=at)


def _name_problem(name: str) -> str:
    words = name.split("-")
    if len(name) <= 60 and all(word.isascii() and word.isalnum() for word in words):
        return ""
    return f"{name!r} cannot name a file; use {NAME}."
