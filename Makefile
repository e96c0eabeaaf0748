# Everything here needs python3, git and make; the rest is installed into .venv, once.
PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python
LOCK   := requirements.lock
PIP    := $(RUN) -m pip install --quiet --disable-pip-version-check
# The environment is made again only when what it is made from has changed. LOCKED=1 makes it of the very files that were
# tested, whose versions and hashes stand in the lock file.
ifeq ($(LOCKED),1)
STAMP   := $(VENV)/made-from-$(shell cat pyproject.toml $(LOCK) | git hash-object --stdin)
INSTALL := $(PIP) --require-hashes --only-binary :all: --requirement $(LOCK) && \
	$(PIP) --no-deps --no-build-isolation --editable .
else
STAMP   := $(VENV)/made-from-$(shell git hash-object pyproject.toml)
INSTALL := $(PIP) --editable '.[book,test]'
endif

PROFILE ?= mini
WORKERS ?= 2
# a GPU takes one chapter at a time
JOBS    ?= $(if $(filter smoke mini,$(PROFILE)),2,1)

.DEFAULT_GOAL := help
.PHONY: help quickstart book site-zip course test lab lock clean

help:
	@echo "make quickstart  train, adapt and search in three minutes, on few rendered people"
	@echo "make book    run every chapter, write results/ and the pages in build/site/  (PROFILE=mini JOBS=2 WORKERS=2)"
	@echo "make course  put what a course needs into build/course.zip: pages, slides, notebooks  (after make book)"
	@echo "make site-zip  the pages that make book made, as one file that needs no network: build/site.zip"
	@echo "make test    check the form of the code, run the tests, a smoke run of the whole book included"
	@echo "make lab     open the chapters in JupyterLab"
	@echo "make lock    write $(LOCK): the newest versions that fit together, with hashes; LOCKED=1 installs them"
	@echo "make clean   delete build/ (pages, trained models) and caches; data/, results/ and $(VENV) stay"

# Each step runs though an earlier one failed, as long as nobody interrupted: the pages then say what went wrong. A run
# that never began (2), because another one is under way, leaves tables and pages to that one.
book: $(STAMP)
	@status=0; \
	$(RUN) -m book run --profile $(PROFILE) --keep-going --jobs $(JOBS) -p workers=$(WORKERS) || status=$$?; \
	if [ $$status -ge 130 ] || [ $$status -eq 2 ]; then exit $$status; fi; \
	$(RUN) -m paul report --profile $(PROFILE) || status=$$?; \
	mkdir -p results/figures; \
	$(RUN) -m data_prep contact --data data/$(PROFILE) --out results/figures/contact.png || status=$$?; \
	$(RUN) -m book build || status=$$?; \
	exit $$status

course: $(STAMP)
	$(RUN) -m book course --out build/course.zip

site-zip: $(STAMP)
	$(RUN) -m book zip

# two processes, a test file after the other in each; the whole book at smoke, the longest, begins first
test: $(STAMP)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

quickstart: $(STAMP)
	$(RUN) -m book quickstart

lab: $(STAMP)
	$(RUN) -m jupyter lab book/notebooks/00_setup.ipynb

# one file for Python 3.10 to 3.13 and every system; setuptools builds the package itself
lock:
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check uv
	echo setuptools | UV_CUSTOM_COMPILE_COMMAND="make lock" build/lock/bin/uv pip compile pyproject.toml - \
		--extra book --extra test --universal --python-version 3.10 --generate-hashes --no-annotate --upgrade --quiet \
		--output-file $(LOCK)

clean:
	rm -rf build .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -type d -prune -exec rm -rf {} +
	@echo "Deleted build/ (pages, trained models) and caches. Kept: data/, results/ and $(VENV)."

$(STAMP):
	@echo "Setting up $(VENV): a few minutes, once"
	@$(PYTHON) -c 'import sys; (3, 10) <= sys.version_info < (3, 14) or sys.exit("Python 3.10 to 3.13 is needed, this is %d.%d: name one with make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL)
	@rm -f $(VENV)/made-from-*
	@touch $@
