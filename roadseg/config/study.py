"""A study: a data set, the questions asked of it, and the runs that answer them.

`params.yaml` says what is asked. What its tricks and networks are is said by the catalogue,
`tricks.yaml` and `networks.yaml`, to which a study can add.
"""

import hashlib
import json
import os
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

from roadseg.config import paths
from roadseg.config.params import CATALOGUE, check_splits, check_structure
from roadseg.config.questions import (
    Context,
    Network,
    Question,
    Trick,
    build_question,
    check_arms,
    check_name,
    note_name,
    with_one_name,
)
from roadseg.config.recipe import DEFAULTS, Recipe, contradictions
from roadseg.config.yaml import Problems, read_lines, read_text
from roadseg.errors import InputError, nearest

EMBEDDED = "synthetic"  # the study whose params.yaml is in the project's root
YAML_ENDINGS = (".yaml", ".yml")
TEXTS = ("title", "idea", "source")  # of a trick or a network
# What `make_network` reads of a recipe: building one takes a while, and many arms share theirs.
NETWORK_HYPERPARAMETERS = ("network", "batch_norm", "residual", "dropout", "aux_weight")


@dataclass(frozen=True)
class Study:
    """Everything that is asked of a data set, checked.

    Attributes
    ----------
    name, title : of the study
    params : path of its params.yaml from the project's root, for messages
    data : the data set, its image size, and how long its blocks of frames are
    remarks : what a reader should know of how the study was made
    seeds : what every arm is trained with
    tricks, networks : the catalogue
    questions : in the order of params.yaml; a recipe has one name in all of them
    problems : knows where each setting stands: file and line; ('arms', NAME) is where an arm is
        asked for
    content : of the files, as `parse` takes it
    """

    name: str
    title: str
    params: str
    data: dict
    remarks: tuple[str, ...]
    seeds: tuple[int, ...]
    tricks: dict[str, Trick]
    networks: dict[str, Network]
    questions: dict[str, Question]
    problems: Problems = field(compare=False, repr=False)
    content: dict = field(compare=False, repr=False)

    @property
    def fcn(self) -> Question | None:
        """The first question that compares the baseline with FCN, if one does."""
        return next((q for q in self.questions.values() if _compares_fcn(q)), None)

    @property
    def baseline(self) -> str | None:
        """Name of an arm of the course's baseline, in the question `fcn` if there is one."""
        arms = {
            arm: recipe
            for arm, recipe in (self.fcn.arms if self.fcn else self.arms).items()
            # one whose layers a trick changes is another network
            if recipe.network.startswith("baseline") and recipe.architecture == recipe.network
        }
        return next(iter(arms), None)

    @property
    def network_question(self) -> Question | None:
        """The question that compares most networks, if one does; of equals, rather not `fcn`."""
        kinds = [question for question in self.questions.values() if question.kind == "networks"]
        return max(kinds, key=lambda s: (len(s.arms), s is not self.fcn), default=None)

    def without(self, arms: Collection[str]) -> "Study":
        """Return the study without some arms, given by their names.

        What is compared with one of them is compared no more; a question without arms is left out.
        """
        questions = {}
        for question in self.questions.values():
            kept = {name: r for name, r in question.arms.items() if name not in arms}
            effects = tuple(effect for effect in question.effects if kept.keys() >= {*effect[1:]})
            if kept:
                questions[question.name] = replace(question, arms=kept, effects=effects)
        return replace(self, questions=questions)

    @cached_property  # it is asked for each of many arms
    def arms(self) -> dict[str, Recipe]:
        """Each distinct recipe by name, at seed 0."""
        return {
            name: r for question in self.questions.values() for name, r in question.arms.items()
        }

    def seeds_of(self, arm: str) -> tuple[int, ...]:
        """Return the seeds an arm is trained with: the study's, and a noise question's."""
        extra = [q.seeds for q in self.questions.values() if q.seeds and arm in q.arms]
        return tuple(dict.fromkeys([*self.seeds, *(seed for seeds in extra for seed in seeds)]))

    @cached_property
    def runs(self) -> dict[str, Recipe]:
        """Each run by name, ARM-sSEED."""
        return {
            f"{arm}-s{seed}": recipe.changed({"seed": seed})
            for arm, recipe in self.arms.items()
            for seed in self.seeds_of(arm)
        }

    def question_seeds(self, question: Question) -> tuple[int, ...]:
        """Return the seeds that a question trains its arms with."""
        return tuple(dict.fromkeys([*self.seeds, *question.seeds]))

    def run_folder(self, arm: str, seed: int) -> Path:
        """Folder of one run's record: that of the first question that asks for it."""
        for question in self.questions.values():
            if arm in question.arms and seed in self.question_seeds(question):
                return self.build / "runs" / question.name / arm / f"s{seed}"
        raise InputError(f"{self.name}: no question asks for {arm} with seed {seed}.")

    @property
    def arrays(self) -> dict:
        """What of `data` decides the prepared arrays: all but how long blocks of frames are.

        Lists of images count by their content: 'lists' holds their digests.
        """
        settings = {key: value for key, value in self.data.items() if key != "block"}
        files = [
            paths.ROOT / part
            for part in settings.get("splits", {}).values()
            if isinstance(part, str) and part.endswith(".txt")
        ]
        if files:
            settings["lists"] = [
                hashlib.sha256(f.read_bytes()).hexdigest() if f.is_file() else "" for f in files
            ]
        return settings

    @property
    def prepared(self) -> Path:
        """Folder of the prepared scenes."""
        return paths.ROOT / "data" / "prepared" / self.name

    @property
    def build(self) -> Path:
        """Folder of what can be made again: runs, executed notebooks."""
        return paths.ROOT / "build" / self.name

    @property
    def results(self) -> Path:
        """Folder of the tables that git keeps."""
        return paths.ROOT / "results" / self.name

    @property
    def report(self) -> Path:
        """Folder of the rendered report."""
        return paths.ROOT / "reports" / self.name


