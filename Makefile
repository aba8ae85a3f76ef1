# Gridlane: everything a developer or a first-time user runs. `make` alone lists it.
#
# Two kinds of environments, both made on demand and remade when what they are made from changes:
#   .venv         the services, the client, the demo's and the developer's tools (newest versions)
#   .tools/*      the code generators and the oldest client, which cannot live beside the newest

PYTHON ?= python3
# The oldest toolchain has wheels up to Python 3.12; name another Python here when yours is newer.
TOOLS_PYTHON ?= $(PYTHON)

VENV := .venv
BIN := $(VENV)/bin
PIP := -m pip --disable-pip-version-check install -qq
say = @printf '\033[1m==>\033[0m %s\n' "$(1)"

.DEFAULT_GOAL := help
.PHONY: help venv tools demo test test-peers bench lint generate check-generated reference accept-contract \
        wheels clean check-python check-tools-python

help: ## this list
	@printf 'Gridlane. Targets:\n\n'
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 26

# --- environments -------------------------------------------------------------------------------

check-python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'Gridlane needs Python 3.11 or newer; "$(PYTHON)" is not. Name one: make PYTHON=python3.12 …' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo 'Python has no venv module. On Debian or Ubuntu: apt-get install python3-venv' >&2; exit 1; }

check-tools-python: check-python
	@$(TOOLS_PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || { \
	  echo 'The oldest client toolchain runs on Python 3.11 and 3.12; "$(TOOLS_PYTHON)" is neither. Name one: make TOOLS_PYTHON=python3.12 …' >&2; exit 1; }

$(BIN)/.installed: pyproject.toml clients/python/pyproject.toml | check-python
	$(call say,Making the environment in $(VENV) (a minute or two the first time))
	@$(PYTHON) -m venv $(VENV)
	$(call say,Installing Gridlane and what it needs)
	@$(BIN)/python $(PIP) -e 'clients/python[cli]' -e '.[demo,test,dev]'
	@touch $@

.tools/oldest/.installed: tools/oldest.txt clients/python/pyproject.toml | check-tools-python
	$(call say,Making the oldest client toolchain in .tools/oldest)
	@$(TOOLS_PYTHON) -m venv --clear .tools/oldest
	@.tools/oldest/bin/python $(PIP) -r tools/oldest.txt -e clients/python
	@touch $@

.tools/stubs/.installed: tools/stubs.txt | check-python
	$(call say,Making the type stubs generator in .tools/stubs)
	@$(PYTHON) -m venv --clear .tools/stubs
	@.tools/stubs/bin/python $(PIP) -r tools/stubs.txt
	@touch $@

venv: $(BIN)/.installed ## the environment in .venv
tools: .tools/oldest/.installed .tools/stubs/.installed ## the generators' and the oldest client's environments

# --- what a user runs ---------------------------------------------------------------------------

demo: venv ## one real job on real data, start to end, on this machine
	@$(BIN)/python examples/carbon/run_demo.py

# --- what a developer runs ----------------------------------------------------------------------

test: venv ## every test that needs nothing but this machine
	@$(MAKE) --no-print-directory tools || echo 'Without it, the tests of generation and of the oldest client are skipped.'
	$(call say,Running the tests)
	@$(BIN)/python -m pytest tests

test-peers: venv ## the tests against real peers (Slurm, DiracX, …)
	@echo 'No peers are wired up yet: nothing was tested. Slurm, DiracX, XRootD, DIRAC and Chromium are to come.'

bench: venv ## the measured targets, written as one table
	@$(BIN)/python -m benchmarks

lint: venv ## style, types, import rules, contracts
	$(call say,ruff)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	$(call say,mypy --strict)
	@$(BIN)/mypy
	$(call say,import rules)
	@$(BIN)/lint-imports
	$(call say,contracts)
	@$(BIN)/buf lint
	@$(BIN)/buf format --diff --exit-code protos
	@$(BIN)/buf breaking protos --against protos/baseline.binpb

generate: venv tools ## the client's packages from protos/
	@$(BIN)/python tools/generate.py

check-generated: venv tools ## fails when the generated code is not what protos/ says
	@$(BIN)/python tools/generate.py --check

reference: venv ## the reference pages that follow from the code
	@$(BIN)/python tools/generate_reference.py

accept-contract: venv ## protos/ becomes the contract that `buf breaking` holds us to
	@$(BIN)/python tools/accept_contract.py

wheels: venv ## both wheels, in dist/
	$(call say,Building the wheels)
	@rm -rf dist
	@cd clients/python && ../../$(BIN)/hatchling build --target wheel --directory ../../dist >/dev/null
	@$(BIN)/hatchling build --target wheel --directory dist >/dev/null
	@ls dist

clean: ## environments, caches and built files
	@rm -rf $(VENV) .tools dist .demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
