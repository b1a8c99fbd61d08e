# What one does with this repository; `make` alone lists it. Each target first installs what it
# needs and is not there: scripts/need.sh, which shows every command that it runs.
#
# check, test and demo share one profile (Cargo.toml, and .cargo/config.toml for dependencies), so that
# librdkafka, OpenSSL and aws-lc, about ten minutes of work, are built once for all three.

.PHONY: help demo test soak fuzz check build static deb bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## run ssegate with a page of live streams on https://localhost:8443/
	@scripts/need.sh build
	cargo run --locked -- demo $(ARGS)

test: ## run every test, against a real Redis, a real Kafka, Chromium and Firefox
	@scripts/need.sh test
	cargo test --locked

soak: ## the proof of exactness under faults, again and again with other seeds: make soak SSEGATE_SOAK=8h
	@scripts/need.sh test
	SSEGATE_REQUIRE_KAFKA=1 SSEGATE_SOAK=$(SSEGATE_SOAK) cargo test --locked --test it -- --ignored --nocapture soak

fuzz: ## fuzz everything that parses, so many seconds a target: make fuzz SSEGATE_FUZZ=3600
	@scripts/need.sh fuzz
	for target in $(notdir $(wildcard tests/fuzz/corpus/*)); do \
		mkdir -p target/fuzz/corpus/$$target && \
		target/tools/bin/cargo-fuzz run --fuzz-dir tests/fuzz --target-dir target/fuzz --sanitizer none $$target \
			target/fuzz/corpus/$$target tests/fuzz/corpus/$$target -- -max_total_time=$(SSEGATE_FUZZ) -timeout=10 || exit 1; \
	done

check: ## format, lints, docs, licences and bans, scripts, systemd files: what CI runs besides the tests
	@scripts/need.sh check
	cargo fmt --check
	cargo fmt --check $(LOAD)
	cargo fmt --check $(FUZZ)
	shellcheck .ci/run $(shell find scripts systemd tests -name '*.sh' -not -path '*/target/*') packaging/deb/postinst \
		packaging/deb/prerm packaging/deb/postrm
	systemd/verify.sh
	target/tools/bin/cargo-deny --locked check --hide-inclusion-graph licenses bans sources
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked $(LOAD) --target-dir target -- -D warnings
	cargo clippy --locked $(FUZZ) --target-dir target -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items

build: ## build the optimized binary, target/release/ssegate
	@scripts/need.sh build
	cargo build --locked --release

static: ## build a binary that needs no C library, target/<machine>-unknown-linux-musl/release/ssegate
	@scripts/need.sh static
	CC_$(subst -,_,$(MUSL))=musl-gcc cargo build --locked --release --target $(MUSL)

deb: ## make the Debian package, and one of its debug symbols, in target/debian
	@scripts/need.sh deb
	cargo build --locked --release
	scripts/deb.sh release --dbgsym $(DEB)

bench: ## measure ssegate beside other servers, an hour: make bench BENCH=--quick for a few minutes
	@scripts/need.sh bench
	cargo build --locked --release
	cargo build --locked --release $(LOAD) --target-dir target
	target/release/ssegate-load suite $(BENCH) --server target/release/ssegate --peer nchan,pushpin,mercure,centrifugo,nginx

clean: ## remove everything that was built, the tools in target/ included
	rm -rf target tests/load/target tests/fuzz/target tests/fuzz/artifacts

# What make static builds for: this machine, with musl instead of glibc.
MUSL := $(shell uname -m)-unknown-linux-musl

# How long make soak goes on.
SSEGATE_SOAK ?= 30m

# How many seconds make fuzz spends on each target.
SSEGATE_FUZZ ?= 60

# The load tool and the entries for libFuzzer are packages of their own, so that what they need never reaches the product.
LOAD := --manifest-path tests/load/Cargo.toml
FUZZ := --manifest-path tests/fuzz/Cargo.toml

# cargo right after rustup has installed it, in a shell that does not know of it yet.
export PATH := $(PATH):$(HOME)/.cargo/bin
