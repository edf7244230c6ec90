# saewidgets: `make demo` shows it, `make test` checks it. Both need Python 3.11 or newer and Node.js 20 or newer, and
# do the rest themselves, once: what is up to date is left alone.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules
SHELL := /bin/sh

VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
STATIC := saewidgets/widgets/static
SAY    := @printf '\n\033[1m%s\033[0m\n'

# Any of these may be the newest Python of a machine; PYTHON=... names another one.
PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11 python,\
	$(shell $(name) -c 'import sys; sys.version_info >= (3, 11) and print("$(name)")' 2>/dev/null)))

# Nothing of ours sends anything anywhere, and neither does what it stands on.
export ANYWIDGET_HMR := 0
export HF_HUB_DISABLE_TELEMETRY := 1
export JUPYTER_PREFER_ENV_PATH := 1
export WANDB_MODE := disabled

.PHONY: help
help:
	@echo 'make demo             set everything up and open JupyterLab on a copy of notebooks/01_quickstart.ipynb'
	@echo 'make demo HEADLESS=1  execute that notebook and write build/01_quickstart.html, which works offline'
	@echo 'make test             everything that is checked: lint, types, tests, notebooks, a real JupyterLab'
	@echo 'make lint             its parts: this, make typescript, make notebook-01_quickstart'
	@echo 'make js               build the JavaScript of the widgets'
	@echo 'make notebooks        execute the notebooks in place, keeping text outputs, before they are committed'
	@echo 'make clean            remove what was built, and .venv'

# ── set up ─────────────────────────────────────────────────────────────────────────────────────────────────────────

$(VENV)/.created:
	@test -n '$(PYTHON)' || { echo 'Python 3.11 or newer was not found. Install it, or name it: make demo PYTHON=/path/to/python3' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo '$(PYTHON) is not Python 3.11 or newer. Name one that is: make demo PYTHON=/path/to/python3' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo 'Python could not make a virtual environment: install its venv module (on Debian and Ubuntu the package python3-venv).' >&2; exit 1; }
	@touch $@

# torch first and by itself, so that its pin alone decides which build is taken. The JavaScript comes before it: where
# Node.js is missing, that is said at once and not after minutes of installing.
$(VENV)/.torch: $(VENV)/.created constraints.txt | $(STATIC)/.built
	$(SAY) 'Installing PyTorch (once, a few minutes)'
	@$(PIP) torch
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml hatch_build.py | $(STATIC)/.built
	$(SAY) 'Installing saewidgets and JupyterLab (once, a few minutes)'
	@$(PIP) --editable '.[lab,gguf,export]'
	@touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml hatch_build.py | $(STATIC)/.built
	$(SAY) 'Installing saewidgets and what checks it (once, a few minutes)'
	@$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.demo

js/node_modules/.installed: js/package.json js/package-lock.json js/.npmrc
	@node -e 'process.exit(Number(process.versions.node.split(".")[0]) < 20 ? 1 : 0)' 2>/dev/null || { echo 'Node.js 20 or newer was not found. Install it with npm, then run make again.' >&2; exit 1; }
	@command -v npm >/dev/null || { echo 'npm was not found. Install it (it comes with Node.js), then run make again.' >&2; exit 1; }
	$(SAY) 'Installing what builds the JavaScript (once)'
	@cd js && npm ci --loglevel=error
	@touch $@

# The folders are listed too, so that a widget which is gone leaves no bundle behind.
$(STATIC)/.built: js/node_modules/.installed js/build.mjs js/tsconfig.json $(shell find js/src)
	$(SAY) 'Building the JavaScript'
	@cd js && npm run --silent build
	@touch $@

.PHONY: js
js: $(STATIC)/.built

# ── show ───────────────────────────────────────────────────────────────────────────────────────────────────────────

QUICKSTART := notebooks/01_quickstart.ipynb

# A workspace and settings of its own: nobody's open tabs come back, and JupyterLab asks for no news.
LAB_HOME := build/jupyterlab
QUIET := '{"fetchNews": "false", "checkForUpdates": false}'

