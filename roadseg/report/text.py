"""Sentences of the report: every number in them comes from a row of the tables."""

import re
import string

import numpy as np
import pandas as pd

from roadseg.analysis.intervals import MIN_BLOCKS, MIN_SEEDS, POWER
from roadseg.analysis.tables import LEVEL, Results, late_gain
from roadseg.config.questions import Question
from roadseg.config.recipe import DEFAULTS
from roadseg.config.study import Study
from roadseg.data.survey import percent
from roadseg.errors import InputError


def escape_markdown(name: str) -> str:
    r"""Return the name of a class or file so that Markdown shows it as it is, and obeys nothing.

    >>> escape_markdown("a_*<b>")
    'a\\_\\*\\<b\\>'
    """
    return re.sub(f"([{re.escape(string.punctuation)}])", r"\\\1", str(name))


def points(difference: float) -> str:
    """Return a difference of mIoU (0..1) in points, signed, with decimals until it is not zero."""
    if np.isnan(difference):
        return "unknown"
    text = next(
        (t for t in (f"{100 * difference:+.{n}f}" for n in (1, 2, 3)) if float(t)),
        f"{100 * difference:+.1f}",
    )
    return text.replace("-", "−")


def interval_basis(row: pd.Series) -> str:
    """Return what the interval of an arm or comparison rests on, or lacks, in words."""
    seeds = f"{int(row['seeds'])} seed{'s' if row['seeds'] > 1 else ''}"
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


def interval_text(row: pd.Series) -> str:
    """Return the interval of an arm's mIoU and what it rests on, in %."""
    if np.isnan(row["low"]):
        return interval_basis(row)
    return f"95 % CI {100 * row['low']:.1f} to {100 * row['high']:.1f}, {interval_basis(row)}"


def comparison_sentence(row: pd.Series) -> str:
    """Return a comparison in words, in points of mIoU (%)."""
    size = 100 * row["difference"]
    change, low, high = (points(row[column]) for column in ("difference", "low", "high"))
    if np.isnan(row["low"]):
        return (
            f"**{row['arm']}** and **{row['against']}** differ by {change} points of mIoU in "
            f"this run; whether they differ in general is not known ({interval_basis(row)})."
        )
    interval = f"95 % CI {low} to {high}, {interval_basis(row)}"
    if not row["p_corrected"] < LEVEL:
        return (
            f"We found no difference between **{row['arm']}** and **{row['against']}**: "
            f"{change} points of mIoU ({interval}).{_uncorrected(row)}"
        )
    return (
        f"**{row['arm']}** scores {abs(size):.1f} points of mIoU "
        f"{'more' if size > 0 else 'less'} than **{row['against']}** ({interval})."
    )


def trick_sentence(row: pd.Series) -> str:
    """Return the verdict on a trick in words: a row of `comparisons` that names one."""
    change, low, high = (points(row[column]) for column in ("difference", "low", "high"))
    if np.isnan(row["low"]):
        return (
            f"**{row['trick']}** changes mIoU by {change} points in this run; whether it does in "
            f"general is not known ({interval_basis(row)})."
        )
    interval = f"{change} points of mIoU, 95 % CI {low} to {high}"
    if row["p_corrected"] < LEVEL:
        return f"**{row['trick']}** {row['verdict']}: {interval}."
    return f"We found no effect of **{row['trick']}** ({interval}).{_uncorrected(row)}"


def _uncorrected(row: pd.Series) -> str:
    """Say why an interval that excludes zero is no verdict, if this one excludes it."""
    if row["tests"] < 2 or row["low"] <= 0 <= row["high"]:
        return ""
    return (
        " This interval, which is not corrected, excludes zero, but the difference is not "
        f"significant after correction for {int(row['tests'])} comparisons "
        f"(p = {row['p_corrected']:.2f})."
    )


# Where a trick was tried, by the kind of its question: alone, and where several must be told apart.
PLACES = {
    "ladder": ("on the ladder", "on the ladder from {}"),
    "leave_one_out": ("on top of all others", "on top of all others from {}"),
    "alone": ("alone", "alone on {}"),
}
UNKNOWN = "not known"
NO_TEST = (
    "**These data have no test images.** Wherever this page says test, it means val, on which "
    "choices were made too, so scores are optimistic."
)
ONE_CLASS = (
    "**These data have one class.** Every labelled pixel belongs to it, so no network can be "
    "wrong: add a background class."
)
SHORT_EPOCHS = 10  # epochs of training, below which a verdict on a trick is about short training
MAX_CLASSES_NAMED = 5  # classes of one trick and verdict, by the size of the change


def effects_by_place(study: Study, results: Results) -> dict[str, pd.DataFrame]:
    """Return the comparisons that judge tricks, by where the trick was tried, in words."""
    questions = [q for q in study.questions.values() if q.kind in PLACES and q.effects]
    networks = {recipe.network for question in questions for recipe in question.arms.values()}
    words = [PLACES[question.kind][0] for question in questions]
    if len(networks) > 1 or len(set(words)) < len(words):
        words = [PLACES[question.kind][1].format(question.start) for question in questions]
    if len(set(words)) < len(words):
        words = [f"{word} ({q.name})" for word, q in zip(words, questions, strict=True)]
    return {word: results.effects(q.name) for word, q in zip(words, questions, strict=True)}


def held_fixed(question: Question) -> str:
    """Return what all arms of a question share, and what of it some trick changes, in words."""
    words = {
        "architecture": "the network ({})",
        "steps": "{} steps",
        "batch_size": "{} images a step",
        "lr": "a learning rate of {:g}",
    }
    if any(recipe.lr_search != DEFAULTS["lr_search"] for recipe in question.arms.values()):
        words["lr"] = "the learning rates that each arm's search tries (around {:g})"
    values = {
        name: list(dict.fromkeys(getattr(recipe, name) for recipe in question.arms.values()))
        for name in words
    }
    fixed = [text.format(values[name][0]) for name, text in words.items() if len(values[name]) == 1]
    varying = ["the network"] if len(values.pop("architecture")) > 1 else []
    varying += [name for name, choices in values.items() if len(choices) > 1]
    varying += [
        f"{name} (whose own training is not counted)"
        for name, trains in (("pretrained", "scenes:"), ("teacher", ""))
        if any(getattr(r, name) and getattr(r, name).startswith(trains)
               for r in question.arms.values())
    ]  # fmt: skip
    summary = f"Equal in all arms: {_join_words(fixed)}. " if fixed else ""
    summary += f"Varies between arms: {_join_words(varying)}." if varying else ""
    return summary.strip()


