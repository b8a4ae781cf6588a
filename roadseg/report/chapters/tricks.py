"""What chapter 4 tells of training tricks."""

import numpy as np
import pandas as pd

from roadseg.analysis.intervals import MIN_SEEDS, POWER
from roadseg.analysis.tables import Results, reference_ladder
from roadseg.config.questions import Question
from roadseg.config.study import Study
from roadseg.report import charts, findings
from roadseg.report.names import arm_titles, trick_title
from roadseg.report.say import UNKNOWN, capital, count, fill, listed, percent, points

MAX_LIMIT = 0.3  # of the colours of class effects: a change of 30 points


def ladders(study: Study) -> list[Question]:
    """Return the questions that add tricks one after the other."""
    return [q for q in study.questions.values() if q.kind == "ladder" and q.effects]


def why_no_ladder(study: Study) -> str:
    """Return why there is no ladder to show; '' if there is one."""
    return (
        "" if ladders(study) else "No finished question has a ladder; `ladder` would ask for one."
    )


def ladder(study: Study, results: Results, question: Question) -> charts.Chart:
    """Show a ladder up to a rung that failed; beside the first one the course's own."""
    titles, arms = arm_titles(study), results.of(question.name)
    rows = findings.rungs_until_failure(results.effects(question.name), arms["arm"].iloc[0])
    start = titles[arms["arm"].iloc[0]], arms["test_miou"].iloc[0]
    rows = findings.labelled(study, rows)
    reference = reference_ladder() if question is ladders(study)[0] else None
    chart = charts.ladder(start, rows, reference)
    caption = f"{question.asks} Each step adds one trick to those above it"
    caption += "; intervals (95 % CI) are of that step." if rows["low"].notna().any() else "."
    return chart.titled(ladder_title(rows), caption, with_png=True)


def ladder_title(rows: pd.DataFrame) -> str:
    """Return which trick of a ladder adds most, and what all of them do, as a sentence."""
    if not len(rows):
        return "No step was trained to the end."
    most = rows.loc[rows["difference"].idxmax()]
    return capital(
        f"{most['label']} adds most ({points(most['difference'])} points); together "
        f"{count(len(rows), 'trick')} change mIoU by {points(rows['difference'].sum())} points."
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
    rows = findings.all_effects(study, results)
    both = findings.contradictions(rows)
    title = capital(f"{findings.tricks_counted(rows)}.")
    if both:
        title += f" In one question and not in another: {listed(both)}."
    elif rows["trick"].duplicated().any():
        title += " No trick that helps in one question hurts in another."
    interval = ", with 95 % CI; filled: a verdict after correction"
    shown = interval if rows["low"].notna().any() else ""
    return chart.titled(title, f"Each trick where it was tried{shown}.")


def class_effects(study: Study, results: Results) -> dict[str, pd.DataFrame]:
    """Return what the tricks of each question do to each class, with titles as `label`.

    Of ladders only the first: the others say little that is new.
    """
    shown, others = {}, {ladder.name for ladder in ladders(study)[1:]}
    for place, rows in findings.effects_by_place(study, results).items():
        table = results.class_effects
        if rows["question"].iloc[0] in others:
            continue
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
    return charts.lengths(shown).titled(capital(title), question.asks)


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


def power_text(places: dict[str, pd.DataFrame]) -> str:
    """Return what the smallest detectable effects in the tables mean (Markdown)."""
    if not any(rows["detectable"].notna().any() for rows in places.values()):
        return f"How small an effect these runs would find is {UNKNOWN}: they give no interval."
    return (
        "The *smallest detectable effect* in the tables, in points, is how large a trick's true "
        f"effect has to be for such a comparison to find it in {percent(POWER)} of repetitions; "
        "a smaller one may well be there where none was found."
    )


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
