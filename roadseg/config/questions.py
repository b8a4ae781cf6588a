"""Tricks, networks, and the questions that compare recipes."""

from dataclasses import dataclass, field, replace
from functools import reduce
from types import SimpleNamespace

from roadseg.config.params import COURSE_LADDER, check_hyperparameters
from roadseg.config.recipe import DEFAULTS, Recipe, check_hyperparameter, contradictions
from roadseg.config.yaml import Problems
from roadseg.errors import InputError, nearest

NAME = "letters, digits and single dashes, as in fcn-8s"
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


def make_trick(name: str, about: dict, problems: Problems) -> Trick | None:
    """Return a trick; None, and its problems noted, if it has some."""
    note_name(name, problems, "tricks")
    hyperparameters = about.get("set") if isinstance(about, dict) else None
    if isinstance(hyperparameters, dict):
        check_hyperparameters(hyperparameters, problems, "tricks", name, at=("tricks", name, "set"))
    if hyperparameters == {}:
        problems.add("sets no hyperparameter; a trick must change something.", "tricks", name)
    return (
        None
        if problems.has_problem_at("tricks", name)
        else Trick(name, hyperparameters, *_about(about))
    )


def make_network_entry(name: str, about: dict, problems: Problems) -> Network | None:
    """Return a network of the list; None, and its problems noted, if it has some."""
    note_name(name, problems, "networks")
    has_problem = problems.has_problem_at("networks", name)
    return None if has_problem else Network(name, about["network"], *_about(about))


def _about(about: dict) -> tuple[str, str, str]:
    return tuple(about.get(key, "") for key in ("title", "idea", "source"))


def base_recipe(hyperparameters: dict, problems: Problems) -> Recipe | None:
    """Return the recipe that all arms start from; None, and its problems noted, if it has some."""
    check_hyperparameters(hyperparameters, problems, "base", at=("base",))
    if "seed" in hyperparameters:
        problems.add("seed: set 'seeds' instead; every arm is trained once with each.", "base")
    if problems.has_problem_at("base"):
        return None
    valid = {name: check_hyperparameter(name, value) for name, value in hyperparameters.items()}
    found = contradictions(SimpleNamespace(**DEFAULTS | valid))
    for name, contradiction in found:
        problems.add(f"{name}: {contradiction}", "base")
    return None if found else Recipe.of(hyperparameters)


@dataclass
class Context:
    """What questions can name; None stands for what has a problem that is noted already.

    Attributes
    ----------
    tricks, networks : None if their lists could not be read, so that any name may be right
    arms : those of the questions so far
    unresolved : how further arms' names begin, of questions that were refused
    locations : arm -> path to where it is asked for
    reported : problems of tricks that were noted for one arm, and are not for others
    """

    base: Recipe | None
    tricks: dict[str, Trick | None] | None
    networks: dict[str, Network | None] | None
    problems: Problems
    arms: dict[str, Recipe | None] = field(default_factory=dict)
    unresolved: set[str] = field(default_factory=set)
    locations: dict[str, tuple] = field(default_factory=dict)
    reported: set[str] = field(default_factory=set)

    def checked_names(self, names: list, known: dict | None, what: str, *path) -> list[str]:
        """Return the names of a list at a path, each of which must be known and stand once."""
        valid = []
        for index, name in enumerate(names):
            problem = None
            if name in valid:
                problem = f"{path[-1]}: lists {name!r} twice; drop one."
            elif isinstance(name, str) and (known is None or name in known):
                valid.append(name)
            elif known is not None:
                problem = f"{name!r} is {what}.{_nearest(name, known)}"
            if problem:
                self.problems.add(problem, *path[:-1], at=(*path, index))
        return valid

    def apply_trick(self, recipe: Recipe | None, trick: str, at: tuple, *path) -> Recipe | None:
        """Return a recipe with a trick applied, or None where that is not possible."""
        change = (self.tricks or {}).get(trick)
        if recipe is None or change is None:
            return None
        try:
            return change(recipe)
        except InputError as problem:
            if str(problem) not in self.reported:
                self.problems.add(str(problem), *path, at=at)
            self.reported.add(str(problem))
            return None


