import pytest

from roadseg.errors import InputError
from roadseg.models.pretrained import check_hub


@pytest.mark.parametrize(
    ("network", "weights", "message"),
    [
        ("fcn8s:resnet18", "imagnet", "hub:imagnet: resnet18 has no such weights. Did you mean 'imagenet'?"),
        ("fcn8s:tu-resnet10t", "imgnet", "hub:imgnet: tu-resnet10t has no such weights."),
        ("baseline", "imagenet", "hub:imagenet: 'baseline' has no published weights; leave it out."),
    ],
)  # fmt: skip
def test_published_weights_are_known_by_name(network, weights, message):
    if network.startswith("fcn8s"):
        check_hub("imagenet", network)
    with pytest.raises(InputError) as caught:
        check_hub(weights, network)
    assert str(caught.value).startswith(message)
