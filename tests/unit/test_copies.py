"""The copy test: a copy is found, a stranger is not taken for one."""

import numpy as np
import pytest

from debiaslib.copies import copy_test, embed_faces, pixel_vectors


@pytest.fixture
def vectors():
    generator = np.random.default_rng(0)
    return {name: generator.normal(size=(count, 8)) for name, count in (("training", 500), ("strangers", 200), ("samples", 200))}


def test_new_samples_pass(vectors):
    shifted = vectors["samples"] + 3  # further away than strangers
    assert copy_test(shifted, vectors["strangers"], vectors["training"])["passes"]


def test_a_few_copies_among_many_fail(vectors):
    samples = vectors["samples"].copy()
    samples[:4] = vectors["training"][:4] + 1e-3
    result = copy_test(samples, vectors["strangers"], vectors["training"])
    assert not result["passes"] and result["samples"] < result["strangers"]


def test_pixel_vectors_see_a_copy_through_noise():
    generator = np.random.default_rng(0)
    faces = generator.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    noisy = np.clip(faces + generator.normal(0, 12, faces.shape), 0, 255).astype(np.uint8)
    distances = np.linalg.norm(pixel_vectors(noisy)[:, None] - pixel_vectors(faces), axis=2)
    assert (distances.argmin(1) == np.arange(20)).all()


def test_embedding_has_a_vector_a_face():
    pytest.importorskip("dlib")
    embedded = embed_faces(np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8))
    assert embedded.shape == (3, 128) and np.isfinite(embedded).all()
