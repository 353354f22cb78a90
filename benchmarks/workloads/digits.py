"""Handwritten digits: the real data on which small networks are trained.

Alpaydin and Kaynak, "Optical recognition of handwritten digits", UCI 1998, as scikit-learn ships them: 1797 images.
"""

from functools import lru_cache

import numpy as np

CLASSES = 10


@lru_cache
def digits(side: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first images of side x side pixels from 0 to 1, those of 8 x 8 averaged, and labels, one column a digit.

    After the last image they begin again. Shapes: (count, side * side) and (count, 10).
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    chosen = np.arange(count) % len(images)
    images = images[chosen].reshape(count, side, 8 // side, side, 8 // side).mean((2, 4)) / 16
    return images.reshape(count, -1), np.eye(CLASSES)[labels[chosen]]
