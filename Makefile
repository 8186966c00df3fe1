# embedd: two commands to start with.
#
#   make demo    on a bare Debian machine: set everything up, embed some thousand rows, ask questions
#   make test    every ring of tests
#
# The other targets follow PGXS: make install PG_CONFIG=.., make model PG_CONFIG=..; make help lists them.

EMBEDD_CACHE ?= $(HOME)/.cache/embedd
EMBEDD_DEMO_DIR ?= /var/tmp/embedd-demo
CARGO_TARGET_DIR ?= $(EMBEDD_CACHE)/target
TOOLS = $(EMBEDD_CACHE)/tools

# The newest server on the machine. Evaluated on use, because `make setup` may have just installed it.
PG_CONFIG ?= $(shell ls -d /usr/lib/postgresql/*/bin/postgres 2>/dev/null | sort -V | tail -n 1 | sed 's/postgres$$/pg_config/')
PG_MAJOR = $(shell $(PG_CONFIG) --version | sed 's/^PostgreSQL \([0-9]*\).*/\1/')

# One profile and one way to name the PostgreSQL for every command below, so that dependencies compile once.
# cargo pgrx names the features in just this way.
FEATURES = --no-default-features --features pg$(PG_MAJOR)
CARGO_TEST = cargo test --locked --release $(FEATURES)
# Packages that link nothing of PostgreSQL: one build serves every version.
CARGO_TEST_OUTSIDE = cargo test --locked --release

# Without write access to the share directory, the install uses sudo (pgrx's --sudo).
INSTALL_FLAGS = $(if $(shell test -w "`$(PG_CONFIG) --sharedir`" && echo yes),,--sudo)

# A variable without the word MAKE in the recipes, so that make -n prints these lines and runs nothing.
AGAIN = $(MAKE) --no-print-directory

export PG_CONFIG EMBEDD_CACHE EMBEDD_DEMO_DIR CARGO_TARGET_DIR TEST
export PGRX_PG_CONFIG_PATH = $(PG_CONFIG)
# The flags of cargo pgrx's own builds; other builds need the same, or everything is compiled twice.
# With it set, pgrx puts backtraces into the DETAIL of errors.
unexport RUST_BACKTRACE
export RUSTFLAGS = -C link-arg=-Wl,--no-gc-sections
export PATH := $(TOOLS)/bin:$(PATH)

.PHONY: help setup servers install embedder model demo clean-demo test test-all test-pure test-backend test-golden test-outside \
	test-examples examples \
	installcheck soak bench lint deny
.NOTPARALLEL:
.DEFAULT_GOAL := help

help:
	@echo 'make demo          set up a bare machine, embed the package catalogue, run queries'
	@echo 'make clean-demo    stop the demo server and remove it'
	@echo 'make test          every ring of tests; TEST=name in one of these runs some:'
	@echo '  test-pure        logic without PostgreSQL'
	@echo '  test-backend     inside a PostgreSQL backend'
	@echo '  test-golden      the SQL surface, word for word (EMBEDD_GOLDEN_ACCEPT=1 accepts the output)'
	@echo '  test-outside     real clusters, driven from outside'
	@echo '  test-examples    the programs in examples/, with drivers and frameworks'
	@echo 'make test-all      every ring on PostgreSQL 15, 16, 17 and 18; make servers builds the servers'
	@echo 'make installcheck  the golden ring, as in PGXS'
	@echo 'make soak          random writers, kills and crashes for a long time (EMBEDD_CHAOS_SEED, _EVENTS, _KILLS)'
	@echo 'make bench         the measured promises; TEST=name for one'
	@echo 'make lint          formatting, spelling, clippy, imports between rooms; warnings are errors'
	@echo 'make deny          licences, sources and duplicates of dependencies'
	@echo 'make setup         install missing packages, pgvector and cargo-pgrx'
	@echo 'make install       build the extension and install it into PG_CONFIG'"'"'s PostgreSQL'
	@echo 'make model         fetch the local model into that PostgreSQL'"'"'s share directory'
	@echo 'PG_CONFIG is $(PG_CONFIG), EMBEDD_CACHE is $(EMBEDD_CACHE)'

setup:
	@.ci/setup

model:
	@.ci/model

# The extension has a target directory for each version of PostgreSQL; other packages are built once.
EXTENSION_TARGET = $(CARGO_TARGET_DIR)/pg$(PG_MAJOR)
FOR_EXTENSION = CARGO_TARGET_DIR="$(EXTENSION_TARGET)"

# The embedder is the same program for every version of PostgreSQL, installed next to the library.
EMBEDDER = $(CARGO_TARGET_DIR)/release/embedd-embedder
AS_INSTALLER = $(if $(INSTALL_FLAGS),sudo,)

install: embedder
	$(FOR_EXTENSION) cargo pgrx install --release --pg-config "$(PG_CONFIG)" $(FEATURES) $(INSTALL_FLAGS)
	$(AS_INSTALLER) install -m 755 "$(EMBEDDER)" "$$($(PG_CONFIG) --pkglibdir)/embedd-embedder.new"
	$(AS_INSTALLER) mv -f "$$($(PG_CONFIG) --pkglibdir)/embedd-embedder.new" "$$($(PG_CONFIG) --pkglibdir)/embedd-embedder"

embedder:
	cargo build --locked --release --package embedd-embedder

demo: setup install model
	@tests/demo.sh

clean-demo:
	@tests/demo.sh clean

# Test servers in addition to the machine's own; make servers builds them once.
SERVERS = $(or $(EMBEDD_SERVERS),/var/cache/embedd/servers)
ON = PG_CONFIG=$(SERVERS)/$(1)/bin/pg_config

servers:
	@.ci/setup servers

# Server 16 comes from a Python wheel without contrib, so tests with postgres_fdw are left out.
ON_16 = TEST="crash:: standby:: transactions:: embedder::life embedder::starts"

# All tests on every version of PostgreSQL, as far as its server supports them.
test-all: test servers
	$(AGAIN) test-backend $(call ON,16) TEST=
	$(AGAIN) test-golden $(call ON,16) TEST=
	$(AGAIN) test-outside $(call ON,16) $(ON_16)
	for version in 17 18; do \
		$(AGAIN) test-backend test-golden test-outside PG_CONFIG=$(SERVERS)/$$version/bin/pg_config || exit; \
	done

# As in PGXS: the golden ring against the server that PG_CONFIG names.
installcheck: test-golden

test: setup test-pure test-backend test-golden test-outside test-examples

# The model's directory, for the test that compares it with the reference.
MODEL_DIR = $(shell $(PG_CONFIG) --sharedir)/embedd/all-MiniLM-L6-v2

test-pure: model
	$(FOR_EXTENSION) $(CARGO_TEST) --lib -- $(TEST)
	EMBEDD_MODEL_DIR="$(MODEL_DIR)" $(CARGO_TEST_OUTSIDE) --package embedd-wire --package embedd-embedder --lib -- $(TEST)
	$(CARGO_TEST_OUTSIDE) --package embedd-tests --test docs --test rooms -- $(TEST)

# pgrx installs its own build, which contains the tests, and runs it in a cluster of the postgres user. The plain build is
# installed again afterwards, whatever the outcome.
test-backend:
	status=0; \
	$(FOR_EXTENSION) CARGO_PGRX="$(TOOLS)/bin/cargo-pgrx" CARGO_PGRX_TEST_RUNAS=postgres CARGO_PGRX_TEST_PGDATA=/tmp/embedd-backend-$(PG_MAJOR) \
	PGRX_BUILD_PROFILE=release PGRX_FEATURES="pg_test pg$(PG_MAJOR)" PGRX_NO_DEFAULT_FEATURES=true \
	$(CARGO_TEST) --features pg_test --lib -- $(or $(TEST),pg_test::) || status=$$?; \
	$(AGAIN) install || status=$$?; \
	exit $$status

test-golden: install
	$(CARGO_TEST_OUTSIDE) --package embedd-tests --test golden -- --nocapture

# Takes some minutes; a test that hangs is reported after one. TEST=crash:: runs one module.
test-outside: install
	timeout 45m $(CARGO_TEST_OUTSIDE) --package embedd-tests --test outside -- $(TEST)

# What the examples need: drivers and frameworks of Python, Node and Java.
examples:
	@.ci/setup examples

test-examples: install model examples
	EMBEDD_EXAMPLES="$(TOOLS)/examples" $(CARGO_TEST_OUTSIDE) --package embedd-tests --test examples -- $(TEST)

soak: install
	$(CARGO_TEST_OUTSIDE) --package embedd-tests --test outside -- --ignored --nocapture chaos::a_long_run swap::reuse::a_long_load

# TEST=local_model and TEST=overtaking test the embedder alone; the others use clusters.
bench: install model
	EMBEDD_MODEL_DIR="$(MODEL_DIR)" cargo bench --locked --package $(if $(filter local_model overtaking,$(TEST)),embedd-embedder,embedd-tests) --bench '$(or $(TEST),*)'

# Forbidden dependencies: PostgreSQL in the embedder, network libraries in the extension.
TREE = cargo tree --locked --edges normal --prefix none

lint:
	cargo fmt --all --check
	@.ci/setup typos
	typos
	$(FOR_EXTENSION) cargo clippy --locked --release $(FEATURES) --features pg_test --all-targets -- -D warnings
	cargo clippy --locked --release --package embedd-wire --package embedd-embedder --package embedd-tests --all-targets -- -D warnings
	$(CARGO_TEST_OUTSIDE) --package embedd-tests --test rooms
	tree="$$($(TREE) --package embedd-embedder)" && ! echo "$$tree" | grep -E '^pgrx'
	tree="$$($(TREE) --package embedd $(FEATURES))" && ! echo "$$tree" | grep -E '^(tokio|reqwest|hyper|rustls|bpe|unicode-normalization)'

# Apart from lint, since its tool takes minutes to build. The database of advisories is left out: it is fetched over the network.
deny:
	@.ci/setup deny
	cargo deny --locked check licenses bans sources
