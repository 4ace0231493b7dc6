#!/usr/bin/env bash
# The demo: examples/runtask takes a task from the pull to the removal, is then
# refused by the registry, and leaves nothing behind. Each step is checked.
#
#   hack/demo-task.sh          brings up engine, registry and image
#   hack/demo-task.sh --here   what with-engine.sh runs
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=hack/lib.sh
source "$root/hack/lib.sh"
if [[ ${1-} != --here ]]; then
	need_go
	# Downloads and compiles all that runtask needs: where it runs there is no network.
	go -C "$root/examples" build -o /dev/null ./runtask
	exec "$root/hack/with-engine.sh" "$root/hack/demo-task.sh" --here
fi

image=${DOCKEREXEC_TEST_IMAGE:?is not set: run me without --here}
dir=$(mktemp -d "$DOCKEREXEC_TEST_DIR/demo.XXXXXX")
export DOCKER_HOST=$DOCKEREXEC_TEST_HOST
GOPROXY=off GOTOOLCHAIN=local go -C "$root/examples" build -o "$dir/runtask" ./runtask
PATH=$dir:$PATH
cd "$dir"
readonly port=18080 wrong=wrong-canary-password

heading() { printf '\n== %s\n' "$*"; }
checked() { printf '  ok: %s\n' "$*"; }

# shows FILE REGEXP WHAT: fails unless a line of FILE matches.
shows() {
	grep -Eq -- "$2" "$1" || fail "the output does not show $3 (no line matches $2)"
	checked "$3"
}

nothing_left() {
	local now
	now=$(things)
	[[ $now == "$before" ]] || fail "something is left: $(diff <(echo "$before") <(echo "$now") | grep '^[<>]')"
	checked 'nothing is left; the engine has:' "$(paste -sd, <<<"$now" | sed 's/,/, /g')"
}

# no_password FILE: credentials must never be printed.
no_password() {
	if grep -qF -e "$DOCKEREXEC_TEST_PASSWORD" -e "$wrong" "$1"; then fail "the output holds a password"; fi
	checked 'no password in the output'
}

# visit: waits until the task answers on its published port, and looks around.
visit() {
	local answer i
	for ((i = 0; i < 300; i++)); do
		answer=$({
			exec 3<>"/dev/tcp/127.0.0.1/$port" &&
				printf 'GET / HTTP/1.0\r\n\r\n' >&3 && tail -n 1 <&3
		} 2>/dev/null) || true
		if [[ $answer == ok* ]]; then
			echo "answer $answer"
			things
			return
		fi
		sleep 0.1
	done
}

before=$(things)
if docker image inspect "$image" >/dev/null 2>&1; then fail "$image is on the engine already"; fi

# --------------------------------------------------------------------------
heading '1. A task, from the pull to the removal'
cat >task.json <<JSON
{
  "serviceAnnotations": {"name": "demo"},
  "slot": 1,
  "spec": {"container": {
    "image": "$image",
    "args": ["job", "-listen", ":80", "-volume", "/data", "-ready", "/tmp/ready", "-lines", "10", "-every", "300ms"],
    "env": ["DEMO_TASK={{.Service.Name}}.{{.Task.Slot}} on {{.Node.Hostname}}"],
    "mounts": [{"type": "VOLUME", "source": "demo-data", "target": "/data",
                "volumeOptions": {"driverConfig": {"name": "local"}}}],
    "healthcheck": {"test": ["CMD", "/testtask", "health", "/tmp/ready"], "interval": "0.5s", "retries": 3},
    "stopGracePeriod": "5s"
  }},
  "networks": [{"network": {
    "spec": {"annotations": {"name": "demo-net"}},
    "ipam": {"configs": [{"subnet": "10.123.45.0/24"}]}
  }}],
  "endpoint": {"ports": [{"protocol": "TCP", "targetPort": 80, "publishedPort": $port, "publishMode": "HOST"}]}
}
JSON
echo 'The task, with the field names of SwarmKit:'
cat task.json
(umask 077 && printf '%s\n' "$DOCKEREXEC_TEST_PASSWORD" >password && echo "$wrong" >wrong)

flags=(-f task.json -user "$DOCKEREXEC_TEST_USER" -password-file password)
heading "runtask ${flags[*]}"
visit >seen &
visitor=$!
status=0
runtask "${flags[@]}" 2>&1 | tee out || status=$?
kill "$visitor" 2>/dev/null || true
wait "$visitor" || true

heading 'What was seen'
[[ $status == 0 ]] || fail "runtask exits with $status instead of 0"
shows out '^pull .*[0-9]+ of [0-9]+ layers' 'progress of the pull, with credentials'
shows out '^state preparing$' 'the state preparing'
shows out '^state starting$' 'the state starting, until the task is healthy'
shows out '^state running$' 'the state running'
shows out '^state complete$' 'the state complete'
shows out "^log \\| env DEMO_TASK=demo\\.1 on $(hostname)\$" 'the environment template, filled in'
shows out '^log \| step 10 of 10$' 'log lines'
shows out '^log ! job ends with 0$' 'the log of the standard error'
shows out '^log \| wrote /data/done$' 'a file written to the volume'
shows seen '^answer ok' "an answer on the published port $port"
shows seen '^container demo\.1\.[a-z0-9]+$' 'the container, while it ran'
shows seen '^volume demo-data$' 'the volume, while it ran'
shows seen '^network demo-net$' 'the network, while it ran'
shows out '^exit code 0$' 'the exit code'
no_password out
nothing_left

# --------------------------------------------------------------------------
heading '2. A wrong password, and the image is not on the engine'
docker rmi --force "$image" >/dev/null
flags=(-image "$image" -name refused -volume refused-data:/data -network refused-net
	-user "$DOCKEREXEC_TEST_USER" -password-file wrong)
heading "runtask ${flags[*]}"
status=0
runtask "${flags[@]}" 2>&1 | tee out || status=$?

heading 'What was seen'
[[ $status == 125 ]] || fail "runtask exits with $status instead of 125"
checked 'exit code 125: runtask itself has failed'
shows out "^runtask: .*$image.*(unauthorized|denied|authentication|basic auth)" 'an error that names the image and the cause'
shows out '^state rejected$' 'the state rejected'
if grep -Eq '^(state starting|log )' out; then fail 'a container was made'; fi
no_password out
nothing_left

heading 'demo passed'
