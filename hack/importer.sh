#!/usr/bin/env bash
# Does what the README's section "Install" tells a newcomer, in a folder outside of
# the tree: its commands, with its program and its test.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
export GOTOOLCHAIN=local

# save: the blocks that begin with "package main" are the program and its test.
save() {
	awk -v files='main.go main_test.go' '
		BEGIN { split(files, file) }
		/^```/ { inside = 0 }
		/^package main$/ && last == "```go" { inside = 1; n++ }
		inside { print > file[n] }
		{ last = $0 }
	' "$root/README.md"
}

# quiet COMMAND: what it prints is of use only if it fails.
quiet() { eval "$1" >"$dir/log" 2>&1 || { cat "$dir/log" && exit 1; }; }

# The lines of the section's first console block.
# shellcheck disable=SC2016 # backquotes and not commands
mapfile -t commands < <(sed -n '/^## Install$/,/^## /{/^```console$/,/^```$/p}' "$root/README.md" | sed '1d;/^```$/,$d')
tested=''
for line in "${commands[@]}"; do
	echo "$line"
	case $line in
	'# save '*) save ;;
	'$ git clone '*) ln -s "$root" dockerexec ;; # the tree itself, with what is not committed
	'$ go get github.com/dockerexec/dockerexec'*)
		go mod edit -require github.com/dockerexec/dockerexec@v0.0.0 -replace "github.com/dockerexec/dockerexec=$root"
		;;
	'$ go mod init '*)
		quiet "${line#??}"
		go mod edit -go=1.25.0 # whatever Go this is: see below
		;;
	'$ go run .'*) go build -o "$dir/program" . ;; # it needs an engine
	'$ go test .')
		go test -v . | tee "$dir/log"
		grep -q '^--- PASS: TestRunReportsTheExitCode' "$dir/log"
		tested=yes
		;;
	'$ go mod tidy') quiet "${line#??}" ;;
	'$ '*) eval "${line#??}" ;;
	*) echo "cannot tell what to do with that" && exit 1 ;;
	esac
done
[[ $tested && -x $dir/program ]] || { echo "the README's commands neither test nor run the program" && exit 1; }
go vet .
lines=$(grep -E '^(go|toolchain) ' go.mod)
[[ $lines == 'go 1.25.0' ]] || { echo "an importer's tidy raises the go line: $lines" && exit 1; }
