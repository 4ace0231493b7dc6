#!/usr/bin/env bash
# Does what the README tells a newcomer, in a folder outside of the tree: a module
# of their own with the README's program and its test.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

# The blocks that begin with "package main" are the program and its test.
awk -v files='main.go main_test.go' '
	BEGIN { split(files, file) }
	/^```/ { inside = 0 }
	/^package main$/ && last == "```go" { inside = 1; n++ }
	inside { print > file[n] }
	{ last = $0 }
' "$root/README.md"

go mod init example.com/importer 2>/dev/null
go mod edit -go=1.25.0 -require github.com/dockerexec/dockerexec@v0.0.0 -replace "github.com/dockerexec/dockerexec=$root"
GOTOOLCHAIN=local go mod tidy 2>tidy.log || { cat tidy.log && exit 1; }
lines=$(grep -E '^(go|toolchain) ' go.mod)
[[ $lines == 'go 1.25.0' ]] || { echo "an importer's tidy raises the go line: $lines" && exit 1; }
go vet .
go test -v . | tee test.log
grep -q '^--- PASS: TestRunReportsTheExitCode' test.log
