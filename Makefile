# `make` lists the targets.

GO            ?= go
MINIMUM_GO    := 1.26
LINT_VERSION  := v2.15.0
LINT          := .tools/golangci-lint-$(LINT_VERSION)
S3_VERSION    := v1.8.0
S3_SERVER     := .tools/versitygw-$(S3_VERSION)
FUZZ_SECONDS  ?= 10
TEST_TIMEOUT  ?= 35m
PREFIX        ?= /usr/local
SHELL         := bash
.SHELLFLAGS   := -eu -o pipefail -c
.DEFAULT_GOAL := help

# Tools for making file systems and loop devices are here, also where a user's PATH does not say so.
export PATH   := $(PATH):/usr/sbin:/sbin

# The folders that hold Go code, and those whose code runs concurrently and is tested under the race detector as well.
GO_FOLDERS    := $(wildcard cmd internal test)
RACE_PACKAGES := $(addprefix ./,$(addsuffix /...,$(wildcard internal/storage internal/source internal/repo internal/mover internal/restore internal/pace internal/job internal/catalog internal/scheduler internal/server internal/client)))

# What `make test` does, in this order; what is joined by + at the same time, as the integration tests wait much.
PHASES        := vet test-unit test-integration+test-race test-independent test-fuzz

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: check-go ## Build bin/ferry
	$(GO) build -trimpath -o bin/ferry ./cmd/ferry

.PHONY: install
install: ## Install bin/ferry, which `make build` makes, in PREFIX/bin (/usr/local)
	install -D -m 755 bin/ferry "$(DESTDIR)$(PREFIX)/bin/ferry"

.PHONY: demo
demo: build ## Build Ferry and watch it copy, verify and restore machines that it makes up, by hand and by a server
	bin/ferry demo

.PHONY: test
test: check-go deps ## Run every test; the single phases are below
	@test/phases.sh $(PHASES)

.PHONY: deps
deps: $(S3_SERVER) ## Install the tools that tests compare against (as root, on Debian), or say which are missing
	@test/deps.sh

.PHONY: vet
vet: check-go ## go vet, also of integration tests and measurements
	$(GO) vet ./...
	$(GO) vet -tags integration ./test/...
	$(GO) vet -tags scale ./internal/repo/...

.PHONY: test-unit
test-unit: check-go ## Unit tests, needing Go, qemu-img and PostgreSQL
	$(GO) test -timeout $(TEST_TIMEOUT) ./...

.PHONY: test-race
test-race: check-go ## The concurrent packages' tests again (-short), under the race detector
	CGO_ENABLED=1 $(GO) test -race -short -timeout $(TEST_TIMEOUT) $(RACE_PACKAGES)

.PHONY: test-integration
test-integration: check-go $(S3_SERVER) ## Tests against the real tools: qemu-img, libvirt, virtnbdbackup, bindfs, an S3 server
	$(GO) test -tags integration -count=1 -parallel 8 -timeout $(TEST_TIMEOUT) ./test/...

.PHONY: test-independent
test-independent: ## Self-test of the independent reader (Python, standard library only)
	@test/independent.sh

.PHONY: test-fuzz
test-fuzz: check-go ## Every fuzz target: its corpus, then FUZZ_SECONDS (10) of new input
	@test/fuzz.sh $(FUZZ_SECONDS)

.PHONY: fuzz
fuzz: check-go ## Fuzz longer: five minutes for each target
	@test/fuzz.sh 300

.PHONY: bench
bench: build ## Compare with zstd, cp, restic and borg (see test/bench/README.md)
	GO="$(GO)" test/bench/peers.sh
	python3 test/bench/bench.py

.PHONY: lint
lint: check-go $(LINT) ## Formatting, modules, the linters of .golangci.yml
	@unformatted=$$(gofmt -l $(GO_FOLDERS)); \
	if [ -n "$$unformatted" ]; then echo "not formatted (make fmt):"; echo "$$unformatted"; exit 1; fi
	$(LINT) run ./...
	$(GO) mod tidy -diff
	$(GO) mod verify

.PHONY: fmt
fmt: check-go ## Format the code
	gofmt -w $(GO_FOLDERS)

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin .tools

$(LINT): | check-go
	@echo "building golangci-lint $(LINT_VERSION), once (some minutes)"
	GOBIN=$(CURDIR)/.tools/build $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	mv .tools/build/golangci-lint $@
	rmdir .tools/build

$(S3_SERVER): | check-go
	@echo "building versitygw $(S3_VERSION), the S3 server of the tests, once (some minutes)"
	GOBIN=$(CURDIR)/.tools/build-s3 $(GO) install github.com/versity/versitygw/cmd/versitygw@$(S3_VERSION)
	mv .tools/build-s3/versitygw $@
	rmdir .tools/build-s3

.PHONY: check-go
check-go:
	@if ! command -v $(GO) >/dev/null; then \
		echo "Ferry needs Go $(MINIMUM_GO) or newer, and there is no '$(GO)' in the PATH." >&2; exit 1; fi; \
	have=$$($(GO) env GOVERSION 2>/dev/null || (cd / && GOTOOLCHAIN=local $(GO) env GOVERSION)); have=$${have#go}; have=$${have%%[!0-9.]*}; \
	if [ "$$(printf '%s\n' $(MINIMUM_GO) "$$have" | sort -V | head -n 1)" != $(MINIMUM_GO) ]; then \
		echo "Ferry needs Go $(MINIMUM_GO) or newer; this is Go $$have." >&2; exit 1; fi
