# The front door. `make` alone lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ENV ?= lab
NAME ?= default
PARTS ?=
export PATH := $(CURDIR)/$(BIN):$(PATH)

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

$(BIN)/.installed: requirements.txt
	@echo "python: installing requirements.txt into $(VENV)/ ($$($(PYTHON) --version))"
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Python 3.11 to 3.13 is needed and $(PYTHON) is another; name one: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(PYTHON) -m lab.packages python
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

setup: $(BIN)/.installed ## Python packages into .venv/

demo: setup ## the whole platform on this machine: lab, site.yml, workload, verify
	@$(BIN)/python -m lab.demo

down: setup ## remove everything the lab made on this machine
	@$(BIN)/python -m lab down

deploy: setup ## site.yml on ENV, with a verify report even after a failure
	@status=0; ansible-playbook site.yml -i inventories/$(ENV) || status=$$?; \
	if [ $$status -ne 0 ]; then ansible-playbook playbooks/verify.yml -i inventories/$(ENV); fi; exit $$status

render: setup ## what would be deployed on ENV, as files below reports/render/ENV
	@rm -rf reports/render/$(ENV)
	@ansible-playbook playbooks/render.yml -i inventories/$(ENV) >reports-render.log 2>&1 || { cat reports-render.log; rm -f reports-render.log; exit 1; }
	@rm -f reports-render.log; echo "reports/render/$(ENV): $$(find reports/render/$(ENV) -type f | wc -l) files"

scenario: setup ## one Molecule scenario alone: NAME=default
	@$(BIN)/python tests/suite.py scenario-$(NAME)

lint: setup ## ruff, mypy, yamllint, ansible-lint
	@$(BIN)/python tests/suite.py lint

test: setup ## everything CI runs
	@$(BIN)/python tests/suite.py

test-all: setup ## CI and the long scenarios
	@$(BIN)/python tests/suite.py --all

.cache/bench/.installed: bench/requirements.txt
	@$(PYTHON) -m venv .cache/bench
	@.cache/bench/bin/python -m pip install --quiet --disable-pip-version-check -r bench/requirements.txt
	@touch $@

bench: setup .cache/bench/.installed ## measure beside the usual ways, on a lab of its own; reports/bench.json (PARTS=changes: that part)
	@$(BIN)/python -m bench $(PARTS)

bench-guests: setup .cache/bench/.installed ## making guests, beside the modules of community.proxmox in loops; reports/bench-guests.json
	@$(BIN)/python -m bench.guests

collection: setup ## the Galaxy artifact, into dist/
	@$(BIN)/python tests/build_collection.py dist

lock: setup ## resolve requirements.txt again from pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 \
	  --fork-strategy requires-python --generate-hashes --no-emit-index-url --no-emit-find-links --no-header -q -o requirements.txt

.PHONY: help setup demo down deploy render scenario lint test test-all bench bench-guests collection lock
