"""The head and the end of the report."""

import html
import os

import numpy as np
import pandas as pd
import yaml
from IPython.display import HTML

from roadseg.analysis.tables import Results, published
from roadseg.config.study import Study
from roadseg.data import survey
from roadseg.data.scenes import UNLABELLED, test_is_val
from roadseg.report import charts, findings, pictures
from roadseg.report.findings import best_on_val, fcn_arms, with_interval
from roadseg.report.load import predictions, scored, scores, splits
from roadseg.report.names import arm_titles, times_steps, trick_title, tricks_of
from roadseg.report.say import cost, count, duration, fill, interval, listed, name, points, score
from roadseg.report.tables import training_seconds


def cards(study: Study, results: Results, *, most: int = 3) -> HTML:
    """Show the findings that matter most, each as a number, its interval and a sentence."""
    titles, best = arm_titles(study), best_on_val(results)
    shown = [
        (
            score(best["test_miou"]), with_interval(best),
            f"test mIoU of {titles[best['arm']]}, the best on val of "
            f"{count(results.arms['arm'].nunique(), 'trained recipe')}, for "
            f"{cost(best['gmacs'])} per image.",
        )
    ]  # fmt: skip
    if fcn := fcn_arms(study):
        row = results.difference(study.fcn.name, fcn[-1], study.baseline)
        text = f"points of mIoU from {titles[study.baseline]} to {titles[fcn[-1]]}"
        if len(fcn) > 1:
            skips = results.difference(study.fcn.name, fcn[-1], fcn[0])
            text += f"; the skip connections alone: {points(skips['difference'])}"
        shown.append((points(row["difference"]), with_interval(row), f"{text}."))
    if (row := findings.strongest_trick(study, results)) is not None:
        tried = findings.all_effects(study, results)["trick"].nunique()
        text = f"points by {row['label']}, the strongest of {count(tried, 'training trick')} tried."
        shown.append((points(row["difference"]), with_interval(row), text))
    if (question := study.network_question) and len(question.arms) > 1 and len(shown) < most:
        arms = findings.networks_shown(study, results)
        gap = arms["test_miou"].max() - arms["test_miou"].min()
        text = f"points of mIoU between the best and the worst of {len(arms)} networks."
        shown.append((points(gap).removeprefix("+"), "", text))
    prior = results.prior.iloc[0]
    text = "test mIoU of the location prior, which looks at no image: the score to beat."
    bounds = f"95 % CI {interval(prior)}" if interval(prior) else ""
    shown.append((score(prior["test_miou"]), bounds, text))
    parts = [
        f'<section class="card"><p class="value">{html.escape(value)}</p>'
        f'<p class="interval">{html.escape(bounds)}</p><p>{html.escape(text)}</p></section>'
        for value, bounds, text in shown[:most]
    ]
    return HTML(f'<div class="cards">{"".join(parts)}</div>')


def abstract(study: Study, results: Results) -> str:
    """Return the study in one paragraph, with the numbers that matter (Markdown)."""
    titles, best = arm_titles(study), best_on_val(results)
    first, tricks = results.runs.iloc[0], findings.all_effects(study, results)
    fcn = fcn_arms(study)
    gap = results.difference(study.fcn.name, fcn[-1], study.baseline) if fcn else None
    return fill(
        """
        We trained {{ arms | count('combination') }} of network and training recipe on
        {{ images }} road scenes of {{ first.height }} × {{ first.width }} pixels. The best on
        validation images is {{ title | name }}, with **{{ best.test_miou | score }} mIoU** on test
        ({{ bounds }}) for {{ best.gmacs | cost }} (10⁹ multiply-adds) per image.
        {% if gap is not none %}
        The baseline is an encoder-decoder without skip connections; with the same recipe a fully
        convolutional network with them, {{ fcn | name }}, {{ gap_words }}.
        {% endif %}
        {% if tried %}
        A trick is a named change to the recipe, judged by training with and without it:
        {{ counted }}.
        {% endif %}
        {% if strongest is not none %}
        {{ strongest.label | capital | name }} adds most,
        **{{ strongest.difference | points }} points**.
        {% endif %}
        {{ short }}
        {% if source == 'synthetic' %}
        The scenes are drawn by a program: they show how methods compare, not what they score on
        photographs.
        {% endif %}""",
        images=first["train_images"], first=first, arms=results.arms["arm"].nunique(),
        title=titles[best["arm"]], best=best, bounds=with_interval(best),
        gap=gap, fcn=titles[fcn[-1]] if fcn else "", gap_words=_against_baseline(gap),
        tried=len(tricks), counted=findings.tricks_counted(tricks),
        strongest=findings.strongest_trick(study, results), short=findings.short_training(results),
        source=study.data["source"],
    )  # fmt: skip


