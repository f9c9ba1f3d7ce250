# Every target sets up what it needs; `make help` lists them.
.DEFAULT_GOAL := help
SERVERS := mysql-9.7 mariadb-10.11 mariadb-11.8 kafka-4.1

.PHONY: help
help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: setup
setup: ## What building and testing need, and real servers
	scripts/setup
	scripts/services install $(SERVERS)

.PHONY: demo
demo: setup ## The main job on real servers, with a kill and a verdict; ARGS=--keep leaves the servers up
	cargo run -- demo $(ARGS)

.PHONY: unit
unit: ## Tests that need no server, in seconds
	cargo test --lib --bins --test architecture --test documents --test captured

.PHONY: test
test: setup ## Every test, on real servers where they are needed
	scripts/services install
	cargo test --all-features

.PHONY: captures
captures: setup ## The binlog files of tests/data anew, from real servers; CASES=xa,types makes only these
	cargo test --test captured -- --ignored captures

.PHONY: lint
lint: deny ## Format, clippy, documentation, dependencies: no warnings
	cargo fmt --check
	cargo clippy --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features

CARGO_DENY := target/tools/bin/cargo-deny

# The advisories need their database from the network; where that is out of reach, the rest is still checked.
.PHONY: deny
deny: $(if $(shell command -v cargo-deny),,$(CARGO_DENY)) ## Licences, sources and advisories of the dependencies
	@PATH="$(CURDIR)/target/tools/bin:$$PATH" cargo deny check licenses bans sources
	@export PATH="$(CURDIR)/target/tools/bin:$$PATH"; if cargo deny fetch db 2>/dev/null; then cargo deny check advisories; \
	  else echo "deny: the advisory database is out of reach, advisories are not checked"; fi

$(CARGO_DENY):
	cargo install cargo-deny --version 0.20.2 --locked --debug --quiet --no-default-features --root target/tools
