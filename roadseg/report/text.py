"""Sentences of the report: every number in them comes from a row of the tables."""

import re
import string

import numpy as np
import pandas as pd

from roadseg.analysis.tables import LEVEL, Results, group_similar_costs, late_gain
from roadseg.config.questions import Question
from roadseg.config.recipe import DEFAULTS
from roadseg.config.study import Study
from roadseg.data.survey import percent
from roadseg.errors import InputError


def plain(name: str) -> str:
    r"""Return the name of a class or file so that Markdown shows it as it is, and obeys nothing.

    >>> plain("a_*<b>")
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


def basis(row: pd.Series) -> str:
    """Return what the interval of an arm or comparison rests on, in words."""
    seeds = f"{int(row['seeds'])} seed{'s' if row['seeds'] > 1 else ''}"
    if row["seeds"] == 1 and row["blocks"] == 1:
        return f"{seeds}, only one block of test images: no interval can be computed"
    if row["seeds"] == 1:
        return f"over test images only, {seeds}"
    return f"over {seeds}, only one block of test images" if row["blocks"] == 1 else seeds


def between(row: pd.Series) -> str:
    """Return the interval of an arm's mIoU and what it rests on, in %."""
    if np.isnan(row["low"]):
        return basis(row)
    return f"95 % interval {100 * row['low']:.1f} to {100 * row['high']:.1f}, {basis(row)}"


def sentence(row: pd.Series) -> str:
    """Return a comparison in words, in points of mIoU (%)."""
    size = 100 * row["difference"]
    change, low, high = (points(row[column]) for column in ("difference", "low", "high"))
    if np.isnan(row["low"]):
        return (
            f"**{row['arm']}** and **{row['against']}** differ by {change} points of mIoU in "
            f"this run; whether they differ in general is not known ({basis(row)})."
        )
    interval = f"95 % interval {low} to {high}, {basis(row)}"
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
            f"general is not known ({basis(row)})."
        )
    interval = f"{change} points of mIoU, 95 % interval {low} to {high}"
    if row["seeds"] == 1 or row["blocks"] == 1:  # what else a reader would take it to carry
        interval += f", {basis(row)}"
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
SHORT = 10  # epochs of training, below which a verdict on a trick is about short training
MOST_NAMED = 5  # classes of one trick and verdict, by the size of the change


def effects_by_place(study: Study, results: Results) -> dict[str, pd.DataFrame]:
    """Return the comparisons that judge tricks, by where the trick was tried, in words."""
    questions = [q for q in study.questions.values() if q.kind in PLACES and q.effects]
    networks = {recipe.network for question in questions for recipe in question.arms.values()}
    words = [PLACES[question.kind][0] for question in questions]
    if len(networks) > 1 or len(set(words)) < len(words):
        starts = [next(iter(question.arms)).removesuffix("-all") for question in questions]
        pairs = zip(questions, starts, strict=True)
        words = [PLACES[question.kind][1].format(start) for question, start in pairs]
    if len(set(words)) < len(words):
        words = [f"{word} ({q.name})" for word, q in zip(words, questions, strict=True)]
    return {word: results.effects(q.name) for word, q in zip(words, questions, strict=True)}