def build_question(name: str, about: dict, context: Context) -> Question | None:
    """Return a question, in which a recipe is None if it could not be made; None if it has none."""
    problems, path = context.problems, ("questions", name)
    kinds = [kind for kind in KINDS if kind in about]
    if len(kinds) != 1:
        problems.add(f"give exactly one of {', '.join(KINDS)}.", *path)
        return None
    (kind,) = kinds
    required_kind = {"tricks": "networks", "steps": "length"}
    unused = [key for key in required_kind if kind != required_kind[key]]
    for key in unused + ["start"] * (kind == "networks"):
        if key in about:
            problems.add(f"{key}: has no effect here; leave it out.", *path)
    build_arms = _network_arms if kind == "networks" else _arms_from_start
    parts = build_arms(name, kind, about, context)
    if parts is None:
        return None
    arms, effects, labels, shared = parts
    for arm in arms:
        if not note_name(arm, problems, *path, "arm", at=context.locations[arm]):
            context.unresolved.add("")
    extra_seeds = tuple(about[kind]) if kind == "noise" else ()
    return Question(
        name, about["asks"], kind, arms, about.get("start", ""), tuple(effects), extra_seeds,
        labels, shared,
    )  # fmt: skip


def _network_arms(name: str, kind: str, about: dict, context: Context):
    """Return arms, effects, labels and tricks of a question of networks; None if it has no arms.

    It lists names of the catalogue, or gives its own as 'label: network'.
    """
    problems, path, entries = context.problems, ("questions", name), about[kind]
    shared = context.checked_names(about.get("tricks", []), context.tricks, TRICK, *path, "tricks")
    disjoint = _check_disjoint(shared, context, *path)
    if isinstance(entries, dict):
        chosen = dict(entries)
        for label, network in entries.items():
            try:
                check_hyperparameter("network", network)
            except InputError as problem:
                chosen[label] = None
                problems.add(str(problem), *path, at=(*path, kind, label))
    else:
        names = context.checked_names(entries, context.networks, NETWORK, *path, kind)
        catalogue_entries = {label: (context.networks or {}).get(label) for label in names}
        chosen = {
            label: network and network.network for label, network in catalogue_entries.items()
        }
    if not entries:
        problems.add(f"{kind}: lists no network; name one or more.", *path)
    valid = [network for network in chosen.values() if network]
    if len(set(valid)) < len(valid):
        problems.add(f"{kind}: two arms are the same network; drop one.", *path)
    if problems.has_problem_at(*path):
        return None
    arms, labels = {}, {}
    for label, network in chosen.items():
        location = (*path, kind, label if isinstance(entries, dict) else entries.index(label))
        recipe = None
        if context.base and network and disjoint:
            recipe = context.base.changed({"network": network})
        for trick in shared:
            recipe = context.apply_trick(recipe, trick, location, *path)
        # Another recipe than the network has elsewhere, so another name.
        arm = f"{label}-{name}" if shared else label
        arms[arm], labels[arm] = recipe, label
        context.locations.setdefault(arm, location)
    return arms, (), labels, tuple(shared)


def _arms_from_start(name: str, kind: str, about: dict, context: Context):
    """Return arms, effects, labels and no tricks of a question that starts from an arm.

    None, if it has no arms.
    """
    problems, path, start_name = context.problems, ("questions", name), about.get("start")
    if start_name is None:
        problems.add("start: missing; name an arm of an earlier question.", *path)
    elif start_name not in context.arms and not start_name.startswith(tuple(context.unresolved)):
        hint = _nearest(start_name, context.arms)
        problems.add(f"start: {start_name!r} is no arm of an earlier question.{hint}", *path)
    if kind == "noise":
        if start_name not in context.arms:
            return None
        context.locations.setdefault(start_name, (*path, "start"))
        return {start_name: context.arms[start_name]}, (), {}, ()
    if kind == "length" and not about.get("steps"):
        problems.add("steps: missing; list the numbers of training steps.", *path)
        return None
    listed = list(COURSE_LADDER) if about[kind] == "course" else about[kind]
    tricks = context.checked_names(listed, context.tricks, TRICK, *path, kind)
    minimum = 2 if kind == "leave_one_out" else 1
    if len(listed) < minimum:
        problems.add(
            f"{kind}: lists {len(listed)} tricks; a comparison needs "
            f"{'two' if minimum == 2 else 'one'} or more.", *path,
        )  # fmt: skip
    disjoint = kind in ("alone", "length") or _check_disjoint(tricks, context, *path)
    if (
        start_name not in context.arms
        or problems.has_problem_at(*path, kind)
        or len(tricks) < len(listed)
    ):
        return None

    def location_of(trick: str) -> tuple:
        return (*path, kind, listed.index(trick))

    def apply_trick(recipe: Recipe | None, trick: str, *note: str) -> Recipe | None:
        return (
            context.apply_trick(recipe, trick, location_of(trick), *path, *note)
            if disjoint
            else None
        )

    if kind == "length":
        for trick in tricks:
            if "steps" in getattr((context.tricks or {}).get(trick), "hyperparameters", ()):
                problem = f"{trick} sets steps, as this question does; leave it out."
                context.problems.add(problem, *path, at=location_of(trick))
        if problems.has_problem_at(*path):
            return None
        starts = _starts_at_steps(context.arms[start_name], about["steps"], context, path)
        arms, effects, labels = _length_arms(start_name, starts, tricks, apply_trick)
        for arm in arms:
            context.locations.setdefault(arm, (*path, "steps"))
        return arms, effects, labels, ()
    arms, effects = TRICK_QUESTIONS[kind](start_name, context.arms[start_name], tricks, apply_trick)
    for trick, *pair in effects:
        for arm in pair:
            context.locations.setdefault(
                arm, location_of(trick) if arm.endswith(f"-{trick}") else (*path, kind)
            )
    return arms, effects, {}, ()