def network_recipe(recipe: Recipe) -> Recipe:
    """Return a recipe without all that its network does not show: equal ones, equal networks."""
    return Recipe(**{name: getattr(recipe, name) for name in NETWORK_HYPERPARAMETERS})


def params_file(study: str | Path) -> Path:
    """Return the params.yaml that a study's name, or a path to it, stands for.

    Raises
    ------
    InputError : there is no such study
    """
    if Path(study).suffix in YAML_ENDINGS:
        return Path(os.path.normpath(paths.ROOT / study))
    if str(study) == EMBEDDED:
        return paths.ROOT / "params.yaml"
    file = paths.ROOT / "studies" / str(study) / "params.yaml"
    if not file.is_file():
        known = [EMBEDDED, *(f.parent.name for f in paths.ROOT.glob("studies/*/params.yaml"))]
        raise InputError(f"{study}: no such study.{nearest(str(study), known)}")
    return file


def load(study: str | Path = EMBEDDED) -> Study:
    """Read and check a study's `params.yaml` and the catalogue.

    Parameters
    ----------
    study : its name, or the path of its params.yaml

    Raises
    ------
    InputError : what is wrong, each problem with its file and line, in up to three rounds, since
        what depends on something wrong may be right once that is mended: values that are no YAML or
        mean several things; unknown, missing and wrong settings; what contradicts something else
    """
    file = params_file(study)
    content, problems = read_lines(file, _display_path(file))
    for part in CATALOGUE:
        content[part] = _catalogue(part, file.parent, problems)
    remarks = _remarks(file.with_name("remarks.md"), problems)
    problems.raise_any()
    if Path(study).suffix not in YAML_ENDINGS:  # a name, as the pipeline calls it
        _check_pipeline(str(study), content, file, problems)
    return parse(content, problems, remarks)


def load_resolved(study: str) -> Study:
    """Return a study, given by its name, as the pipeline resolved it last.

    Its runs and tables are of these settings, whatever was edited since. Where it was not resolved,
    or by an earlier version, that is `load`.
    """
    file = paths.ROOT / "build" / study / "study.json"
    if not file.is_file():
        return load(study)
    resolved = json.loads(file.read_text())
    try:
        return parse(resolved["content"], Problems(resolved["params"]), tuple(resolved["remarks"]))
    except InputError:
        return load(study)


def _display_path(file: Path) -> str:
    return str(file).removeprefix(f"{paths.ROOT}/")


def _check_pipeline(name: str, content: dict, file: Path, problems: Problems) -> None:
    """Note what would let the pipeline of a study, known by its folder, fail or run another's."""
    folder, pipeline = _display_path(file.parent), file.with_name("dvc.yaml")
    check_name(folder, name)
    if isinstance(content.get("study"), str) and content["study"] != name:
        which = "the embedded study" if name == EMBEDDED else f"the study in {folder}"
        problems.add(f"{content['study']!r} is not allowed; {which} is called {name}.", "study")
    for beside in ("tricks.yaml", "networks.yaml", "remarks.md"):
        if not (required := file.with_name(beside)).is_file():
            raise InputError(
                f"{_display_path(required)}: no such file. The pipeline reads it; an empty one "
                "will do."
            )
    template = paths.ROOT / "dvc.yaml"
    if pipeline.is_file() and template.is_file() and pipeline.read_bytes() != template.read_bytes():
        raise InputError(
            f"{_display_path(pipeline)}: differs from the project's dvc.yaml, which all studies "
            f"share; it may be from an earlier version. Run: cp dvc.yaml {folder}/"
        )


