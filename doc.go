/*
Package dockerexec runs SwarmKit tasks as containers on a Docker Engine, through
the engine's API client.

It replaces SwarmKit's own package swarmd/dockerexec, which this documentation
calls the reference. A swarm agent switches by changing one import. The package
also serves runners of your own, built on its container adapter, and tests of
such runners, with a fake client in place of an engine.

# Usage

A swarm agent calls [NewExecutor]. The executor makes an Engine of its own, and a
controller for each task.

For a runner of your own, make one [Engine] for each client, and from it an
adapter for each task:

	engine := dockerexec.NewEngine(client)
	adapter, err := engine.Adapter(node, task, nil)
	…
	err = adapter.PullImage(ctx)
	err = adapter.CreateNetworks(ctx)
	err = adapter.CreateVolumes(ctx)
	err = adapter.Create(ctx) // exec.ErrTaskPrepared: the container exists already
	err = adapter.Start(ctx)
	ended, err := adapter.Wait(ctx)
	err = dockerexec.ExitError(ended, nil)
	err = adapter.Remove(ctx)
	err = adapter.RemoveNetworks(ctx)

Neither an Engine nor an adapter has anything to close. Background work ends with
the contexts of the calls that started it. Calls may share the event stream and a
pull; these end with the last of those calls. The client is yours to close, after
the last call has returned.

# API version

On a *client.Client, an Engine pings once, before its first other request. Unless
you have fixed the client's version, it then negotiates one. That sets the version
for all users of the client. A failed ping is a temporary error, and the next call
tries again. The Engine keeps the version for good; docs/operations.md says what
that means for upgrades. A task with a field that the version does not have is
refused by the first method that would make something.

Any other implementation of the client's interface counts as a fake of the newest
version, and is not pinged. For a real client inside another type there is
[WithWrappedClient]. To instrument requests, better wrap the client's transport, as
the example of [NewEngine] does. The client has OpenTelemetry traces of its own.

# Tasks

The caller's task and node description are never changed: an adapter works on a
copy, in which it expands templates once. The same task makes the same requests
every time. No field is dropped in silence. Each field is translated, or only
schedulers read it, or the task is refused. Two fields are warned about instead,
once a task: ingress ports, which need a routing mesh that an engine alone does not
have, and a CPU limit above the host's cores, which is capped. docs/fields.md has
all fields.

Containers, networks and volumes are found again by name and label, so a new
adapter in a new process continues where another one stopped. The container's name
([ContainerAdapter.ContainerName]) is SwarmKit's: SERVICE.SLOT.TASKID, or the task's
own name (Annotations.Name) if it has one. A second task with the same ID, service
and slot is therefore the same task. The label com.docker.swarm.task.id
([LabelTaskID]) says which task a container belongs to. A container without that
label counts as the task's if its name contains the task's ID, but Create never
takes it over.

Networks that this package makes have the label com.dockerexec.network
([LabelNetwork]). Only such networks are removed, by the last task that uses them.
Secrets and configs are read-only files in the container, on a memory file system
of this host. docs/operations.md has the details of both.

# Controllers

[NewExecutor], [Engine.Executor] and [Engine.Controller] make SwarmKit controllers
on top of the adapter. They may take up a task that another process left. They know
more than an adapter: they stop a container whose health check failed, stop what is
left of a start that the engine lost, and repeat a stop for health and a removal
that fail. Their methods:

  - Prepare returns exec.ErrTaskPrepared if the container exists already, and
    Start returns exec.ErrTaskStarted if it has been started already. If the pull
    fails, Prepare uses an image that is on the engine, with a warning.
  - Wait returns what [ExitError] makes of the container's end: nil if it exited
    with 0 and was not stopped for its health.
  - Shutdown, Terminate and Remove return nil for a container that does not exist.
  - ContainerStatus returns nil without an error if there is no container of the
    task or the engine is away: the agent then keeps the status it has.
  - PortStatus returns nil without an error if there is no container of the task.
    While the engine is away it returns the ports it saw last.
  - Logs returns nil for a container that does not exist: a service's log is
    requested of all its tasks.
  - Update does nothing: a task's spec never changes.
  - Close ends all calls that are running, and leaves the container alone. From
    then on every method returns exec.ErrControllerClosed. So do Prepare, Start and
    Wait after a Remove. Those that run when Remove is called end with
    context.Canceled, which SwarmKit's agent does not take for a failure.

A call that makes something on the engine is never given up half-way, because the
engine would carry it out all the same. When the context of Prepare or Start ends,
the method returns at once and the engine call goes on, bounded by
[WithRequestTimeout]. The controller's next method waits for it, as long as its own
context allows. What such a call made after a Remove is removed again.

# Errors

  - The context has ended: its bare error. SwarmKit's agent tries again.
  - A fault that passes: a temporary error, see exec.IsTemporary. The agent tries
    again. Faults that pass: the engine is away, restarting, behind a proxy that
    cannot reach it, without its containerd, overloaded, or busy with an earlier
    create of the container; its answer comes too late or is cut short; it does not
    speak the client's API version any more, after a downgrade; a secret, a config
    or the node's description has not arrived yet.
  - A task that cannot run as asked: errors.As finds a *[FieldError], with the path of
    the field and the reason. [ErrImageRequired] and exec.ErrRuntimeUnsupported are
    bare. The agent rejects the task.
  - A pull that makes no progress: errors.Is finds [ErrPullStalled]. It is final, after
    [WithPullStallTimeout], because the pull would hang again.
  - [ErrContainerDestroyed] and exec.ErrTaskPrepared: bare.
  - A container that failed: [ExitError], whose result has the exit code, as an
    exec.ExitCoder. [ErrContainerUnhealthy] is its cause if the health check failed.
  - All other errors are final. They say what failed on which object. The engine's
    own error is behind them, for errors.Is, errors.As and
    github.com/containerd/errdefs. [IsUnknownContainer] and the other classifiers
    know engines that disagree on status codes.

Any call may be repeated after any of these errors: if the engine carried out a
call and its answer was lost, the repeated call finds the result and succeeds. An
answer of the engine is believed: a 404 to a removal or a stop means that there is
nothing to remove or stop. An answer that is not JSON is a final error: it does not
come from an engine.

SwarmKit's agent asks for no stop of a task that has ended, and for its removal only
once. The controllers therefore do more. Refusals (400, 401, 403, 501) are final
everywhere but on the event stream. For all else:

  - An inspect ends Start and Wait only with a 404, or with an answer which shows
    that the container has ended, is being removed or is another task's.
  - Shutdown and Terminate return a temporary error for a stop that failed, unless
    the engine shows that the container has ended or is gone.
  - A stop for health is repeated until the container has ended. Remove is repeated
    after a passing fault, a 409 and a 500. Both go on as long as their context.
  - After a create whose answer was lost, Remove looks for the container for 5
    seconds, because an engine shows it only once its volumes are filled.

# Concurrency

Engine, ContainerAdapter and the executor with its controllers are safe for
concurrent use. Every method that takes a context returns when that ends. The
comment of a method that returns channels says who sends, when they are closed and
what happens to a slow reader.

# More

In the repository: docs/engine-calls.md (which calls each method makes, and what a
fake must send), docs/fields.md, docs/operations.md (log lines, lost starts, what is
left behind, upgrades), docs/migration.md and docs/benchmarks.md.
*/
package dockerexec
