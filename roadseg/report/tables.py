"""Tables of the page: numbers at the right with their unit in the head, the best one bold."""

import html
import os
from collections.abc import Collection

import numpy as np
import pandas as pd

from roadseg.analysis.tables import Results, published, reference, reference_costs
from roadseg.config.questions import Question
from roadseg.config.study import Study
from roadseg.data import survey
from roadseg.data.scenes import Scenes
from roadseg.report import findings, say
from roadseg.report.names import arm_titles, network_title, trick_label, trick_title, tricks_of
from roadseg.report.say import UNKNOWN, duration, interval, listed, points, three_digits
from roadseg.report.style import figure_html

DOTS = {"helps": "helps", "better": "helps", "hurts": "hurts", "worse": "hurts"}
DOTS |= dict.fromkeys(("no effect found", "no difference found", UNKNOWN), "none")


class Table:
    """A table for notebooks and the page, and as Markdown for files that take that.

    Parameters
    ----------
    frame : columns of numbers, or of text
    formats : column -> format of its numbers, as Python has them ('.1f', '+.2f'), or '3g' for three
        significant digits; a column that is not named is text
    best : columns whose highest number is bold
    bars : columns whose numbers have a bar, as long as the number's share of the highest
    right : columns of text that stand at the right, as intervals do
    wide : whether rows stay low and the table is moved sideways
    """

    title = caption = ""

    def __init__(
        self,
        frame: pd.DataFrame,
        formats: dict[str, str] | None = None,
        *,
        best: Collection[str] = (),
        bars: Collection[str] = (),
        right: Collection[str] = (),
        wide: bool = False,
    ):
        self.frame, self.wide = frame.reset_index(drop=True), wide
        self.formats = {k: v for k, v in (formats or {}).items() if k in frame}
        self.best, self.bars = best, bars
        self.right = {*right, *self.formats}
        self.texts = self.frame.astype(object).where(self.frame.notna(), "")
        for column, spec in self.formats.items():
            self.texts[column] = [_number(value, spec) for value in self.frame[column]]
        self.texts = self.texts.astype(str)

    def titled(self, title: str, caption: str = "") -> "Table":
        """Set the finding as the title and a caption that explains the table; return it."""
        marked = self.texts.map(lambda text: text.endswith(findings.MARK)).any(axis=None)
        caption += f" {findings.MARK_MEANS}" if marked else ""
        self.title, self.caption = say.capital(title), caption.strip()
        return self

    def html(self) -> str:
        """Return the table alone, as HTML."""
        head = "".join(
            f'<th scope="col"{_number_class(name in self.right)}>{html.escape(str(name))}</th>'
            for name in self.frame
        )
        rows = (
            "".join(self._cell(number, name) for name in self.frame)
            for number in range(len(self.frame))
        )
        body = "".join(f"<tr>{cells}</tr>" for cells in rows)
        kind = ' class="wide"' if self.wide else ""
        return f"<table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _cell(self, row: int, column: str) -> str:
        text, style = html.escape(self.texts.at[row, column]), ""
        if column in self.formats:
            values = self.frame[column].astype(float)
            highest = values.max()
            if column in self.best and values[row] == highest and len(values) > 1:
                text = f"<b>{text}</b>"
            if column in self.bars and highest > 0 and values[row] >= 0:
                style = f' style="--share: {100 * values[row] / highest:.0f}%"'
        elif text in DOTS:
            text = f'<span class="verdict {DOTS[text]}">{text}</span>'
        return f"<td{_number_class(column in self.right)}{style}>{text}</td>"

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        return {
            "text/html": figure_html("table", self.html(), self.title, self.caption),
            "text/markdown": self._repr_markdown_(),
            "text/plain": self.texts.to_string(index=False),
        }

    def _repr_markdown_(self) -> str:
        align = ["right" if name in self.right else "left" for name in self.frame]
        return self.texts.to_markdown(index=False, disable_numparse=True, colalign=align)


def _number_class(is_number: bool) -> str:
    return ' class="number"' if is_number else ""


def _number(value, spec: str) -> str:
    if value is None or np.isnan(value):
        return ""
    text = three_digits(value) if spec == "3g" else format(value, spec)
    zero = spec.startswith("+") and not float(text.replace(",", ""))
    return (text[1:] if zero else text).replace("-", "−")


# The tables of the report.


