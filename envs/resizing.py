"""Images of any size and number of channels, brought to one form."""

import numpy as np

ROWS = 256  # images at a time
LUMA = np.array([299, 587, 114], np.int64)  # thousandths of red, green and blue (ITU-R BT.601)


def weights(old: int, new: int) -> np.ndarray:
    """Bilinear interpolation of ``old`` pixels at ``new`` places, float64[new, old]; rows have sum 1.

    ``w_ij = max(0, 1 - |j - c_i| / s)`` before the rows are divided by their sums, with ``c_i = (i + 1/2) old / new -
    1/2`` and ``s = max(1, old / new)``: a smaller image averages the pixels between its own.
    """
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    found = np.maximum(0.0, 1 - np.abs(np.arange(old) - centres[:, None]) / max(1.0, old / new))
    found /= found.sum(1, keepdims=True)
    return found


def resized(images: np.ndarray, side: int) -> np.ndarray:
    """``uint8[N, height, width, channels]`` stretched to ``uint8[N, side, side, channels]``."""
    if images.shape[1:3] == (side, side):
        return images
    down, across = (weights(old, side) for old in images.shape[1:3])
    parts = []
    for start in range(0, len(images), ROWS):
        rows = np.tensordot(down, images[start : start + ROWS].astype(float), (1, 1))  # [side, N, width, channels]
        found = np.tensordot(across, rows, (1, 2))  # [side (columns), side (rows), N, channels]
        parts.append(np.clip(np.rint(found), 0, 255).astype(np.uint8).transpose(2, 1, 0, 3))
    return np.concatenate(parts)


def recoloured(images: np.ndarray, channels: int) -> np.ndarray:
    """Grey images ``uint8[..., 1]`` as colour, or colour images ``uint8[..., 3]`` as grey by their luma.

    ``ValueError`` for any other number of channels.
    """
    has = images.shape[-1]
    if has not in (1, 3):
        raise ValueError(f"images must have 1 or 3 channels, got {has}")
    if has == channels:
        return images
    if channels == 3:
        return np.repeat(images, 3, axis=-1)
    return ((images.astype(np.int64) @ LUMA + 500) // 1000).astype(np.uint8)[..., None]
