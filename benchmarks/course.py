"""The course study's networks: their reported cost beside ours, and where the difference lies.

What it reports is in `data/reference.csv`, at 375 x 1242 pixels and 19 classes. Run by hand, this
writes `data/reference_costs.csv`; a test counts again.
"""

from collections.abc import Callable
from functools import partial

import pandas as pd
import segmentation_models_pytorch as smp
from torch import nn

from roadseg.analysis import cost
from roadseg.analysis.tables import reference
from roadseg.config.paths import ROOT
from roadseg.models.build import build, on_meta

SIZE = (375, 1242)
CLASSES = 19
SWIN = "tu-swin_tiny_patch4_window7_224"


def builds() -> list[tuple[str, str, Callable[[], nn.Module], tuple[int, int], str]]:
    """Return of each network: its name there, ours, a build like theirs, its size, what differs.

    Source
    ------
    The configurations of MMSegmentation for these names, which the course study used: U-Net
    'unet-s5-d16' with FCN head, DeepLabV3+ 'd8' with head channels 128 (ResNet-18) and 512,
    SegFormer head with 256 channels for the mit encoders.
    """
    same = "nothing but what the counters count"
    padded = tuple(-(-side // 32) * 32 for side in SIZE)
    rows = [
        ("baseline, 180 epochs", "baseline", partial(build, "baseline", CLASSES), SIZE, same),
        ("U-Net", "unet", partial(build, "unet", CLASSES), (368, 1248),
         "is the same and takes multiples of 16 only, so it was counted at another size, which it "
         "does not tell, than the 384 x 1248 that ours pads to; at 368 x 1248 it fits"),
    ]  # fmt: skip
    for layers, channels in ((18, 128), (50, 512), (101, 512)):
        rows.append(
            (f"DeepLabV3+ ResNet-{layers}", f"smp:deeplabv3plus:resnet{layers}",
             partial(_wide_deeplab, f"resnet{layers}", channels), padded,
             "keeps the encoder at 1/8 of the size where ours goes to 1/16, and joins its branches "
             f"by a 3x3 convolution to {channels} channels where ours has 1x1 to 256")
        )  # fmt: skip
    rows.append(
        ("Swin-T + SegFormer head", f"smp:segformer:{SWIN}",
         partial(_segformer, SWIN, 512, strict_img_size=False), padded,
         "fits a head of 512 channels; ours has the 256 that SegFormer has")
    )  # fmt: skip
    rows += [
        (f"SegFormer-B{n}", f"smp:segformer:mit_b{n}", partial(_segformer, f"mit_b{n}", 256),
         padded, same)
        for n in (0, 2, 5)
    ]  # fmt: skip
    return rows


def compare(reference: pd.DataFrame) -> pd.DataFrame:
    """Count the course study's networks, as we build them and as it did.

    Parameters
    ----------
    reference : its table, with columns network and gmacs (10^9 multiply-adds)

    Returns
    -------
    one row per network: network, reported, ours (the network's name here), gmacs of ours, excess
    (gmacs / reported - 1), gmacs_like (of a build like theirs), excess_like, differs (in words)
    """
    reported = reference.drop_duplicates("network").set_index("network")["gmacs"]
    rows = []
    for network, our_name, make, size, differs in builds():
        reported_gmacs = float(reported[network])
        our_gmacs = cost.multiply_adds(on_meta(partial(build, our_name, CLASSES)), SIZE)
        like = cost.multiply_adds(on_meta(make), size)
        rows.append(
            {
                "network": network, "reported": reported_gmacs, "ours": our_name,
                "gmacs": our_gmacs, "excess": our_gmacs / reported_gmacs - 1, "gmacs_like": like,
                "excess_like": like / reported_gmacs - 1, "differs": differs,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def main() -> None:
    """Write the table."""
    table = compare(reference())
    table.to_csv(ROOT / "data/reference_costs.csv", index=False, float_format="%.6g")


def _wide_deeplab(encoder: str, channels: int) -> nn.Module:
    network = smp.DeepLabV3Plus(
        encoder, encoder_weights=None, encoder_output_stride=8, decoder_channels=channels,
        classes=CLASSES,
    )  # fmt: skip
    project = network.decoder.aspp[0].project
    project[0] = nn.Conv2d(project[0].in_channels, channels, 3, padding=1, bias=False)
    return network


def _segformer(encoder: str, channels: int, **options) -> nn.Module:
    return smp.Segformer(
        encoder, encoder_weights=None, decoder_segmentation_channels=channels, classes=CLASSES,
        **options,
    )  # fmt: skip


if __name__ == "__main__":
    main()
