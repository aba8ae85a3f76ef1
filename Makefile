# Gridlane: everything a developer or a first-time user runs. `make` alone lists it.
#
# Two kinds of environments, both made on demand and remade when what they are made from changes:
#   .venv         the services, the client, the demo's and the developer's tools (newest versions)
#   .tools/*      the code generators and the oldest client, which cannot live beside the newest; what we compare with

PYTHON ?= python3
# The oldest toolchain has wheels up to Python 3.12; name another Python here when yours is newer.
TOOLS_PYTHON ?= $(PYTHON)
# Side by side in `make test`: as many as the smallest machine has processors, since most tests wait.
WORKERS ?= 2

# Servers and workers are started hundreds of times: each would compile all modules anew.
export PYTHONDONTWRITEBYTECODE :=

VENV := .venv
BIN := $(VENV)/bin
PIP := -m pip --disable-pip-version-check install -qq
say = @printf '\033[1m==>\033[0m %s\n' "$(1)"

.DEFAULT_GOAL := help
.PHONY: help venv tools demo demo-split test test-peers bench diracx mariadb lint shapes generate check-generated reference accept-contract \
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

.tools/shapes/.installed: tools/shapes.txt | check-python
	$(call say,Fetching the foreign packages that our messages are compared with in .tools/shapes)
	@$(PYTHON) -m venv --clear .tools/shapes
	@.tools/shapes/bin/python $(PIP) --no-deps -r tools/shapes.txt
	@touch $@

.tools/diracx/.installed: tools/diracx.txt | check-python
	$(call say,Making the environment of DiracX in .tools/diracx (a minute or two))
	@$(PYTHON) -m venv --clear .tools/diracx
	@.tools/diracx/bin/python $(PIP) -r tools/diracx.txt
	@touch $@

# The server's program alone, unpacked from Debian's packages: nothing is installed.
.tools/mariadb/.installed:
	$(call say,Unpacking MariaDB in .tools/mariadb)
	@rm -rf .tools/mariadb && mkdir -p .tools/mariadb/packages
	@cd .tools/mariadb/packages && apt-get -o APT::Sandbox::User=root -qq download mariadb-server-core \
	  $$(apt-cache depends mariadb-server-core | sed -n 's/^ *Depends: \(lib\(aio\|numa\|uring\).*\)/\1/p')
	@for package in .tools/mariadb/packages/*.deb; do dpkg-deb -x "$$package" .tools/mariadb; done
	@rm -r .tools/mariadb/packages
	@touch $@

venv: $(BIN)/.installed ## the environment in .venv
tools: .tools/oldest/.installed .tools/stubs/.installed .tools/shapes/.installed ## the generators', the oldest client's and the foreign packages' environments

# --- what a user runs ---------------------------------------------------------------------------

demo: venv ## one real job on real data, start to end, on this machine
	@$(BIN)/python examples/carbon/run_demo.py all

demo-split: venv ## the same with one process a service, on PostgreSQL, TLS between them
	@$(BIN)/python examples/carbon/run_demo.py split

# --- what a developer runs ----------------------------------------------------------------------

test: venv ## the tests that need nothing but this machine, but for those of test-peers
	@$(MAKE) --no-print-directory tools || echo 'Without it, the tests of generation, of the oldest client and of foreign packages are skipped.'
	$(call say,Running the tests)
	@$(BIN)/python -m pytest tests -m 'not five_processes and not long' -n $(WORKERS)

test-peers: venv ## the rest: five processes on PostgreSQL, repetitions, wheels, real storages; more peers (Slurm, DiracX, …) are to come
	$(call say,Running the long tests: five processes that also die and lose each other, and real storages where they are installed)
	@$(BIN)/python -m pytest tests -m 'five_processes or long' -n $(WORKERS)

diracx: .tools/diracx/.installed ## a released DiracX to compare with, in .tools/diracx
mariadb: .tools/mariadb/.installed ## MariaDB, which DiracX runs on, in .tools/mariadb (Debian, Ubuntu)

bench: venv ## the measured targets, written as one table; make bench BENCH=--quick shows that all is measured
	@$(MAKE) --no-print-directory diracx mariadb || echo 'Without it, the rows against DiracX are left out, and the run fails.'
	@$(BIN)/python -m benchmarks --require-peers $(BENCH)

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
	@$(BIN)/python tools/check_contract_style.py

generate: venv tools ## the client's packages from protos/
	@$(BIN)/python tools/generate.py

check-generated: venv tools ## fails when the generated code is not what protos/ says
	@$(BIN)/python tools/generate.py --check

reference: venv ## the reference pages that follow from the code
	@$(BIN)/python tools/generate_reference.py

accept-contract: venv ## protos/ becomes the contract that `buf breaking` holds us to
	@$(BIN)/python tools/accept_contract.py

shapes: venv .tools/shapes/.installed ## where each field of FTS3's, BPS's, DIRAC's and TES's jobs goes: the list
	@$(BIN)/python -m pytest tests/contract/shapes -q

wheels: venv ## both wheels, in dist/
	$(call say,Building the wheels)
	@rm -rf dist
	@cd clients/python && ../../$(BIN)/hatchling build --target wheel --directory ../../dist >/dev/null
	@$(BIN)/hatchling build --target wheel --directory dist >/dev/null
	@ls dist

clean: ## environments, caches and built files
	@rm -rf $(VENV) .tools dist .demo .demo-split .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
