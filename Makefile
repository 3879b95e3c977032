# A thin front to CMake. `make test` and `make demo` install what is missing from Debian first.
PREFIX ?= /usr/local
JOBS ?= $(shell nproc)
TORCH ?= python3

.PHONY: all .deps .dev demo bench bench-calibrate test peers install fuzz format tidy docs recognition sweep converge stream clean

all: .deps
	cmake --preset release
	cmake --build --preset release -j $(JOBS)

.deps:
	@sh cmake/deps.sh

demo: all
	build/release/bench/demo corpus/lm/softmax.onnx corpus/lm/train.npy corpus/lm/valid.npy corpus/lm/tokenizer.txt build/demo

# linnet beside ONNX Runtime and, of exact rewrites, onnxsim, which are installed from PyPI into the build folder, and training beside PyTorch, where
# TORCH=PYTHON has it. MODELS=FOLDER: whose five largest models are run. BENCH=OPTIONS: of bench/bench.py, as `--only linear --full --page docs/speed.md`.
bench: all
	python3 tests/peers/run.py build/bench/venv bench/bench.py build/release/linnet build/release/liblinnet.so build/bench corpus \
		$(if $(MODELS),--models $(MODELS)) $(BENCH)
	python3 tests/peers/run.py build/bench/venv bench/simplify.py build/release/linnet build/bench --page docs/speed.md
	$(TORCH) bench/train.py build/release/linnet corpus/lm/softmax.onnx corpus/lm/valid.npy build/bench || test $$? = 77

# What calibration gains, by recipe (language model), by mechanism and pairs (recall) and on digits, into docs/calibration.md; hours. CALIBRATE, RECALL: options.
bench-calibrate: all
	python3 bench/calibrate.py build/release/linnet corpus build/calibrate docs $(CALIBRATE)
	python3 tests/peers/run.py build/bench/venv bench/recall.py build/release/linnet corpus build/calibrate docs $(RECALL)
	python3 bench/digits.py build/release/linnet corpus build/calibrate --docs docs

.dev: .deps
	cmake --preset dev -DLINNET_WERROR=$(if $(CI),ON,OFF)
	cmake --build --preset dev -j $(JOBS)

test: .dev
	ctest --preset dev -j $(JOBS) -LE '^long$$'

# The rest: every operator and many conversions against ONNX Runtime and the reference evaluator, some minutes.
peers: .dev
	ctest --preset dev -L '^long$$'

# A thousand steps and streams of ten million tokens, a minute.
stream: all
	build/release/tests/test_stream long

install: all
	cmake --install build/release --prefix $(PREFIX)

fuzz: .deps
	cmake --preset fuzz
	cmake --build --preset fuzz -j $(JOBS)
	ctest --preset fuzz

# The pages that the program prints.
docs: all
	build/release/linnet ops --markdown > docs/ops.md
	build/release/linnet passes --markdown > docs/passes.md
	build/release/linnet why --list --markdown > docs/why.md
	build/release/linnet help --markdown > docs/cli.md
	build/release/linnet show --svg docs/blocks.svg corpus/lm/softmax.onnx
	build/release/linnet test --quiet --conformance build/release/corpus/nodes > docs/conformance.md

# What is recognised in a folder of models with truth.json, into docs/recognition.md.
recognition: all
	tests/recognition.py build/release/linnet $(MODELS) docs/recognition.md

# Every mechanism and target on corpus/lm and on a folder of models, held to the official checker, onnxruntime and the reference evaluator, into
# docs/attention.md; hours. What was done is not done again. SWEEP: options.
sweep: all
	python3 tests/peers/run.py build/release/peers/venv tests/peers/sweep.py build/release/linnet build/sweep corpus/lm $(or $(MODELS),corpus/models) \
		--page docs/attention.md $(SWEEP)

# How fast favor and taylor become softmax, into docs/attention.md, favor.svg and taylor.svg.
converge: all
	build/release/bench/converge docs > build/converge.md
	python3 bench/page.py docs/attention.md converge < build/converge.md

format:
	git ls-files '*.c' '*.h' | xargs clang-format -i

tidy: all
	git ls-files '*.c' | grep -v '^tests/' | xargs clang-tidy -p build/release --quiet

clean:
	rm -rf build
