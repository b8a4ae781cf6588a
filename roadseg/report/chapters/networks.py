"""What chapter 5 tells of networks and their cost."""

from functools import partial

import numpy as np
import pandas as pd
import torch

from roadseg.analysis import cost
from roadseg.analysis.results import FIELD_IMAGES, load_network, meta_network
from roadseg.analysis.tables import Results, reference_classes, reference_costs
from roadseg.config.study import Study
from roadseg.data import survey
from roadseg.report import charts, findings, pictures
from roadseg.report import say as words
from roadseg.report.findings import networks_shown
from roadseg.report.load import predictions, scored
from roadseg.report.names import arm_styles
from roadseg.report.say import count, listed, name, points, score
from roadseg.training.device import default_device

BUSY = 2  # the 95th percentile of latencies over their median, on a machine that does other work
DIFFERENT = 0.04  # a share of multiply-adds, above which a difference is explained


def arms(study: Study, results: Results) -> dict[str, str]:
    """Return the arms of the networks question by their titles, cheapest first."""
    shown = networks_shown(study, results)
    return dict(zip(shown["label"], shown["arm"], strict=True))


def fronts(study: Study, results: Results) -> charts.Chart:
    """Show test mIoU against three measures of cost."""
    shown = arms(study, results)
    rows = results.pareto[results.pareto["question"] == study.network_question.name]
    rows = rows.assign(title=rows["arm"].map({arm: title for title, arm in shown.items()}))
    return charts.pareto_fronts(rows, arm_styles(study, shown))


def title(study: Study, results: Results) -> str:
    """Return which network suffices, as a sentence."""
    shown = networks_shown(study, results)
    if shown["low"].isna().all():
        return f"{len(shown)} networks, trained with the same recipe."
    row = _sufficient(study, results)
    costlier = (shown["gmacs"] > row["gmacs"]).sum()
    if not costlier:
        return f"Accuracy rises with cost up to {row['label']}."
    return f"No costlier network is shown to beat {row['label']} ({words.cost(row['gmacs'])})."


def best_title(study: Study, results: Results) -> str:
    """Return which network is best on val and what it scores, as a sentence."""
    shown = networks_shown(study, results)
    best = shown.loc[shown["val_miou"].idxmax()]
    return (
        f"Of {count(len(shown), 'network')} {best['label']} is the best on val: "
        f"{score(best['test_miou'])} mIoU on test for {words.cost(best['gmacs'])}."
    )


def _sufficient(study: Study, results: Results) -> pd.Series:
    difference = partial(results.difference, study.network_question.name)
    return findings.sufficient(networks_shown(study, results), difference)


def sentences(study: Study, results: Results) -> dict[str, str]:
    """Return from which cost on accuracy is not shown to rise, and how reliable latencies are."""
    shown = networks_shown(study, results)
    text = "Whether cost pays is not known: no interval can be computed."
    if shown["low"].notna().any():
        row = _sufficient(study, results)
        costlier = shown[shown["gmacs"] > row["gmacs"]]
        text = "Accuracy rises with cost throughout."
        if len(costlier):
            best = costlier.loc[costlier["val_miou"].idxmax()]
            change = results.difference(study.network_question.name, best["arm"], row["arm"])
            times = f"{best['gmacs'] / row['gmacs']:.1f}"
            text = (
                f"**{name(row['label'])}** is the cheapest network that no costlier one beats "
                f"significantly. The best of those by val, {name(best['label'])}, costs "
                f"{'about the same' if times == '1.0' else f'{times} times as much'}; the "
                f"difference is {points(change['difference'])} points "
                f"({findings.with_interval(change)}).{findings.only_uncorrected(change)}"
            )
    spread = (results.networks["latency_ms_p95"] / results.networks["latency_ms"]).median()
    busy = ""
    if spread > BUSY:
        busy = f"**The machine was busy:** of ten passes one took {spread:.1f} times the median."
    return {"sufficient": text, "busy": busy}


def class_iou(study: Study, results: Results) -> charts.Chart:
    """Show IoU of each class and network, with the best arm and what others report."""
    shown = findings.networks_with_best(study, results)
    others = reference_classes(study.data["source"])
    rows = results.classes[results.classes["arm"].isin(shown["arm"])]
    span = rows.groupby("class")["iou"].agg(lambda iou: iou.max() - iou.min())
    size = points(span.max()).removeprefix("+")
    return charts.class_iou(
        results.classes, dict(zip(shown["label"], shown["arm"], strict=True)), others
    ).titled(
        f"The arms shown differ most in the class {span.idxmax()}: by {size} points of IoU.",
        "IoU on test in percent, classes from frequent to rare, networks by increasing cost, then "
        "the best arm on val if it is another; bold: the best of each class."
        + (" Published: one run each." if others else ""),
    )


