# Every target does all the set-up that it needs; set-up is quick when nothing is missing.
BUILD_TYPE ?= release
BUILD_DIR  := build/$(BUILD_TYPE)
NDPIPE     := $(BUILD_DIR)/ndpipe

.PHONY: help build demo test bench format lint setup clean

help:
	@echo "make demo    the whole life of a photo store on this machine, with generated photos"
	@echo "make test    build and run every test"
	@echo "make build   leaves the program in $(NDPIPE)"
	@echo "make bench   the benchmarks, one JSON line a figure; BENCH_PHOTOS=FOLDER: of your own photos"
	@echo "make format  formats the source; make lint checks format, clang-tidy and include direction"
	@echo "BUILD_TYPE=dev|release|asan|tsan chooses the preset; PIP_INDEX_URL points pip at another index"

setup:
	@tools/setup/setup.sh

build: setup
	@tools/setup/build.sh $(BUILD_TYPE)

demo: build
	@$(NDPIPE) demo $(DEMO_FLAGS)

test: build
	@tools/run_tests.sh $(BUILD_DIR)

bench: build
	@tools/run_bench.sh $(BUILD_DIR) $(BENCH_PHOTOS)

format: setup
	@tools/format.sh

lint: setup
	@tools/lint.sh $(BUILD_TYPE)

clean:
	rm -rf build
