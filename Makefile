# Everything a contributor types. Needs Go and make; what else a target wants
# (golangci-lint and its kin) is pinned in tools/go.mod and built on first use.

GO        ?= go
TOOL      := $(GO) tool -modfile=tools/go.mod
FUZZTIME  ?= 5s
TIMEOUT   ?= 10m
IMAGE     ?= workerd:dev
BENCH     ?= .
BENCHTIME ?= 1s
COUNT     ?= 1
SIM_JOBS  ?= 965000

# The race detector needs a C compiler; without one the tests run without it.
RACE := $(shell [ "$$($(GO) env CGO_ENABLED 2>/dev/null)" = 1 ] && echo -race)
GOTEST = $(GO) test $(RACE) -shuffle=on -timeout=$(TIMEOUT)

.DEFAULT_GOAL := help
.PHONY: help demo test check fmt fmt-check vet staticcheck lint mod-check docs docs-check race-check \
	test-fresh test-least fuzz stress sim memory-test mutants chaos chaos-full bench trouble build image image-test clean

help: ## Print this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# exec, so that a signal to make reaches workerd and it drains.
demo: build ## Run workerd with an embedded broker, a test downstream and some load
	@exec bin/workerd dev

test: vet race-check ## Vet and run the tests (race detector, random order)
	$(GOTEST) ./...

check: fmt-check vet mod-check staticcheck lint docs-check test-fresh fuzz ## All that must hold before a push; SKIP_TESTS=1 if `make test` has just run

fmt: ## Format all Go files
	@$(TOOL) gofumpt -w .

fmt-check:
	@echo "gofumpt -l ."; out=$$($(TOOL) gofumpt -l .); [ -z "$$out" ] || { echo "$$out"; echo "not formatted; run: make fmt"; exit 1; }

vet:
	$(GO) vet ./...

staticcheck:
	$(TOOL) staticcheck ./...

lint: ## golangci-lint with the house rules (the first run builds it: some minutes)
	$(TOOL) golangci-lint run ./...

mod-check:
	$(GO) mod tidy -diff
	$(GO) mod verify

docs: ## Generate the reference pages from the comments of the Config structs
	@mkdir -p bin && $(GO) run ./internal/config/gen >bin/config.md && mv bin/config.md docs/config.md

# Compares before with after, so that pages being edited do no harm.
PAGES = git ls-files -co --exclude-standard -z -- '*.md' '*.json' '*.yaml' | xargs -0 cksum 2>/dev/null
docs-check:
	@if git rev-parse --git-dir >/dev/null 2>&1; then \
		before=$$($(PAGES)); $(MAKE) --no-print-directory docs || exit 1; after=$$($(PAGES)); \
		[ "$$before" = "$$after" ] || { git --no-pager diff --stat; echo "generated pages were out of date; commit what make docs has written"; exit 1; }; \
	else echo "docs-check: SKIPPED, not a git checkout"; fi

race-check:
	@[ -n "$(RACE)" ] || echo "NOTE: no C compiler found, so the tests run WITHOUT the race detector"

test-fresh: race-check
ifeq ($(SKIP_TESTS),1)
	@echo "tests: skipped by SKIP_TESTS=1"
else
	$(GOTEST) -count=1 ./...
endif

# Up to Go 1.26 a fuzz run now and then ends with a bare "context deadline
# exceeded" when its time is up (go.dev/issue/75804): that, and only that, is
# tried once more. A real finding always writes the failing input.
fuzz: ## Fuzz each target for FUZZTIME=5s
	@mkdir -p bin; grep -rl --include='*_test.go' '^func Fuzz' . | sort | while read -r file; do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$$file"); do \
			fuzz() { $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$(dirname "$$file")" >bin/fuzz.log 2>&1; }; \
			echo "fuzz $$target ($$(dirname "$$file")) $(FUZZTIME)"; \
			fuzz || { grep -q 'context deadline exceeded' bin/fuzz.log && ! grep -q 'Failing input' bin/fuzz.log && echo "  again: go.dev/issue/75804" && fuzz; } \
				|| { cat bin/fuzz.log; exit 1; }; \
			grep 'elapsed' bin/fuzz.log | tail -n 1; \
		done; \
	done

test-least: race-check ## The end-to-end tests as the NATS user that workerd nats-permissions describes
	WORKERD_E2E_LEAST=1 $(GOTEST) -count=1 ./test/e2e

stress: race-check ## Run the tests three times, in three orders
	$(GOTEST) -count=3 ./...

bench: ## Run the benchmarks: BENCH=pattern BENCHTIME=1s COUNT=1
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -benchtime $(BENCHTIME) -count $(COUNT) ./...
	@if [ -f test/bench/main.go ]; then $(GO) run ./test/bench; fi

sim: ## Simulate about a million jobs and thousands of faults, in two processes
	$(GO) run ./test/sim -jobs $(SIM_JOBS)

memory-test: ## Measure the memory of workerd with a backlog of a million jobs, and with the largest ones
	WORKERD_E2E_MEMORY=1 $(GO) test -count=1 -timeout=$(TIMEOUT) -run 'TestMemory' -v ./test/e2e

mutants: ## Plant faults of one line, one after the other; the simulation must notice each
	$(GO) run ./test/mutants

chaos: ## Kill, stop and starve real processes under load, and do the sums; CHAOS_FLAGS='-seed 7 -only kill'
	@mkdir -p bin && $(GO) build -o bin/chaos ./test/chaos
	@exec bin/chaos $(CHAOS_FLAGS)

chaos-full: ## The same, all of it and longer
	@$(MAKE) --no-print-directory chaos CHAOS_FLAGS='-full $(CHAOS_FLAGS)'

trouble: ## Show outages, overload, a dead target and a changing capacity, in real processes
	$(GO) run ./test/trouble

build: ## Build bin/workerd, static
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o bin/workerd ./cmd/workerd

image: ## Build the container image IMAGE=workerd:dev with docker or buildah
	@if command -v docker >/dev/null && docker info >/dev/null 2>&1; then docker build -t $(IMAGE) .; \
	elif command -v buildah >/dev/null; then buildah bud --format docker -t $(IMAGE) .; \
	else echo "image: needs docker (running) or buildah"; exit 1; fi

image-test: ## Build the image and run it as Kubernetes would; skips without buildah
	scripts/image-test.sh

clean: ## Remove what was built
	rm -rf bin dist