def close_ups(study: Study, results: Results) -> pictures.Pictures:
    """Show the windows of test images with most thin, small and bordering things.

    Of networks the cheapest, the one that suffices, and the best on val.
    """
    scenes = scored(study)
    height, width = scenes.labels.shape[1:]
    size = (min(max(height // 2, 24), height), min(max(width // 2, 36), width))
    shown = networks_shown(study, results)
    suffices = _sufficient(study, results)["arm"]
    kept = {shown["arm"].iloc[0], suffices, shown.loc[shown["val_miou"].idxmax(), "arm"]}
    predicted = {
        title: predictions(study, arm) for title, arm in arms(study, results).items() if arm in kept
    }
    return pictures.close_ups(scenes, survey.close_up_windows(scenes, size), size, predicted)


def effective_fields(study: Study, results: Results) -> pictures.Pictures:
    """Show the effective receptive field of each network, by the weights of its first seed."""
    scenes, shown = scored(study), networks_shown(study, results)
    sides = results.networks.set_index("network")["effective_field"]
    images = torch.from_numpy(np.array(scenes.images[:: -(-len(scenes) // FIELD_IMAGES)]))
    fields = {}
    for row in shown.itertuples():
        network = load_network(study, row.arm, len(scenes.classes))
        fields[row.label] = cost.effective_field(network, images, device=default_device())
    return pictures.effective_fields(
        fields, {row.label: sides[row.network] for row in shown.itertuples()}
    )


def searches(study: Study, results: Results) -> charts.Chart | None:
    """Show what each learning rate scored that a search tried; None without a search."""
    shown = {arm: title for title, arm in arms(study, results).items()}
    styles = arm_styles(study, arms(study, results))
    searched = {arm: t for arm, t in shown.items() if arm in set(results.searches["arm"])}
    return charts.searches(results.searches, searched, styles) if searched else None


def search_text(study: Study, results: Results) -> str:
    """Return what the searches for a learning rate chose and cost (Markdown)."""
    shown = {arm: title for title, arm in arms(study, results).items()}
    trials = results.searches[results.searches["arm"].isin(shown)]
    if not len(trials):
        return (
            "All networks have the same learning rate, without a search: one with another best "
            "rate is at a disadvantage."
        )
    rates = sorted(trials["lr"].unique())
    chosen = trials[trials["chosen"].astype(bool)]
    at_end = chosen["lr"].isin([rates[0], rates[-1]]) & (len(rates) > 2)
    ends = chosen["arm"][at_end].map(shown).tolist()
    diverged = trials["val_miou"].isna().sum()
    return words.fill(
        """
        Each network has the best on val of {{ rates | listed }}, each tried once for {{ steps }}
        steps; all trials took {{ seconds | duration }}.
        {% if ends %}
        For {{ ends | names }} it is at an end of the range; a better one may lie beyond.
        {% endif %}
        {% if diverged %}
        In {{ diverged | count('trial') }} the loss did not stay finite.
        {% endif %}
        {{ benefit }}""",
        rates=[f"{rate:g}" for rate in rates], steps=int(trials["steps"].max()),
        seconds=trials["seconds"].sum(), ends=ends, diverged=int(diverged),
        benefit=_search_benefit(study, results, shown),
    )  # fmt: skip


def _search_benefit(study: Study, results: Results, shown: dict[str, str]) -> str:
    """Return what searches brought where the same recipe was trained at its own rate, in words."""
    table = results.arms.drop_duplicates("arm").set_index("arm")
    sentences = []
    for arm, label in shown.items():
        fixed = study.arms[arm].at_lr(study.arms[arm].lr)
        other = next((a for a, recipe in study.arms.items() if recipe == fixed), arm)
        if table.at[arm, "lr"] != table.at[other, "lr"]:
            change = points(table.at[arm, "val_miou"] - table.at[other, "val_miou"])
            sentences.append(f"For {name(label)} the search changed val mIoU by {change} points.")
    return " ".join(sentences)


def layers(study: Study, results: Results) -> dict[str, pd.DataFrame]:
    """Return the layers of each network: title -> `cost.layer_table`, without receptive fields."""
    scenes = scored(study)
    columns = ["layer", "kind", "channels", "height", "width", "parameters", "gmacs"]
    return {
        title: cost.layer_table(
            meta_network(study.arms[arm], len(scenes.classes)), scenes.labels.shape[1:]
        )[columns]
        for title, arm in arms(study, results).items()
    }


def course_text() -> str:
    """Return how our counts of the course study's networks differ from its own (Markdown)."""
    table = reference_costs()
    similar, other = (table[(table["excess"].abs() > DIFFERENT) == far] for far in (False, True))
    lines = [f"- **{row.network}**: its variant {row.differs}." for row in other.itertuples()]
    return (
        f"Within {score(DIFFERENT)} of what it reports: {listed(similar['network'])}.\n\n"
        + "\n".join(lines)
    )
