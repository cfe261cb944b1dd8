# Everything a developer or a first-time user types. Needs python3 (3.11 or newer) and make.
#
#   make demo    install what running needs, then show penstock against a black-box provider
#   make test    install what testing needs, then run every test
#   make check   formatting, lint, types, import layers, pasted --help
#
# Installs are stamped: a target runs again only when its pinned versions change.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
WORKERS ?= auto
# Pages into which --help and formulas are pasted from the code.
COG_PAGES = $$(grep -rl --include='*.md' '\[\[\[cog' docs README.md)

# The first interpreter that is new enough. Override with `make PYTHON=/path/to/python3.12 ...`.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

# uv installs the pinned set in 6 s where pip takes 43 s; pip is the fallback, because it alone
# reads pip.conf (private mirrors). Both refuse anything whose hash is not in the list.
# UV_SYSTEM_CERTS: trust what the machine trusts, as pip's users have set it up.
UV := UV_SYSTEM_CERTS=1 UV_NO_PROGRESS=1 $(BIN)/uv pip install -q
PIP := $(BIN)/python -m pip -q --disable-pip-version-check
# $(call install,NAMES,VENV): put the pinned sets requirements/NAME.txt and penstock into VENV.
define install
	@echo "penstock: installing $(1) into $(2) (versions pinned by hash)"
	@$(UV) --python $(2)/bin/python --require-hashes $(foreach f,$(1),-r requirements/$(f).txt) \
		|| { echo "penstock: uv could not; trying pip"; \
		     $(PIP) --python $(2)/bin/python install --require-hashes $(foreach f,$(1),-r requirements/$(f).txt); }
	@$(UV) --python $(2)/bin/python --offline --no-deps --no-build-isolation -e . \
		|| $(PIP) --python $(2)/bin/python install --no-deps --no-build-isolation -e .
endef

.PHONY: help setup setup-dev setup-examples demo test test-quick test-examples test-ray coverage check format docs bench lock clean distclean

help:
	@sed -n 's/^#   //p' Makefile
	@echo "also: setup setup-dev setup-examples test-quick test-examples test-ray coverage format docs bench lock clean distclean"

$(STAMPS)/base: requirements/bootstrap.txt
	@test -n "$(PYTHON)" || { \
		echo "penstock needs Python 3.11 or newer; python3 here is: $$(python3 --version 2>&1)."; \
		echo "Install one, or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments (Debian, Ubuntu: apt-get install python3-venv)."; \
		exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --require-hashes -r requirements/bootstrap.txt
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/run: $(STAMPS)/base requirements/run.txt requirements/build.txt pyproject.toml
	$(call install,run build,$(VENV))
	@touch $@

$(STAMPS)/dev: $(STAMPS)/run requirements/dev.txt
	$(call install,dev build,$(VENV))
	@touch $@

# LiteLLM pins an older openai, so its example lives in an environment of its own.
.venv-examples/.stamp: $(STAMPS)/base requirements/examples.txt requirements/build.txt pyproject.toml
	@test -x .venv-examples/bin/python || $(PYTHON) -m venv .venv-examples
	$(call install,examples build,.venv-examples)
	@touch $@

# Ray brings 200 MB for one optional feature, so it has an environment of its own as well.
.venv-ray/.stamp: $(STAMPS)/base requirements/ray.txt requirements/build.txt pyproject.toml
	@test -x .venv-ray/bin/python || $(PYTHON) -m venv .venv-ray
	$(call install,ray build,.venv-ray)
	@touch $@

setup: $(STAMPS)/run
setup-dev: $(STAMPS)/dev
setup-examples: .venv-examples/.stamp

demo: $(STAMPS)/run
	@$(BIN)/penstock demo

test: $(STAMPS)/dev
	$(BIN)/pytest -q -n $(WORKERS) --dist loadfile

test-quick: $(STAMPS)/dev
	$(BIN)/pytest -q -n $(WORKERS) --dist loadfile -m "not slow"

test-examples: $(STAMPS)/dev .venv-examples/.stamp
	$(BIN)/pytest -q tests/examples/test_litellm.py

test-ray: .venv-ray/.stamp
	.venv-ray/bin/pytest -q tests/experiments/test_cluster.py

# Branches of the pure parts that no story reaches yet.
coverage: $(STAMPS)/dev
	$(BIN)/pytest -q -n $(WORKERS) --dist loadfile --cov=penstock.core --cov=penstock.policies \
		--cov=penstock.metrics --cov-branch --cov-report=term-missing:skip-covered \
		tests/core tests/policies tests/properties

check: $(STAMPS)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/cog --check --check-fail-msg "run: make docs" $(COG_PAGES)

format: $(STAMPS)/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMPS)/dev
	$(BIN)/cog -r $(COG_PAGES)

bench: $(STAMPS)/dev
	@for bench in benchmarks/bench_*.py; do echo "== $$bench"; $(BIN)/python $$bench || exit 1; done

# Only this target asks the index for new versions: `make lock UPGRADE=--upgrade`.
COMPILE = UV_SYSTEM_CERTS=1 $(BIN)/uv pip compile -q --universal --python-version 3.11 \
	--generate-hashes --no-header --no-annotate --no-emit-index-url $(UPGRADE)
lock: $(STAMPS)/base
	$(COMPILE) requirements/bootstrap.in -o requirements/bootstrap.txt
	$(COMPILE) requirements/build.in -o requirements/build.txt
	$(COMPILE) pyproject.toml --extra all -o requirements/run.txt
	$(COMPILE) pyproject.toml --extra all --extra dev -c requirements/run.txt -o requirements/dev.txt
	$(COMPILE) pyproject.toml --extra all --extra dev --extra ray -c requirements/dev.txt \
		-o requirements/ray.txt
	$(COMPILE) requirements/examples.in -o requirements/examples.txt
	@! grep -nE 'https?://' requirements/*.txt

clean:
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage htmlcov dist build
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv .venv-examples .venv-ray
