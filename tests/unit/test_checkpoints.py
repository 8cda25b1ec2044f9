"""Checkpoints: what was saved comes back, and a write that fails leaves the last one whole."""

import copy
import errno
import os

import pytest
import torch
from safetensors import SafetensorError

from debiaslib import checkpoints
from debiaslib.atomic import publish, replacing


@pytest.fixture
def trained():
    """A small network and its optimiser after three steps."""
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(network.parameters(), 0.1)
    learn(network, optimizer, 3)
    return network, optimizer


def learn(network, optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        network(torch.ones(4, 3)).square().mean().backward()
        optimizer.step()


def states(network, optimizer):
    return {"modules": {"net": network}, "optimizers": {"adam": optimizer}}


def test_a_restored_run_continues_as_if_nothing_had_happened(trained, tmp_path):
    network, optimizer = trained
    checkpoints.save(tmp_path / "new/c.safetensors", step=3, notes={"curve": [1.5, 2]}, **states(network, optimizer))
    other = torch.nn.Linear(3, 2)
    restored = torch.optim.AdamW(other.parameters(), 0.1)
    assert checkpoints.load(tmp_path / "new/c.safetensors", **states(other, restored)) == (3, {"curve": [1.5, 2]})
    for pair in ((network, optimizer), (other, restored)):
        learn(*pair, 2)
    assert torch.equal(network.weight, other.weight) and torch.equal(network.bias, other.bias)
    assert checkpoints.notes(tmp_path / "new/c.safetensors") == {"curve": [1.5, 2]}


def test_without_a_file_training_starts_at_the_beginning(trained, tmp_path):
    network, optimizer = trained
    before = copy.deepcopy(network.state_dict())
    assert checkpoints.load(tmp_path / "none.safetensors", **states(network, optimizer)) == (0, {})
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_random_numbers_depend_on_seed_and_step_alone():
    drawn = [torch.rand(4, generator=checkpoints.step_generator(*pair)) for pair in ((0, 7), (0, 7), (0, 8), (1, 7))]
    assert torch.equal(drawn[0], drawn[1])
    assert not any(torch.equal(drawn[0], other) for other in drawn[2:])


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), SafetensorError("os error 28"),
                                   KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_last_checkpoint(trained, tmp_path, monkeypatch, error):
    network, optimizer = trained
    path = tmp_path / "c.safetensors"
    checkpoints.save(path, step=3, **states(network, optimizer))
    before = path.read_bytes()

    def half(tensors, target, metadata):
        target.write_bytes(b"half a fi")
        raise error

    monkeypatch.setattr(checkpoints, "save_file", half)
    with pytest.raises(type(error)):
        checkpoints.save(path, step=4, **states(network, optimizer))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path], "no half file takes up the room"
    assert checkpoints.load(path, **states(network, optimizer))[0] == 3


def test_a_checkpoint_of_another_shape_is_refused(trained, tmp_path):
    network, optimizer = trained
    checkpoints.save(tmp_path / "c.safetensors", step=3, **states(network, optimizer))
    with pytest.raises(RuntimeError, match="size mismatch"):
        checkpoints.load(tmp_path / "c.safetensors", modules={"net": torch.nn.Linear(5, 2)})


def test_a_file_is_replaced_when_it_is_whole(tmp_path):
    path = tmp_path / "folder/file.txt"
    with replacing(path) as partial:
        partial.write_text("old")
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), replacing(path) as partial:
        partial.write_text("new")
        raise ZeroDivisionError
    assert path.read_text() == "old" and list(path.parent.iterdir()) == [path]


def test_a_folder_is_replaced_at_once(tmp_path):
    for name in ("work", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.txt").write_text(name)
    publish(tmp_path / "work", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["work.txt"]


def test_a_folder_that_cannot_be_replaced_is_still_there(tmp_path, monkeypatch):
    for name in ("work", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.txt").write_text(name)
    real, calls = os.replace, []

    def interrupted(source, target):
        calls.append(source)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(source, target)
    monkeypatch.setattr("debiaslib.atomic.os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish(tmp_path / "work", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["out.txt"]
