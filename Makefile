# Every target does its own set-up: an environment in .venv, once, used again after.
PYTHON ?= python3
STUDY ?= synthetic
STUDY_DIR := $(if $(filter synthetic,$(STUDY)),.,studies/$(STUDY))
BIN := .venv/bin
READY := .venv/ready
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONUNBUFFERED = 1

.DEFAULT_GOAL := help
.PHONY: help in-git setup report test test-slow lab bench clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY)  ## make the environment in .venv

$(READY): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "roadseg needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..."; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		--config-settings editable_mode=compat -e .
	touch $@

in-git:  # before the set-up, which takes minutes
	@git rev-parse --git-dir > /dev/null 2>&1 || \
		{ echo "DVC needs a git repository, and this folder is none, as a downloaded ZIP is not. Run: git init"; exit 2; }

report: in-git $(READY)  ## train what is not trained yet and render the report (STUDY=synthetic)
	@test -f $(STUDY_DIR)/params.yaml || \
		{ echo "STUDY=$(STUDY): no studies/$(STUDY)/params.yaml; known: synthetic $(notdir $(wildcard studies/*))"; exit 2; }
	@# the same for all studies; one that was never run has no copy, so that `dvc repro -P` leaves it alone
	@test -f $(STUDY_DIR)/dvc.yaml || cp dvc.yaml $(STUDY_DIR)/
	@# DVC writes its table of locks in place; killed in that moment, it cannot read it again
	@test ! -f .dvc/tmp/rwlock || $(BIN)/python -m json.tool .dvc/tmp/rwlock >/dev/null 2>&1 || rm -f .dvc/tmp/rwlock
	@# settings first, with our own messages; a bare `dvc repro` may show DVC's
	$(BIN)/python -m roadseg resolve $(STUDY)
	$(BIN)/dvc repro $(STUDY_DIR)/dvc.yaml
	@echo "The report: $(CURDIR)/reports/$(STUDY)/report.html"

test: $(READY)  ## run the tests
	$(BIN)/python -m pytest

test-slow: $(READY)  ## test interruptions, faults and malformed input at length, into docs/reliability.md (over an hour)
	PYTHONPATH=$(CURDIR) $(BIN)/python benchmarks/reliability.py
	$(BIN)/python -m pytest -m slow tests/test_pipeline.py tests/test_thin_studies.py

lab: $(READY)  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab --notebook-dir=. notebooks/explore.ipynb

bench: report  ## benchmark this machine, into docs/performance.md (half an hour on two cores)
	@for name in speed start grouped scale thousand; do \
		PYTHONPATH=$(CURDIR) $(BIN)/python benchmarks/$$name.py || exit; done

clean:  ## remove everything that can be made again, the environment included
	rm -rf .venv build work data/prepared .dvc/cache .dvc/tmp *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
