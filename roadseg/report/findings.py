"""What a study found, in rows and sentences: every number in them comes from its tables."""

import numpy as np
import pandas as pd

from roadseg.analysis.intervals import MIN_BLOCKS, MIN_SEEDS
from roadseg.analysis.tables import LEVEL, SIMILAR_COST_SHARE, Results, late_gain
from roadseg.config.questions import Question
from roadseg.config.recipe import DEFAULTS
from roadseg.config.study import Study
from roadseg.report.names import arm_titles, trick_label, trick_title
from roadseg.report.say import UNKNOWN, count, fill, interval, name, p_value, points

# Where a trick was tried, by the kind of its question.
PLACES = {"ladder": "on a ladder", "leave_one_out": "left out of all", "alone": "alone"}
SHORT_EPOCHS, FEW_SCORES = 10, 4  # of a training, below which nobody can tell if it converged
RISING = 1.0  # points of val mIoU that an arm still gains late in training if it is not flat
MARK = "\u00a0†"  # of an arm that is not shown to have converged
MARK_MEANS = "† not shown to have converged: still improving at the end, or too short to tell."
SIMILAR = f"within {100 * SIMILAR_COST_SHARE:.0f} % count as equal"


# Verdicts.


def interval_basis(row: pd.Series) -> str:
    """Return what the interval of an arm or comparison rests on, or lacks, in words."""
    seeds = count(int(row["seeds"]), "seed")
    lacking = []
    if row["seeds"] < MIN_SEEDS:
        lacking.append(f"{seeds}, and an interval needs {MIN_SEEDS}")
    if round(row["effective_blocks"], 2) < MIN_BLOCKS:
        blocks = f"{row['effective_blocks']:.1f}".removesuffix(".0")
        lacking.append(
            f"test images worth {blocks} independent block{'s' * (blocks != '1')}, and an interval "
            f"needs {MIN_BLOCKS}"
        )
    return "; ".join(lacking) or seeds


def with_interval(row: pd.Series) -> str:
    """Return an arm's or a comparison's interval, or why it has none: '95 % CI 60.1 to 64.5'."""
    return f"95 % CI {interval(row)}" if interval(row) else interval_basis(row)


def verdict(row: pd.Series) -> str:
    """Return the verdict of a comparison, or that there can be none."""
    return UNKNOWN if np.isnan(row["p_corrected"]) else row["verdict"]


def comparison(row: pd.Series, titles: dict[str, str]) -> str:
    """Return a comparison of two arms as a sentence, in points of mIoU; `titles` are the arms'."""
    arm, against = (f"**{name(titles[row[each]])}**" for each in ("arm", "against"))
    change = points(row["difference"])
    if np.isnan(row["low"]):
        return (
            f"{arm} and {against} differ by {change} points in these runs; whether they do in "
            f"general is {UNKNOWN} ({interval_basis(row)})."
        )
    if not row["p_corrected"] < LEVEL:
        return (
            f"We found no difference between {arm} and {against}: {change} points "
            f"({with_interval(row)}).{only_uncorrected(row)}"
        )
    more = "more" if row["difference"] > 0 else "fewer"
    size = points(abs(row["difference"])).removeprefix("+")
    return f"{arm} scores {size} points {more} than {against} ({with_interval(row)})."


def only_uncorrected(row: pd.Series) -> str:
    """Say why an interval that excludes zero is no verdict, if this one excludes it."""
    if row["tests"] < 2 or row["p_corrected"] < LEVEL or not (row["low"] > 0 or row["high"] < 0):
        return ""
    return (
        f" The interval excludes zero, but among {int(row['tests'])} comparisons that is expected "
        f"too often (p = {p_value(row['p_corrected'])} after correction)."
    )


