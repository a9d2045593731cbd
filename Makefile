# The two commands a newcomer needs: make demo, make test.
CARGO ?= cargo

.PHONY: demo test lint bench golden build faults chaos soak install packages deb wheel

demo:
	@scripts/setup demo
	@$(CARGO) test --quiet --locked --test demo

test:
	scripts/setup test
	CARGO="$(CARGO)" scripts/test

lint:
	scripts/setup lint
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	shellcheck -x scripts/setup scripts/test .ci/run packaging/deb packaging/wheel

bench:
	scripts/setup bench
	$(CARGO) build --release --locked
	benches/render
	benches/validate
	benches/diff
	benches/handover

# Runs the fault matrix and writes what was measured into docs/faults.md.
faults:
	scripts/setup test
	rm -rf target/faults
	RUNSMITH_FAULTS=$(CURDIR)/target/faults $(CARGO) test --locked --test faults --test faults_host --test faults_keeper --test faults_release -- --test-threads 2 --skip the_page
	RUNSMITH_FAULTS=$(CURDIR)/target/faults RUNSMITH_BLESS=1 $(CARGO) test --locked --test faults --test faults_host --test faults_keeper --test faults_release the_page

# Random operations on four services under load, half an hour on a quiet machine; what was measured is written into docs/chaos.md. Others with
# `make chaos CHAOS_SEED=7`; a failure prints the command that repeats it.
CHAOS_SEED ?= 1
CHAOS_STEPS ?= 1600
CHAOS_REQUESTS ?= 250000
# The older version that takes a turn when the binary is replaced. Versions before it refuse a run script with `hardening` and do not
# know its keeper: going back to one of them takes `sv down` (docs/runtime.md).
CHAOS_COMMIT ?= 7ba43a5
CHAOS_OLDER ?= $(CURDIR)/target/older/$(CHAOS_COMMIT)/debug/runsmith
chaos: $(CHAOS_OLDER)
	scripts/setup test
	rm -rf target/chaos
	CHAOS_OLDER=$(CHAOS_OLDER) RUNSMITH_CHAOS=$(CURDIR)/target/chaos CHAOS_SEED=$(CHAOS_SEED) CHAOS_STEPS=$(CHAOS_STEPS) CHAOS_REQUESTS=$(CHAOS_REQUESTS) $(CARGO) test --locked --test chaos every -- --nocapture
	RUNSMITH_CHAOS=$(CURDIR)/target/chaos RUNSMITH_BLESS=1 $(CARGO) test --locked --test chaos the_page

target/older/%/debug/runsmith $(CURDIR)/target/older/%/debug/runsmith:
	rm -rf target/older/$*
	mkdir -p target/older/$*/source
	git archive $* | tar -x -C target/older/$*/source
	cd target/older/$*/source && $(CARGO) build --locked --bin runsmith --target-dir ..

# The long runs, about half an hour: many hand-overs and requests, written into docs/soak.md.
soak:
	scripts/setup test
	rm -rf target/soak
	RUNSMITH_SOAK=$(CURDIR)/target/soak $(CARGO) test --locked --test sv upgrades_in_a_row
	RUNSMITH_SOAK=$(CURDIR)/target/soak $(CARGO) test --locked --test native_handover -- --test-threads 2 --skip the_page
	RUNSMITH_SOAK=$(CURDIR)/target/soak RUNSMITH_BLESS=1 $(CARGO) test --locked --test native_handover the_page

# Rewrites what the tests compare with; `git diff` is the review.
golden:
	RUNSMITH_BLESS=1 $(CARGO) test --locked --test golden --test schema --test readme --test dialects --test formats --test rules --test diff --test diff_formats --test machine

build:
	$(CARGO) build --release --locked

# What can be installed: docs/install.md. ROOT is where `make install` puts bin/runsmith; PACKAGES is where packages go.
ROOT ?= /usr/local
PACKAGES ?= target/packages
PROFILE ?= release
binary = target/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))/runsmith

install:
	$(CARGO) install --locked --profile $(PROFILE) --path . --root $(ROOT)

packages: deb wheel

deb:
	$(CARGO) build --locked --profile $(PROFILE)
	mkdir -p $(PACKAGES)
	packaging/deb $(binary) $(PACKAGES)

wheel:
	scripts/setup package
	mkdir -p $(PACKAGES)
	packaging/wheel $(PROFILE) $(PACKAGES)
