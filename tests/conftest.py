"""What every test stands on: one thread and no network."""

import os

# Before anything imports numpy or torch: one thread a worker. Two workers on two cores then do not wait for each other,
# and figures that depend on the order of summation come out the same everywhere. Notebook kernels inherit it.
os.environ |= {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "HF_HUB_OFFLINE")}

import socket  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402

import debiaslib  # noqa: E402

ROOT = Path(debiaslib.__file__).resolve().parents[1]
LOCAL = ("127.0.0.1", "::1", "localhost")


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the kit."""
    return ROOT


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches for the network fails at once and says where to."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in LOCAL:
            raise AssertionError(f"a test reached for the network: {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)
