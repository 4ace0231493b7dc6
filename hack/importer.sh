#!/usr/bin/env bash
# Imports this tree from folders outside of it: as the README's section "Install" tells
# a newcomer, and as a tagged version, from a module proxy that is a folder.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
module=github.com/dockerexec/dockerexec version=v0.1.0-tree

fail() {
	echo "$*"
	exit 1
}

# quiet COMMAND: what it prints is of use only if it fails. Go looks up as many modules
# at a time as it has processors, but it only waits for the network.
quiet() { GOMAXPROCS=16 eval "$1" >"$dir/log" 2>&1 || { cat "$dir/log" && exit 1; }; }

# The version made here must not get into the machine's module cache, so this script
# has a cache of its own. It takes from the machine's what that has, but not the lists
# of versions, which may be old.
proxies=$(go env GOPROXY) toolchain=$(go env GOTOOLCHAIN)
machine=$(go env GOMODCACHE)/cache/download
mkdir cache
[[ ! -d $machine ]] || cp -rs "$machine/." cache
find cache -name list -delete
export GOMODCACHE=$dir/mod GOPROXY="file://$dir/proxy,file://$dir/cache,$proxies"
GONOSUMDB="$module,example.com,$(go env GONOSUMDB)"
# A folder's name must not be part of what is compiled: that is compiled anew in each run.
GOFLAGS="$(go env GOFLAGS) -modcacherw -trimpath"
export GONOPROXY=none GONOSUMDB GOFLAGS GOWORK=off GOTOOLCHAIN=local

cat >zip.go <<'END'
package main

import (
	"log"
	"os"

	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"
)

