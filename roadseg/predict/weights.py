"""Trained weights with all that predicting needs: found by name, packed into one file.

A file of our own holds recipe, classes, colours and weights; exported ones (`export.py`) hold all
but the weights as metadata.
"""

import hashlib
import io
import json
import lzma
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from roadseg.config import paths
from roadseg.config.recipe import Recipe
from roadseg.data.scenes import read_about
from roadseg.errors import InputError, nearest
from roadseg.models.build import check_name
from roadseg.predict.exported import load_exported
from roadseg.training.files import write_whole
from roadseg.training.loop import make_network

SUFFIXES = (".pt", ".onnx", ".pt2")


@dataclass(frozen=True)
class About:
    """What a trained network has to say of itself.

    Attributes
    ----------
    name : study, arm and seed, for people
    recipe : what differs from a recipe's defaults, with the network's name and how it is tested
    classes : K names, in the order of the network's scores
    colours : K RGB triples of 0..255
    values : the id, or RGB triple, of each class in the data set's own label files; None if these
        have none
    size : height and width of the images it was trained on
    """

    name: str
    recipe: dict
    classes: list[str]
    colours: list[list[int]]
    values: list | None
    size: list[int]


class Weights(nn.Module):
    """A trained network in eval mode: images uint8 (N, 3, H, W) -> logits float (N, K, H, W).

    Attributes
    ----------
    about : what it has to say of itself
    recipe : the hyperparameters it was trained and is tested with
    network : what computes the logits
    digest : of the file, 12 hex digits
    """

    def __init__(self, about: About, network: nn.Module, digest: str):
        super().__init__()
        self.about, self.network, self.digest = about, network.eval(), digest
        self.recipe = Recipe.of(about.recipe)

    @property
    def is_exported(self) -> bool:
        """Whether the network is a file of `export`, of which only predictions can be had."""
        return not hasattr(self.network, "body")

    def forward(self, images: Tensor) -> Tensor:
        """Return logits float (N, K, H, W)."""
        return self.network(images)


def load_weights(name: str, threads: int = 0) -> Weights:
    """Load weights by name, on the CPU.

    Parameters
    ----------
    name : a file (.pt of `pack`, or .onnx or .pt2 of `export`), a name in `models/`, or a finished
        run: ARM, STUDY/ARM or STUDY/ARM/SEED (the first seed, if not given)
    threads : that one call of an ONNX file takes; 0 for all cores

    Raises
    ------
    InputError : there are none of that name, or the file is not one of ours
    """
    if Path(name).suffix.lower() in SUFFIXES:
        file = Path(name).expanduser()
        if not file.is_file():
            raise InputError(f"weights: {name}: no such file.")
        return _load_file(file, threads)
    if (shipped := paths.ROOT / "models" / name / "weights.pt").is_file():
        return _load_file(shipped, threads)
    folder = find_run(name)
    about, network = _of_run(folder)
    return Weights(about, network, _digest(folder / "weights.pt"))


def pack(weights: Weights, file: Path) -> None:
    """Write weights into one compressed file, without what only training needs.

    Kernels are written in 16 bits: as bf16 where the network computes in that, so that nothing is
    lost there, else as fp16. Normalisation keeps its 32 bits.
    """
    half = torch.bfloat16 if weights.recipe.precision == "bf16" else torch.float16
    state = {
        name: value.to(half) if value.ndim > 1 and value.is_floating_point() else value
        for name, value in weights.network.state_dict().items()
    }
    content = io.BytesIO()
    torch.save(vars(weights.about) | {"weights": state}, content)
    # numbers of two bytes: lp and pb tell LZMA to look at every other one
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 3, "lp": 1, "pb": 1}]
    write_whole(file, lzma.compress(content.getbuffer(), filters=filters))