def held_fixed(question: Question) -> str:
    """Return what all arms of a question share, and what of it some trick changes, in words."""
    words = {
        "architecture": "the network (`{}`)",
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
    moved = ["the network's layers"] if len(values.pop("architecture")) > 1 else []
    moved += [f"`{name}`" for name, found in values.items() if len(found) > 1]
    moved += [
        f"`{name}` (whose own training is not counted)"
        for name, trains in (("pretrained", "scenes:"), ("teacher", ""))
        if any(getattr(r, name) and getattr(r, name).startswith(trains)
               for r in question.arms.values())
    ]  # fmt: skip
    told = f"Held fixed in all arms: {_listed(fixed)}. " if fixed else ""
    told += f"Varies between arms: {_listed(moved)}." if moved else ""
    return told.strip()


def trick_table(rows: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """Return the comparisons that judge tricks as the report's table."""
    own = arms.set_index("arm").loc[rows["arm"]]
    return pd.DataFrame(
        {
            "trick": rows["trick"].to_numpy(),
            "test mIoU %": own["test_miou"].map(lambda x: f"{100 * x:.1f}").to_numpy(),
            "change (points)": [points(x) for x in rows["difference"]],
            "95 % interval": [
                "none" if np.isnan(low) else f"{points(low)} to {points(high)}"
                for low, high in zip(rows["low"], rows["high"], strict=True)
            ],
            "p, corrected": [_p(p) for p in rows["p_corrected"]],
            "verdict": [decided(row) for _, row in rows.iterrows()],
            "passes per test image": own["test_passes"].astype(int).to_numpy(),
            "training s": own["train_seconds"].map("{:.0f}".format).to_numpy(),
        }
    )


def decided(row: pd.Series) -> str:
    """Return the verdict of a comparison, or that there can be none."""
    return UNKNOWN if np.isnan(row["p_corrected"]) else row["verdict"]


def _p(p: float) -> str:
    if np.isnan(p):
        return "unknown"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def detection(rows: pd.DataFrame) -> str:
    """Return which effects these comparisons of one question would find, in words."""
    known = rows.dropna(subset="detectable").sort_values("detectable")
    if not len(known):
        return f"The minimum detectable effect is {UNKNOWN} ({basis(rows.iloc[0])})."
    least, most = known.iloc[0], known.iloc[-1]
    low, high = (f"{100 * row['detectable']:.1f} points" for row in (least, most))
    size = low
    if low != high:
        size = f"{low} (for **{least['trick']}**) to {high} (for **{most['trick']}**)"
    tests = int(least["tests"])
    after = f"after correction for {tests} comparisons" if tests > 1 else "for its one comparison"
    return (
        f"{basis(least)[0].upper()}{basis(least)[1:]}: {after}, a true effect of {size} of mIoU "
        "is detected with a nominal power of 80 %."
    )


def luck(sd: float) -> float:
    """Return how far two single runs that differ in their seed lie apart, 19 times of 20."""
    return 1.96 * np.sqrt(2) * sd


def noise_words(noise: pd.DataFrame, ladder: pd.DataFrame) -> str:
    """Return what the spread over seeds means for one run against one, in words.

    `ladder` is a ladder of one run per rung to hold against it (`reference_ladder`).
    """
    told = []
    for row in noise.itertuples():
        if np.isnan(row.sd):
            told.append(
                f"{row.seeds} seed{'s' * (row.seeds != 1)} of **{row.arm}** cannot show how much "
                "seeds vary."
            )
            continue
        far, low, high = (100 * luck(sd) for sd in (row.sd, row.sd_low, row.sd_high))
        steps = 100 * ladder["miou"].diff().dropna().abs()
        told.append(
            f"**{row.arm}**, trained with {row.seeds} seeds, scores {100 * row.mean:.1f} % mIoU on "
            f"test{_over_images(row)}, with a standard deviation of {100 * row.sd:.2f} points "
            f"between seeds (95 % interval "
            f"{_spread(f'{100 * row.sd_low:.2f}', f'{100 * row.sd_high:.2f}', high)}). Two single "
            f"runs of this recipe differ by more than {far:.1f} points "
            f"({_spread(f'{low:.1f}', f'{high:.1f}', high)}) by their seeds alone in one of twenty "
            f"cases; a comparison of single runs cannot detect a smaller effect. Of the "
            f"{len(steps)} steps of the course study's ladder {(steps < far).sum()} are smaller; "
            f"it did not report how much its seeds vary."
        )
    return " ".join(told)


def _spread(low: str, high: str, most: float) -> str:
    """Return an interval; where it has more points than there are, as two seeds may give, half."""
    return f"{low} to {high}" if most < 100 else f"{low} or any more"


def _over_images(row) -> str:
    """Return the interval of a noise question's mean, and what it carries, in words."""
    if np.isnan(row.low):
        return ""
    over = "seeds and images" if row.seeds > 1 else "images alone"
    over = over if row.blocks > 1 else "seeds alone"
    return f" (95 % interval over {over} {100 * row.low:.1f} to {100 * row.high:.1f})"


def agreement(places: dict[str, pd.DataFrame]) -> str:
    """Return where the verdicts on a trick agree between `effects_by_place`, in words."""
    found = _by_trick(places)
    several = {trick: rows for trick, rows in found.items() if len(rows) > 1}
    if not several:
        return ""
    verdicts = {trick: {decided(row) for row in rows.values()} for trick, rows in several.items()}
    lines = []
    for verdict in ("helps", "hurts", "no effect found", UNKNOWN):
        same = [f"**{trick}**" for trick, seen in verdicts.items() if seen == {verdict}]
        lines += [f"the same in all questions, {verdict}: {_listed(same)}"] if same else []
    mixed = {
        "helps in one question and hurts in another": lambda seen: {"helps", "hurts"} <= seen,
        "an effect in one question and none found in another": lambda seen: (
            len(seen) > 1 and not {"helps", "hurts"} <= seen
        ),
    }
    for words, holds in mixed.items():
        told = [
            f"**{trick}** ("
            + "; ".join(
                f"{place} {points(row['difference'])}, {decided(row)}"
                for place, row in several[trick].items()
            )
            + ")"
            for trick, seen in verdicts.items()
            if holds(seen)
        ]
        lines += [f"{words}: {_listed(told)}"] if told else []
    return (
        f"Tricks that were tried in more than one question: {len(several)}.\n\n"
        + "\n".join(f"- {line}." for line in lines)
        + "\n\nAn effect in one question and none found in another does not show that the effect "
        "differs: each verdict is about one comparison, not about the difference of two."
    )


def _by_trick(places: dict[str, pd.DataFrame]) -> dict[str, dict[str, pd.Series]]:
    found = {}
    for place, rows in places.items():
        for _, row in rows.iterrows():
            found.setdefault(row["trick"], {})[place] = row
    return found


def class_words(table: pd.DataFrame) -> str:
    """Return which classes each trick helps or hurts, in words: a question's `class_effects`."""
    tests = int(table["p_corrected"].notna().sum())
    if not tests:
        return "Whether a trick changes a class is not known: no interval can be computed."
    lines, silent = [], []
    for trick, own in table.groupby("trick", sort=False):
        parts = []
        for verdict in ("helps", "hurts"):
            rows = own[own["verdict"] == verdict].sort_values("difference", key=abs)[::-1]
            shown = rows.head(MOST_NAMED)
            names = [
                f"{plain(name)} ({points(difference)})"
                for name, difference in zip(shown["class"], shown["difference"], strict=True)
            ]
            names += [f"{len(rows) - len(shown)} more"] if len(rows) > len(shown) else []
            parts += [f"{verdict} {_listed(names)}"] if names else []
        if parts:
            lines.append(f"- **{trick}** {' and '.join(parts)}.")
        else:
            silent.append(f"**{trick}**")
    pairs = f"after correction for {tests} pairs of a trick and a class"
    if not lines:
        return f"We found no effect of any trick on any class, {pairs}."
    rest = f"\n\nWe found no effect of {_listed(silent)} on any class." if silent else ""
    return f"In points of IoU, {pairs}:\n\n" + "\n".join(lines) + rest


def short_training(results: Results, arms) -> str:
    """Return a warning where most of the trainings of some arms are short; '' elsewhere."""
    runs = results.runs[results.runs["arm"].isin(arms)]
    epochs = (runs["steps"] * runs["batch_size"] / runs["train_images"]).median()
    if not epochs < SHORT:
        return ""
    return (
        f"**Short training:** the median of these trainings is {epochs:.1f} epochs; verdicts may "
        "differ after a long one."
    )


def length_words(results: Results, question: Question) -> str:
    """Return what a length question found, in words."""
    changes = {}
    for _, row in results.effects(question.name).iterrows():
        trick, _, steps = row["trick"].rpartition(" at ")
        changes.setdefault(trick, []).append(
            f"{points(row['difference'])} points at {steps} ({decided(row)})"
        )
    return " ".join(
        f"By length of training, **{trick}** changes mIoU by {_listed(parts)}."
        for trick, parts in changes.items()
    )


def conclusion(places: dict[str, pd.DataFrame], *, brief: bool = False) -> str:
    """Return which tricks help, which hurt, and which show no effect, in words.

    `brief` leaves out the numbers of those that show none.
    """
    lines = []
    heads = {"helps": "Helps", "hurts": "Hurts", "no effect found": "No effect found"}
    heads[UNKNOWN] = UNKNOWN.capitalize()
    for verdict, head in heads.items():
        told = []
        for trick, rows in _by_trick(places).items():
            own = {place: row for place, row in rows.items() if decided(row) == verdict}
            values = [
                (f"{place} " if len(places) > 1 else "")
                + points(row["difference"])
                + (f", {_allowed(row)}" if verdict == "no effect found" else "")
                for place, row in own.items()
            ]
            numbers = f" ({'; '.join(values)})"
            if brief and verdict == "no effect found":
                numbers = f" ({_listed(list(own))})" if 0 < len(own) < len(rows) else ""
            told += [f"**{trick}**{numbers}"] if own else []
        if told or verdict != UNKNOWN:
            lines.append(f"- {head}: {_listed(told) if told else 'none'}.")
    return "\n".join(lines)


def _allowed(row: pd.Series) -> str:
    return f"interval {points(row['low'])} to {points(row['high'])}"


def _listed(items: list[str]) -> str:
    return ", ".join(items[:-1]) + (" and " if len(items) > 1 else "") + items[-1]


UNITS = {
    "gmacs": ("multiply-adds", lambda x: f"{_three(x)}\N{NO-BREAK SPACE}·\N{NO-BREAK SPACE}10⁹"),
    "latency_ms": ("latency", lambda x: f"{_three(x)} ms"),
    "parameters": ("parameters", lambda x: f"{_three(x / 1e6)} M"),
}


def _three(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def budget_table(fronts: pd.DataFrame, difference) -> pd.DataFrame:
    """Return which network to take for which budget, as the report's table.

    Parameters
    ----------
    fronts : rows of `fronts` of one networks question
    difference : (arm, against) -> the row of `comparisons` that compares them
    """
    rows = []
    for measure, own in fronts.groupby("measure", sort=False):
        name, write = UNITS[measure]
        chosen = own[own["front"]].sort_values("cost").drop_duplicates("val_miou")
        nexts = [*chosen["cost"].iloc[1:], np.inf]
        before = None
        for row, upto in zip(chosen.itertuples(), nexts, strict=True):
            budget = f"{write(row.cost)} and more"
            if np.isfinite(upto):
                budget = f"{write(row.cost)} to {write(upto)}"
            gain = "the cheapest"
            sure = UNKNOWN if np.isnan(row.share) else f"{100 * row.share:.0f}"
            if before is not None:
                change = difference(row.arm, before.arm)
                gain = f"{points(change['difference'])} ({decided(change)})"
            rows.append(
                {
                    "cost": name,
                    "budget": budget,
                    "network": row.label,
                    "mIoU %": f"{100 * row.test_miou:.1f}",
                    "95 % interval": "none" if np.isnan(row.low)
                    else f"{100 * row.low:.1f} to {100 * row.high:.1f}",
                    "gain over the next cheaper": gain,
                    "on the front of test scores, % of resamples": sure,
                }
            )  # fmt: skip
            before = row
    return pd.DataFrame(rows)


def size_words(fronts: pd.DataFrame, difference, *, brief: bool = False) -> str:
    """Return from which cost on accuracy no longer rises: rows of one question's `fronts`.

    `brief` says which network that is, and how much better more expensive ones may still be.
    """
    own = fronts[fronts["measure"] == "gmacs"].sort_values("cost", ignore_index=True)
    if own["low"].isna().all():
        return f"Whether cost pays is {UNKNOWN}: no interval can be computed."
    _, write = UNITS["gmacs"]
    if own["cost"].nunique() == 1:
        return f"All {len(own)} networks cost the same multiply-adds."
    enough = next(
        row
        for place, row in own.iterrows()
        if not any(
            difference(dearer, row["arm"])["verdict"] == "better"
            for dearer in own["arm"].iloc[place + 1 :]
        )
    )
    dearer = own[own["cost"] > enough["cost"]]
    if not len(dearer):
        told = (
            f"Accuracy rises with cost throughout: each network is significantly worse than some "
            f"more expensive one, up to the most expensive, **{enough['label']}** "
            f"({write(enough['cost'])} multiply-adds)."
        )
    else:
        best = dearer.loc[dearer["val_miou"].idxmax()]
        changes = [difference(arm, enough["arm"]) for arm in dearer["arm"]]
        change, most = difference(best["arm"], enough["arm"]), max(c["high"] for c in changes)
        told = (
            f"**{enough['label']}** ({write(enough['cost'])} multiply-adds, "
            f"{100 * enough['test_miou']:.1f} % mIoU) is the cheapest network that no more "
            f"expensive one beats significantly; the largest upper confidence bound of a gain over "
            f"it is {points(most)} points, among {len(dearer)} networks."
        )
        if brief:
            return told
        times = best["cost"] / enough["cost"]
        told += (
            f" The best of them by val score, **{best['label']}**, costs {times:.1f} times as much "
            f"and changes mIoU by {points(change['difference'])} points ({_range(change)})."
        )
    if len(own) < 4 or brief:
        return told
    told += (
        f" The rank correlation of cost with mIoU {rank_correlation(own['cost'], own['test_miou'])}"
    )
    return told + "; the networks differ in more than their size."


def _range(row: pd.Series) -> str:
    if np.isnan(row["low"]):
        return "no interval can be computed"
    return f"{points(row['low'])} to {points(row['high'])}, {decided(row)}"


def search_words(searches: pd.DataFrame, labels: dict[str, str]) -> str:
    """Return what the searches for a learning rate chose and cost, in words.

    `labels` maps the arms of one question to the names to show.
    """
    own = searches[searches["arm"].isin(labels)]
    if not len(own):
        return (
            "All networks have the same learning rate, without a search: those with another "
            "optimal rate are at a disadvantage."
        )
    rates = sorted(own["lr"].unique())
    chosen = own[own["chosen"].astype(bool)].set_index("arm")["lr"]
    parts = [f"{labels[arm]} {lr:g}" for arm, lr in chosen.items()]
    ends = [labels[arm] for arm, lr in chosen.items() if lr in (rates[0], rates[-1])]
    ends = ends if len(rates) > 2 else []
    lost = own[own["val_miou"].isna()]
    told = (
        f"Each network's learning rate is the best on val of "
        f"{_listed([f'{r:g}' for r in rates])}, each tried once, with the first seed, for "
        f"{int(own['steps'].max())} steps: {'; '.join(parts)}. The searches took "
        f"{own['seconds'].sum():.0f} s of training steps together."
    )
    if ends:
        told += (
            f" For {_listed(ends)} the best rate is at an end of the range; a better one may lie "
            "beyond it."
        )
    if len(lost):
        told += (
            f" In {len(lost)} of the {len(own)} trials, whose time is not counted, the loss did "
            "not stay finite."
        )
    return told


def search_value(study: Study, results: Results, labels: dict[str, str]) -> str:
    """Return what searches brought where the same recipe was trained at its own rate, in words.

    `labels` maps the arms of one question to the names to show.
    """
    arms = results.arms.drop_duplicates("trained_as").set_index("trained_as")
    told = []
    for arm, label in labels.items():
        twin = study.arms[arm].at_lr(study.arms[arm].lr)
        if twin == study.arms[arm] or twin not in study.arms.values():
            continue
        own = study.arm_name(twin)
        with_search, without = arms.loc[arm], arms.loc[own]
        if with_search["lr"] == without["lr"]:
            continue
        change = with_search["val_miou"] - without["val_miou"]
        told.append(
            f"For **{label}** the search chose {with_search['lr']:g}: against {without['lr']:g}, "
            f"the rate of its recipe (arm `{own}`), val mIoU changed by {points(change)} points, "
            f"to {100 * with_search['val_miou']:.1f} % (not a planned comparison)."
        )
    return " ".join(told)


def course_words(table: pd.DataFrame, limit: float = 0.04) -> str:
    """Return how our counts of the course study's networks differ from its own, in words.

    `limit` is the difference above which one is explained.
    """
    far = table[table["excess"].abs() > limit]
    near = table[table["excess"].abs() <= limit]
    names = [f"{r.network} ({signed_percent(r.excess)})" for r in near.itertuples()]
    told = (
        f"Within {percent(limit)} of what it reports, of {len(table)} networks: "
        f"{_listed(names) if names else 'none'}."
    )
    lines = [
        f"- **{r.network}** ({signed_percent(r.excess)}): the course's variant {r.differs}. Of "
        f"this variant we count {r.gmacs_like:.1f} · 10⁹, {signed_percent(r.excess_like)} of the "
        f"{r.reported:g} reported."
        for r in far.itertuples()
    ]
    return told + ("\n\nThe others are different variants:\n\n" + "\n".join(lines) if lines else "")


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


def named(study: Study, arm: str, *, tricks: bool = True) -> str:
    """Return an arm's network by its name in the settings, with the number of its tricks."""
    recipe, count = study.arms[arm], len(tricks_of(study, arm)) if tricks else 0
    names = [entry.name for entry in study.networks.values() if entry.network == recipe.network]
    changed = recipe.architecture.removeprefix(recipe.network).replace("+", " +")
    name = (names[0] if names else recipe.network) + changed
    return f"{name}, {count} trick{'s' * (count != 1)}" if count else name


def full_name(study: Study, arm: str) -> str:
    """Return an arm as `named` does, and the name that all tables have for it."""
    name = named(study, arm)
    return f"**{name}**" + (f" (arm `{arm}`)" if name != arm else "")


def best_on_val(results: Results) -> pd.Series:
    """Return the arm, of all, that scored best on val: a row of `best_of_each_network`."""
    best = results.best_of_each_network()
    return best.loc[best["val_miou"].idxmax()]


def shown(study: Study, results: Results) -> pd.DataFrame:
    """Return the arms of the networks question, cheapest first; `label` is the network's name.

    Where no question compares networks, they are each network's arm that scored best on val.
    """
    if (wide := study.network_question) and len(wide.arms) > 1:
        arms = results.of(wide.name)
        return arms.assign(label=arms["arm"].map(wide.labels)).sort_values("gmacs")
    arms = results.best_of_each_network()
    return arms.assign(label=[named(study, arm) for arm in arms["trained_as"]])


def examined(study: Study, results: Results) -> pd.DataFrame:
    """Return `shown`, and after it the arm that scored best on val if it is not among them."""
    arms, best = shown(study, results), best_on_val(results)
    if best["trained_as"] in set(arms["trained_as"]):
        return arms
    label = named(study, best["trained_as"])
    label = f"{label} ({best['trained_as']})" if label in set(arms["label"]) else label
    extra = results.arms[results.arms["trained_as"] == best["trained_as"]].head(1)
    return pd.concat([arms, extra.assign(label=label)], ignore_index=True)


def climbed(asked: Question, left: Question) -> str:
    """Return the tricks of a ladder in their order, in words; `left` is without failed arms."""
    rungs = [trick + " (failed)" * (arm not in left.arms) for trick, arm, _ in asked.effects]
    start = next(iter(asked.arms))
    failed = "" if start in left.arms else " (failed)"
    return f"Tricks are added to {start}{failed} one after the other: {' → '.join(rungs)}."


def unbroken(rows: pd.DataFrame, start: str) -> pd.DataFrame:
    """Return a ladder's comparisons from its start up to a rung that failed, or to its end."""
    reached = [start]
    for row in rows.itertuples():
        if row.against != reached[-1]:
            break
        reached.append(row.arm)
    return rows.head(len(reached) - 1)


def heads(study: Study) -> list[str]:
    """Return the arms of the FCN question between which only the skips differ, coarse to fine."""
    if not study.fcn:
        return []
    arms = {a: r.network for a, r in study.fcn.arms.items() if r.network.startswith("fcn")}
    encoder = [*arms.values()][-1].partition(":")[2]
    return [arm for arm, network in arms.items() if network.partition(":")[2] == encoder]


def affordable(results: Results) -> pd.DataFrame:
    """Return the arms on the Pareto front of multiply-adds and val mIoU, the cheapest first.

    Of arms that cost about the same, passes per test image included, it has the best.
    """
    costs = results.networks.drop(columns="gmacs")
    arms = results.arms.drop_duplicates("trained_as").merge(costs, on="network")
    arms["level"] = group_similar_costs(arms["gmacs"].to_numpy())
    arms = arms.sort_values(["level", "val_miou"]).groupby("level").tail(1)
    best = arms["val_miou"].cummax().shift(fill_value=-np.inf)
    return arms[arms["val_miou"] > best]


def compared_by_cost(results: Results) -> pd.DataFrame:
    """Return each network's arm that scored best on val, and those of `affordable`."""
    arms = pd.concat([results.best_of_each_network(), affordable(results)])
    return arms.drop_duplicates("trained_as").sort_values("gmacs", ignore_index=True)


def recommended(study: Study, results: Results) -> pd.DataFrame:
    """Return which network and which tricks to take for which budget, as the report's table.

    See `affordable`.
    """
    chosen = affordable(results)
    tried = results.arms.groupby("network")["trained_as"].nunique()
    _, write = UNITS["gmacs"]
    return pd.DataFrame(
        {
            "multiply-adds per image": [write(cost) for cost in chosen["gmacs"]],
            "arm": list(chosen["trained_as"]),
            "network": [named(study, arm, tricks=False) for arm in chosen["trained_as"]],
            "tricks": [", ".join(tricks_of(study, arm)) or "none" for arm in chosen["trained_as"]],
            "steps": [study.arms[arm].steps for arm in chosen["trained_as"]],
            "arms of this network": [tried[network] for network in chosen["network"]],
            "mIoU %": (100 * chosen["test_miou"]).map("{:.1f}".format).to_numpy(),
            "95 % interval": [_interval(row) for row in chosen.itertuples()],
            "ms per image": (chosen["latency_ms"] * chosen["test_passes"]).map(_three).to_numpy(),
        }
    )


def _interval(row) -> str:
    return "none" if np.isnan(row.low) else f"{100 * row.low:.1f} to {100 * row.high:.1f}"


def baseline(study: Study) -> str | None:
    """Return the name that the baseline's arm is trained under, if the study has one."""
    if study.fcn:
        return study.arm_name(study.fcn.arms[study.baseline])
    return study.baseline


def missing(study: Study, results: Results) -> dict[str, str]:
    """Return the report's chapters that a study leaves empty: name -> what it lacks, in words."""
    asked, left = results.ended(study), results.finished(study)
    never, later, now = _lacking(study), _lacking(asked), _lacking(left)
    wait = (
        f"The questions of this chapter are not finished yet: {_listed(_to_come(results) or [''])}."
    )
    failed = _listed([f"**{arm}**" for arm in asked.arms if arm not in left.arms] or [""])
    lost = f"Too few of the arms of this chapter were trained to the end: {failed} failed."
    return {
        chapter: told if chapter in never else wait if chapter in later else lost
        for chapter, told in now.items()
    }


def _lacking(study: Study) -> dict[str, str]:
    kinds = {question.kind for question in study.questions.values() if question.effects}
    lacks = {
        "2_baseline": (
            not study.baseline,
            "No arm has the course's network; `baseline:0.25` under `networks` would be one.",
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
    return {chapter: told for chapter, (lacking, told) in lacks.items() if lacking}


def demand(study: Study, results: Results, chapter: str) -> None:
    """Raise InputError, with what the study lacks, if it leaves a chapter of the report empty."""
    if told := missing(study, results).get(chapter):
        raise InputError(f"{chapter}: {told}")


def _to_come(results: Results) -> list[str]:
    """Return the questions that are not finished, each with how many of its runs are missing."""
    return [
        f"{row.question} ({row.missing} of {row.runs} runs missing)"
        for row in results.unfinished.itertuples()
    ]


def unfinished(results: Results) -> str:
    """Return which questions are not finished, in words; '' if all are."""
    names = _to_come(results)
    if not names:
        return ""
    return (
        f"**Not finished yet: {_listed(names)}.** The rest of this report is about the finished "
        "questions."
    )


def failures(outcomes: pd.DataFrame) -> str:
    """Return which arms failed, and why, in words; '' if none did."""
    failed = outcomes[outcomes["failed"] > 0]
    told = [f"- **{row.arm}**, {row.failed} seed{'s' * (row.failed > 1)}: {plain(row.why)}"
            for row in failed.itertuples()]  # fmt: skip
    if not told:
        return ""
    return (
        f"**{len(failed)} of {len(outcomes)} arms failed**: the loss of at least one seed did not "
        "stay finite. Divergence is reported as their result; they have no score.\n\n"
        + "\n".join(told)
    )


def lacks(results: Results, *, tested: bool) -> str:
    """Return the warnings that come before any score; '' if there are none.

    `tested` says whether the data have test images.
    """
    told = [] if tested else [NO_TEST]
    told += [ONE_CLASS] if results.classes["class"].nunique() == 1 else []
    return "\n\n".join([*told, *filter(None, [unfinished(results), failures(results.outcomes)])])


def answer(study: Study, results: Results) -> list[str]:
    """Return what the study found, one item for each of its questions."""
    study = results.finished(study)
    arms = results.arms.drop_duplicates("trained_as").set_index("trained_as", drop=False)
    told = []
    if base := baseline(study):
        first, network = arms.loc[base], study.arms[base].network
        same = [arm for arm in arms["trained_as"] if study.arms[arm].network == network]
        row = arms.loc[arms.loc[same, "val_miou"].idxmax()]
        own = [f"**{trick}**" for trick in tricks_of(study, row["trained_as"])]
        tricks = f", with {_listed(own)}" if own else ""
        told.append(
            f"The course's baseline (here `{row['network']}`{tricks}, "
            f"{study.arms[row['trained_as']].steps} steps at a learning rate of {row['lr']:g}) "
            f"reaches {100 * row['test_miou']:.1f} % mIoU on test ({between(row)})."
        )
        if row["trained_as"] != base:
            told[-1] += (
                f" It is the best of the baseline's arms on val; **{base}**"
                f"{', with the recipe of the FCNs,' if study.fcn else ''} reaches "
                f"{100 * first['test_miou']:.1f} %."
            )
        prior = results.prior.iloc[0]
        told[-1] += (
            " The location prior, each pixel's most frequent class in the training images, has "
            f"{100 * prior['test_miou']:.1f} % mIoU."
        )
    if own := heads(study):
        change = results.difference(study.fcn.name, own[-1], study.baseline)
        told.append(f"{sentence(change).removesuffix('.')}; the encoder differs as well.")
        if len(own) > 1:
            skips = results.difference(study.fcn.name, own[-1], own[0])
            told[-1] += (
                f" The skip connections alone: {points(skips['difference'])} points "
                f"({decided(skips)})."
            )
    if places := effects_by_place(study, results):
        tried = pd.concat(list(places.values()))["arm"]
        told.append(f"{_tricks_in_short(places)} {short_training(results, tried)}".strip())
    told += [
        length_words(results, question)
        for question in study.questions.values()
        if question.kind == "length" and question.effects
    ]
    if (wide := study.network_question) and len(wide.arms) > 1:
        fronts = results.fronts[results.fronts["question"] == wide.name]
        size = size_words(fronts, lambda *pair: results.difference(wide.name, *pair), brief=True)
        recipe = "with the same tricks" if wide.shared else "at one recipe"
        told.append(f"{len(wide.arms)} networks were compared {recipe}. {size}")
    top = best_on_val(results)
    chosen = "There is one arm,"
    if len(arms) > 1:
        chosen = f"Chosen on val among all {len(arms)} arms, the best is"
    told.append(
        f"{chosen} {full_name(study, top['trained_as'])} with "
        f"{100 * top['test_miou']:.1f} % mIoU on test ({between(top)}), for "
        f"{UNITS['gmacs'][1](top['gmacs'])} multiply-adds per image and "
        f"{top['parameters'] / 1e6:.2f} M parameters; its expected calibration error is "
        f"{percent(top['calibration_error'])}."
    )
    found = _by_trick(places)
    hurtful = [
        f"**{trick}**"
        for trick in tricks_of(study, top["trained_as"])
        if "hurts" in {decided(row) for row in found.get(trick, {}).values()}
    ]
    if hurtful:
        told[-1] += (
            f" It has {_listed(hurtful)}, which hurts in some question: the arm was chosen by its "
            "val score as a whole."
        )
    return told


def _tricks_in_short(places: dict[str, pd.DataFrame]) -> str:
    found = _by_trick(places)
    verdicts = {trick: {decided(row) for row in rows.values()} for trick, rows in found.items()}
    if all(seen == {UNKNOWN} for seen in verdicts.values()):
        why = basis(next(iter(next(iter(found.values())).values())))
        which = f"Which of {len(found)} tricks help" if len(found) > 1 else "Whether a trick helps"
        return f"{which} is {UNKNOWN} ({why})."
    kinds = {
        ("helps", "help"): lambda seen: "helps" in seen and "hurts" not in seen,
        ("hurts", "hurt"): lambda seen: "hurts" in seen and "helps" not in seen,
        ("helps or hurts, by question",) * 2: lambda seen: {"helps", "hurts"} <= seen,
    }
    told = []
    for (one, many), holds in kinds.items():
        names = [f"**{trick}**" for trick, seen in verdicts.items() if holds(seen)]
        if names or not told:
            told.append(f"{_listed(names) if names else 'none'} {many if len(names) > 1 else one}")
    kinds = {
        "we found no effect of": lambda seen: (
            "no effect found" in seen and not {"helps", "hurts"} & seen
        ),
        "not enough data for": lambda seen: seen == {UNKNOWN},
    }
    for words, holds in kinds.items():
        names = [f"**{trick}**" for trick, seen in verdicts.items() if holds(seen)]
        told += [f"{words} {_listed(names)}"] if names else []
    return f"Of {len(found)} trick{'s' * (len(found) != 1)}, {'; '.join(told)}."


def doubts(study: Study, results: Results, *, tested: bool = True) -> list[str]:
    """Return what would change the answer, in sentences; `tested`: the data have test images."""
    trained = results.arms.drop_duplicates("trained_as")
    told = []
    late = {arm: late_gain(results.curves, arm)[0] for arm in trained["trained_as"]}
    rising, base = max(late, key=late.get), baseline(study)
    told.append(
        f"**Longer training.** In the last quarter of each training val mIoU changed by "
        f"{min(late.values()):+.1f} to {late[rising]:+.1f} points (**{rising}**)"
        f"{f', for the baseline by {late[base]:+.1f}' if base else ''}: with more steps "
        f"{'the order of arms' if len(late) > 1 else 'the score'} may change."
    )
    widths = 100 * (trained["high"] - trained["low"]) / 2
    blocks, seeds = int(trained["blocks"].iloc[0]), int(trained["seeds"].iloc[0])
    these = "images like these" if blocks > 1 else "these very images"
    known = f"an arm's mIoU is known to ±{widths.median():.1f} points (median), for {these}"
    if seeds == 1:
        known += " and this seed: the variation between seeds is not included"
    if widths.isna().all():
        known = "the uncertainty of an arm's mIoU is not known"
    told.append(
        f"**More seeds and images.** With {seeds} seed{'s' * (seeds != 1)} and {blocks} "
        f"block{'s' * (blocks != 1)} of test images, {known}; the intervals do not cover other "
        "locations."
    )
    if len(trained) > 3 and tested:
        gap = 100 * (trained["val_miou"] - trained["test_miou"]).median()
        told.append(
            f"**Another val split.** Choices are made on val, whose scores lie {gap:+.1f} points "
            f"from those on test (median); the rank correlation of both over {len(trained)} arms "
            f"{rank_correlation(trained['val_miou'], trained['test_miou'])}."
        )
    places = effects_by_place(study, results)
    hidden = max(
        ((row, place) for place, rows in places.items() for _, row in rows.iterrows()
         if decided(row) == "no effect found"),
        key=lambda found: found[0]["high"], default=None,
    )  # fmt: skip
    if hidden:
        row, place = hidden
        told.append(
            f"**Effects that we may have missed.** **{row['trick']}** "
            f"{f'({place}) ' if len(places) > 1 else ''}may still gain up to "
            f"{points(row['high'])} points, the largest upper bound of all comparisons without a "
            "significant effect."
        )
    return [re.sub(r"(?<=[ (])-(?=\d)", "−", line) for line in told]


def rank_correlation(first: pd.Series, second: pd.Series) -> str:
    """Return Spearman's rank correlation as the end of a sentence."""
    found = first.rank().corr(second.rank()) if min(first.nunique(), second.nunique()) > 1 else None
    return UNKNOWN if found is None else f"is {found:+.2f}".replace("-", "−")


def worst_images(scores: np.ndarray, names: list[str], share: float = 0.1) -> str:
    """Return how far the worst images fall behind, in words; `scores` is mIoU per image, 0..1."""
    known = np.flatnonzero(np.isfinite(scores))
    if not len(known):
        return "no test image has a label."
    order = known[np.argsort(scores[known])]
    few = max(1, round(share * len(order)))
    worst, middle = 100 * scores[order[:few]].mean(), 100 * np.median(scores[order])
    listed = _listed([plain(names[index]) for index in order[: min(3, few)]])
    return (
        f"the median image has {middle:.1f} % mIoU, the worst {few} of {len(order)} "
        f"{worst:.1f} % on average; the worst of all: {listed}."
    )


def mistakes(counts: np.ndarray, classes: tuple[str, ...], most: int = 5) -> str:
    """Return which confusions cost most pixels, in words; `counts` (K, K), row truth."""
    wrong = counts - np.diag(np.diagonal(counts))
    total = wrong.sum()
    if not total:
        return "No pixel is wrong."
    places = [divmod(int(cell), len(counts)) for cell in np.argsort(wrong, axis=None)[::-1][:most]]
    told = [
        f"{plain(classes[truth])} predicted as {plain(classes[taken])} "
        f"({percent(wrong[truth, taken] / total)} of all wrong pixels)"
        for truth, taken in places
        if wrong[truth, taken]
    ]
    truth = counts.sum(1)
    found = np.diagonal(counts)[truth > 0] / truth[truth > 0]
    names = [name for name, pixels in zip(classes, truth, strict=True) if pixels]
    missed = [
        f"{plain(names[index])} ({percent(found[index])})"
        for index in np.argsort(found, kind="stable")[:3]
    ]
    return (
        f"{percent(total / counts.sum())} of the labelled pixels are wrong. Most of all: "
        f"{'; '.join(told)}. The classes with the lowest recall: {_listed(missed)}."
    )


def calibration(table: pd.DataFrame, arms: pd.DataFrame) -> str:
    """Return each network's calibration error and its direction, in words.

    Parameters
    ----------
    table : `Results.reliability`
    arms : columns label, trained_as, calibration_error (mean over seeds, 0..1)
    """
    gaps = (table["confidence"] - table["right"]).groupby(table["arm"]).sum()
    ordered = arms.sort_values("calibration_error")
    listed = [f"**{r.label}** {percent(r.calibration_error)}" for r in ordered.itertuples()]
    over, under = (
        [f"**{row.label}**" for row in arms.itertuples() if sign * gaps[row.trained_as] > 0]
        for sign in (1, -1)
    )
    told = f"Expected calibration error: {_listed(listed)}."
    told += f" Overconfident on average: {_listed(over)}." if over else ""
    return told + (f" Underconfident on average: {_listed(under)}." if under else "")


def edges(arms: pd.DataFrame) -> str:
    """Return how far boundary IoU lies below mIoU: columns label, test_miou, boundary_iou."""
    known = arms[arms["boundary_iou"].notna()]
    if not len(known):
        return "No test image has a boundary between two classes."
    gap = known["test_miou"] - known["boundary_iou"]
    least, most = known["label"][gap.idxmin()], known["label"][gap.idxmax()]
    told = (
        f"Near class boundaries, IoU is {100 * gap.min():.1f} (**{least}**) to "
        f"{100 * gap.max():.1f} (**{most}**) points lower than over the whole image, as a "
        "mean over classes."
    )
    if len(known) < 4:
        return told
    rank = rank_correlation(known["test_miou"], known["boundary_iou"])
    return f"{told} The rank correlation of both scores over these {len(known)} {rank}."


def beside_reference(
    classes: pd.DataFrame, arms: dict[str, str], reference: dict[str, dict[str, float]]
) -> str:
    """Return how far a network is from what others report for the same data, in words."""
    told = []
    for other, reported in reference.items():
        for name, arm in arms.items():
            own = classes[classes["arm"] == arm].set_index("class")["iou"].dropna()
            shared = [each for each in reported if each in own]
            if not shared:
                continue
            gaps = pd.Series({k: own[k] - reported[k] for k in shared}).sort_values()
            mean = 100 * np.mean([reported[k] for k in shared])
            low = [f"{plain(k)} ({points(gap)})" for k, gap in gaps.head(3).items()]
            told.append(
                f"**{name}** lies {points(gaps.mean())} points from the {mean:.1f} % that {other} "
                f"reports as the mean of these {len(shared)} classes; it falls behind most in "
                f"{_listed(low)}, and does best against it in {plain(gaps.index[-1])} "
                f"({points(gaps.iloc[-1])})."
            )
    if not told:
        return "Bars have 95 % intervals; what others report for these data is not listed here."
    return " ".join(told) + " What it reports is one run, at its own size and length of training."
