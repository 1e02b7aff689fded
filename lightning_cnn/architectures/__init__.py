# ruff: noqa: F401
"""Networks, registered with timm: `timm.create_model("lenet5", in_chans=1)`. One file per family, one import line here.

Importing this package registers the networks defined here. Networks of timm itself are used in the same way.
"""

from lightning_cnn.architectures import (
    alexnet,
    capsules,
    cifar_fast,
    cnn3,
    edges,
    encoder_decoder,
    ffnn,
    googlenet,
    house_number,
    lenet,
    resnet_cifar,
    returns,
    returns_deep,
    unet,
    vgg_book,
)
