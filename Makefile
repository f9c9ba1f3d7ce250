# Every target sets up what it needs; `make help` lists them.
.DEFAULT_GOAL := help
SERVERS := mysql-9.7 kafka-4.1

.PHONY: help
help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: setup
setup: ## What building and testing need, and real servers
	scripts/setup
	scripts/services install $(SERVERS)

.PHONY: unit
unit: ## Tests that need no server, in seconds
	cargo test --lib --bins

.PHONY: test
test: setup ## Every test, on real servers where they are needed
	cargo test --all-features

.PHONY: lint
lint: ## Format, clippy, documentation: no warnings
	cargo fmt --check
	cargo clippy --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features