# JupyterLab saves what it executes: it gets copies, and git sees no change. A copy is kept until its notebook is newer,
# and then still, under a name that no other has: NAME_before_DATE_TIME.ipynb.
DEMO := build/demo
COPIES := $(patsubst notebooks/%,$(DEMO)/%,$(wildcard notebooks/*.ipynb))

$(DEMO)/%.ipynb: notebooks/%.ipynb
	@mkdir -p $(DEMO)
	@test ! -e $@ || { name=$(DEMO)/$*_before_$$(date +%Y-%m-%d_%H%M%S); free=$$name; n=1; \
		while test -e $$free.ipynb; do n=$$((n + 1)); free=$${name}_$$n; done; mv $@ $$free.ipynb; }
	@cp $< $@

.PHONY: demo
demo: $(VENV)/.demo js $(COPIES)
ifdef HEADLESS
	$(SAY) 'Executing $(QUICKSTART)'
	@mkdir -p build
	@$(BIN)/jupyter nbconvert --to saewidgets-html --execute $(QUICKSTART) --output-dir build
	@test -s build/01_quickstart.html || { echo 'build/01_quickstart.html was not written.' >&2; exit 1; }
	@echo 'build/01_quickstart.html is written. Open it in any browser; it needs no network.'
else
	@rm -rf $(LAB_HOME)
	@mkdir -p $(LAB_HOME)/settings/@jupyterlab/apputils-extension $(LAB_HOME)/workspaces
	@echo $(QUIET) > $(LAB_HOME)/settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings
	@JUPYTERLAB_SETTINGS_DIR='$(CURDIR)/$(LAB_HOME)/settings' JUPYTERLAB_WORKSPACES_DIR='$(CURDIR)/$(LAB_HOME)/workspaces' \
		$(BIN)/jupyter lab --ServerApp.root_dir='$(CURDIR)/$(DEMO)' \
		--LabApp.default_url=/lab/tree/$(notdir $(QUICKSTART)) --LabApp.extension_manager=readonly \
		$$(test "$$(id -u)" = 0 && echo --allow-root)
endif

# ── check ──────────────────────────────────────────────────────────────────────────────────────────────────────────

# What needs one core each is done on two; its output stays together.
TWO_AT_ONCE := $(MAKE) --no-print-directory --jobs=2 --output-sync=target
CHECKED := $(patsubst notebooks/%.ipynb,notebook-%,$(wildcard notebooks/*.ipynb))

.PHONY: lint typescript $(CHECKED)
lint: $(VENV)/.dev
	$(SAY) 'Lint, types and the direction of imports'
	@$(BIN)/ruff check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

typescript: js
	$(SAY) 'TypeScript: types and unit tests'
	@cd js && npm run --silent typecheck && npm run --silent test

$(CHECKED): notebook-%: $(VENV)/.dev js
	@echo 'notebooks/$*.ipynb'
	@OMP_NUM_THREADS=1 $(BIN)/pytest --nbval --nbval-current-env notebooks/$*.ipynb

.PHONY: test
test: $(VENV)/.dev js
	$(SAY) 'A browser for the tests'
	@$(BIN)/python tests/browser/chromium.py --install
	@$(TWO_AT_ONCE) lint typescript
	$(SAY) 'Python tests'
	@OMP_NUM_THREADS=1 $(BIN)/pytest tests --ignore=tests/browser -n 2 --dist worksteal
	$(SAY) 'Notebooks: executed again, each output compared (two at a time, some minutes)'
	@$(TWO_AT_ONCE) $(CHECKED)
	$(SAY) 'Widgets in a real JupyterLab'
	@$(BIN)/pytest tests/browser

# Not part of `make test`: this writes what `make test` compares with.
.PHONY: notebooks
notebooks: $(VENV)/.dev js
	@$(BIN)/python tests/refresh_notebooks.py

.PHONY: clean
clean:
	rm -rf $(VENV) build dist $(STATIC) js/node_modules