def tricks_counted(rows: pd.DataFrame) -> str:
    """Return how many of the tricks that comparisons judge help and hurt, as a clause."""
    tricks = count(rows["trick"].nunique(), "trick")
    if rows["p_corrected"].isna().all():
        return f"whether any of {tricks} helps is {UNKNOWN}"
    helps, hurts = (rows["trick"][rows["verdict"] == v].nunique() for v in ("helps", "hurts"))
    if not helps and not hurts:
        return f"of {tricks} none is shown to help or to hurt"
    return (
        f"of {tricks} {helps or 'none is shown to'} help{'s' * (helps == 1)} and "
        f"{hurts or 'none is shown to'} hurt{'s' * (hurts == 1)}"
    )


def tricks_in_short(study: Study, rows: pd.DataFrame) -> str:
    """Return what the tricks of one question do, as one or two sentences."""
    found = {}
    for _, row in rows.sort_values("difference", key=abs, ascending=False).iterrows():
        text = f"**{name(trick_title(study, row['trick']))}** ({points(row['difference'])})"
        found.setdefault(verdict(row), []).append(text)
    if set(found) == {UNKNOWN}:
        return f"Whether they help is {UNKNOWN} ({interval_basis(rows.iloc[0])})."
    return fill(
        """
        {% if helps %}
        What helps: {{ helps | listed }}.
        {% endif %}
        {% if hurts %}
        What hurts: {{ hurts | listed }}.
        {% endif %}
        {% if without %}
        We found no effect of {{ without | listed }}.
        {% endif %}
        {% if unknown %}
        Not known: {{ unknown | listed }}.
        {% endif %}""",
        helps=found.get("helps"), hurts=found.get("hurts"), without=found.get("no effect found"),
        unknown=found.get(UNKNOWN),
    )  # fmt: skip


def effects_by_place(study: Study, results: Results) -> dict[str, pd.DataFrame]:
    """Return the comparisons that judge tricks by where the trick was tried, with a `label`."""
    titles = arm_titles(study)
    questions = [q for q in study.questions.values() if q.kind in PLACES and q.effects]
    words = [PLACES[question.kind] for question in questions]
    if len(set(words)) < len(words):
        words = [f"{w}: {titles[q.start]}" for w, q in zip(words, questions, strict=True)]
    if len(set(words)) < len(words):
        words = [f"{w} ({q.name})" for w, q in zip(words, questions, strict=True)]
    return {
        word: labelled(study, results.effects(q.name))
        for word, q in zip(words, questions, strict=True)
    }


def labelled(study: Study, rows: pd.DataFrame) -> pd.DataFrame:
    """Return comparisons that judge tricks with the column `label`, the trick's title."""
    return rows.assign(label=[trick_label(study, trick) for trick in rows["trick"]])


def all_effects(study: Study, results: Results) -> pd.DataFrame:
    """Return all comparisons that judge tricks, wherever these were tried, with a `label`."""
    places = effects_by_place(study, results).values()
    return pd.concat(places) if places else results.comparisons.head(0).assign(label="")


def rungs_until_failure(rows: pd.DataFrame, start: str) -> pd.DataFrame:
    """Return a ladder's comparisons from its start up to a rung that failed, or to its end."""
    reached = [start]
    for row in rows.itertuples():
        if row.against != reached[-1]:
            break
        reached.append(row.arm)
    return rows.head(len(reached) - 1)


def contradictions(rows: pd.DataFrame) -> list[str]:
    """Return the tricks, by their `label`, that help in one question and hurt in another."""
    verdicts = rows.groupby("label", sort=False)["verdict"].agg(set)
    return [label for label, seen in verdicts.items() if {"helps", "hurts"} <= seen]


def class_summary(table: pd.DataFrame) -> str:
    """Return which classes the tricks of a question change: rows of `class_effects`
    with the trick's title as `label`.
    """
    tests = int(table["p_corrected"].notna().sum())
    if not tests:
        return f"Whether a trick changes a class is {UNKNOWN}: no interval can be computed."
    found = table[table["verdict"].isin(["helps", "hurts"])]
    if not len(found):
        return f"We found no effect of any trick on any class, after correction for {tests} pairs."
    largest = found.loc[found["difference"].abs().idxmax()]
    return (
        f"{len(found)} of {tests} effects on single classes hold after correction; the largest: "
        f"{largest['class']} with {largest['label']} ({points(largest['difference'])} points)."
    )


