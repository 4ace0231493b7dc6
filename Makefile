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
# Sizes of the simulated swarms, in agents.
N ?= 100,300,1000
# Scenes on three hosts, as a regular expression of their names, with _ for each space.
SCENES ?= .

export COVER_MIN FUZZTIME

.PHONY: help demo demo-cluster demo-task test test-cluster test-unit test-latest test-podman conformance test-faults test-orphans soak lint vulncheck cover bench simulate bench-node fuzz release-check

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: ## a swarm from nothing, on ENGINE (default, latest or podman): registry, node; a service pulled, logged, healed, scaled, updated, removed
	hack/demo.sh

demo-cluster: ## a swarm of three hosts from nothing: hosts are cut off, killed, drained; what happens is told
	hack/cluster.sh -run '^TestThreeManagers$$/^(a_follower_is_cut_off|an_engine_is_killed|a_host_is_killed|the_leader_is_cut_off|a_host_is_drained)$$'

demo-task: ## one task from nothing, without a swarm: pull, run, log, remove
	hack/demo-task.sh

test: ## vet, unit tests and engine tests, on private engines
	hack/test.sh --engine default

test-unit: ## vet and unit tests: needs no engine, no root
	hack/test.sh --no-engine

test-latest: ## the engine tests on the newest engine
	hack/test.sh --engine latest -run '^TestEngine'

test-cluster: ## three hosts under cuts, kills and updates, with three managers and with one; ENGINES names their engines, SCENES picks some
	hack/cluster.sh -v -run '^Test(ThreeManagers|OneManager)$$/$(SCENES)'

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

bench-node: ## a whole node beside the reference's calls and the engine's own limit, ROUNDS (5) times; KILLS kills the engine within starts
	hack/bench-node.sh

simulate: ## swarms of N agents (100,300,1000) in one process, on engines for tests: needs no engine, no root
	go -C examples run ./simulation -agents '$(N)'

release-check: ## what must hold before VERSION (vX.Y.Z) is tagged: tidy modules, API differences, licences
	hack/release-check.sh '$(VERSION)'

fuzz: ## each fuzz target for FUZZTIME
	hack/fuzz.sh
