/*
Package dockerexec runs SwarmKit tasks as containers on a Docker Engine, through
the engine's API client.

It replaces SwarmKit's own package swarmd/dockerexec, here called the reference. A
swarm agent switches by changing one import. You can also build an executor of your
own, and test it with the engine of package dockerexectest, or with a fake client.

# Usage

For an executor of your own, make one [Engine] for each client. [Engine.Run] takes a
task from its pull to its removal:

	engine := dockerexec.NewEngine(client)
	result, err := engine.Run(ctx, task, dockerexec.RunOptions{Logs: publisher})

A swarm agent calls [NewExecutor]. The executor has an Engine of its own, and makes a
controller for each task. To decide each step yourself, make an adapter for each task:

	adapter, err := engine.Adapter(node, task, nil)
	err = adapter.PullImage(ctx)
	err = adapter.CreateNetworks(ctx)
	err = adapter.CreateVolumes(ctx)
	err = adapter.Create(ctx) // exec.ErrTaskPrepared: the container exists already
	err = adapter.Start(ctx)  // exec.ErrTaskStarted: an earlier process has started it
	ended, err := adapter.Wait(ctx)
	err = dockerexec.ExitError(ended, nil)
	err = adapter.Remove(ctx)
	err = adapter.RemoveNetworks(ctx)

Neither an Engine nor an adapter has anything to close. Background work ends with the
contexts of the calls that started it. The event stream and a pull end with the last
call that they serve. Close the client yourself, after all calls have returned.

# API version

On a *client.Client, an Engine pings once, before its first other request. Then it
negotiates a version, unless you have fixed the client's version. All users of the
client then have the new version. A failed ping is a temporary error. If the engine is
replaced and refuses the version, the Engine agrees on another one and makes the call
again: see "Upgrades" in docs/operations.md. If the version lacks a field that the
task sets, each method that pulls, creates or starts something refuses the task.

Any other implementation of the client's interface counts as a fake of the newest
version, and is not pinged. For a real client inside another type, use the option
[WithWrappedClient]. To instrument requests, better wrap the client's transport, as
the example of [NewEngine] does. The client has OpenTelemetry traces of its own.

# Tasks

The caller's task and node description are never changed: an adapter works on a
copy, in which it expands templates once. The same task makes the same requests
every time. No field is dropped in silence. A field is translated, or read by
schedulers only, or the task is refused. A warning names what is carried out in part:
ports and networks of the routing mesh; a CPU limit above the host's cores; options of
a volume that already exists with other options. docs/fields.md has all fields.

Containers, networks and volumes are found again by name and label. So a new adapter
in a new process continues where another one stopped. The container's name
([ContainerAdapter.ContainerName]) is SwarmKit's: SERVICE.SLOT.TASKID, or the task's
own name (Annotations.Name) if it has one. A second task with the same ID, service
and slot is therefore the same task. The label com.docker.swarm.task.id
([LabelTaskID]) says which task a container belongs to. A container without that
label counts as the task's if its name contains the task's ID, but Create never
takes it over.

Networks that this package makes have the label com.dockerexec.network, see
[LabelNetwork]; those with a ConfigFrom cannot have it. Only networks that it made are
removed, by the last task that uses them.
Secrets and configs are read-only files in the container, on a memory file system
of this host. docs/operations.md has the details of networks and files.

# Controllers

[NewExecutor], [Engine.Executor] and [Engine.Controller] make SwarmKit controllers
on top of the adapter. They may take over a task that another process left. They do
more than an adapter: they stop a container whose health check failed. They repeat a
removal that failed, and a stop of theirs that failed. They stop a container whose start
the engine lost: see "Lost starts" in docs/operations.md. Their methods:

  - Prepare returns exec.ErrTaskPrepared if the container exists already, and
    Start returns exec.ErrTaskStarted if it has been started already. If the pull
    fails, Prepare uses an image that is on the engine, with a warning.
  - Wait returns the result of [ExitError]: nil if the container exited with 0 and
    its health check had not failed.
  - Shutdown, Terminate and Remove return nil for a container that does not exist.
  - ContainerStatus returns nil without an error if it must ask, and there is no
    container of the task or the engine is away: the agent then keeps its status.
  - PortStatus returns nil without an error if there is no container of the task.
    While the engine is away it returns the ports it saw last.
  - Logs returns nil for a container that does not exist: SwarmKit requests a
    service's log from all its tasks.
  - Update does nothing: a task's spec never changes.
  - Close ends all calls that are running, and leaves the container alone. From
    then on every method returns exec.ErrControllerClosed.
  - Remove ends a running Prepare, Start or Wait with context.Canceled, which the agent
    does not take for a failure. From then on the three return exec.ErrControllerClosed.

A call that makes something on the engine is never given up half-way, because the
engine would carry it out all the same. When the context of Prepare or Start ends,
the method returns at once and the engine call goes on, bounded by
[WithRequestTimeout]. The next Prepare, Start, Shutdown, Terminate or Remove waits
for it, as long as its own context allows. If the task was removed in the meantime,
the controller removes what the call has made.

# Errors

  - The context has ended: its bare error. SwarmKit's agent tries again.
  - A fault that passes: a temporary error, see exec.IsTemporary. The agent tries
    again. Faults that pass: the engine is away, restarting, behind a proxy that
    cannot reach it, without its containerd, overloaded, or busy with an earlier
    create of the container; its answer comes too late or is cut short; it does not
    speak the client's API version any more; a secret, a config or the node's
    description has not arrived yet.
  - A task that cannot run as asked: errors.As finds a *[FieldError], with the path of
    the field and the reason. [ErrImageRequired] and exec.ErrRuntimeUnsupported are
    bare. The agent rejects the task.
  - An option whose value is impossible: an error that names the option, see [Option].
  - A pull without progress for [WithPullStallTimeout]: errors.Is finds
    [ErrPullStalled]. It is final, because the pull would hang again.
  - [ErrContainerDestroyed] and exec.ErrTaskPrepared: bare.
  - A container that failed: the result of [ExitError], an exec.ExitCoder. Its cause
    is [ErrContainerUnhealthy] if the health check failed.
  - All other errors are final. They say what failed on which object. The engine's
    own error is behind them, for errors.Is, errors.As and
    github.com/containerd/errdefs. Engines disagree on status codes, so ask
    [IsUnknownContainer] and the other classifiers.

Any call may be repeated after any of these errors. If the engine carried out a call
and its answer was lost, the repeated call finds the result and succeeds. A renamed
container is found by its ID or its label. So a 404 means that the container does not
exist. An answer that is not JSON is a final error: no engine sends it.

SwarmKit's agent does not stop a task that has ended, and removes it only once. The
controllers therefore do more. Refusals (400, 401, 403, 501) are final, except those of
the event stream and of other requests that are not needed. For all other errors:

  - An inspect that fails ends Start and Wait for good only if it is a 404. An inspect that
    succeeds ends them if the container has ended, is being removed or is not the task's.
  - Shutdown and Terminate return a temporary error for a stop that failed, unless
    the engine shows that the container has ended or is gone.
  - A stop for health is repeated until the container has ended. Remove is repeated
    after a passing fault, a 409 and a 500. Both go on until their context ends. The
    pauses grow up to a minute. No call sends a second stop signal.
  - After a create without an answer, Remove looks for the container for 5 seconds:
    an engine shows it only once its volumes are filled.

# Concurrency

Engine, ContainerAdapter, executors and controllers are safe for concurrent use. Every
method that takes a context returns when the context ends. [ContainerAdapter.Events]
says who sends on its channels, when they are closed and what a slow reader misses.

# More

In the repository: docs/engine-calls.md (which calls each method makes, and what a
fake must send), docs/fields.md, docs/operations.md (log lines, lost starts, what is
left behind, metrics, upgrades), docs/migration.md and docs/benchmarks.md.
*/
package dockerexec
