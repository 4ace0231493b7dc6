# Everything that is done to this tree is a target here: `make help` lists them.
# Those that need an engine bring their own up and take it down; see hack/with-engine.sh.

.DEFAULT_GOAL := help

# Statements of the package that the unit tests alone cover, in per cent.
COVER_MIN ?= 95
# Time for each fuzz target.
FUZZTIME ?= 2m
# Benchmarks to run, as a regular expression.
BENCH ?= .
# Cells of the fault matrix, "operation: request, fault", as a regular expression.
FAULTS ?= .
# How often the node is killed.
KILLS ?= 20

export COVER_MIN FUZZTIME

.PHONY: help demo demo-task test test-unit test-latest test-podman conformance test-faults test-orphans soak lint vulncheck cover bench fuzz release-check

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: ## a swarm from nothing, on ENGINE (default, latest or podman): registry, node; a service pulled, logged, healed, scaled, updated, removed
	hack/demo.sh

demo-task: ## one task from nothing, without a swarm: pull, run, log, remove
	hack/demo-task.sh

test: ## vet, unit tests and engine tests, on a private engine
	hack/test.sh --engine default

test-unit: ## vet and unit tests: needs no engine, no root
	hack/test.sh --no-engine

test-latest: ## the engine tests on the newest engine
	hack/test.sh --engine latest -run '^TestEngine'

test-podman: ## the engine tests on Podman; hack/podman-cannot.txt and hack/test.sh name what is left out
	hack/test.sh --engine podman -run '^TestEngine'

conformance: ## statements about engines, on the engine for tests, both Docker engines and Podman, as a table
	hack/conformance.sh

test-faults: ## every operation, at each of its requests, by every fault, on both engines; FAULTS picks some
	DOCKEREXEC_TEST_FAULTS='$(FAULTS)' hack/test.sh --engine default -v -run '^TestEngineFaults$$'
	DOCKEREXEC_TEST_FAULTS='$(FAULTS)' hack/test.sh --engine latest -v -run '^TestEngineFaults$$'

test-orphans: ## a node killed KILLS times (20) while its tasks are removed, on both engines: nothing is left
	DOCKEREXEC_TEST_KILLS='$(KILLS)' hack/test.sh --engine default -v -run '^TestEngineKilledNodeLeavesNothingBehind$$'
	DOCKEREXEC_TEST_KILLS='$(KILLS)' hack/test.sh --engine latest -v -run '^TestEngineKilledNodeLeavesNothingBehind$$'

soak: ## random scaling, updates and ends of containers, engine and node for SOAK_TIME (10m) on ENGINE (default or latest); SOAK_SEED repeats
	hack/soak.sh

lint: ## static checks of Go, modules, scripts; builds for every platform
	hack/lint.sh

vulncheck: ## known vulnerabilities that a call of this tree reaches, by govulncheck: needs its database
	hack/vulncheck.sh

cover: ## coverage of the unit tests; fails below COVER_MIN
	hack/cover.sh

bench: ## benchmarks beside their baselines, as a table; BENCH picks some
	hack/bench.sh '$(BENCH)'

release-check: ## what must hold before VERSION (vX.Y.Z) is tagged: tidy modules, API differences, licences
	hack/release-check.sh '$(VERSION)'

fuzz: ## each fuzz target for FUZZTIME
	hack/fuzz.sh