def max_seed_difference(sd: float) -> float:
    """Return how far two single runs that differ in their seed lie apart, 19 times of 20."""
    return 1.96 * np.sqrt(2) * sd


# How a study was trained.


def epochs(results: Results, arms) -> float:
    """Return the median epochs of the trainings of some arms."""
    runs = results.runs[results.runs["arm"].isin(list(arms))]
    return float((runs["steps"] * runs["batch_size"] / runs["train_images"]).median())


def epochs_per_step(results: Results) -> dict[str, float]:
    """Return how many epochs a step of each arm is."""
    runs = results.runs.drop_duplicates("arm").set_index("arm")
    return (runs["batch_size"] / runs["train_images"]).to_dict()


def curve_title(results: Results, arms: dict[str, str]) -> str:
    """Return how many of some arms are not shown to have converged, as a sentence."""
    short, late, parts = too_short(results), rising(results), []
    for words, found in (
        ("too short to tell whether training had converged", short),
        ("still improving when training ended", late - short),
        ("flat at the end", {*arms.values()} - short - late),
    ):
        number = sum(arm in found for arm in arms.values())
        if number == len(arms):
            return f"{'The training was' if number == 1 else 'All trainings were'} {words}."
        parts += [f"{number} {'was' if number == 1 else 'were'} {words}"] if number else []
    return f"Of {len(arms)} trainings {'; '.join(parts)}."


def rising(results: Results) -> set[str]:
    """Return the arms whose val mIoU still rose by more than `RISING` points late in training."""
    return {
        arm for arm in results.arms["arm"].unique() if late_gain(results.curves, arm)[0] > RISING
    }


def too_short(results: Results) -> set[str]:
    """Return the arms with too few epochs or val scores to tell whether training had converged."""
    scores = results.curves.dropna(subset="val_miou").groupby("arm")["step"].nunique()
    return {
        arm
        for arm in results.arms["arm"].unique()
        if epochs(results, [arm]) < SHORT_EPOCHS or scores.get(arm, 0) < FEW_SCORES
    }


def unconverged(results: Results) -> set[str]:
    """Return the arms that are not shown to have converged: tables mark them."""
    return rising(results) | too_short(results)


def train_seconds(results: Results) -> pd.Series:
    """Return the median seconds over seeds that the training of each arm took."""
    seconds = results.runs["seconds"] + results.runs["start_seconds"]
    return seconds.groupby(results.runs["arm"]).median()


def short_training(results: Results) -> str:
    """Return a warning where the trainings of a study are short; '' elsewhere."""
    median = epochs(results, results.runs["arm"])
    if not median < SHORT_EPOCHS:
        return ""
    return (
        f"Trainings are short, with a median of {median:.1f} epochs: a verdict may differ after "
        "a long one."
    )


def setting(results: Results, question: Question) -> str:
    """Return what all arms of a question share, in words."""
    recipes = list(question.arms.values())
    shared = {
        key: getattr(recipes[0], key)
        for key in ("steps", "batch_size", "lr", "optimizer", "schedule")
        if len({getattr(recipe, key) for recipe in recipes}) == 1
    }
    own_rates = any(recipe.lr_search != DEFAULTS["lr_search"] for recipe in recipes)
    parts = []
    if "steps" in shared:
        parts.append(f"{shared['steps']:,} steps ({epochs(results, question.arms):.1f} epochs)")
    parts += [f"batches of {shared['batch_size']}"] if "batch_size" in shared else []
    if own_rates:
        parts.append("each arm's own learning rate from a search")
    elif "lr" in shared:
        parts.append(f"learning rate {shared['lr']:g}")
    parts += [f"{key} {shared[key]}" for key in ("optimizer", "schedule") if key in shared]
    return f"All arms: {', '.join(parts)}." if parts else ""