def tricks(study: Study, results: Results, rows: pd.DataFrame) -> Table:
    """Return the comparisons that judge the tricks of one question: a row for each."""
    arms = results.arms.drop_duplicates("arm").set_index("arm").loc[rows["arm"]]
    late = findings.unconverged(results)
    frame = pd.DataFrame(
        {
            "trick": [
                trick_label(study, row.trick) + findings.MARK * (row.arm in late)
                for row in rows.itertuples()
            ],
            "mIoU %": 100 * arms["test_miou"].to_numpy(),
            "change, points": [points(change) for change in rows["difference"]],
            "95 % CI": [interval(row) or "none" for _, row in rows.iterrows()],
            "p (Holm)": [say.p_value(p) for p in rows["p_corrected"]],
            "verdict": [findings.verdict(row) for _, row in rows.iterrows()],
            "smallest detectable effect": 100 * rows["detectable"],
            "passes": arms["test_passes"].where(arms["test_passes"] > 1).to_numpy(),
            "training s": findings.train_seconds(results)[rows["arm"]].to_numpy(),
        }
    )
    frame = frame.dropna(axis="columns", how="all")
    return Table(
        frame, {"mIoU %": ".1f", "smallest detectable effect": ".1f", "passes": ".0f",
                "training s": ",.0f"}, best=["mIoU %"],
        right=["change, points", "95 % CI", "p (Holm)"],
    )  # fmt: skip


def networks(study: Study, results: Results) -> Table:
    """Return what the networks of one question score and cost: a row for each, cheapest first."""
    arms = findings.networks_shown(study, results)
    rows = arms.merge(results.networks.drop(columns="gmacs"), on="network")
    rows = rows.sort_values("gmacs", ignore_index=True)
    late = findings.unconverged(results)
    frame = pd.DataFrame(
        {
            "network": [r.label + findings.MARK * (r.arm in late) for r in rows.itertuples()],
            "mIoU %": 100 * rows["test_miou"],
            "95 % CI": [interval(row) or "none" for _, row in rows.iterrows()],
            "GMACs": rows["gmacs"],
            "M parameters": rows["parameters"] / 1e6,
            "ms per image": rows["latency_ms"],
            "images/s": rows["images_per_second"],
            "MiB": rows["memory_mib"],
            "training s": rows["arm"].map(findings.train_seconds(results)),
            "J per image": rows["joules_per_image"],
        }
    )
    formats = {
        "mIoU %": ".1f", "GMACs": "3g", "M parameters": ",.2f", "ms per image": ",.1f",
        "images/s": ",.0f", "MiB": ",.0f", "training s": ",.0f", "J per image": "3g",
    }  # fmt: skip
    frame = frame.dropna(axis="columns", how="all")
    return Table(frame, formats, best=["mIoU %"], bars=["GMACs"], right=["95 % CI"])


def budget(study: Study, results: Results) -> Table:
    """Return which network and which tricks to take for which budget: a row for each level of cost.

    See `Results.pareto_arms`.
    """
    rows, late = results.pareto_arms(), findings.unconverged(results)
    frame = pd.DataFrame(
        {
            "GMACs": rows["gmacs"],
            "ms": rows["latency_ms"] * rows["test_passes"],
            "network": [
                network_title(study, study.arms[arm].architecture) + findings.MARK * (arm in late)
                for arm in rows["arm"]
            ],
            "tricks": [
                listed(trick_title(study, trick) for trick in tricks_of(study, arm)) or "none"
                for arm in rows["arm"]
            ],
            "epochs": [findings.epochs(results, [arm]) for arm in rows["arm"]],
            "mIoU %": 100 * rows["test_miou"],
            "95 % CI": [interval(row) or "none" for _, row in rows.iterrows()],
        }
    )
    formats = {"GMACs": "3g", "ms": "3g", "epochs": ",.1f", "mIoU %": ".1f"}
    return Table(frame, formats, best=["mIoU %"], bars=["mIoU %"], right=["95 % CI"])


