# make run       install what is missing, build, make a demo issuer in var/, serve it
# make test      everything: format, lints, docs, unit and integration tests against a real HSM
# make test-hsm  one suite on SoftHSM, p11-kit, NSS softokn, kryoptic and a TPM; MODULES=nss for some
# make torture   the long runs: many more crashes, schedules and mutations; ten million hostile inputs
# make bench     criterion groups, then one report of all measurements in target/bench-report/
# make loadtest  k6 over HTTP, then the native client
# make cluster   two nodes over a private PostgreSQL, behind haproxy, under k6
# make help      this

CARGO ?= cargo
DIR ?= var
FOB := target/release/fob
PYTHON := .venv/bin/python
PYTHON_STATUS := .venv-status/bin/python
TEST_PACKAGES := softhsm2 p11-kit p11-kit-modules opensc libnss3 libnss3-tools curl gcc python3-venv postgresql openssl
# The suite of modules as `make test` runs it: those that are installed in a moment.
QUICK_MODULES := softhsm,p11-kit,nss
MODULES := softhsm,p11-kit,nss,kryoptic,tpm2-pkcs11

.PHONY: help run release deps test test-hsm modules lint docs unit deny torture hostile bench load-client loadtest cluster \
  clean

help:
	@sed -n 's/^# //p' Makefile

# ---- run -----------------------------------------------------------------------------------

run: release
	@[ -f $(DIR)/fob.toml ] || $(FOB) init --demo --dir $(DIR)
	@scripts/try $(FOB) $(DIR)
	@exec $(FOB) serve --dir $(DIR)

release: deps
	$(CARGO) build --release --locked

# Only what is missing, and only where there is a package manager that knows these names.
deps:
	@scripts/install $(TEST_PACKAGES)

# ---- test ----------------------------------------------------------------------------------

test: deps lint docs deny $(PYTHON) $(PYTHON_STATUS) unit modules

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features --locked -- -D warnings
	$(CARGO) build --package fob-verify --no-default-features --locked

docs:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked

# Licences, bans and sources; advisories where their database can be reached.
deny:
	@if command -v cargo-deny >/dev/null; then cargo deny --locked check bans licenses sources; \
	else echo "cargo-deny is not installed: licences, bans and sources were not checked"; fi

unit: export FOB_PYTHON = $(CURDIR)/$(PYTHON)
unit: export FOB_PYTHON_STATUS = $(CURDIR)/$(PYTHON_STATUS)
unit:
	@if command -v cargo-nextest >/dev/null; then \
	  $(CARGO) nextest run --workspace --all-features --locked --no-fail-fast && \
	  $(CARGO) test --workspace --all-features --locked --doc; \
	else $(CARGO) test --workspace --all-features --locked; fi

# What is the same on every PKCS#11 module, on some of them.
modules: unit
	@scripts/test-hsm --modules $(QUICK_MODULES)

# The same on all of them. HSM='--rates target/release/fob' measures them too, HSM=--json tells it all.
test-hsm:
	@scripts/test-hsm --modules $(MODULES) $(HSM)

# The independent client's libraries, in an environment of their own.
$(PYTHON): tests/client/requirements.txt
	@scripts/venv .venv tests/client/requirements.txt

# Readers of status lists by others.
$(PYTHON_STATUS): tests/client/status-requirements.txt
	@scripts/venv .venv-status tests/client/status-requirements.txt

torture: export FOB_CRASHES = 200
torture: export FOB_OUTAGES = 20
torture: export FOB_DRILL_KEYS = 100000
torture: export FOB_SCHEDULES = 20000
torture: export PROPTEST_CASES = 20000
torture: test hostile

# What is thrown at a car, in an optimized build: about three minutes on two cores.
hostile:
	FOB_HOSTILE=10000000 FOB_HOSTILE_SEED=1 $(CARGO) test --release --locked \
	  --package fob-verify --all-features --test suite -- hostile:: mutations::

# ---- measure -------------------------------------------------------------------------------

# Everything there is to measure. BENCH takes the options of loadtest/report: BENCH=--quick needs a
# minute and leaves out the criterion groups; BENCH='--limit "BINARY ARGUMENTS"' adds a yardstick.
bench: release load-client
ifeq ($(findstring --quick,$(BENCH)),)
	$(CARGO) bench --locked --bench stages
endif
	.venv-loadtest/bin/python loadtest/report $(BENCH)

loadtest: release load-client
	loadtest/run smoke
	loadtest/run redeem
	loadtest/run redeem --native

# Everything it starts is on loopback, and ended. RATE, DURATION as for loadtest/run.
cluster: release load-client
	@scripts/install postgresql haproxy
	loadtest/run redeem --cluster
	loadtest/run fleet-burst --cluster

load-client:
	$(CARGO) build --release --locked --package fob-load
	@scripts/venv .venv-loadtest loadtest/requirements.txt

clean:
	$(CARGO) clean
	rm -rf .venv .venv-status .venv-loadtest
