# Everything a developer or a first-time user types. Needs python3 (3.11 or newer) and make.
#
#   make demo    install what running needs, then show penstock against a black-box provider
#   make test    install what testing needs, then run every test
#   make check   formatting, lint, types, import layers, pasted --help
#
# Installs are stamped: a target runs again only when its pinned versions change.

SHELL := /bin/sh
# A machine that forbids bytecode has every process of every test compile its imports anew: `penstock serve` then takes
# 1.3 s of CPU to start instead of 0.6.
export PYTHONDONTWRITEBYTECODE :=

BIN := .venv/bin
# Tests wait for sockets, processes and clocks: with two workers a core, cores were idle for a third of the time.
WORKERS ?= $(shell $(BIN)/python -c 'import os; print(min(8, 3 * os.cpu_count()))')
# conftest.py puts the longest files first.
PYTEST = $(BIN)/pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# Pages into which --help and formulas are pasted from the code.
COG_PAGES = $$(grep -rl --include='*.md' '\[\[\[cog' docs README.md)
PINNED := requirements/build.txt pyproject.toml

# The first interpreter that is new enough. Override with `make PYTHON=/path/to/python3.12 ...`.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

# uv installs the pinned set in 6 s where pip takes 43 s; pip is the fallback, because it alone
# reads pip.conf (private mirrors). Both refuse anything whose hash is not in the list.
# UV_SYSTEM_CERTS: trust what the machine trusts, as pip's users have set it up.
UV := UV_SYSTEM_CERTS=1 $(BIN)/uv pip
PIP := $(BIN)/python -m pip -q --disable-pip-version-check
with_uv_or_pip = @$(UV) install -q --python $(1) $(2) || $(PIP) --python $(1) install $(2)
# $(call install,VENV,NAMES): put the pinned sets requirements/NAME.txt and penstock into VENV.
define install
	@echo "penstock: installing $(2) into $(1) (versions pinned by hash)"
	$(call with_uv_or_pip,$(1)/bin/python,--require-hashes $(foreach f,$(2) build,-r requirements/$(f).txt))
	$(call with_uv_or_pip,$(1)/bin/python,--no-deps --no-build-isolation -e .)
	@touch $@
endef

.PHONY: help setup setup-dev setup-examples setup-engines demo test test-quick test-long test-examples test-ray \
	test-engines coverage check chaos fuzz format docs site bench bench-engines lock clean distclean

help:
	@sed -n 's/^#   //p' Makefile
	@echo "also: setup setup-dev setup-examples setup-engines test-quick test-long test-examples test-ray test-engines"
	@echo "      coverage format docs site bench bench-engines lock clean distclean"

.venv/.base: requirements/bootstrap.txt
	@test -n "$(PYTHON)" || { \
		echo "penstock needs Python 3.11 or newer; python3 here is: $$(python3 --version 2>&1)."; \
		echo "Install one, or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments (Debian, Ubuntu: apt-get install python3-venv)."; \
		exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) install --require-hashes -r $<
	@touch $@

.venv/.run: .venv/.base requirements/run.txt $(PINNED)
	$(call install,.venv,run)

.venv/.dev: .venv/.run requirements/dev.txt
	$(call install,.venv,dev)

# Once after an install: workers that start together compile the same files side by side, 10 s of CPU in each.
.venv/.compiled: .venv/.dev
	@$(BIN)/pytest -q --collect-only >/dev/null 2>&1 || true  # the run itself tells what cannot be collected
	@touch $@

# Apart from .venv: LiteLLM (examples) and matplotlib want other python-dateutils, Ray brings 200 MB for one optional
# feature, llama.cpp (engines) is a server that only a benchmark and its test start, atheris (fuzz) has wheels for few.
.venv-%/.stamp: .venv/.base requirements/%.txt $(PINNED)
	@test -x .venv-$*/bin/python || $(BIN)/python -m venv --without-pip .venv-$*
	$(call install,.venv-$*,$*)

setup: .venv/.run
setup-dev: .venv/.dev
setup-examples: .venv-examples/.stamp
setup-engines: .venv-engines/.stamp

demo: .venv/.run
	@$(BIN)/penstock demo

test: .venv/.compiled
	$(PYTEST)

test-quick: .venv/.dev
	$(PYTEST) -m "not slow"