def arms(study: Study, results: Results) -> Table:
    """Return all arms, below the location prior: a row for each."""
    rows, late = results.arms.drop_duplicates("arm"), findings.unconverged(results)
    titles = arm_titles(study)
    frame = pd.DataFrame(
        {
            "arm": rows["arm"],
            "what it is": [titles[a] + findings.MARK * (a in late) for a in rows["arm"]],
            "seeds": rows["seeds"],
            "epochs": [findings.epochs(results, [arm]) for arm in rows["arm"]],
            "val mIoU %": 100 * rows["val_miou"],
            "test mIoU %": 100 * rows["test_miou"],
            "95 % CI": [interval(row) or "none" for _, row in rows.iterrows()],
            "boundary IoU %": 100 * rows["boundary_iou"],
            "expected calibration error %": 100 * rows["calibration_error"],
            "GMACs": rows["gmacs"],
            "training s": rows["arm"].map(findings.train_seconds(results)),
            "tricks": [
                listed(trick_title(study, trick) for trick in tricks_of(study, arm))
                for arm in rows["arm"]
            ],
        }
    )
    prior = results.prior.iloc[0]
    first = {
        "arm": "location prior", "what it is": "each pixel's most frequent class",
        "val mIoU %": 100 * prior["val_miou"], "test mIoU %": 100 * prior["test_miou"],
        "95 % CI": interval(prior) or "none",
    }  # fmt: skip
    frame = pd.concat([pd.DataFrame([first]), frame], ignore_index=True)[list(frame)]
    formats = {"seeds": ".0f", "GMACs": "3g", "training s": ",.0f"}
    formats |= dict.fromkeys([c for c in frame if c == "epochs" or c.endswith("%")], ".1f")
    return Table(
        frame, formats, best=["val mIoU %", "test mIoU %", "boundary IoU %"],
        bars=["test mIoU %"], right=["95 % CI"], wide=True,
    )  # fmt: skip


def runs(results: Results) -> Table:
    """Return all runs: a row for each."""
    rows = results.runs
    frame = pd.DataFrame(
        {
            "run": rows["run"],
            "digest": rows["digest"],
            "val mIoU %": 100 * rows["val_miou"],
            "test mIoU %": 100 * rows["test_miou"],
            "training s": rows["seconds"],
            "pre-training s": rows["start_seconds"],
            "images/s": rows["images_per_second"],
            "peak MiB": rows["peak_memory_mib"],
            "weights of": rows["weights_of"],
        }
    )
    formats = {"val mIoU %": ".2f", "test mIoU %": ".2f"}
    formats |= {c: ",.0f" for c in ("training s", "pre-training s", "images/s", "peak MiB")}
    return Table(frame, formats, wide=True)


def facts(study: Study, results: Results) -> Table:
    """Return what made the report, with what and in how long: a row for each fact."""
    rows, costs = results.runs, results.networks
    own = rows[rows["weights_of"].isna()]  # the others took weights from an equal training
    energy = "not measured (no NVML)"
    if own["joules"].notna().all():
        energy = f"{own['joules'].sum() / 3600:.3g} Wh of training, whole device"
    searches = results.searches["seconds"].sum()
    listed_facts = {
        "study": f"{study.name} ({study.params})",
        "made with": f"make report STUDY={study.name}",
        "data": f"digest {listed(d[:16] for d in rows['data_digest'].unique())}",
        "device": f"{findings.devices(rows['device'])}, {listed(rows['precision'].unique())}",
        **{
            package: listed(rows[package].unique())
            for package in ("python", "torch", "segmentation-models-pytorch", "timm")
        },
        "cores": f"{os.cpu_count()} of the machine that made this page; each training had "
        f"threads: {listed(rows['threads'].unique())}",
        "seeds": listed(study.seeds),
        "trainings": f"{len(own)} for {len(rows)} runs, of which {len(rows) - len(own)} share the "
        "weights of an equal one; finished runs were taken from the run store",
        "time of training": f"{duration(training_seconds(results))} summed over trainings, "
        f"{duration(searches)} of them in searches for a learning rate",
        "trained": findings.days(rows["finished"]),
        "energy": energy,
        "latency and memory": f"{findings.devices(costs['device'])}, "
        f"{listed(costs['precision'].unique())}",
    }
    return Table(pd.DataFrame({"what": listed_facts.keys(), "value": listed_facts.values()}))


def training_seconds(results: Results) -> float:
    """Return the seconds of all trainings, pre-trainings and searches, each counted once."""
    runs = results.runs
    own = runs.loc[runs["weights_of"].isna(), "seconds"].sum()
    starts = runs[runs["start_seconds"] > 0].drop_duplicates(["seed", "start_seconds"])
    return float(own + starts["start_seconds"].sum() + results.searches["seconds"].sum())


# The tables of single chapters.


def splits(images: dict[str, Scenes]) -> Table:
    """Return the images, sequences and class shares of each split: a row for each."""
    frame = survey.split_table(images).astype({"shared": object})
    for share in ("largest", "class_distance"):
        frame[share] = 100 * frame[share]
    headings = {
        "sequences": "sequences (videos)", "shared": "of these in train",
        "largest": "share of the largest, %",
        "class_distance": "class shares' distance to train, %",
    }  # fmt: skip
    frame = frame.rename(columns=headings)
    formats = {c: ".1f" for c in frame if c.endswith("%")} | {"images": ",.0f"}
    return Table(frame, formats, right=["sequences (videos)", "of these in train"])