def hero(study: Study, results: Results) -> pictures.Pictures:
    """Show one street as all see it: the image whose score by the best arm is the median one."""
    scenes, best, titles = scored(study), best_on_val(results)["arm"], arm_titles(study)
    index = findings.median_image(scores(study, best))
    arms = dict.fromkeys([study.baseline, *fcn_arms(study)[-1:], best])
    prior, truth = survey.location_prior(splits(study)["train"]), scenes.labels[index]
    predicted = {"location prior": prior}
    predicted |= {titles[arm]: predictions(study, arm)[index] for arm in arms if arm}
    wrong, by_prior = (
        f"{100 * np.mean((labels != truth)[truth != UNLABELLED]):.0f} %"
        for labels in (predicted[titles[best]], prior)
    )
    return pictures.one_street(scenes, index, predicted).titled(
        f"On this street {titles[best]} gets {wrong} of the pixels wrong, the location prior "
        f"{by_prior}.", "The test image whose mIoU by the best arm is the median one, first seed "
        "of each. Below: wrong pixels in red.", with_png=True,
    )  # fmt: skip


def made(results: Results) -> str:
    """Return when and with what the trainings were made, and how to cite them."""
    runs = results.runs
    year = runs["finished"].max()[:4]
    return (
        f"Trained {findings.days(runs['finished'])} with PyTorch {listed(runs['torch'].unique())} "
        f"in {duration(training_seconds(results))}, summed over trainings, on "
        f"{findings.devices(runs['device'])}; page made on {count(os.cpu_count() or 1, 'core')}. "
        f"MIT licence. Cite as: the roadseg authors, roadseg, {year}."
    )


def is_tested(study: Study) -> bool:
    """Return whether a study has test images of its own, or its val images stand in for them."""
    return not test_is_val(study.prepared)


def arms_by_cost(study: Study, results: Results) -> pd.DataFrame:
    """Return the arms of the figure of accuracy against cost, with their titles as `label`."""
    arms, titles, runs = results.arms_by_cost(), arm_titles(study), results.runs
    samples = [runs.loc[runs["arm"] == arm, "test_miou"].tolist() for arm in arms["arm"]]
    return arms.assign(label=arms["arm"].map(titles), samples=samples)


def answer(study: Study, results: Results) -> charts.Chart:
    """Show accuracy against cost, with what others report for the same data."""
    arms = arms_by_cost(study, results)
    split = "test" if is_tested(study) else "val"
    others = published(study.data["source"]).dropna(subset="gmacs")
    styles = charts.network_styles(recipe.architecture for recipe in study.arms.values())
    caption = "Each network by its arm that scored best on val, and the arms of the table below"
    caption += ", with 95 % CI." if arms["low"].notna().any() else "."
    caption += " Grey: others on the same data." if len(others) else ""
    return charts.accuracy_cost(arms, styles, others, split).titled(
        answer_title(study, results), caption, with_png=True
    )


def answer_title(study: Study, results: Results) -> str:
    """Return what the figure of accuracy against cost shows, as a sentence."""
    rows, titles = results.pareto_arms(), arm_titles(study)
    first, last = rows.iloc[0], rows.iloc[-1]
    if len(rows) == 1:
        return f"No costlier arm scores more on val than {titles[first['arm']]}."
    return (
        f"From {titles[first['arm']]} to {titles[last['arm']]}, along the Pareto front: "
        f"{points(last['test_miou'] - first['test_miou'])} points for "
        f"{last['gmacs'] / first['gmacs']:.1f} times the multiply-adds."
    )


def recipe(study: Study, results: Results) -> str:
    """Return the recipe of the best arm on val in words, and as YAML (Markdown)."""
    arm = best_on_val(results)["arm"]
    best = study.arms[arm]
    settings = {key: getattr(best, key) for key in ("network", "steps", "batch_size", "lr")}
    text = yaml.safe_dump(settings | best.differences(), sort_keys=False)
    return (
        f"The recipe, as `base:` of a `params.yaml`. Its {best.steps:,} steps were "
        f"{findings.epochs(results, [arm]):.1f} epochs here; what is not named has its default:\n\n"
        f"```yaml\n{text}```"
    )


def deviations(study: Study) -> str:
    """Return what a reader should know of how the study was made (Markdown)."""
    return "\n".join(f"- {remark}" for remark in study.remarks) or "There are none."


def _against_baseline(row: pd.Series | None) -> str:
    """Return what a comparison of FCN with the baseline found: 'beats it by ...'."""
    if row is None:
        return ""
    size = f"**{points(abs(row['difference'])).removeprefix('+')} points**"
    return {
        "better": f"beats it by {size}",
        "worse": f"scores {size} less",
    }.get(
        findings.verdict(row),
        f"is not shown to differ from it ({points(row['difference'])} points)",
    )


NO_TEST = (
    "**These data have no test images.** Wherever this page says test, it means val, on which "
    "choices were made too, so scores are optimistic."
)
ONE_CLASS = (
    "**These data have one class.** Every labelled pixel belongs to it, so no network can be "
    "wrong: add a background class."
)