def _ladder_arms(start_name: str, start: Recipe | None, tricks: list[str], apply_trick):
    """Return arms and effects where each rung adds one trick to the rung before it."""
    arms, effects, previous = {start_name: start}, [], start_name
    for trick in tricks:
        rung = f"with-{trick}"
        arms[rung] = apply_trick(arms[previous], trick)
        effects.append((trick, rung, previous))
        previous = rung
    return arms, effects


def _leave_one_out_arms(start_name: str, start: Recipe | None, tricks: list[str], apply_trick):
    """Return arms and effects of the recipe with all tricks against all but one of them."""
    arms, effects = {f"{start_name}-all": reduce(apply_trick, tricks, start)}, []
    for omitted in tricks:
        arm = f"{start_name}-all-but-{omitted}"
        others, note = [trick for trick in tricks if trick != omitted], f"without {omitted}"
        arms[arm] = reduce(
            lambda recipe, trick, note=note: apply_trick(recipe, trick, note), others, start
        )
        effects.append((omitted, f"{start_name}-all", arm))
    return arms, effects


def _alone_arms(start_name: str, start: Recipe | None, tricks: list[str], apply_trick):
    """Return arms and effects of one trick at a time on the start."""
    arms = {start_name: start} | {
        f"{start_name}-{trick}": apply_trick(start, trick) for trick in tricks
    }
    return arms, [(trick, f"{start_name}-{trick}", start_name) for trick in tricks]


def _starts_at_steps(start: Recipe | None, steps: list[int], context: Context, path) -> dict:
    """Return a recipe at several numbers of steps; None, noted, where that is not possible."""
    starts = {}
    for index, number in enumerate(steps):
        try:
            starts[number] = start and start.changed({"steps": number})
        except InputError as problem:
            starts[number] = context.problems.add(str(problem), *path, at=(*path, "steps", index))
    return starts


def _length_arms(start_name: str, starts: dict[int, Recipe | None], tricks: list[str], apply_trick):
    """Return arms, effects and labels of one trick at a time, at several numbers of steps."""
    arms, effects, labels = {}, [], {}
    for steps, start in starts.items():
        reference = f"{start_name}-{steps}-steps"
        arms[reference], labels[reference] = start, start_name
        for trick in tricks:
            arm = f"{start_name}-{trick}-{steps}-steps"
            arms[arm], labels[arm] = apply_trick(start, trick), f"{start_name}-{trick}"
            effects.append((f"{trick} at {steps} steps", arm, reference))
    return arms, effects, labels


TRICK_QUESTIONS = {
    "ladder": _ladder_arms,
    "leave_one_out": _leave_one_out_arms,
    "alone": _alone_arms,
}


def _nearest(name, known: dict) -> str:
    return nearest(name, known) if known else " There is none."


def _check_disjoint(tricks: list[str], context: Context, *path) -> bool:
    """Return whether no two tricks of a recipe set the same hyperparameter; note those that do."""
    setters, disjoint = {}, True
    for trick in tricks:
        change = (context.tricks or {}).get(trick)
        for name in change.hyperparameters if change else ():
            if name in setters:
                context.problems.add(
                    f"{setters[name]} and {trick} both set {name}; the second would undo the "
                    "first, so let only one of them set it.", *path,
                )  # fmt: skip
                disjoint = False
            setters.setdefault(name, trick)
    return disjoint


def check_arms(questions: dict[str, Question], context: Context) -> None:
    """Note each arm whose name means another recipe in another question."""
    seen: dict[str, tuple[str, Recipe]] = {}
    for question in questions.values():
        for name, recipe in question.arms.items():
            if recipe is None:
                continue
            other, first = seen.setdefault(name, (question.name, recipe))
            if first != recipe:
                differing = [k for k in DEFAULTS if getattr(first, k) != getattr(recipe, k)]
                context.problems.add(
                    f"arm {name} is another recipe in {other} "
                    f"({', '.join(sorted(differing))} differ); rename one. "
                    "A rung is named after its trick: list the trick again under another name.",
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