def devices(names: pd.Series) -> str:
    """Return the devices of some runs, each once, without how many threads a run had of it.

    >>> devices(pd.Series(["Chip, 2 threads", "Chip, 1 thread"]))
    'Chip'
    """
    return ", ".join(dict.fromkeys(str(each).rpartition(", ")[0] or each for each in names))


def days(finished: pd.Series) -> str:
    """Return the first and the last of the days of some times, once if they are one."""
    return " to ".join(dict.fromkeys([finished.min()[:10], finished.max()[:10]]))


# The arms that a report shows.


def best_on_val(results: Results) -> pd.Series:
    """Return the arm, of all, that scored best on val: a row of `best_of_each_network`."""
    best = results.best_of_each_network()
    return best.loc[best["val_miou"].idxmax()]


def networks_shown(study: Study, results: Results) -> pd.DataFrame:
    """Return the arms of the networks question, cheapest first; `label` is the arm's title.

    Where no question compares networks, they are each network's arm that scored best on val.
    """
    question, titles = study.network_question, arm_titles(study)
    compared = question is not None and len(question.arms) > 1
    arms = results.of(question.name) if compared else results.best_of_each_network()
    arms = arms.assign(label=arms["arm"].map(titles)).sort_values("gmacs", ignore_index=True)
    ends = {label.partition(", ")[2] for label in arms["label"]}
    if len(ends) == 1:  # the same tricks for all
        arms["label"] = arms["label"].str.partition(", ")[0]
    return arms


def networks_with_best(study: Study, results: Results) -> pd.DataFrame:
    """Return `networks_shown`, and after it the arm that scored best on val if not among them."""
    arms, best = networks_shown(study, results), best_on_val(results)
    if best["arm"] in set(arms["arm"]):
        return arms
    extra = results.arms[results.arms["arm"] == best["arm"]].head(1)
    label = arm_titles(study)[best["arm"]]
    return pd.concat([arms, extra.assign(label=label)], ignore_index=True)


def fcn_arms(study: Study) -> list[str]:
    """Return the arms of the FCN question between which only the skips differ, coarse to fine."""
    if not study.fcn:
        return []
    arms = {a: r.network for a, r in study.fcn.arms.items() if r.network.startswith("fcn")}
    encoder = [*arms.values()][-1].partition(":")[2]
    return [arm for arm, network in arms.items() if network.partition(":")[2] == encoder]


def sufficient(networks: pd.DataFrame, difference) -> pd.Series:
    """Return the cheapest network that no costlier one beats significantly.

    Parameters
    ----------
    networks : columns arm and gmacs
    difference : (arm, against) -> the row of `comparisons` that compares them
    """
    ordered = networks.sort_values("gmacs", ignore_index=True)
    return next(
        row
        for place, row in ordered.iterrows()
        if not any(
            difference(costlier, row["arm"])["verdict"] == "better"
            for costlier in ordered["arm"].iloc[place + 1 :]
        )
    )


def median_image(scores: np.ndarray) -> int:
    """Return the image whose mIoU is the median one; `scores` may be NaN where no label is."""
    known = np.flatnonzero(np.isfinite(scores))
    return int(known[np.argsort(scores[known], kind="stable")[len(known) // 2]])


def strongest_trick(study: Study, results: Results) -> pd.Series | None:
    """Return the comparison of the trick that helps most, of those with a verdict, if one helps."""
    rows = all_effects(study, results)
    rows = rows[rows["verdict"] == "helps"]
    return rows.loc[rows["difference"].idxmax()] if len(rows) else None


def unfinished(results: Results) -> list[str]:
    """Return the questions that are not finished, each with how many of its runs are missing."""
    return [
        f"{row.question} ({row.missing} of {row.runs} runs missing)"
        for row in results.unfinished.itertuples()
    ]