def warnings(results: Results, *, tested: bool) -> str:
    """Return the warnings that come before any score (Markdown); '' if there are none.

    `tested` says whether the data have test images.
    """
    lines = [] if tested else [NO_TEST]
    lines += [ONE_CLASS] if results.classes["class"].nunique() == 1 else []
    if len(results.unfinished):
        lines.append(
            f"**Not finished yet: {listed(findings.unfinished(results))}.** The rest of this "
            "report is about the finished questions."
        )
    failed = results.outcomes[results.outcomes["failed"] > 0]
    if len(failed):
        lines.append(
            f"**{len(failed)} of {len(results.outcomes)} arms failed:** the loss of a seed did not "
            "stay finite. That is their result; they have no score.\n\n"
            + "\n".join(f"- **{name(row.arm)}**: {name(row.why)}" for row in failed.itertuples())
        )
    return "\n\n".join(lines)


def threats(study: Study, results: Results, *, tested: bool = True) -> list[str]:
    """Return what limits the validity of the results, in sentences (Markdown)."""
    arms = results.arms.drop_duplicates("arm")
    short, runs = findings.too_short(results), results.runs
    late = findings.rising(results) - short
    widths = 100 * (arms["high"] - arms["low"]) / 2
    spread = "The uncertainty of scores is not known"
    if widths.notna().any():
        spread = f"A score is known to ±{widths.median():.1f} points (median)"
    seeds, blocks = int(arms["seeds"].max()), int(arms["blocks"].iloc[0])
    items = [
        f"**Length of training.** Of the trainings of {count(len(arms), 'arm')} {len(short)} were "
        f"too short to tell whether they had converged, and {len(late)} still gained more than "
        f"{findings.RISING:g} point of val mIoU in their last quarter (marked{findings.MARK}): "
        "trained longer, they may score higher, and the order could change.",
        f"**Seeds and images.** {spread}, from {count(seeds, 'seed')} and "
        f"{count(blocks, 'block')} of test images, which are worth "
        f"{arms['effective_blocks'].iloc[0]:.0f} independent ones. Intervals do not cover other "
        "places and cameras.",
    ]
    if len(arms) > 3 and tested:
        gap = (arms["val_miou"] - arms["test_miou"]).median()
        apart = f"{points(abs(gap)).removeprefix('+')} points {'higher' if gap > 0 else 'lower'}"
        items.append(
            f"**Choices on val.** The median arm's val score is {apart} than its test score; "
            "the best on val need not be the best on test. The best arm was chosen and tested "
            "with the same seeds, so its score is slightly optimistic."
        )
    searched = results.searches["arm"].nunique()
    items += [
        f"**Learning rates.** {searched or 'None'} of {count(len(arms), 'arm')} had a search of "
        "its own; a rate that a recipe sets may suit some networks better than others.",
        f"**Image size.** {runs['height'].iloc[0]} × {runs['width'].iloc[0]} pixels; thin classes "
        "suffer most from small images.",
        "**Costs.** Multiply-adds are exact; milliseconds and hours are of this device.",
    ]
    if study.data["source"] == "camvid":
        items.append(
            "**Few places.** All val images are from one sequence, which gives training images "
            "too, and most test images from one that is seen nowhere else."
        )
    return items


def advice(study: Study, results: Results) -> str:
    """Return which recipe to start from on other data, in words (Markdown)."""
    best, titles = best_on_val(results), arm_titles(study)
    steps = study.arms[best["arm"]].steps
    is_longest = steps == max(recipe.steps for recipe in study.arms.values())
    rows = findings.all_effects(study, results)
    held = tricks_of(study, best["arm"])
    helping = [t for t in held if (rows["verdict"][rows["trick"] == t] == "helps").any()]
    hurting = rows["trick"][rows["verdict"] == "hurts"].unique()
    front = results.pareto_arms()
    cheapest = front.iloc[0]
    return fill(
        """
        Start from **{{ title | name }}**, the best on val here.
        {% if helping %}
        Of its tricks, {{ helping | listed }} {{ 'is' if helping | length == 1 else 'are' }} shown
        to help in some question: keep {{ 'it' if helping | length == 1 else 'them' }} first.
        {% endif %}
        {% if hurting %}
        Leave out {{ hurting | listed }} unless your trainings are much longer than these.
        {% endif %}
        {% if times != '1' %}
        Long training is part of it: {{ times }} times the steps of the study's base recipe.
        {% endif %}
        {% if late %}
        It is not shown to have converged: train it longer than we did.
        {% endif %}
        {% if cheapest.arm != best.arm %}
        If it is too slow, {{ cheaper | name }} costs {{ cheapest.gmacs | cost }} and scores
        {{ cheapest.test_miou | score }}.
        {% endif %}
        {% if between %}
        The rows between are in the budget table.
        {% endif %}""",
        title=titles[best["arm"]], best=best, cheapest=cheapest, cheaper=titles[cheapest["arm"]],
        helping=[f"**{name(trick_title(study, trick))}**" for trick in helping],
        hurting=[f"**{name(trick_title(study, trick))}**" for trick in hurting],
        late=best["arm"] in findings.unconverged(results), between=len(front) > 2,
        times=times_steps(study, steps) if is_longest else "1",
    )  # fmt: skip
