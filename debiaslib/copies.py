"""The copy test: does a generator hand back the faces it was trained on?

A sample may not lie closer to its nearest training face than people who were never in training do, at the first
percentile, neither in a face embedding nor in pixels.
"""

import importlib.util
from pathlib import Path

import cv2
import numpy as np
from sklearn.neighbors import NearestNeighbors
from tqdm.auto import tqdm

from debiaslib.errors import InputError

CHIP = 150


def embed_faces(pixels: np.ndarray, *, batch: int = 64, progress: bool = False) -> np.ndarray:
    """dlib's face embedding (ResNet of `face-recognition-models`, CC0), float32 (N, 128), of uint8 (N, H, H, 3) aligned faces.

    Raises InputError when the optional package is missing.
    """
    import dlib

    spec = importlib.util.find_spec("face_recognition_models")  # found, not imported: its own import needs a retired module
    if spec is None:
        raise InputError("face-recognition-models is not installed. The copy test needs it: pip install 'debiaslib[copytest]'.")
    network = dlib.face_recognition_model_v1(str(Path(spec.origin).parent / "models/dlib_face_recognition_resnet_model_v1.dat"))
    out = np.empty((len(pixels), 128), np.float32)
    for start in tqdm(range(0, len(pixels), batch), desc="face embedding", disable=not progress):
        chips = [cv2.resize(picture, (CHIP, CHIP), interpolation=cv2.INTER_CUBIC) for picture in pixels[start:start + batch]]
        out[start:start + batch] = np.array(network.compute_face_descriptor(chips))
    return out


def pixel_vectors(pixels: np.ndarray, *, side: int = 16) -> np.ndarray:
    """Pictures shrunk to `side` pixels as float32 (N, 3 side^2) in [0, 1]: a copy survives this, noise does not count."""
    small = [cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA) for picture in pixels]
    return np.stack(small).reshape(len(pixels), -1).astype(np.float32) / 255


def copy_test(samples: np.ndarray, strangers: np.ndarray, training: np.ndarray, *, percentile: float = 1.0) -> dict[str, float | bool]:
    """Compare nearest distances to `training` (M, D) of generated `samples` (N, D) and of `strangers` (K, D), real faces it never saw.

    Returns both percentiles, the ratio of medians, and `passes`: samples are not closer than strangers.
    """
    index = NearestNeighbors(n_neighbors=1).fit(training)
    near = {name: index.kneighbors(vectors)[0][:, 0] for name, vectors in (("samples", samples), ("strangers", strangers))}
    low = {name: float(np.percentile(distances, percentile)) for name, distances in near.items()}
    return {"samples": low["samples"], "strangers": low["strangers"],
            "median_ratio": float(np.median(near["samples"]) / np.median(near["strangers"])), "passes": low["samples"] >= low["strangers"]}
