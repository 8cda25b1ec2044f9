"""The builder, which is a script and no part of the package."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def builder(root: Path) -> ModuleType:
    """`notebooks/build.py`, imported."""
    spec = importlib.util.spec_from_file_location("build", root / "notebooks/build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