def find_run(name: str) -> Path:
    """Return the folder of the finished run ARM, STUDY/ARM or STUDY/ARM/SEED.

    Raises
    ------
    InputError : there is none, or ARM is one of several studies
    """
    parts = name.split("/")
    study, arm, seed = [*([""] if len(parts) == 1 else []), *parts, ""][:3]
    folders = {}
    for file in sorted(paths.ROOT.glob("build/*/runs/[!.]*/*/s*/weights.pt")):
        *_, of_study, _, question, of_arm, of_seed, _ = file.parts
        if "." not in question:  # else it is a copy under way
            folders[of_study, of_arm, int(of_seed[1:])] = file.parent
    matches = [
        key for key in folders
        if study in ("", key[0]) and key[1] == arm and seed in ("", str(key[2]))
    ]  # fmt: skip
    if studies := {key[0] for key in matches}:
        if len(studies) > 1:
            listed = ", ".join(f"{study}/{arm}" for study in sorted(studies))
            raise InputError(f"weights: {arm} is an arm of several studies: {listed}. Name one.")
        return folders[min(matches)]
    known = {file.parent.name for file in paths.ROOT.glob("models/*/weights.pt")}
    known |= {f"{study}/{arm}" for study, arm, _ in folders}
    if not known:
        raise InputError(
            f"weights: there are none called {name!r}, and no finished runs. Run 'make report' "
            "first, or name a file."
        )
    raise InputError(f"weights: there are none called {name!r}.{nearest(name, known)}")


def _of_run(folder: Path) -> tuple[About, nn.Module]:
    """Return what a run's folder holds: its network, and what that has to say of itself."""
    record = json.loads((folder / "record.json").read_text())
    study, arm, seed = folder.parts[-5], folder.parts[-2], folder.parts[-1]
    about = read_about(paths.ROOT / "data/prepared" / study)
    if about["digest"] != record["about"]["data_digest"]:
        raise InputError(
            f"{study}/{arm}: its data were prepared anew since it was trained. Run: make report "
            f"STUDY={study}"
        )
    recipe = Recipe.of(record["recipe"]).changed({"aux_weight": 0.0})
    network = make_network(recipe, len(about["classes"]))
    weights = torch.load(folder / "weights.pt", weights_only=True, map_location="cpu")
    network.load_state_dict(
        {name: value for name, value in weights.items() if not name.startswith("auxiliary.")}
    )
    return About(
        f"{study}/{arm}/{seed[1:]}", recipe.differences(), about["classes"],
        [list(colour) for colour in about["colours"]], about.get("values"), about["size"],
    ), network  # fmt: skip


def _load_file(file: Path, threads: int) -> Weights:
    """Load a file of ours, whatever its kind."""
    try:
        if file.suffix.lower() == ".pt":
            about, network = _unpacked(file)
        else:
            content, network = load_exported(file, threads)
            about = _checked(content, file)
    except InputError:
        raise
    except Exception as problem:  # the libraries' own, of any kind
        cause = (str(problem).splitlines() or [type(problem).__name__])[0][:200]
        raise InputError(f"weights: {file}: cannot be read ({cause}). {_OURS}") from None
    return Weights(about, network, _digest(file))


_OURS = (
    "Files of weights are made by: python -m roadseg export STUDY/ARM --to FILE.pt (or .onnx, .pt2)"
)


def _unpacked(file: Path) -> tuple[About, nn.Module]:
    """Return what `pack` wrote."""
    with lzma.open(file) as packed:
        content = torch.load(io.BytesIO(packed.read()), weights_only=True, map_location="cpu")
    state = content.pop("weights", None) if isinstance(content, dict) else None
    if state is None:
        raise InputError(f"weights: {file}: holds no weights with their recipe. {_OURS}")
    about = _checked(content, file)
    network = make_network(Recipe.of(about.recipe), len(about.classes))
    network.load_state_dict(state)
    return about, network


def _checked(content: dict, file: Path) -> About:
    """Return what a file says of its network; an InputError if it was not written by us."""
    try:
        about = About(**content)
        check_name(Recipe.of(about.recipe).network)
        if not len(about.classes) == len(about.colours) >= 1 or len(about.size) != 2:
            raise TypeError
    except (TypeError, ValueError):
        raise InputError(f"weights: {file}: was not made by roadseg. {_OURS}") from None
    return about


def _digest(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:12]