# A thousand kills, a million lines and ten thousand cancelled calls, of which `make test` has a tenth or a fifth.
test-long: .venv/.dev
	PENSTOCK_LONG=1 $(PYTEST) tests/batch/test_kills.py tests/batch/test_memory.py \
		tests/integrations/http/test_cancelled.py tests/integrations/http/test_async_transport.py

test-examples: .venv/.dev .venv-examples/.stamp
	$(BIN)/pytest -q tests/examples/test_litellm.py

test-engines: .venv/.dev .venv-engines/.stamp
	$(BIN)/pytest -q tests/engines

test-ray: .venv-ray/.stamp
	.venv-ray/bin/pytest -q tests/experiments/test_cluster.py

# Branches of the pure parts that no story reaches yet.
coverage: .venv/.dev
	$(PYTEST) --cov=penstock.core --cov=penstock.policies \
		--cov=penstock.metrics --cov-branch --cov-report=term-missing:skip-covered \
		tests/core tests/policies tests/properties

check: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/cog --check --check-fail-msg "run: make docs" $(COG_PAGES)

format: .venv/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/.dev
	$(BIN)/cog -r $(COG_PAGES)

# The pages as a site in build/site, every link checked; llms.txt is the index, and every page is there as Markdown.
site: .venv-site/.stamp
	@rm -rf build/pages build/site && mkdir -p build/pages
	@cp -r *.md LICENSE NOTICE docs examples ops benchmarks build/pages
	@find build/pages -name '*.md' -exec sed -i -E 's/^( *```\w+) .*/\1/' {} +  # the marks are the tests' own
	.venv-site/bin/zensical build --strict --clean --config-file site.toml
	@cd build/pages && find . -name '*.md' -exec cp --parents {} ../site \;
	@sed -E 's@^\*\*([A-Z][A-Za-z-]+)\*\*:? ?@\n## \1\n\n@; s@\]\(([a-z-]+/|[a-z]+\.md)@](docs/\1@g; s@\]\(\.\./@](@g' docs/index.md > build/site/llms.txt

bench: .venv/.dev
	@for bench in benchmarks/bench_*.py; do echo "== $$bench"; $(BIN)/python $$bench || exit 1; done
	@echo "== benchmarks/storm"; $(BIN)/python -m benchmarks.storm

# Faults at random on both sides of every door, in virtual time: make chaos SEEDS=20 REQUESTS=12500
SEEDS ?= 20
REQUESTS ?= 2000
chaos: .venv/.dev
	$(BIN)/python -m tests.chaos.campaign --seeds $(SEEDS) --requests $(REQUESTS)

# Everything that reads foreign bytes, by a coverage-guided fuzzer: make fuzz ARGS="--target stream --seconds 600"
fuzz: .venv-fuzz/.stamp
	.venv-fuzz/bin/python -m tests.fuzz $(ARGS)

# For example: make bench-engines ARGS="--load 1.0 --rounds 2". docs/explanation/engines.md has the table.
bench-engines: .venv/.dev .venv-engines/.stamp
	$(BIN)/python -m benchmarks.engines $(ARGS)

# Only this target asks the index for new versions: `make lock UPGRADE=--upgrade`.
COMPILE = $(UV) compile -q --universal --python-version 3.11 \
	--generate-hashes --no-header --no-annotate --no-emit-index-url $(UPGRADE)
lock: .venv/.base
	@for name in bootstrap build engines site; do \
		$(COMPILE) requirements/$$name.in -o requirements/$$name.txt || exit 1; done
	$(COMPILE) requirements/examples.in pyproject.toml --extra mock -o requirements/examples.txt
	$(COMPILE) pyproject.toml --extra all -o requirements/run.txt
	$(COMPILE) pyproject.toml --extra all --extra dev -c requirements/run.txt -o requirements/dev.txt
	$(COMPILE) pyproject.toml --extra all --extra dev --extra ray -c requirements/dev.txt \
		-o requirements/ray.txt
	$(COMPILE) requirements/fuzz.in pyproject.toml --extra proxy --extra batch -c requirements/run.txt \
		-o requirements/fuzz.txt
	$(COMPILE) pyproject.toml --extra proxy --extra otel -c requirements/run.txt -o requirements/image.txt
	@! grep -nE 'https?://' requirements/*.txt

clean:
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage htmlcov dist build
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv .venv-*