def layers(frame: pd.DataFrame) -> Table:
    """Return `cost.layer_table`: a row for each layer."""
    texts = ("layer", "kind")
    formats = {c: ",.4f" if c == "gmacs" else ",.0f" for c in frame if c not in texts}
    frame = frame.rename(columns={"gmacs": "GMACs"})
    formats["GMACs"] = formats.pop("gmacs")
    return Table(frame, formats, bars=["parameters", "GMACs"])


def pairs(study: Study, results: Results, question: Question) -> Table:
    """Return all comparisons of a networks question: a row for each."""
    rows, titles = results.comparisons, arm_titles(study)
    rows = rows[rows["question"] == question.name]
    frame = pd.DataFrame(
        {
            "network": rows["arm"].map(titles),
            "against": rows["against"].map(titles),
            "difference, points": [points(change) for change in rows["difference"]],
            "95 % CI": [interval(row) or "none" for _, row in rows.iterrows()],
            "p (Holm)": [say.p_value(p) for p in rows["p_corrected"]],
            "verdict": [findings.verdict(row) for _, row in rows.iterrows()],
        }
    )
    return Table(frame, right=["difference, points", "95 % CI", "p (Holm)"])


def catalogue(study: Study, results: Results) -> Table:
    """Return all networks that the settings list: a row for each."""
    tried = {recipe.network for recipe in study.arms.values()}
    about = {entry.network: entry for entry in study.networks.values()}
    rows = results.catalogue
    frame = pd.DataFrame(
        {
            "network": [network_title(study, network) for network in rows["network"]],
            "specification": rows["network"],
            "tried": ["yes" if network in tried else "" for network in rows["network"]],
            "M parameters": rows["parameters"] / 1e6,
            "GMACs": rows["gmacs"],
            "idea": [about[n].idea if n in about else "" for n in rows["network"]],
            "source": [about[n].source if n in about else "" for n in rows["network"]],
        }
    )
    return Table(frame, {"M parameters": ",.2f", "GMACs": "3g"}, wide=True)


def beside_published(study: Study, results: Results) -> Table:
    """Return what others report for these data, and the arms of the Pareto front, best first."""
    own, runs = results.pareto_arms(), results.runs.drop_duplicates("arm").set_index("arm")
    weights = runs["pretrained"].dropna().replace("imagenet", "ImageNet")
    titles = arm_titles(study)
    rows = pd.DataFrame(
        {
            "network": [f"{titles[arm]} (here)" for arm in own["arm"]],
            "miou": own["test_miou"],
            "gmacs": own["gmacs"],
            "parameters": own["parameters"] / 1e6,
            "pretraining": [weights.get(arm, "none") for arm in own["arm"]],
            "train_images": runs.loc[own["arm"], "train_images"].to_numpy(),
            "runs": own["seeds"],
            "source": findings.devices(results.runs["device"]),
        }
    )
    frame = pd.concat([rows, published(study.data["source"])])
    frame = frame.sort_values("miou", ascending=False).assign(miou=lambda each: 100 * each["miou"])
    frame.columns = [
        "network", "mIoU %", "GMACs", "M parameters", "pre-training", "training images", "runs",
        "source or device",
    ]  # fmt: skip
    formats = {"mIoU %": ".1f", "GMACs": "3g", "M parameters": "3g", "training images": ",.0f"}
    return Table(frame, formats | {"runs": ".0f"}, bars=["mIoU %"], wide=True)


def course() -> Table:
    """Return what the course study reports: a row for each of its networks."""
    frame = reference().drop(columns="source").assign(miou=lambda rows: 100 * rows["miou"])
    frame.columns = ["network", "encoder pre-trained", "decoder pre-trained", "mIoU %", "GMACs"]
    return Table(frame, {"mIoU %": ".1f", "GMACs": "3g"}, best=["mIoU %"], bars=["GMACs"])


def course_costs() -> Table:
    """Return the multiply-adds of the course study's networks, as reported and as counted here."""
    frame = reference_costs().drop(columns="differs")
    frame[["excess", "excess_like"]] *= 100
    frame.columns = [
        "network", "reported, GMACs", "our network", "counted, GMACs", "difference, %",
        "its variant counted, GMACs", "difference of that, %",
    ]  # fmt: skip
    formats = {c: "3g" for c in frame if c.endswith("GMACs")}
    formats |= {c: "+.1f" for c in frame if c.endswith("%")}
    return Table(frame, formats, wide=True)