def _catalogue(part: str, folder: Path, problems: Problems) -> dict:
    """Return the tricks or networks of the project, with what a study adds or says otherwise."""
    entries = {}
    for directory in dict.fromkeys([paths.ROOT, folder]):
        file = directory / f"{part}.yaml"
        if not file.is_file() and directory != paths.ROOT:
            continue
        if not file.is_file():
            raise InputError(
                f"{part}.yaml: no such file. It holds the {part} that questions name, whichever "
                "study asks; bring it back, or make an empty one."
            )
        content, file_problems = read_lines(file, _display_path(file), may_be_empty=True)
        problems.include(file_problems, part)
        for name, about in content.items():
            if isinstance(about, dict) and isinstance(entries.get(name), dict):
                about = {**entries[name], **about}  # its texts may stay as they are
            entries[name] = about
    return entries


def _remarks(file: Path, problems: Problems) -> tuple[str, ...]:
    """Return the points of a Markdown list, each as one line; none if there is no such file.

    Headings are passed over. Text before the first point is a problem.
    """
    file_problems, points = Problems(_display_path(file)), []
    text = read_text(file, file_problems.file) if file.exists() else ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("- "):
            points.append(line[2:].strip())
        elif points and not line.startswith("#"):
            points[-1] = f"{points[-1]} {line.strip()}".strip()
        elif line.strip() and not line.startswith("#"):
            file_problems.places["line", number] = file_problems.file, number
            problem = "is not part of a remark; begin each remark with '- '."
            file_problems.add(problem, at=("line", number))
    problems.include(file_problems, "remarks")
    return tuple(points)


def parse(content: dict, problems: Problems, remarks: tuple[str, ...] = ()) -> Study:
    """Return the study that the content of a `params.yaml` and of the catalogue asks for.

    Raises
    ------
    InputError : `problems`, and what is found here, see `load`
    """
    check_structure(content, problems)
    problems.raise_any()
    note_name(content["study"], problems, "study")
    _check_folder_keys(content, problems)
    check_splits(content["data"], problems)
    for part in CATALOGUE:
        for name in content[part]:
            note_name(name, problems, part, at=(part, name))
    for name, about in content["tricks"].items():
        if not about["set"]:
            problem = "sets no hyperparameter; a trick must change something."
            problems.add(problem, "tricks", name)
    base = content["base"]
    if "seed" in base:
        problem = "take it out; every arm is trained with each of seeds:."
        problems.add(problem, "base", "seed")
    for name, contradiction in contradictions(SimpleNamespace(**DEFAULTS | base)):
        problems.add(contradiction, "base", name)
    if not content["questions"]:
        problems.add("none is listed; ask at least one.", "questions")
    problems.raise_any()
    tricks, networks = (
        {
            name: kind(name, about[value], *(about.get(key, "") for key in TEXTS))
            for name, about in content[part].items()
        }
        for part, kind, value in (("tricks", Trick, "set"), ("networks", Network, "network"))
    )
    context = Context(Recipe.of(base), tricks, networks, problems)
    questions = {}
    for name, about in content["questions"].items():
        if question := build_question(name, about, context):
            questions[name] = question
    check_arms(questions.values(), problems)
    problems.raise_any()
    for arm, path in context.places.items():
        problems.places["arms", arm] = problems.place(path)
    return Study(
        content["study"], content["title"], problems.file, content["data"], remarks,
        tuple(content["seeds"]), tricks, networks, with_one_name(questions), problems, content,
    )  # fmt: skip


def _check_folder_keys(content: dict, problems: Problems) -> None:
    """Note a `folder` or `root` that is not the file's: the pipeline would write elsewhere."""
    folder, _, name = problems.file.rpartition("/")
    if name != "params.yaml" or folder.startswith("/"):
        return
    root = "/".join([".."] * len(folder.split("/"))) if folder else "."
    for key, value in (("folder", folder or "."), ("root", root)):
        if content[key] != value:
            problems.add(f"{content[key]!r} is not allowed; here it must be {value!r}.", key)


def _compares_fcn(question: Question) -> bool:
    names = [recipe.network for recipe in question.arms.values()]
    return question.kind == "networks" and all(
        any(name.startswith(kind) for name in names) for kind in ("baseline", "fcn")
    )
