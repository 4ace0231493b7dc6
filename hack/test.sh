#!/usr/bin/env bash
# Vets and tests every module of the tree.
#
#   hack/test.sh --no-engine [GO-TEST-FLAG...]               what needs an engine is skipped
#   hack/test.sh --engine default|latest [GO-TEST-FLAG...]   on a private engine; nothing is skipped
#   hack/test.sh --here [GO-TEST-FLAG...]                    what with-engine.sh runs
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=hack/lib.sh
source "$root/hack/lib.sh"
cd "$root"

race=(-race)
packages=() # how many at a time; empty: as many as there are cores
go_test() {
	local module status=0
	for module in $(modules); do
		say "go test, module $module"
		go -C "$module" test "${race[@]}" "${packages[@]}" -shuffle=on -count=1 -timeout 30m "$@" ./... || status=$?
	done
	return "$status"
}

case ${1-} in
--no-engine)
	shift
	if ! "$(go env CC)" --version >/dev/null 2>&1; then
		say "no C compiler, so the race detector is off"
		race=()
	fi
	vet
	unset DOCKEREXEC_TEST_HOST
	go_test "$@"
	;;
--engine)
	engine=$2
	shift 2
	need_go
	need gcc
	need_files libc6-dev /usr/include/stdlib.h
	vet
	# Downloads and compiles all that the tests need: where they run there is no network.
	for module in $(modules); do
		go -C "$module" list -test -deps -export "${race[@]}" ./... >/dev/null
	done
	exec hack/with-engine.sh --engine "$engine" hack/test.sh --here "$@"
	;;
--here)
	shift
	export GOPROXY=off GOTOOLCHAIN=local DOCKEREXEC_TEST_REQUIRED=1
	packages=(-p 1) # tests stop the engine, and measure time
	go_test "$@"
	;;
*) die "usage: test.sh --no-engine | --engine default|latest [GO-TEST-FLAG...]" ;;
esac
