"""What chapter 4 tells of training tricks."""

import numpy as np
import pandas as pd

from roadseg.analysis.intervals import MIN_SEEDS
from roadseg.analysis.tables import Results, reference_ladder
from roadseg.config.questions import Question
from roadseg.config.study import Study, load_resolved
from roadseg.report import charts, findings
from roadseg.report.names import arm_titles, trick_title
from roadseg.report.say import count, fill, listed, points

MAX_LIMIT = 0.3  # of the colours of class effects: a change of 30 points


def ladders(study: Study) -> list[Question]:
    """Return the questions that add tricks one after the other."""
    return [q for q in study.questions.values() if q.kind == "ladder" and q.effects]


def why_no_ladder(study: Study, results: Results) -> str:
    """Return why there is no ladder to show; '' if there is one."""
    asked = load_resolved(study.name)
    if ladders(study):
        return ""
    if not asked.has_question_of_kind("ladder"):
        return "No ladder in this study; `ladder:` in its settings would ask for one."
    ended = results.ended(asked).has_question_of_kind("ladder")
    return (
        "No two neighbouring rungs were trained to the end."
        if ended
        else ("The ladder is not finished yet.")
    )


def ladder(study: Study, results: Results, question: Question) -> charts.Chart:
    """Show a ladder up to a rung that failed; beside the first one the course's own."""
    titles, arms = arm_titles(study), results.of(question.name)
    rows = findings.rungs_until_failure(results.effects(question.name), arms["arm"].iloc[0])
    start = titles[arms["arm"].iloc[0]], arms["test_miou"].iloc[0]
    rows = findings.labelled(study, rows)
    reference = reference_ladder() if question is ladders(study)[0] else None
    chart = charts.ladder(start, rows, reference)
    caption = "Each step adds one trick to those above it; intervals (95 % CI) are of that step."
    return chart.titled(ladder_title(rows), f"{question.asks} {caption}", with_png=True)


def ladder_title(rows: pd.DataFrame) -> str:
    """Return which trick of a ladder adds most, and what all of them do, as a sentence."""
    if not len(rows):
        return "No step was trained to the end."
    most = rows.loc[rows["difference"].idxmax()]
    return (
        f"{most['label'][0].upper()}{most['label'][1:]} adds most ({points(most['difference'])} "
        f"points); together {count(len(rows), 'trick')} change mIoU by "
        f"{points(rows['difference'].sum())} points."
    )


def beside_ladders(study: Study, places: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Return the comparisons that judge tricks elsewhere than on a ladder."""
    return {
        place: rows
        for place, rows in places.items()
        if study.questions[rows["question"].iloc[0]].kind != "ladder"
    }


def forest(study: Study, results: Results, places: dict[str, pd.DataFrame]) -> charts.Chart:
    """Show each trick where it was tried, and how far single runs differ by their seed alone."""
    sd = results.noise.loc[results.noise["seeds"] >= MIN_SEEDS, "sd"].median()
    meaning = "two single runs, 19 of 20 times"
    chart = charts.forest(places, findings.max_seed_difference(sd), meaning)
    both = findings.contradictions(study, places)
    title = (
        f"{listed(both)} help in one place and hurt in another."
        if both
        else ("No trick that helps in one place hurts in another.")
    )
    return chart.titled(title, "Each trick where it was tried, with 95 % CI; filled: a verdict "
                        "after correction.")  # fmt: skip


def class_effects(study: Study, results: Results) -> dict[str, pd.DataFrame]:
    """Return what the tricks of each question do to each class, with titles as `label`."""
    shown = {}
    for place, rows in findings.effects_by_place(study, results).items():
        table = results.class_effects
        table = table[table["question"] == rows["question"].iloc[0]]
        shown[place] = findings.labelled(study, table)
    return shown


def class_limit(results: Results) -> float:
    """Return the change that has the strongest colour in all charts of class effects."""
    largest = results.class_effects["difference"].abs().quantile(0.98)
    return float(np.clip(largest, 0.01, MAX_LIMIT)) if len(results.class_effects) else 0.01


def lengths(study: Study) -> list[Question]:
    """Return the questions that try tricks at several lengths of training."""
    return [q for q in study.questions.values() if q.kind == "length" and q.effects]


def why_no_length(study: Study) -> str:
    """Return why there is no length question to show; '' if there is one."""
    return "" if lengths(study) else "No question asks that here; one with `length` would."


def length(study: Study, results: Results, question: Question) -> charts.Chart:
    """Show test mIoU by steps of training, with and without each trick of a question."""
    arms = results.of(question.name)
    recipes, titles = [question.arms[arm] for arm in arms["arm"]], arm_titles(study)
    labels = {}  # the same with every length: the title of the first
    for arm in question.arms:
        steps = f", {question.arms[arm].steps} steps"
        title = titles[arm].removesuffix(f" ({arm})").removesuffix(steps)
        labels.setdefault(question.labels[arm], title)
    shown = arms.assign(
        label=[labels[question.labels[arm]] for arm in arms["arm"]],
        steps=[recipe.steps for recipe in recipes],
    )
    rows = findings.labelled(study, results.effects(question.name))
    trick = rows["label"].iloc[0].partition(" at ")[0]
    changes = [
        f"{points(row.difference)} points at {row.label.rpartition(' at ')[2]}"
        for row in rows.itertuples()
        if row.label.partition(" at ")[0] == trick
    ]
    title = f"{trick} changes mIoU by {listed(changes)}."
    return charts.lengths(shown).titled(title[0].upper() + title[1:], question.asks)


def noise_text(study: Study, results: Results) -> str:
    """Return what the spread over seeds means for one run against one (Markdown)."""
    titles, parts = arm_titles(study), []
    for row in results.noise.itertuples():
        if row.seeds < MIN_SEEDS:
            continue
        parts.append(
            fill(
                """**One run against one.** {{ title }}, trained with {{ seeds }} seeds, has a
                standard deviation of {{ sd }} points between them: two single runs of it differ by
                more than {{ apart }} points in one of twenty cases.""",
                title=titles[row.arm], seeds=row.seeds, sd=f"{100 * row.sd:.1f}",
                apart=f"{100 * findings.max_seed_difference(row.sd):.1f}",
            )
        )  # fmt: skip
    return " ".join(parts)


def power_text(study: Study, places: dict[str, pd.DataFrame]) -> str:
    """Return which effects the comparisons of each question would find, as a list (Markdown)."""
    lines = [f"- *{p[0].upper()}{p[1:]}.* {findings.detectable(r)}" for p, r in places.items()]
    return "\n".join(lines)


def catalogue(study: Study) -> pd.DataFrame:
    """Return the tricks that the settings list: a row for each."""
    return pd.DataFrame(
        {
            "trick": trick_title(study, trick.name),
            "sets": ", ".join(f"{key} = {value}" for key, value in trick.hyperparameters.items()),
            "idea": trick.idea,
            "source": trick.source,
        }
        for trick in study.tricks.values()
    )
