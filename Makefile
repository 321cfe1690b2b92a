# `make demo` to see it, `make test` to check it; both set up what they need first.
.DEFAULT_GOAL := help
.PHONY: help setup servers demo test nightly mutants check bench sandbox lock clean

BIN := .venv/bin
ACCEPTANCE := ../shared/acceptance/first-light

help: ## This list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do printf '  make %-9s %s\n' "$$name" "$$text"; done

setup: ## Make .venv with the locked dependencies; install Prosody when it is missing
	@scripts/setup

servers: setup ## Install ejabberd, too, when it is missing: tests run on both servers
	@scripts/setup --tests

demo: setup ## Show everything: a missed call, a push, one small answer
	@$(BIN)/convsync demo

sandbox: setup ## The whole stack on this machine, for your own client, until Ctrl-C
	@$(BIN)/convsync sandbox

check: setup ## What needs no running server: style, types, imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports

test: servers check ## Everything: the checks, all tests, the black-box acceptance where it is at hand
	$(BIN)/pytest -n auto
	@if [ -x $(ACCEPTANCE) ]; then $(ACCEPTANCE) --server prosody --server ejabberd; fi

nightly: setup ## Random lives for as long as a night allows: in memory, on Postgres, many writers at once
	nice $(BIN)/pytest -n auto --hypothesis-profile=nightly --timeout=7200 --durations=5 tests/core/test_fold_property.py \
		tests/adapters/test_lives_on_postgres.py tests/adapters/test_lives_at_once.py tests/adapters/test_store_concurrency.py

mutants: setup ## Change the rules in one place at a time, FILE="claims ring" or all: does a test notice? (docs/testing.md)
	timeout 60m nice $(BIN)/python -m tests.mutation $(FILE) || { [ $$? -eq 124 ] && $(BIN)/python -m tests.mutation.report; }

bench: setup ## Measurements, side by side with what users have today; SECTION=sessions for one of them
	$(BIN)/python -m bench $(if $(SECTION),$(SECTION) --write)

soak: setup ## Everything dies while people talk, for SECONDS with SERVER and SEED (docs/reliability.md)
	$(BIN)/python -m tests.chaos --write --server $(or $(SERVER),prosody) --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED))

lock: ## Resolve the dependencies again, with hashes for every platform (needs uv and npm)
	uv pip compile --universal --generate-hashes --no-emit-index-url --no-emit-find-links --extra dev --custom-compile-command "make lock" \
		--output-file requirements.lock pyproject.toml
	cd tests/adapters/node && npm install --package-lock-only --ignore-scripts --omit-lockfile-registry-resolved

clean: ## Remove what these commands made: .venv, .data, caches
	rm -rf .venv .data mutants .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist tests/adapters/node/node_modules
	find sync tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