def trick_table(rows: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """Return the comparisons that judge tricks as the report's table."""
    arm_rows = arms.set_index("arm").loc[rows["arm"]]
    return pd.DataFrame(
        {
            "trick": rows["trick"].to_numpy(),
            "test mIoU %": arm_rows["test_miou"].map(lambda x: f"{100 * x:.1f}").to_numpy(),
            "change (points)": [points(x) for x in rows["difference"]],
            "95 % CI": [
                "none" if np.isnan(low) else f"{points(low)} to {points(high)}"
                for low, high in zip(rows["low"], rows["high"], strict=True)
            ],
            "p (Holm)": [_format_p(p) for p in rows["p_corrected"]],
            "verdict": [verdict_or_unknown(row) for _, row in rows.iterrows()],
            "passes per test image": arm_rows["test_passes"].astype(int).to_numpy(),
            "training s": arm_rows["train_seconds"].map("{:.0f}".format).to_numpy(),
        }
    )


def blocks_summary(results: Results) -> str:
    """Return how many independent blocks the test images are worth, by class, in words."""
    arm = results.arms.iloc[0]
    one_arm = results.classes[results.classes["arm"] == arm["arm"]].dropna(subset="iou")
    fewest = one_arm.nsmallest(3, "effective_blocks")
    named = [
        f"{escape_markdown(r['class'])} {r.effective_blocks:.1f}" for _, r in fewest.iterrows()
    ]
    summary = (
        f"The {arm['blocks']:.0f} block{'s' * int(arm['blocks'] != 1)} of test images are worth "
        f"{arm['effective_blocks']:.1f} independent ones, since classes are unevenly spread over "
        f"them (mean over classes; fewest: {_join_words(named)}); below {MIN_BLOCKS} there is no "
        "interval."
    )
    lengths = results.block_lengths
    if not len(lengths):
        return summary
    verdicts = results.comparisons.set_index(["question", "arm", "against"])["verdict"]
    keys = lengths[["question", "arm", "against"]].apply(tuple, axis=1)
    other = lengths[lengths["verdict"] != keys.map(verdicts)]
    changed = [
        f"{r.arm} against {r.against} ({r.verdict} with {r.block})" for r in other.itertuples()
    ]
    return (
        f"{summary} With blocks of {_join_words([f'{n}' for n in lengths['block'].unique()])} "
        f"frames, {len(changed) or 'none'} of {len(lengths)} verdicts would differ"
        f"{': ' + '; '.join(changed) if changed else ''}."
    )


def verdict_or_unknown(row: pd.Series) -> str:
    """Return the verdict of a comparison, or that there can be none."""
    return UNKNOWN if np.isnan(row["p_corrected"]) else row["verdict"]


def _format_p(p: float) -> str:
    if np.isnan(p):
        return "unknown"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def detectable_effects(rows: pd.DataFrame) -> str:
    """Return which effects these comparisons of one question would find, in words."""
    known = rows.dropna(subset="detectable").sort_values("detectable")
    if not len(known):
        return f"The minimum detectable effect is {UNKNOWN} ({interval_basis(rows.iloc[0])})."
    smallest, largest = known.iloc[0], known.iloc[-1]
    low, high = (f"{100 * row['detectable']:.1f} points" for row in (smallest, largest))
    size = low
    if low != high:
        size = f"{low} (for **{smallest['trick']}**) to {high} (for **{largest['trick']}**)"
    tests = int(smallest["tests"])
    correction = (
        f"after correction for {tests} comparisons" if tests > 1 else "for its one comparison"
    )
    return (
        f"{interval_basis(smallest)[0].upper()}{interval_basis(smallest)[1:]}: {correction}, a "
        f"true effect of {size} of mIoU is detected with a nominal power of "
        f"{percent(POWER)}."
    )


def max_seed_difference(sd: float) -> float:
    """Return how far two single runs that differ in their seed lie apart, 19 times of 20."""
    return 1.96 * np.sqrt(2) * sd


def noise_summary(noise: pd.DataFrame) -> str:
    """Return what the spread over seeds means for one run against one, in words."""
    sentences = []
    for row in noise.itertuples():
        if row.seeds < MIN_SEEDS:
            sentences.append(
                f"{row.seeds} seed{'s' * (row.seeds != 1)} of **{row.arm}** cannot show how much "
                f"seeds vary; that needs {MIN_SEEDS}."
            )
            continue
        max_difference, low, high = (
            100 * max_seed_difference(sd) for sd in (row.sd, row.sd_low, row.sd_high)
        )
        sentences.append(
            f"**{row.arm}**, trained with {row.seeds} seeds, scores {100 * row.mean:.1f} % mIoU on "
            f"test{_over_images(row)}, with a standard deviation of {100 * row.sd:.2f} points "
            "between seeds (95 % CI "
            f"{100 * row.sd_low:.2f} to {100 * row.sd_high:.2f}). Two single runs of this recipe "
            f"differ by more than {max_difference:.1f} points ({low:.1f} to {high:.1f}) by their "
            "seeds alone in one of twenty "
            "cases; a comparison of single runs cannot detect a smaller effect. How much seeds "
            "vary on the ladder of arXiv 2206.12571, of another network on other data and with one "
            "run for each rung, is not known."
        )
    return " ".join(sentences)


def _over_images(row) -> str:
    """Return the interval of a noise question's mean, and what it carries, in words."""
    if np.isnan(row.low):
        return ""
    return f" (95 % CI over seeds and images {100 * row.low:.1f} to {100 * row.high:.1f})"


def verdict_agreement(places: dict[str, pd.DataFrame]) -> str:
    """Return where the verdicts on a trick agree between `effects_by_place`, in words."""
    rows_by_trick = _by_trick(places)
    repeated = {trick: rows for trick, rows in rows_by_trick.items() if len(rows) > 1}
    if not repeated:
        return ""
    verdicts = {
        trick: {verdict_or_unknown(row) for row in rows.values()}
        for trick, rows in repeated.items()
    }
    lines = []
    for verdict in ("helps", "hurts", "no effect found", UNKNOWN):
        same = [f"**{trick}**" for trick, seen in verdicts.items() if seen == {verdict}]
        lines += [f"the same in all questions, {verdict}: {_join_words(same)}"] if same else []
    mixed = {
        "helps in one question and hurts in another": lambda seen: {"helps", "hurts"} <= seen,
        "an effect in one question and none found in another": lambda seen: (
            len(seen) > 1 and not {"helps", "hurts"} <= seen
        ),
    }
    for words, holds in mixed.items():
        items = [
            f"**{trick}** ("
            + "; ".join(
                f"{place} {points(row['difference'])}, {verdict_or_unknown(row)}"
                for place, row in repeated[trick].items()
            )
            + ")"
            for trick, seen in verdicts.items()
            if holds(seen)
        ]
        lines += [f"{words}: {_join_words(items)}"] if items else []
    return (
        f"Tricks that were tried in more than one question: {len(repeated)}.\n\n"
        + "\n".join(f"- {line}." for line in lines)
        + "\n\nAn effect in one question and none found in another does not show that the effect "
        "differs: each verdict is about one comparison, not about the difference of two."
    )


def _by_trick(places: dict[str, pd.DataFrame]) -> dict[str, dict[str, pd.Series]]:
    by_trick = {}
    for place, rows in places.items():
        for _, row in rows.iterrows():
            by_trick.setdefault(row["trick"], {})[place] = row
    return by_trick


def class_summary(table: pd.DataFrame) -> str:
    """Return which classes each trick helps or hurts, in words: a question's `class_effects`."""
    tests = int(table["p_corrected"].notna().sum())
    if not tests:
        return "Whether a trick changes a class is not known: no interval can be computed."
    lines, unaffected = [], []
    for trick, trick_rows in table.groupby("trick", sort=False):
        parts = []
        for verdict in ("helps", "hurts"):
            rows = trick_rows[trick_rows["verdict"] == verdict]
            rows = rows.sort_values("difference", key=abs)[::-1]
            shown = rows.head(MAX_CLASSES_NAMED)
            names = [
                f"{escape_markdown(name)} ({points(difference)})"
                for name, difference in zip(shown["class"], shown["difference"], strict=True)
            ]
            names += [f"{len(rows) - len(shown)} more"] if len(rows) > len(shown) else []
            parts += [f"{verdict} {_join_words(names)}"] if names else []
        if parts:
            lines.append(f"- **{trick}** {' and '.join(parts)}.")
        else:
            unaffected.append(f"**{trick}**")
    pairs = f"after correction for {tests} pairs of a trick and a class"
    if not lines:
        return f"We found no effect of any trick on any class, {pairs}."
    rest = (
        f"\n\nWe found no effect of {_join_words(unaffected)} on any class." if unaffected else ""
    )
    return f"In points of IoU, {pairs}:\n\n" + "\n".join(lines) + rest


def short_training(results: Results, arms) -> str:
    """Return a warning where most of the trainings of some arms are short; '' elsewhere."""
    runs = results.runs[results.runs["arm"].isin(arms)]
    epochs = (runs["steps"] * runs["batch_size"] / runs["train_images"]).median()
    if not epochs < SHORT_EPOCHS:
        return ""
    return (
        f"**Short training:** the median of these trainings is {epochs:.1f} epochs; verdicts may "
        "differ after a long one."
    )


def length_summary(results: Results, question: Question) -> str:
    """Return what a length question found, in words."""
    changes = {}
    for _, row in results.effects(question.name).iterrows():
        trick, _, steps = row["trick"].rpartition(" at ")
        changes.setdefault(trick, []).append(
            f"{points(row['difference'])} points at {steps} ({verdict_or_unknown(row)})"
        )
    return " ".join(
        f"By length of training, **{trick}** changes mIoU by {_join_words(parts)}."
        for trick, parts in changes.items()
    )


def conclusion(places: dict[str, pd.DataFrame], *, brief: bool = False) -> str:
    """Return which tricks help, which hurt, and which show no effect, in words.

    `brief` leaves out the numbers of those that show none.
    """
    lines = []
    headings = {"helps": "Helps", "hurts": "Hurts", "no effect found": "No effect found"}
    headings[UNKNOWN] = UNKNOWN.capitalize()
    for verdict, heading in headings.items():
        tricks = []
        for trick, rows in _by_trick(places).items():
            matching = {
                place: row for place, row in rows.items() if verdict_or_unknown(row) == verdict
            }
            values = [
                (f"{place} " if len(places) > 1 else "")
                + points(row["difference"])
                + (f", {_interval_words(row)}" if verdict == "no effect found" else "")
                for place, row in matching.items()
            ]
            numbers = f" ({'; '.join(values)})"
            if brief and verdict == "no effect found":
                numbers = (
                    f" ({_join_words(list(matching))})" if 0 < len(matching) < len(rows) else ""
                )
            tricks += [f"**{trick}**{numbers}"] if matching else []
        if tricks or verdict != UNKNOWN:
            lines.append(f"- {heading}: {_join_words(tricks) if tricks else 'none'}.")
    return "\n".join(lines)


def _interval_words(row: pd.Series) -> str:
    return f"interval {points(row['low'])} to {points(row['high'])}"


def _join_words(items: list[str]) -> str:
    return ", ".join(items[:-1]) + (" and " if len(items) > 1 else "") + items[-1]


UNITS = {
    "gmacs": (
        "multiply-adds",
        lambda x: f"{_three_digits(x)}\N{NO-BREAK SPACE}·\N{NO-BREAK SPACE}10⁹",
    ),
    "latency_ms": ("latency", lambda x: f"{_three_digits(x)} ms"),
    "parameters": ("parameters", lambda x: f"{_three_digits(x / 1e6)} M"),
}


def _three_digits(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def budget_table(pareto_rows: pd.DataFrame, difference) -> pd.DataFrame:
    """Return which network to take for which budget, as the report's table.

    Parameters
    ----------
    pareto_rows : rows of `pareto` of one networks question
    difference : (arm, against) -> the row of `comparisons` that compares them
    """
    rows = []
    for measure, measure_rows in pareto_rows.groupby("measure", sort=False):
        name, format_cost = UNITS[measure]
        chosen = (
            measure_rows[measure_rows["pareto_optimal"]]
            .sort_values("cost")
            .drop_duplicates("val_miou")
        )
        nexts = [*chosen["cost"].iloc[1:], np.inf]
        cheaper = None
        for row, upper in zip(chosen.itertuples(), nexts, strict=True):
            budget = f"{format_cost(row.cost)} and more"
            if np.isfinite(upper):
                budget = f"{format_cost(row.cost)} to {format_cost(upper)}"
            gain = "the cheapest"
            front_share = UNKNOWN if np.isnan(row.pareto_share) else f"{100 * row.pareto_share:.0f}"
            if cheaper is not None:
                change = difference(row.arm, cheaper.arm)
                gain = f"{points(change['difference'])} ({verdict_or_unknown(change)})"
            rows.append(
                {
                    "cost": name,
                    "budget": budget,
                    "network": row.label,
                    "mIoU %": f"{100 * row.test_miou:.1f}",
                    "95 % CI": "none" if np.isnan(row.low)
                    else f"{100 * row.low:.1f} to {100 * row.high:.1f}",
                    "gain over the previous row": gain,
                    "Pareto-optimal on test, % of bootstrap samples": front_share,
                }
            )  # fmt: skip
            cheaper = row
    return pd.DataFrame(rows)


def size_summary(pareto_rows: pd.DataFrame, difference, *, brief: bool = False) -> str:
    """Return from which cost on accuracy no longer rises: rows of one question's `pareto`.

    `brief` says which network that is, and how much better more expensive ones may still be.
    """
    networks = pareto_rows[pareto_rows["measure"] == "gmacs"].sort_values("cost", ignore_index=True)
    if networks["low"].isna().all():
        return f"Whether cost pays is {UNKNOWN}: no interval can be computed."
    _, format_cost = UNITS["gmacs"]
    if networks["cost"].nunique() == 1:
        return f"All {len(networks)} networks cost the same multiply-adds."
    sufficient = next(
        row
        for place, row in networks.iterrows()
        if not any(
            difference(more_expensive, row["arm"])["verdict"] == "better"
            for more_expensive in networks["arm"].iloc[place + 1 :]
        )
    )
    more_expensive = networks[networks["cost"] > sufficient["cost"]]
    if not len(more_expensive):
        summary = (
            f"Accuracy rises with cost throughout: each network is significantly worse than some "
            f"more expensive one, up to the most expensive, **{sufficient['label']}** "
            f"({format_cost(sufficient['cost'])} multiply-adds)."
        )
    else:
        best = more_expensive.loc[more_expensive["val_miou"].idxmax()]
        change = difference(best["arm"], sufficient["arm"])
        summary = (
            f"**{sufficient['label']}** ({format_cost(sufficient['cost'])} multiply-adds, "
            f"{100 * sufficient['test_miou']:.1f} % mIoU) is the cheapest network that none of the "
            f"{len(more_expensive)} more expensive ones beats significantly."
        )
        if brief:
            return summary
        cost_ratio = best["cost"] / sufficient["cost"]
        summary += (
            f" The best of them by val score, **{best['label']}**, costs {cost_ratio:.1f} times as "
            f"much and changes mIoU by {points(change['difference'])} points "
            f"({_interval_and_verdict(change)})."
        )
    return summary if brief else f"{summary} The networks differ in more than their size."


def _interval_and_verdict(row: pd.Series) -> str:
    if np.isnan(row["low"]):
        return "no interval can be computed"
    return f"{points(row['low'])} to {points(row['high'])}, {verdict_or_unknown(row)}"


def search_summary(searches: pd.DataFrame, labels: dict[str, str]) -> str:
    """Return what the searches for a learning rate chose and cost, in words.

    `labels` maps the arms of one question to the names to show.
    """
    trials = searches[searches["arm"].isin(labels)]
    if not len(trials):
        return (
            "All networks have the same learning rate, without a search: those with another "
            "optimal rate are at a disadvantage."
        )
    rates = sorted(trials["lr"].unique())
    chosen = trials[trials["chosen"].astype(bool)].set_index("arm")["lr"]
    parts = [f"{labels[arm]} {lr:g}" for arm, lr in chosen.items()]
    at_end = [labels[arm] for arm, lr in chosen.items() if lr in (rates[0], rates[-1])]
    at_end = at_end if len(rates) > 2 else []
    diverged = trials[trials["val_miou"].isna()]
    summary = (
        f"Each network's learning rate is the best on val of "
        f"{_join_words([f'{r:g}' for r in rates])}, each tried once, with the first seed, for "
        f"{int(trials['steps'].max())} steps: {'; '.join(parts)}. The searches took "
        f"{trials['seconds'].sum():.0f} s of training steps together."
    )
    if at_end:
        summary += (
            f" For {_join_words(at_end)} the best rate is at an end of the range; a better one may "
            "lie beyond it."
        )
    if len(diverged):
        summary += (
            f" In {len(diverged)} of the {len(trials)} trials, whose time is not counted, the loss "
            "did not stay finite."
        )
    return summary


def search_benefit(study: Study, results: Results, labels: dict[str, str]) -> str:
    """Return what searches brought where the same recipe was trained at its own rate, in words.

    `labels` maps the arms of one question to the names to show.
    """
    arms = results.arms.drop_duplicates("arm").set_index("arm")
    sentences = []
    for arm, label in labels.items():
        fixed_recipe = study.arms[arm].at_lr(study.arms[arm].lr)
        if fixed_recipe == study.arms[arm] or fixed_recipe not in study.arms.values():
            continue
        arm_name = next(name for name, recipe in study.arms.items() if recipe == fixed_recipe)
        with_search, without = arms.loc[arm], arms.loc[arm_name]
        if with_search["lr"] == without["lr"]:
            continue
        change = with_search["val_miou"] - without["val_miou"]
        sentences.append(
            f"For **{label}** the search chose {with_search['lr']:g}: against {without['lr']:g}, "
            f"the rate of its recipe (arm `{arm_name}`), val mIoU changed by {points(change)} "
            f"points, to {100 * with_search['val_miou']:.1f} % (not a planned comparison)."
        )
    return " ".join(sentences)


def course_summary(table: pd.DataFrame, limit: float = 0.04) -> str:
    """Return how our counts of the course study's networks differ from its own, in words.

    `limit` is the difference above which one is explained.
    """
    different = table[table["excess"].abs() > limit]
    similar = table[table["excess"].abs() <= limit]
    names = [f"{r.network} ({signed_percent(r.excess)})" for r in similar.itertuples()]
    summary = (
        f"Within {percent(limit)} of what it reports, of {len(table)} networks: "
        f"{_join_words(names) if names else 'none'}."
    )
    lines = [
        f"- **{r.network}** ({signed_percent(r.excess)}): its variant {r.differs}. Of "
        f"this variant we count {r.gmacs_like:.1f} · 10⁹, {signed_percent(r.excess_like)} of the "
        f"{r.reported:g} reported."
        for r in different.itertuples()
    ]
    return summary + (
        "\n\nThe others are different variants:\n\n" + "\n".join(lines) if lines else ""
    )


def devices(names: pd.Series) -> str:
    """Return the devices of some runs, each once, with how many threads a run had of it.

    >>> devices(pd.Series(["Chip, 2 threads", "Chip, 1 threads"]))
    'Chip, 1 or 2 threads'
    """
    threads = {}
    for name in names.unique():
        device, _, count = re.fullmatch(r"(.*?)(, (\d+) threads?)?", name).groups()
        threads.setdefault(device, set()).update([int(count)] if count else [])
    return ", ".join(
        device + (f", {' or '.join(map(str, sorted(n)))} thread{'s' * (n != {1})}" if n else "")
        for device, n in threads.items()
    )


def signed_percent(share: float) -> str:
    """Return a share in percent, signed, with one decimal."""
    return f"{100 * share:+.1f} %".replace("-", "−")


def tricks_of(study: Study, arm: str) -> list[str]:
    """Return the tricks that an arm's recipe has, of those that the settings list.

    One that sets nothing but what others of them set is those others under another name.
    """
    recipe = study.arms[arm]

    def has(settings: dict) -> bool:
        values = {name: getattr(recipe, name) for name in settings}
        given = {k: tuple(map(float, v)) if isinstance(v, list) else v for k, v in settings.items()}
        return values == given

    held = [trick for trick in study.tricks.values() if has(trick.hyperparameters)]
    return [
        trick.name
        for trick in held
        if not all(
            any(
                name in other.hyperparameters
                for other in held
                if len(other.hyperparameters) < len(trick.hyperparameters)
            )
            for name in trick.hyperparameters
        )
    ]


def display_name(study: Study, arm: str, *, tricks: bool = True) -> str:
    """Return an arm's network by its name in the settings, with the number of its tricks."""
    recipe, count = study.arms[arm], len(tricks_of(study, arm)) if tricks else 0
    names = [entry.name for entry in study.networks.values() if entry.network == recipe.network]
    changed = recipe.architecture.removeprefix(recipe.network).replace("+", " +")
    name = (names[0] if names else recipe.network) + changed
    return f"{name}, {count} trick{'s' * (count != 1)}" if count else name


def full_name(study: Study, arm: str) -> str:
    """Return an arm as `display_name` does, and the name that all tables have for it."""
    name = display_name(study, arm)
    return f"**{name}**" + (f" (arm `{arm}`)" if name != arm else "")


def best_on_val(results: Results) -> pd.Series:
    """Return the arm, of all, that scored best on val: a row of `best_of_each_network`."""
    best = results.best_of_each_network()
    return best.loc[best["val_miou"].idxmax()]


def networks_shown(study: Study, results: Results) -> pd.DataFrame:
    """Return the arms of the networks question, cheapest first; `label` is the network's name.

    Where no question compares networks, they are each network's arm that scored best on val.
    """
    if (question := study.network_question) and len(question.arms) > 1:
        arms = results.of(question.name)
        return arms.assign(label=arms["arm"].map(question.labels)).sort_values("gmacs")
    arms = results.best_of_each_network()
    return arms.assign(label=[display_name(study, arm) for arm in arms["arm"]])


def networks_with_best(study: Study, results: Results) -> pd.DataFrame:
    """Return `networks_shown`, and after it the arm that scored best on val if not among them."""
    arms, best = networks_shown(study, results), best_on_val(results)
    if best["arm"] in set(arms["arm"]):
        return arms
    label = display_name(study, best["arm"])
    label = f"{label} ({best['arm']})" if label in set(arms["label"]) else label
    extra = results.arms[results.arms["arm"] == best["arm"]].head(1)
    return pd.concat([arms, extra.assign(label=label)], ignore_index=True)


def ladder_summary(requested: Question, finished: Question) -> str:
    """Return the tricks of a ladder in their order, in words; `finished` is without failed arms."""
    rungs = [
        trick + " (failed)" * (arm not in finished.arms) for trick, arm, _ in requested.effects
    ]
    start = next(iter(requested.arms))
    failed = "" if start in finished.arms else " (failed)"
    return f"Tricks are added to {start}{failed} one after the other: {' → '.join(rungs)}."


def rungs_until_failure(rows: pd.DataFrame, start: str) -> pd.DataFrame:
    """Return a ladder's comparisons from its start up to a rung that failed, or to its end."""
    reached = [start]
    for row in rows.itertuples():
        if row.against != reached[-1]:
            break
        reached.append(row.arm)
    return rows.head(len(reached) - 1)


def fcn_arms(study: Study) -> list[str]:
    """Return the arms of the FCN question between which only the skips differ, coarse to fine."""
    if not study.fcn:
        return []
    arms = {a: r.network for a, r in study.fcn.arms.items() if r.network.startswith("fcn")}
    encoder = [*arms.values()][-1].partition(":")[2]
    return [arm for arm, network in arms.items() if network.partition(":")[2] == encoder]


def recommendation_table(study: Study, results: Results) -> pd.DataFrame:
    """Return which network and which tricks to take for which budget, as the report's table.

    See `Results.pareto_arms`.
    """
    chosen = results.pareto_arms()
    tried = results.arms.groupby("network")["arm"].nunique()
    _, format_cost = UNITS["gmacs"]
    return pd.DataFrame(
        {
            "multiply-adds per image": [format_cost(cost) for cost in chosen["gmacs"]],
            "arm": list(chosen["arm"]),
            "network": [display_name(study, arm, tricks=False) for arm in chosen["arm"]],
            "tricks": [", ".join(tricks_of(study, arm)) or "none" for arm in chosen["arm"]],
            "steps": [study.arms[arm].steps for arm in chosen["arm"]],
            "arms of this network": [tried[network] for network in chosen["network"]],
            "mIoU %": (100 * chosen["test_miou"]).map("{:.1f}".format).to_numpy(),
            "95 % CI": [_interval(row) for row in chosen.itertuples()],
            "ms per image": (chosen["latency_ms"] * chosen["test_passes"])
            .map(_three_digits)
            .to_numpy(),
        }
    )


def _interval(row) -> str:
    return "none" if np.isnan(row.low) else f"{100 * row.low:.1f} to {100 * row.high:.1f}"


def empty_chapters(study: Study, results: Results) -> dict[str, str]:
    """Return the report's chapters that a study leaves empty: name -> what it lacks, in words."""
    ended, finished = results.ended(study), results.finished(study)
    never, not_yet, now = _chapter_gaps(study), _chapter_gaps(ended), _chapter_gaps(finished)
    wait = (
        "The questions of this chapter are not finished yet: "
        f"{_join_words(_unfinished_questions(results) or [''])}."
    )
    failed = _join_words([f"**{arm}**" for arm in ended.arms if arm not in finished.arms] or [""])
    too_few = f"Too few of the arms of this chapter were trained to the end: {failed} failed."
    return {
        chapter: text if chapter in never else wait if chapter in not_yet else too_few
        for chapter, text in now.items()
    }


def _chapter_gaps(study: Study) -> dict[str, str]:
    kinds = {question.kind for question in study.questions.values() if question.effects}
    conditions = {
        "2_baseline": (
            not study.baseline,
            "No arm has the baseline of arXiv 2206.12571; `baseline:0.25` under `networks` would "
            "be one.",
        ),
        "3_fcn": (
            not study.fcn,
            "No question compares the baseline with FCN; one whose `networks` include a baseline "
            "and an FCN, such as `baseline:0.25` and `fcn8s:resnet18`, would.",
        ),
        "4_tricks": (
            not kinds & {*PLACES, "length"},
            "No question tries a trick; one with `ladder`, `alone`, `leave_one_out` or `length` "
            "would.",
        ),
        "5_networks": (
            not study.network_question or len(study.network_question.arms) < 2,
            "No question compares networks at one recipe; one with several `networks` would.",
        ),
    }
    return {chapter: text for chapter, (is_missing, text) in conditions.items() if is_missing}


def require_chapter(study: Study, results: Results, chapter: str) -> None:
    """Raise InputError, with what the study lacks, if it leaves a chapter of the report empty."""
    if gap := empty_chapters(study, results).get(chapter):
        raise InputError(f"{chapter}: {gap}")


def _unfinished_questions(results: Results) -> list[str]:
    """Return the questions that are not finished, each with how many of its runs are missing."""
    return [
        f"{row.question} ({row.missing} of {row.runs} runs missing)"
        for row in results.unfinished.itertuples()
    ]


def unfinished(results: Results) -> str:
    """Return which questions are not finished, in words; '' if all are."""
    names = _unfinished_questions(results)
    if not names:
        return ""
    return (
        f"**Not finished yet: {_join_words(names)}.** The rest of this report is about the "
        "finished questions."
    )


def failures(outcomes: pd.DataFrame) -> str:
    """Return which arms failed, and why, in words; '' if none did."""
    failed = outcomes[outcomes["failed"] > 0]
    lines = [
        f"- **{row.arm}**, {row.failed} seed{'s' * (row.failed > 1)}: {escape_markdown(row.why)}"
        for row in failed.itertuples()
    ]
    if not lines:
        return ""
    return (
        f"**{len(failed)} of {len(outcomes)} arms failed**: the loss of at least one seed did not "
        "stay finite. Divergence is reported as their result; they have no score.\n\n"
        + "\n".join(lines)
    )


def warnings_before_scores(results: Results, *, tested: bool) -> str:
    """Return the warnings that come before any score; '' if there are none.

    `tested` says whether the data have test images.
    """
    warnings = [] if tested else [NO_TEST]
    warnings += [ONE_CLASS] if results.classes["class"].nunique() == 1 else []
    return "\n\n".join(
        [*warnings, *filter(None, [unfinished(results), failures(results.outcomes)])]
    )


def answer(study: Study, results: Results) -> list[str]:
    """Return what the study found, one item for each of its questions."""
    study = results.finished(study)
    arms = results.arms.drop_duplicates("arm").set_index("arm", drop=False)
    findings = []
    if base := study.baseline:
        base_row, network = arms.loc[base], study.arms[base].network
        same = [arm for arm in arms["arm"] if study.arms[arm].network == network]
        row = arms.loc[arms.loc[same, "val_miou"].idxmax()]
        trick_names = [f"**{trick}**" for trick in tricks_of(study, row["arm"])]
        tricks = f", with {_join_words(trick_names)}" if trick_names else ""
        findings.append(
            f"The paper's baseline (here `{row['network']}`{tricks}, "
            f"{study.arms[row['arm']].steps} steps at a learning rate of {row['lr']:g}) "
            f"reaches {100 * row['test_miou']:.1f} % mIoU on test ({interval_text(row)})."
        )
        if row["arm"] != base:
            findings[-1] += (
                f" It is the best of the baseline's arms on val; **{base}**"
                f"{', with the recipe of the FCNs,' if study.fcn else ''} reaches "
                f"{100 * base_row['test_miou']:.1f} %."
            )
        prior = results.prior.iloc[0]
        findings[-1] += (
            " The location prior, each pixel's most frequent class in the training images, has "
            f"{100 * prior['test_miou']:.1f} % mIoU."
        )
    if fcn := fcn_arms(study):
        change = results.difference(study.fcn.name, fcn[-1], study.baseline)
        findings.append(
            f"{comparison_sentence(change).removesuffix('.')}; the encoder differs as well."
        )
        if len(fcn) > 1:
            skips = results.difference(study.fcn.name, fcn[-1], fcn[0])
            findings[-1] += (
                f" The skip connections alone: {points(skips['difference'])} points "
                f"({verdict_or_unknown(skips)})."
            )
    if places := effects_by_place(study, results):
        tried = pd.concat(list(places.values()))["arm"]
        findings.append(f"{_tricks_in_short(places)} {short_training(results, tried)}".strip())
    findings += [
        length_summary(results, question)
        for question in study.questions.values()
        if question.kind == "length" and question.effects
    ]
    if (question := study.network_question) and len(question.arms) > 1:
        pareto_rows = results.pareto[results.pareto["question"] == question.name]
        size = size_summary(
            pareto_rows,
            lambda *pair: results.difference(question.name, *pair),
            brief=True,
        )
        recipe = "with the same tricks" if question.shared else "with one recipe"
        findings.append(f"{len(question.arms)} networks were compared {recipe}. {size}")
    best = best_on_val(results)
    chosen = "There is one arm,"
    if len(arms) > 1:
        chosen = f"Chosen on val among all {len(arms)} arms, the best is"
    findings.append(
        f"{chosen} {full_name(study, best['arm'])} with "
        f"{100 * best['test_miou']:.1f} % mIoU on test ({interval_text(best)}), for "
        f"{UNITS['gmacs'][1](best['gmacs'])} multiply-adds per image and "
        f"{best['parameters'] / 1e6:.2f} M parameters; its expected calibration error is "
        f"{percent(best['calibration_error'])}."
    )
    if len(arms) > 1:
        findings[-1] += (
            " It was chosen and tested with the same seeds, so its test score may be slightly "
            "optimistic."
        )
    rows_by_trick = _by_trick(places)
    hurtful = [
        f"**{trick}**"
        for trick in tricks_of(study, best["arm"])
        if "hurts" in {verdict_or_unknown(row) for row in rows_by_trick.get(trick, {}).values()}
    ]
    if hurtful:
        findings[-1] += (
            f" It has {_join_words(hurtful)}, which hurts in some question: the arm was chosen by "
            "its val score as a whole."
        )
    return findings


def _tricks_in_short(places: dict[str, pd.DataFrame]) -> str:
    rows_by_trick = _by_trick(places)
    verdicts = {
        trick: {verdict_or_unknown(row) for row in rows.values()}
        for trick, rows in rows_by_trick.items()
    }
    if all(seen == {UNKNOWN} for seen in verdicts.values()):
        why = interval_basis(next(iter(next(iter(rows_by_trick.values())).values())))
        which = (
            f"Which of {len(rows_by_trick)} tricks help"
            if len(rows_by_trick) > 1
            else "Whether a trick helps"
        )
        return f"{which} is {UNKNOWN} ({why})."
    kinds = {
        ("helps", "help"): lambda seen: "helps" in seen and "hurts" not in seen,
        ("hurts", "hurt"): lambda seen: "hurts" in seen and "helps" not in seen,
        ("helps or hurts, by question",) * 2: lambda seen: {"helps", "hurts"} <= seen,
    }
    parts = []
    for (one, many), holds in kinds.items():
        names = [f"**{trick}**" for trick, seen in verdicts.items() if holds(seen)]
        if names or not parts:
            parts.append(
                f"{_join_words(names) if names else 'none'} {many if len(names) > 1 else one}"
            )
    kinds = {
        "we found no effect of": lambda seen: (
            "no effect found" in seen and not {"helps", "hurts"} & seen
        ),
        "not enough data for": lambda seen: seen == {UNKNOWN},
    }
    for words, holds in kinds.items():
        names = [f"**{trick}**" for trick, seen in verdicts.items() if holds(seen)]
        parts += [f"{words} {_join_words(names)}"] if names else []
    return f"Of {len(rows_by_trick)} trick{'s' * (len(rows_by_trick) != 1)}, {'; '.join(parts)}."


def caveats(study: Study, results: Results, *, tested: bool = True) -> list[str]:
    """Return what would change the answer, in sentences; `tested`: the data have test images."""
    arms = results.arms.drop_duplicates("arm")
    statements = []
    late_gains = {arm: late_gain(results.curves, arm)[0] for arm in arms["arm"]}
    rising, base = max(late_gains, key=late_gains.get), study.baseline
    change = f"{late_gains[rising]:+.1f} points (**{rising}**)"
    if len(late_gains) > 1:
        change = f"{min(late_gains.values()):+.1f} to {change}"
    statements.append(
        f"**Longer training.** In the last quarter of each training val mIoU changed by {change}"
        f"{f', for the baseline by {late_gains[base]:+.1f}' if base else ''}: with more steps "
        f"{'the order of arms' if len(late_gains) > 1 else 'the score'} may change."
    )
    widths = 100 * (arms["high"] - arms["low"]) / 2
    blocks, seeds = int(arms["blocks"].iloc[0]), int(arms["seeds"].iloc[0])
    uncertainty = (
        f"an arm's mIoU is known to ±{widths.median():.1f} points (median), for images like these"
    )
    if widths.isna().all():
        uncertainty = "the uncertainty of an arm's mIoU is not known"
    statements.append(
        f"**More seeds and images.** With {seeds} seed{'s' * (seeds != 1)} and {blocks} "
        f"block{'s' * (blocks != 1)} of test images, {uncertainty}; the intervals do not cover "
        "other locations."
    )
    if len(arms) > 3 and tested:
        gap = 100 * (arms["val_miou"] - arms["test_miou"]).median()
        statements.append(
            f"**Another val split.** Choices are made on val, whose scores lie {gap:+.1f} points "
            "from those on test (median)."
        )
    return [re.sub(r"(?<=[ (])-(?=\d)", "−", line) for line in statements]


def worst_images(scores: np.ndarray, names: list[str], share: float = 0.1) -> str:
    """Return how far the worst images fall behind, in words; `scores` is mIoU per image, 0..1."""
    known = np.flatnonzero(np.isfinite(scores))
    if not len(known):
        return "no test image has a label."
    order = known[np.argsort(scores[known])]
    worst_count = max(1, round(share * len(order)))
    worst, middle = 100 * scores[order[:worst_count]].mean(), 100 * np.median(scores[order])
    listed = _join_words([escape_markdown(names[index]) for index in order[: min(3, worst_count)]])
    return (
        f"the median image has {middle:.1f} % mIoU, the worst {worst_count} of {len(order)} "
        f"{worst:.1f} % on average; the worst of all: {listed}."
    )


def confusion_summary(counts: np.ndarray, classes: tuple[str, ...], limit: int = 5) -> str:
    """Return which confusions cost most pixels, in words; `counts` (K, K), row truth."""
    wrong = counts - np.diag(np.diagonal(counts))
    total = wrong.sum()
    if not total:
        return "No pixel is wrong."
    places = [divmod(int(cell), len(counts)) for cell in np.argsort(wrong, axis=None)[::-1][:limit]]
    confusions = [
        f"{escape_markdown(classes[truth])} predicted as {escape_markdown(classes[predicted])} "
        f"({percent(wrong[truth, predicted] / total)} of all wrong pixels)"
        for truth, predicted in places
        if wrong[truth, predicted]
    ]
    truth = counts.sum(1)
    recall = np.diagonal(counts)[truth > 0] / truth[truth > 0]
    names = [name for name, pixels in zip(classes, truth, strict=True) if pixels]
    missed = [
        f"{escape_markdown(names[index])} ({percent(recall[index])})"
        for index in np.argsort(recall, kind="stable")[:3]
    ]
    return (
        f"{percent(total / counts.sum())} of the labelled pixels are wrong. "
        f"Most frequent confusions: {'; '.join(confusions)}. "
        f"The classes with the lowest recall: {_join_words(missed)}."
    )


def calibration_summary(table: pd.DataFrame, arms: pd.DataFrame) -> str:
    """Return each network's calibration error and its direction, in words.

    Parameters
    ----------
    table : `Results.reliability`
    arms : columns label, arm, calibration_error (mean over seeds, 0..1)
    """
    gaps = (table["confidence"] - table["correct"]).groupby(table["arm"]).sum()
    ordered = arms.sort_values("calibration_error")
    listed = [f"**{r.label}** {percent(r.calibration_error)}" for r in ordered.itertuples()]
    over, under = (
        [f"**{row.label}**" for row in arms.itertuples() if sign * gaps[row.arm] > 0]
        for sign in (1, -1)
    )
    summary = f"Expected calibration error: {_join_words(listed)}."
    summary += f" Overconfident on average: {_join_words(over)}." if over else ""
    return summary + (f" Underconfident on average: {_join_words(under)}." if under else "")


def boundary_summary(arms: pd.DataFrame) -> str:
    """Return how far boundary IoU lies below mIoU: columns label, test_miou, boundary_iou."""
    known = arms[arms["boundary_iou"].notna()]
    if not len(known):
        return "No test image has a boundary between two classes."
    gap = known["test_miou"] - known["boundary_iou"]
    smallest, largest = known["label"][gap.idxmin()], known["label"][gap.idxmax()]
    return (
        f"Near class boundaries, IoU is {100 * gap.min():.1f} (**{smallest}**) to "
        f"{100 * gap.max():.1f} (**{largest}**) points lower than over the whole image, as a "
        "mean over classes."
    )


def reference_comparison(
    classes: pd.DataFrame, arms: dict[str, str], reference: dict[str, dict[str, float]]
) -> str:
    """Return how far a network is from what others report for the same data, in words."""
    sentences = []
    for other, reported in reference.items():
        for name, arm in arms.items():
            arm_iou = classes[classes["arm"] == arm].set_index("class")["iou"].dropna()
            shared = [each for each in reported if each in arm_iou]
            if not shared:
                continue
            gaps = pd.Series({k: arm_iou[k] - reported[k] for k in shared}).sort_values()
            mean = 100 * np.mean([reported[k] for k in shared])
            worst = [f"{escape_markdown(k)} ({points(gap)})" for k, gap in gaps.head(3).items()]
            sentences.append(
                f"**{name}** lies {points(gaps.mean())} points from the {mean:.1f} % that {other} "
                f"reports as the mean of these {len(shared)} classes; it falls behind most in "
                f"{_join_words(worst)}, and does best against it in "
                f"{escape_markdown(gaps.index[-1])} ({points(gaps.iloc[-1])})."
            )
    if not sentences:
        return "Bars have 95 % CIs; what others report for these data is not listed here."
    return (
        " ".join(sentences) + " What it reports is one run, at its own size and length of training."
    )
