# Two commands do the work: `make course` and `make test`. Each makes the environment first if there is none.

# Python 3.11 or 3.12; name another with `make .venv PYTHON=/path/to/python3.11`.
FITS   := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3,$(shell $(p) -c '$(FITS)' 2>/dev/null && echo $(p))))
# What the course environment takes of pyproject.toml's extras; environment.yml says the same.
EXTRAS := gan
# More options for pip, for instance an index that carries CPU builds of torch.
PIP_ARGS ?=
# More options for pytest, for instance `make test PYTEST_ARGS="-k doctor"`.
PYTEST_ARGS ?=

# A picture given to the panel comes in one message. At tornado's own limit, 10 MB, the connection breaks without a word.
MESSAGES := {'websocket_max_message_size': 104857600}

NOTEBOOKS := $(wildcard notebooks/*.ipynb)
NBVAL     := $(if $(NOTEBOOKS),--nbval --nbval-current-env --nbval-cell-timeout=120)

.DEFAULT_GOAL := help
.PHONY: help .venv course course-full test test-slow nightly bench lab app notebooks book doctor

help:  ## this list
	@awk -F ':.*## ' '/^[a-z.-]+:.*## / { printf "  make %-13s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

course: .venv/installed  ## the main job: bias measured over 12 cells, table, figure and report in runs/course
	.venv/bin/python -m debiaslib sweep --sample-steps 12 --out runs/course

course-full: .venv/installed  ## the same with 800 pictures a cell in 25 denoising steps, as in the paper, in runs/course-full
	.venv/bin/python -m debiaslib sweep -n 800 --out runs/course-full

test: .venv/installed  ## every test
	.venv/bin/python -m pytest -n 2 --dist loadscope --durations 10 $(NBVAL) tests $(NOTEBOOKS) $(PYTEST_ARGS)

test-slow: .venv/installed  ## what takes an hour and 8 GB: Stable Diffusion v1.5's shape, the course in a browser, kills
	.venv/bin/python -m pytest -m slow tests

nightly: test test-slow  ## every test there is

bench: .venv/installed  ## speed and size as ratios measured in one run, in runs/bench.csv
	.venv/bin/python -m debiaslib.bench

lab: .venv/installed  ## open JupyterLab
	.venv/bin/python -m jupyterlab --ServerApp.tornado_settings="$(MESSAGES)"

notebooks: .venv/installed  ## rebuild the notebooks from notebooks/src and run them
	.venv/bin/python notebooks/build.py

app: .venv/installed  ## faces from a prompt, a contour or your strokes, without code, on this machine alone
	.venv/bin/python -m voila notebooks/app/panel.ipynb --Voila.ip=127.0.0.1 --port=8866 --Voila.tornado_settings="$(MESSAGES)"

book: .venv/installed  ## the notebooks as web pages, in runs/book
	.venv/bin/python notebooks/book.py

doctor: .venv/installed  ## what is installed, which weights were found, what to do about the rest
	@.venv/bin/python -m debiaslib doctor

.venv: .venv/installed  ## the environment alone

# The stamp is a copy of pyproject.toml and written last. So an install that was interrupted is begun anew (its mark,
# `unfinished`, still lies there), and a checkout that only touches pyproject.toml's date installs nothing.
.venv/installed: pyproject.toml
	@if cmp -s $< $@; then touch $@; exit 0; fi; set -e; \
	if [ -z "$(PYTHON)" ]; then echo "No Python 3.11 or 3.12 found. Install one, or name it: make .venv PYTHON=/path/to/python3.11" >&2; exit 2; fi; \
	echo "Making the environment in .venv: about three minutes and 3 GB, the first time only."; \
	$(PYTHON) -m venv $(if $(wildcard .venv/unfinished),--clear) .venv; \
	touch .venv/unfinished; \
	.venv/bin/python -m pip install $(PIP_ARGS) --editable ".[$(EXTRAS)]"; \
	cp $< $@; rm .venv/unfinished
