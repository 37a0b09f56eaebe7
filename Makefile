# make report: the notebooks, executed and exported to notebooks/html/. `make help` lists the rest.
#
# What is stale is told by files outside git, so that the timestamps of a fresh clone mean nothing:
# .stamps/ says what was done, notebooks/html/ holds what came of it.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.SUFFIXES:

ifneq ($(shell test -w . && echo yes),yes)
ifneq ($(or $(MAKECMDGOALS),help),help)
$(error This folder is read-only: $(CURDIR). What is compiled, the environment and the report are written into it: \
copy it to a place where you may write)
endif
endif

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
REPORT := PYTHONPATH=tools $(RUN) -m report
SOURCE := notebooks
HTML := notebooks/html
EVCXR_VERSION := 0.22.0

NOTEBOOKS := $(sort $(wildcard $(SOURCE)/*.ipynb))
NAMES := $(basename $(notdir $(NOTEBOOKS)))
EXECUTED := $(NAMES:%=$(HTML)/%.ipynb)
# What notebooks read of the record; none reads what `make corpora-test` measures.
RECORD := $(filter-out %/embeddings.csv %/sift.csv,$(wildcard data/results/*.csv))
PAGES := $(NAMES:%=$(HTML)/%.html)

CRATE := Cargo.toml Cargo.lock build.rs .cargo/config.toml $(filter-out src/bin/%,$(shell find src -type f))
RUNNER := tools/kernel.py $(addprefix tools/report/,execute.py check.py files.py) tools/evcxr/prelude.rs
EXPORTER := $(addprefix tools/report/,export.py files.py) $(shell find tools/template -type f)

# What a notebook reads from the environment: `K=7 make report` executes again with k = 7.
PARAMETERS := K N_QUERIES METRIC TRAIN_IMAGES EPOCHS INDEX SEARCH RECALL FASHION_MNIST_DIR
ifdef FASHION_MNIST_DIR
# A notebook runs in notebooks/: a relative path would mean another folder there.
override FASHION_MNIST_DIR := $(if $(filter /%,$(firstword $(FASHION_MNIST_DIR))),,$(CURDIR)/)$(FASHION_MNIST_DIR)
endif
export $(PARAMETERS)

# evcxr compiles cells with these flags, for a named target. With the same ones here the tests and the
# notebooks compile each dependency once. Plain cargo has neither.
export RUSTFLAGS := -Cprefer-dynamic
export CARGO_BUILD_TARGET := $(shell rustc --print host-tuple 2>/dev/null)
unexport CARGO_ENCODED_RUSTFLAGS
# The profile of the tests: the crate with overflow checks. `fetch` takes it too, so that it needs no
# other build of the library.
FETCH := cargo run --quiet --profile test --bin fetch

# Jupyter's own files stay in the checkout; a user's settings are read, not written.
export JUPYTER_RUNTIME_DIR := $(CURDIR)/.stamps/jupyter/runtime
export JUPYTERLAB_WORKSPACES_DIR := $(CURDIR)/.stamps/jupyter/workspaces

SAY = @printf '%s\n'

.PHONY: help
help:
	@echo 'make report     execute the notebooks and export them to $(HTML)/'
	@echo '                (the first time some forty minutes on two cores, then what has changed)'
	@echo '                K=7 make report sets a parameter: $(PARAMETERS)'
	@echo 'make lab        open the notebooks in JupyterLab'
	@echo 'make publish    put the executed outputs into the notebooks in git'
	@echo 'make measure    measure every index again, into data/results (half an hour; leave the machine alone)'
	@echo 'make peers      the same for the real libraries from PyPI, in turns with ours (more than an hour)'
	@echo 'make peers-sift  the libraries over a million SIFT descriptors, the handout'\''s table (hours; needs make sift)'
	@echo 'make learning   accuracy against the number of images, three seeds each, into data/results (hours)'
	@echo 'make corpora    real embeddings and SIFT descriptors, out of Debian packages (Debian only; a quarter of an hour)'
	@echo 'make corpora-test  every index at its defaults over all of both (half an hour)'
	@echo 'make sift       a million SIFT descriptors: SIFT1M (SIFT_DIR, or fetched), else of pictures as those'
	@echo '                (ten minutes at most); make measure-sift: every index on them, for Apartat D (an hour)'
	@echo 'make test-rust  formatting, lints, documentation, tests of the crate: needs no Python, no Jupyter'
	@echo '                (20 minutes the first time, then 5 to 10)'
	@echo 'make test       the same and the tests of the report (3 minutes more after make report)'
	@echo 'make test-notebooks  only what must hold of the notebooks as they are in git (half a minute)'
	@echo 'make browser    the tests in a browser: JupyterLab, the exported pages, every other way in (10 minutes)'
	@echo 'make cluster-demo  the same search on Apache Ballista: scheduler and two executors on this machine'
	@echo '                (20 to 30 minutes to compile the first time, then half a minute)'
	@echo 'make test-cluster  its tests, with executors that are killed (half an hour)'
	@echo 'make clean      remove the report; make distclean: the environment, what is compiled and the data too'

.PHONY: report
report: $(HTML)/index.html
	$(SAY) 'The report: $(HTML)/index.html'

$(HTML)/index.html: $(PAGES) $(EXPORTER)
	@$(REPORT) index $@ $(EXECUTED)

$(PAGES): %.html: %.ipynb $(EXPORTER)
	@$(REPORT) export $< $@

# A notebook with a broken cell gives nothing: the last good one, and its page, stay.
$(EXECUTED): $(HTML)/%.ipynb: $(SOURCE)/%.ipynb .stamps/kernel .stamps/build .stamps/data $(HTML)/.parameters $(RECORD) $(RUNNER)
	$(SAY) 'Executing $<: two to five minutes, more where a net is learned'
	@$(REPORT) execute $< $@

# Rewritten only when a parameter is not what it was: then every notebook is stale.
$(HTML)/.parameters: ALWAYS
	@mkdir -p $(HTML)
	@{ $(foreach name,$(PARAMETERS),printf '%s=%s\n' $(name) "$$$(name)";) } > $@.new
	@if cmp -s $@.new $@; then rm -f $@.new; else mv $@.new $@; fi

.PHONY: ALWAYS
ALWAYS:

# Stands for "nothing in the way of a notebook has changed since the crate was compiled for it".
.stamps/build: $(CRATE) .stamps/venv tools/kernel.py
	$(SAY) 'Compiling the crate for the notebooks: 5 to 8 minutes the first time, then one or two'
	@$(RUN) tools/kernel.py build
	@touch $@

.stamps/data:
	$(SAY) 'Looking for Fashion-MNIST (30 MB where it must be fetched)'
	@mkdir -p .stamps
	@$(FETCH)
	@touch $@

.stamps/venv: tools/requirements.txt
	@mkdir -p .stamps
	$(SAY) 'Installing Jupyter into $(VENV): about a minute'
	@$(RUN) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check --requirement tools/requirements.txt
	@touch $@

# evcxr_jupyter from the PATH where cargo notes there that it is of this version, else built into .tools.
EVCXR_NOTED := grep -qs '"evcxr_jupyter $(EVCXR_VERSION) '
.stamps/kernel: .stamps/venv tools/kernel.py
	@evcxr=`command -v evcxr_jupyter`; \
	if ! $(EVCXR_NOTED) "`dirname "$$evcxr"`/../.crates.toml"; then \
		evcxr='$(CURDIR)/.tools/bin/evcxr_jupyter'; \
		if ! $(EVCXR_NOTED) .tools/.crates.toml; then \
			echo 'Compiling evcxr_jupyter $(EVCXR_VERSION), the Rust kernel, into .tools: 5 to 10 minutes'; \
			(cd / && env -u RUSTFLAGS -u CARGO_BUILD_TARGET \
				cargo install --locked evcxr_jupyter --version $(EVCXR_VERSION) --root '$(CURDIR)/.tools') || exit 1; \
		fi; \
	fi; \
	$(RUN) tools/kernel.py install "$$evcxr"
	@touch $@

.PHONY: lab
lab: .stamps/kernel .stamps/build .stamps/data
	@$(VENV)/bin/jupyter lab --notebook-dir=notebooks

.PHONY: publish
publish: report
	@$(REPORT) publish $(HTML) $(NOTEBOOKS)
	$(SAY) 'The outputs are in the notebooks: git diff --stat notebooks'

.PHONY: measure peers peers-sift learning
measure:
	$(SAY) 'Measuring every index into data/results: half an hour. Leave the machine alone meanwhile'
	@tools/measure.sh
peers:
	$(SAY) 'Measuring the real libraries, in turns with ours, into data/results: more than an hour'
	@tools/measure.sh peers
peers-sift:
	$(SAY) 'Measuring the libraries over a million descriptors, into data/results/sift-1m.csv: hours, the first time'
	@tools/measure.sh sift_peers

# What is in the record stays: remove data/results/learning.csv to measure everything again.
learning: .stamps/data
	$(SAY) 'Learning curves into data/results/learning.csv: an hour or two, in parts if need be'
	@env -u RUSTFLAGS -u CARGO_BUILD_TARGET CANDLE_NUM_THREADS=1 \
		cargo run --quiet --release --no-default-features --features cli,net --bin learning

# More data to develop on than Fashion-MNIST: docs/measurements.md.
.PHONY: corpora corpora-test
corpora:
	@tools/corpora/make.sh
corpora-test: corpora
	@tools/corpora/test.sh

# The handout's table: a million descriptors, and what is measured on them.
.PHONY: sift measure-sift
sift:
	@tools/corpora/make.sh sift-1m
measure-sift: sift
	$(SAY) 'Measuring our indexes on a million descriptors, into data/results: an hour. Leave the machine alone'
	@tools/measure.sh sift

# nextest where it is installed: it runs the tests of several programs at once.
NEXTEST = $(shell cargo nextest --version 2>/dev/null)
TEST = $(if $(NEXTEST),cargo nextest run,cargo test)
WITH_DATA = $(if $(NEXTEST),--run-ignored all,-- --include-ignored)

# What the tests have used so far is the best level. AVX2 is another one where there is more than that.
OTHER_LEVELS = portable $(shell grep -qs avx512_vnni /proc/cpuinfo && echo avx2)

.PHONY: test-rust
test-rust: .stamps/data
	$(SAY) 'Formatting, lints, documentation: 3 to 5 minutes the first time'
	cargo fmt --check
	@# Characters, not bytes: hence the locale.
	! git ls-files '*.rs' | LC_ALL=C.UTF-8 xargs grep --line-number --extended-regexp '.{101}'
	cargo clippy --quiet --all-targets -- -D warnings
	cargo clippy --quiet --no-default-features -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --quiet --no-deps
	$(SAY) 'Tests of the crate, with the data set: 3 to 6 minutes'
	$(TEST) $(WITH_DATA)
	cargo test --doc
	$(SAY) 'Kernels and conformance at the other levels of SIMD; the crate without its default features: 3 to 5 minutes'
	for level in $(OTHER_LEVELS); do \
		FASHION_KNN_SIMD=$$level $(TEST) --lib simd:: && \
		FASHION_KNN_SIMD=$$level $(TEST) --test conformance --test metrics || exit 1; done
	$(TEST) --no-default-features

# What must hold of the notebooks in git, without executing them: their code reads as a lesson, and the
# outputs in them are those of the cells and the records as they stand.
.PHONY: test-notebooks
test-notebooks: .stamps/venv
	@$(REPORT) style $(NOTEBOOKS)
	@$(REPORT) published $(NOTEBOOKS)

.PHONY: test
test: test-rust test-notebooks .stamps/kernel .stamps/build
	$(SAY) 'Tests of the report, with failures planted in real notebooks: 2 minutes'
	$(RUN) -m pytest --quiet tools/tests

# What judges the pages comes from npm, in the versions of tests/browser/package-lock.json.
NPM := .tools/npm
.stamps/npm: tests/browser/package.json tests/browser/package-lock.json
	$(SAY) 'Installing axe-core and html-validate into $(NPM)'
	@command -v npm >/dev/null || { echo 'make browser needs Node.js and npm (Debian: nodejs, npm)' >&2; exit 1; }
	@mkdir -p .stamps $(NPM)
	@cp $^ $(NPM)
	@cd $(NPM) && npm ci --ignore-scripts --no-audit --no-fund --silent
	@touch $@

.PHONY: browser
browser: report .stamps/npm
	$(RUN) -m pytest --quiet tests/browser

# The cluster is a crate of its own. Its build is too long for every landing: `make test` leaves it out.
CLUSTER := env -u RUSTFLAGS -u CARGO_BUILD_TARGET cargo
.PHONY: cluster-demo test-cluster
cluster-demo:
	$(SAY) 'Compiling knn-cluster: 20 to 30 minutes the first time'
	cd cluster && $(CLUSTER) build --quiet --release --locked
	@cluster/demo.sh cluster/target/release/knn-cluster

# One test at a time: each of them starts clusters, and kills them.
test-cluster: .stamps/s3
	cd cluster && $(CLUSTER) fmt --check
	cd cluster && $(CLUSTER) clippy --quiet --release --locked --all-targets -- -D warnings
	cd cluster && RUSTDOCFLAGS='-D warnings' $(CLUSTER) doc --quiet --release --locked --no-deps
	cd cluster && PATH="$(CURDIR)/.tools/s3/bin:$$PATH" \
		$(CLUSTER) test --release --locked -- --nocapture --test-threads=1

# A server that speaks S3, for the tests of object stores.
.stamps/s3: cluster/tests/requirements.txt
	@mkdir -p .stamps
	$(SAY) 'Installing a small S3 server into .tools/s3'
	@$(PYTHON) -m venv --clear .tools/s3
	@.tools/s3/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

.PHONY: clean distclean
clean:
	$(PYTHON) tools/kernel.py clean
	rm -rf $(HTML) .stamps
distclean: clean
	rm -rf $(VENV) .venv-peers .venv-corpora .tools target cluster/target data/fashion-mnist data/cache
