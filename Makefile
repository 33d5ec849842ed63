# Proxyplane. `make help` lists what there is.
SHELL := /bin/sh
CARGO ?= cargo
# Where cargo puts what it builds; CARGO_TARGET_DIR is respected.
TARGET := $(or $(CARGO_TARGET_DIR),target)
# More arguments for `serve` (make run ARGS="--listen 127.0.0.1:7071") or the bench (make bench ARGS=capture-tls).
ARGS ?=
# How long `make fuzz` fuzzes each target.
FUZZ_SECONDS ?= 60

.DEFAULT_GOAL := help
.PHONY: help run test lint fmt fmt-check clippy sqlx sqlx-check doc deny bench chaos fuzz ci

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Install what is missing, build, and serve with a ready capture proxy until Ctrl-C.
	@scripts/setup run
	$(CARGO) build --release --locked
	@exec $(TARGET)/release/proxyplane serve --bootstrap $(ARGS)

test: ## Install what is missing, run the unit tests and the end-to-end tests.
	@scripts/setup test
	$(CARGO) build --workspace --locked
	@CARGO="$(CARGO)" scripts/previous >/dev/null || [ $$? = 3 ]
	$(CARGO) test --workspace --locked --no-fail-fast

lint: fmt-check clippy sqlx-check doc deny ## Everything that is checked without running it.

fmt: ## Format the code.
	$(CARGO) fmt

fmt-check:
	$(CARGO) fmt --check

clippy:
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

sqlx: ## Renew the committed data that SQL is checked against.
	@scripts/setup run
	scripts/sqlx

sqlx-check:
	@PROXYPLANE_DATABASE_URL= scripts/setup run
	scripts/sqlx --check

doc: ## Build the documentation of the code; warnings are errors.
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked

deny: ## Check dependencies: bans, licences, sources (deny.toml).
	@$(CARGO) deny --version >/dev/null 2>&1 || { echo "installing cargo-deny (a few minutes, once)" >&2; $(CARGO) install --quiet --locked cargo-deny; }
	$(CARGO) deny --log-level error --locked check bans licenses sources

bench: ## Measure beside other proxies on this machine.
	@scripts/setup bench
	$(CARGO) build --release --locked
	env -u CARGO_TARGET_DIR $(CARGO) build --release --manifest-path bench/peers/hudsucker/Cargo.toml
	MITMDUMP=$(abspath target/bench-venv/bin/mitmdump) target/bench-venv/bin/python bench/run.py $(ARGS)

chaos: ## Kill, freeze, stop and change things under load; compare what clients saw with what is stored (ARGS="--scenario kills").
	@scripts/setup test
	$(CARGO) build --release --locked
	$(CARGO) run --release --locked -p proxyplane-tests --bin chaos -- $(ARGS)

fuzz: ## Fuzz the codecs of HTTP/1 and of the spool, a minute each (FUZZ_SECONDS=60). Needs nightly and cargo-fuzz.
	@$(CARGO) +nightly fuzz --version >/dev/null 2>&1 || { echo "make fuzz needs: rustup toolchain install nightly && cargo install cargo-fuzz" >&2; exit 1; }
	@for target in record:segment h1:request h1:response h1:chunked; do \
		echo "fuzzing $$target" >&2; \
		(cd crates/$${target%%:*} && $(CARGO) +nightly fuzz run $${target##*:} -- -max_total_time=$(FUZZ_SECONDS)) || exit 1; \
	done

ci: lint test ## What CI runs.
