"""What a study found, in rows and sentences: every number in them comes from its tables."""

import numpy as np
import pandas as pd

from roadseg.analysis.intervals import MIN_BLOCKS, MIN_SEEDS, POWER
from roadseg.analysis.tables import LEVEL, Results, late_gain
from roadseg.config.questions import Question
from roadseg.config.recipe import DEFAULTS
from roadseg.config.study import Study
from roadseg.report.names import arm_titles, trick_title
from roadseg.report.say import (
    UNKNOWN,
    count,
    fill,
    interval,
    name,
    percent,
    points,
)

# Where a trick was tried, by the kind of its question.
PLACES = {"ladder": "on a ladder", "leave_one_out": "left out of all", "alone": "alone"}
SHORT_EPOCHS = 10  # epochs of training, below which a verdict on a trick is about short training
RISING = 1.0  # points of val mIoU that an arm still gains late in training if it is not flat
MARK = " †"  # of such an arm


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
            f"({with_interval(row)}).{_only_uncorrected(row)}"
        )
    more = "more" if row["difference"] > 0 else "fewer"
    size = points(abs(row["difference"])).removeprefix("+")
    return f"{arm} scores {size} points {more} than {against} ({with_interval(row)})."


def _only_uncorrected(row: pd.Series) -> str:
    """Say why an interval that excludes zero is no verdict, if this one excludes it."""
    if row["tests"] < 2 or row["low"] <= 0 <= row["high"]:
        return ""
    return (
        f" The interval excludes zero, but among {int(row['tests'])} comparisons that is expected "
        f"too often (p = {row['p_corrected']:.2f} after correction)."
    )


def tricks_by_verdict(study: Study, rows: pd.DataFrame) -> dict[str, list[str]]:
    """Return verdict -> the tricks that have it, with their points, largest first."""
    found = {}
    for _, row in rows.sort_values("difference", key=abs, ascending=False).iterrows():
        text = f"**{name(trick_title(study, row['trick']))}** ({points(row['difference'])})"
        found.setdefault(verdict(row), []).append(text)
    return found


def tricks_in_short(study: Study, rows: pd.DataFrame) -> str:
    """Return what the tricks of one question do, as one or two sentences."""
    found = tricks_by_verdict(study, rows)
    if set(found) == {UNKNOWN}:
        return f"Whether they help is {UNKNOWN} ({interval_basis(rows.iloc[0])})."
    return fill(
        """
        {% if helps %}
        {{ helps | listed }} help{{ 's' if helps | length == 1 }}.
        {% endif %}
        {% if hurts %}
        {{ hurts | listed }} hurt{{ 's' if hurts | length == 1 }}.
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
    return rows.assign(label=[trick_title(study, trick) for trick in rows["trick"]])


def rungs_until_failure(rows: pd.DataFrame, start: str) -> pd.DataFrame:
    """Return a ladder's comparisons from its start up to a rung that failed, or to its end."""
    reached = [start]
    for row in rows.itertuples():
        if row.against != reached[-1]:
            break
        reached.append(row.arm)
    return rows.head(len(reached) - 1)


def contradictions(study: Study, places: dict[str, pd.DataFrame]) -> list[str]:
    """Return the tricks that help in one question and hurt in another."""
    verdicts = {}
    for rows in places.values():
        for _, row in rows.iterrows():
            verdicts.setdefault(row["trick"], set()).add(verdict(row))
    both = [trick for trick, seen in verdicts.items() if {"helps", "hurts"} <= seen]
    return [trick_title(study, trick) for trick in both]


def detectable(rows: pd.DataFrame) -> str:
    """Return which effects the comparisons of one question would find, as a sentence."""
    known = rows["detectable"].dropna()
    if not len(known):
        return f"The minimum detectable effect is {UNKNOWN} ({interval_basis(rows.iloc[0])})."
    low, high = (f"{100 * value:.1f}" for value in (known.min(), known.max()))
    size = low if low == high else f"{low} to {high}"
    return f"True effects below {size} points are often missed (power {percent(POWER)})."


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
    """Return how many of some arms were still improving when training ended, as a sentence."""
    late = [title for title, arm in arms.items() if arm in rising(results)]
    if not late:
        return "All were flat when training ended." if len(arms) > 1 else "It was flat at the end."
    if len(arms) == 1:
        return "It was still improving when training ended."
    return f"{len(late)} of {len(arms)} were still improving when training ended."


def rising(results: Results) -> set[str]:
    """Return the arms whose val mIoU still rose by more than `RISING` points late in training."""
    return {
        arm for arm in results.arms["arm"].unique() if late_gain(results.curves, arm)[0] > RISING
    }


def short_training(results: Results, arms) -> str:
    """Return a warning where the trainings of some arms are short; '' elsewhere."""
    median = epochs(results, arms)
    if not median < SHORT_EPOCHS:
        return ""
    return (
        f"**Short training.** The median of these trainings is {median:.1f} epochs; a verdict may "
        "differ after a long one."
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
    parts += [str(shared[key]) for key in ("optimizer", "schedule") if key in shared]
    return f"All arms: {', '.join(parts)}." if parts else ""


def devices(names: pd.Series) -> str:
    """Return the devices of some runs, each once, without how many threads a run had of it.

    >>> devices(pd.Series(["Chip, 2 threads", "Chip, 1 thread"]))
    'Chip'
    """
    return ", ".join(dict.fromkeys(str(each).rpartition(", ")[0] or each for each in names))


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
    places = [*effects_by_place(study, results).values()]
    rows = pd.concat(places) if places else pd.DataFrame({"verdict": []})
    rows = rows[rows["verdict"] == "helps"]
    return rows.loc[rows["difference"].idxmax()] if len(rows) else None


def unfinished(results: Results) -> list[str]:
    """Return the questions that are not finished, each with how many of its runs are missing."""
    return [
        f"{row.question} ({row.missing} of {row.runs} runs missing)"
        for row in results.unfinished.itertuples()
    ]
