"""A real JupyterLab, a real Voila and a real headless Chromium. Without a Chromium the tests skip and say so."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
# A machine without a network is what the course promises to run on: the browser must not wait for one either.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
# Said by Voila itself, whatever the notebook: each with its reason. JupyterLab has nothing to say.
EXPECTED = (
    "(https://cdn.jsdelivr.net/npm/@fortawesome/",  # its page asks for icons, where there is no network: buttons have words
    "The getter for the shared module is not a function",  # it tries JupyterLab's extensions; some need JupyterLab itself
)


@dataclass
class Seen:
    """A page and what its console complained of."""

    page: Page
    errors: list[str] = field(default_factory=list)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if CHROMIUM is None:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="no Chromium here: install Debian's package `chromium`"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def messages(root: Path) -> str:
    """How large a message may be, as `make app` and `make lab` tell their servers."""
    return re.search(r"^MESSAGES := (.*)$", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1]


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, messages: str) -> Iterator[tuple[str, Path]]:
    """A JupyterLab of our own on loopback: its address, and the folder that it serves."""
    folder, state = tmp_path_factory.mktemp("served"), tmp_path_factory.mktemp("jupyter")
    _settle(state / "jupyterlab_settings_dir")
    command = ["jupyterlab", "--no-browser", "--ip=127.0.0.1", "--port=0", "--allow-root", "--IdentityProvider.token=",
               "--LabApp.news_url=None", f"--ServerApp.root_dir={folder}", f"--ServerApp.tornado_settings={messages}"]
    with _server(command, state, folder) as server:
        yield _address(server, state), folder


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory, root: Path, messages: str) -> Iterator[str]:
    """The app as `make app` serves it, by Voila on loopback: its address."""
    state = tmp_path_factory.mktemp("voila")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["voila", str(root / "notebooks/app/panel.ipynb"), "--no-browser", "--Voila.ip=127.0.0.1", f"--port={port}",
               f"--Voila.tornado_settings={messages}"]
    with _server(command, state, root) as server:
        yield _answering(server, f"http://127.0.0.1:{port}/", state)


@contextmanager
def _server(command: list[str], state: Path, folder: Path) -> Iterator[subprocess.Popen]:
    """`python -m ...` with folders of its own for all that Jupyter keeps; ended at the end."""
    environment = os.environ | {name: str(state / name.lower()) for name in
                                ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR",
                                 "JUPYTERLAB_WORKSPACES_DIR")}
    with open(state / "log.txt", "wb") as log:
        server = subprocess.Popen([sys.executable, "-m", *command], env=environment, stdout=log, stderr=log, cwd=folder)
        try:
            yield server
        finally:
            server.terminate()
            server.wait(timeout=20)


def _answering(server: subprocess.Popen, address: str, state: Path, *, patience: float = 90) -> str:
    """The address, once something listens there (a page of Voila's takes a kernel: none is asked for)."""
    until, place = time.monotonic() + patience, urllib.parse.urlsplit(address)
    while time.monotonic() < until and server.poll() is None:
        try:
            socket.create_connection((place.hostname, place.port), timeout=5).close()
            return address
        except OSError:
            time.sleep(0.2)
    raise RuntimeError("Voila did not come up:\n" + (state / "log.txt").read_text()[-2000:])


def _settle(settings: Path) -> None:
    """JupyterLab draws only the cells in view, and asks about news: a test looks at all cells, undisturbed."""
    for name, chosen in (("notebook-extension/tracker", {"windowingMode": "none"}),
                         ("apputils-extension/notification", {"fetchNews": "false"})):
        file = settings / f"@jupyterlab/{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(chosen))


def _address(server: subprocess.Popen, state: Path, *, patience: float = 90) -> str:
    """Where the server listens, once it answers."""
    until = time.monotonic() + patience
    while time.monotonic() < until and server.poll() is None:
        for told in (state / "jupyter_runtime_dir").glob("jpserver-*.json"):
            try:
                address = json.loads(told.read_text())["url"]
                urllib.request.urlopen(address + "api/status", timeout=5).close()
                return address
            except (OSError, ValueError):
                pass  # written this very moment, or not listening yet
        time.sleep(0.2)
    raise RuntimeError("JupyterLab did not come up:\n" + (state / "log.txt").read_text()[-2000:])


@pytest.fixture
def seen(browser: Browser) -> Iterator[Seen]:
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    seen = Seen(page)
    page.on("console", lambda message: seen.errors.append(f"{message.text} ({message.location['url']})")
            if message.type == "error" else None)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    yield seen
    page.close()
    assert [text for text in seen.errors if not any(known in text for known in EXPECTED)] == []
