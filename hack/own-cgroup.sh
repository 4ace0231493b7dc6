#!/usr/bin/env bash
# Runs a command for which the control groups named NAME are the root of all that it sees:
# Podman has one group for all its containers, which it would share with another Podman.
#
#   own-cgroup.sh NAME unshare FLAG... COMMAND   unshare gets one more flag, --cgroup
#
# The inner half must mount the groups, and whoever waits for the end must remove them: see
# session.sh and with-engine.sh.
set -euo pipefail

name=$1
shift 2
if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then # version 2: groups with processes have no groups below
	sed 's/[a-z_]*/+&/g' /sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control || true
	mkdir "/sys/fs/cgroup/$name"
	exec unshare "$@"
fi
for group in /sys/fs/cgroup/*/; do
	mkdir "$group$name"
	if [[ -e ${group}cpuset.cpus ]]; then # empty in a new group, which takes no process then
		cat "${group}cpuset.cpus" >"$group$name/cpuset.cpus"
		cat "${group}cpuset.mems" >"$group$name/cpuset.mems"
	fi
	echo $$ >"$group$name/cgroup.procs"
done
exec unshare --cgroup "$@"
