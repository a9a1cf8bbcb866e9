"""What the images tell of options that would fit them better."""

import torch

from training.data.image_set import ImageSet

_CHUNK_SIZE = 4096  # images looked at at a time: bounds the memory
_MOST_SPREAD = 8  # of 255, between the channels of a grey pixel: JPEG rounds colours


def hints(image_set: ImageSet) -> list[str]:
    """A line for each option that another value would fit better."""
    # Mapped images may be larger than the memory: to look at all of them takes too long.
    looked = not image_set.is_mapped and image_set.shape.channels >= 3
    if looked and _all_grey(image_set.images):
        return [
            f"hint: all {len(image_set):,} images are grey: --data.channels 1 would train on one "
            "value a pixel, not on three that are alike"
        ]
    return []


def _all_grey(images: torch.Tensor) -> bool:
    """True where red, green and blue are alike in all pixels of images [N, C, H, W] uint8."""
    for chunk in torch.split(images, _CHUNK_SIZE):
        colours = chunk[:, :3]
        spread = colours.amax(1) - colours.amin(1)
        if bool((spread > _MOST_SPREAD).any()):
            return False
    return True