func main() {
	err := zip.CreateFromDir(os.Stdout, module.Version{Path: os.Args[1], Version: os.Args[2]}, os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
}
END

# release MODULE VERSION FOLDER: has the proxy serve the folder as that version.
release() {
	local to=$dir/proxy/$1/@v
	mkdir -p "$to"
	echo "$2" >"$to/list"
	echo "{\"Version\":\"$2\"}" >"$to/$2.info"
	cp "$3/go.mod" "$to/$2.mod"
	go -C "$root" run "$dir/zip.go" "$@" >"$to/$2.zip" 2>"$dir/log" || fail "$(<"$dir/log")"
}

# install: the README's section of that name.
install() { sed -n '/^## Install$/,/^## /p' "$root/README.md"; }

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

# The program's engine is one in memory, behind a socket. At its end it prints what is left there.
cat >engine.go <<'END'
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

func main() {
	engine := dockerexectest.New(nil)
	engine.Image("hello-world", dockerexectest.Print(nil, "Hello from the engine"))
	engine.Image("endless", dockerexectest.Print(dockerexectest.UntilStopped(0), "ready"))
	listener, err := net.Listen("unix", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	go http.Serve(listener, engine.Handler())
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
	fmt.Println("created:", engine.Requests().Count("POST /containers/create"), "left:", len(engine.Containers()))
}
END

# run_program: runs the README's program to its end, and another time until Ctrl-C.
run_program() {
	local engine status=0
	mkdir "$dir/engine"
	cp "$dir/engine.go" "$dir/engine/main.go"
	cp go.mod go.sum "$dir/engine"
	sed -i "s|=> .*|=> $root|" "$dir/engine/go.mod"
	go -C "$dir/engine" build -o "$dir/engine/engine" .
	"$dir/engine/engine" "$dir/engine/socket" >"$dir/engine/left" &
	engine=$!
	trap 'kill "$engine" 2>/dev/null; rm -rf "$dir"' EXIT
	until [[ -S $dir/engine/socket ]]; do kill -0 "$engine" && sleep 0.05; done
	export DOCKER_HOST=unix://$dir/engine/socket

	"$dir/program" | tee "$dir/log"
	[[ $(<"$dir/log") == 'Hello from the engine' ]] || fail "the README's program does not print the log"

	"$dir/program" -image endless >"$dir/log" 2>&1 &
	until grep -q ready "$dir/log"; do kill -0 $! && sleep 0.05; done
	kill -INT $!
	wait $! || status=$?
	cat "$dir/log"
	[[ $status == 1 && $(<"$dir/log") == *'context canceled' ]] || fail "the README's program ends with $status after Ctrl-C"

	kill "$engine"
	wait "$engine"
	trap 'rm -rf "$dir"' EXIT
	[[ $(<"$dir/engine/left") == 'created: 2 left: 0' ]] || fail "after the README's program: $(<"$dir/engine/left")"
	unset DOCKER_HOST
}

go_line() {
	local lines
	lines=$(grep -E '^(go|toolchain) ' go.mod)
	[[ $lines == 'go 1.25.0' ]] || fail "an importer's tidy raises the go line: $lines"
}

# raise COMMAND: the newest versions may want a newer Go, which is then this machine's choice.
raise() {
	if [[ $proxies == off ]]; then
		[[ -z ${CI:-} ]] || fail "GOPROXY is off"
		echo "GOPROXY is off: not done"
		return
	fi
	GOTOOLCHAIN=$toolchain quiet "$1"
	GOTOOLCHAIN=$toolchain go vet ./...
	GOTOOLCHAIN=$toolchain go build -o /dev/null ./...
}

echo "== as the README says"
release "$module" "$version" "$root"
tested='' raised=''
# shellcheck disable=SC2016 # backquotes and not commands
mapfile -t commands < <(install | sed -n '/^```console$/,/^```$/{/^```/d;p}')
for line in "${commands[@]}"; do
	echo "$line"
	case $line in
	'# save '*) save ;;
	'$ git clone '*) ln -s "$root" dockerexec ;; # the tree itself, with what is not committed
	"\$ go get $module"*) quiet "go get $module@$version" ;;
	'$ go mod init '*)
		quiet "${line#??}"
		go mod edit -go=1.25.0 # whatever Go this is: see go_line
		;;
	'$ go run .'*)
		go build -o "$dir/program" .
		run_program
		;;
	'$ go test .')
		go test -v . | tee "$dir/log"
		grep -q '^--- PASS: TestRunReportsTheExitCode' "$dir/log"
		tested=yes
		;;
	'$ go mod tidy') quiet "${line#??}" ;;
	'$ go get -u '*)
		go vet .
		go_line
		raised=${line#??}
		raise "$raised"
		;;
	'$ '*) eval "${line#??}" ;;
	*) fail "cannot tell what to do with that" ;;
	esac
done
[[ $tested && -x $dir/program ]] || fail "the README's commands neither test nor run the program"
[[ $raised ]] || fail "the README does not say how to go get -u"

echo "== $module@$version, without a replace line"
mkdir "$dir/plain"
cd "$dir/plain"
save
quiet 'go mod init example.com/plain'
go mod edit -go=1.25.0
quiet "go get $module@$version"
quiet 'go mod tidy'
go vet .
go build -o "$dir/program" .
go_line

echo "== go install example.com/plain@$version"
release example.com/plain "$version" "$PWD"
cd "$dir"
GOTOOLCHAIN=$toolchain GOBIN=$dir/bin quiet "go install example.com/plain@$version"
go version -m bin/plain | grep -q "$module"$'\t'"$version" || fail "the program does not have $module $version in it"

# The README names what such a program holds beside that.
# shellcheck disable=SC2016 # backquotes and not commands
mapfile -t held < <(install | grep -oE '`[a-z.]+/[^` ]+@v[^` ]+`' | tr -d '`')
echo "== a swarm node: $raised ${held[*]}"
cp -r "$root/examples" node
cd node
go mod edit -dropreplace "$module" -droprequire "$module"
quiet "go get $module@$version"
go vet ./swarmnode
go_line
raise "$raised ${held[*]}"
grep -q "$module $version" go.mod || fail "$module is not at $version any more"
