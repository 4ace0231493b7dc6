/*
Package dockerexec runs SwarmKit tasks as containers on a Docker Engine, through
the engine's API client.

It replaces SwarmKit's own package swarmd/dockerexec, which this documentation
calls the reference. A swarm agent switches by changing one import. The package
also serves executors of your own, built on its container adapter, and tests of
such executors, with a fake client in place of an engine.

# Usage

A swarm agent calls [NewExecutor]. The executor makes an Engine of its own and a
controller for each task.

For an executor of your own, make one [Engine] for each client, and from it an
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
the contexts of the calls that started it. The event stream and the pulls, which
several calls may share, end with the last of those calls. The client is yours to
close, after the last call has returned.

# Engine calls

For a task that uses only features of the reference, each method of the adapter
makes exactly these calls on the client, so a fake needs no others:

	PullImage       ImagePull
	CreateNetworks  NetworkCreate, for each network
	RemoveNetworks  NetworkRemove, for each network that an adapter of this Engine
	                created and that no other task of the Engine uses
	CreateVolumes   VolumeCreate, for each volume with a driver of its own
	Create          ContainerCreate
	Start           ContainerStart
	Inspect         ContainerInspect
	Events          Events
	Wait            Events, ContainerInspect
	Shutdown        ContainerStop
	Terminate       ContainerKill
	Remove          ContainerRemove
	Logs            ContainerLogs
	PublishLogs     ContainerInspect, ContainerLogs

Further calls are made only where something needs them:

	PullImage       ImageInspect, for a reference with a digest
	CreateNetworks  NetworkInspect, if a network of that name exists
	RemoveNetworks  NetworkInspect, for a network that no adapter of this Engine
	                asked for; on a *client.Client ContainerList: see Networks
	Create          ContainerInspect, if a container of that name exists;
	                NetworkConnect, for several networks below API 1.44 and for
	                those that an existing container lacks;
	                Info, if the engine refuses a CPU limit above its cores
	Remove          ContainerInspect, while another removal is in progress
	PublishLogs     Events, while a followed container is not started
	any             DaemonHost, Info, for the first task with secrets or configs;
	                then ContainerList, if an earlier process left files
	any             Ping, once for each Engine on a *client.Client: see API version

What a fake has to send so that Events and Wait see an event is described at
[ContainerAdapter.Events]. The label com.docker.swarm.task.id in what
ContainerInspect answers matters too: Create takes over an existing container only
if the label is the task's ID, and PublishLogs refuses a container whose label
names another task.

# Controllers

The controllers of [NewExecutor] are built on the adapter. They ask the engine
more, because a controller may take up a task that another process left. A fake
under them needs these calls too; names of adapter methods stand for their calls
above:

	Prepare           CreateNetworks, CreateVolumes, PullImage, Create;
	                  ContainerInspect first, except at a new task's first Prepare;
	                  ImageInspect, if the pull fails;
	                  CreateNetworks and Create again, if a network has vanished
	Start             ContainerInspect, Start; Wait's calls, if there is a health check;
	                  Shutdown and Wait, if the check fails;
	                  CreateNetworks and Start again, if a network has vanished;
	                  ContainerInspect, Shutdown, if the engine lost an earlier start
	Wait              Wait; Shutdown, if the container is unhealthy
	Shutdown          Shutdown; ContainerInspect first, for a task with a name of its own
	                  and while a start may be lost, and after a stop that failed
	Terminate         Terminate; the rest as for Shutdown
	Remove            Shutdown, Remove, RemoveNetworks; ContainerInspect first, unless
	                  this controller made the container under a name of the task's
	                  alone, and while a create or a start may be lost
	ContainerStatus   ContainerInspect
	PortStatus        ContainerInspect, unless ContainerStatus has just asked
	Logs              PublishLogs
	Update, Close     none

The executor's Describe calls Info and PluginList. A create or a start may be lost
when its answer was; a start also when another process left the task between
STARTING and its end.

What the methods return, besides the errors below that all methods share:

  - Prepare returns exec.ErrTaskPrepared if the container exists already, and
    Start returns exec.ErrTaskStarted if it has been started already.
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
    then on every method returns exec.ErrControllerClosed, as Prepare, Start and
    Wait do after a Remove. Those that run when Remove is called end with
    context.Canceled, which SwarmKit's agent takes for no failure of the task.

A call that makes something on the engine is never given up half-way, because the
engine would carry it out all the same. When the context of Prepare or Start ends,
the method returns at once and the engine call goes on, bounded by
[WithRequestTimeout]. The controller's next method waits for it, as long as its own
context allows. What such a call made after a Remove is removed again.

# API version

On a *client.Client, an Engine pings once, before its first other request. Unless
you have fixed the client's version, it then negotiates one, which sets the version
for all users of the client. A failed ping is a temporary error; the next call tries
again.
An Engine keeps the version for good, because it cannot be changed safely while
others use the client: after a downgrade of the engine, calls fail with the
temporary error "client version … is too new" until the process restarts.

Any other implementation of the client's interface counts as a fake: it is not
pinged, and its version counts as the newest. That includes a real client inside
another type, such as struct{ client.APIClient }. To such a client the Engine
makes requests of the newest version, which an older engine refuses with "client
version … is too new", and for a network it does not ask which containers need it.
If you must wrap a client, negotiate or fix its version yourself. To instrument
requests, wrap the transport instead, and the client stays a *client.Client; see
the example of [NewEngine].

A task with a field that the version in use does not have is refused by the first
method that would make something.

# Tasks

The caller's task and node description are never changed: an adapter works on a
copy, in which it expands templates once. The same task makes the same requests
every time. No field is dropped in silence. Each is translated, or is one that only
schedulers read, or the task is refused with an error that names the field by its
path. Two fields are warned about instead, once a task, because the reference runs
such tasks: ingress ports, which need a routing mesh that an engine alone does not
have, and a CPU limit above the host's cores, which is capped to them.

Containers, networks and volumes are found again by name and label, so a new
adapter in a new process continues where another one stopped. The container's name
is SwarmKit's: SERVICE.SLOT.TASKID, or the task's own name (Annotations.Name) if
it has one. The task's ID thus names the container: a second task with the same
ID, service and slot is the same task. A container of the task's name belongs to another
task if its label com.docker.swarm.task.id says so. One without that label counts
as the task's if the name contains the task's ID, but Create never takes it over.

# Networks

Networks made by this package carry the label com.dockerexec.network, and only
such networks are removed. A network with ConfigFrom carries no label, because
engines accept none there; only the Engine that made it removes it, and nobody if
the answer to its create was lost.

A network stays while somebody uses it. The engine knows which containers are
attached, and keeps the network for them. It does not count containers that are
created but not started, so RemoveNetworks asks for such containers and leaves the
network to them. A fake is not asked. Before a container is created only its Engine
knows that it will need the network: there, a task uses its networks from
CreateNetworks to RemoveNetworks, and the last task to leave removes the network.
A network may still vanish, for example between another process's CreateNetworks
and its Create. The controllers of [NewExecutor] make it again when a create or a
start fails for that reason.

# Secrets and configs

A container sees each secret and config as a read-only file with the name, owner
and mode of its reference: secrets with a relative name under /run/secrets,
configs under /. The payload is expanded as a template if its spec's
Templating.Name is "golang". Without Templating the bytes stay as they are, and a
task with any other name there is refused.

Create writes the files on this host, to a directory on a memory file system from
which the engine mounts them one by one. Start writes missing ones again, and
Remove deletes them once the container is gone. So they are in no image and not in
the container's writable layer. A create that fails leaves no files, unless the
task had some before: its container may exist.

This needs an engine on this host, reached by a socket or a loopback address, both
on Linux, and an executor that may change the owner of files, as root may. The
executor must see the directory at the same path as the engine; see
[WithSecretsDir]. An engine on another host, a rootless one, one that remaps users
and one with SELinux labels are refused, by the first method that would make
something. A config that is a Windows container's credential spec is not a file: it
is part of the create request, and whoever may inspect the container can read it.

The directory is <secrets directory>/<engine's ID>/<task's ID>. Before its first
task with secrets or configs, an Engine removes those directories whose tasks have
no container on the engine. It leaves out those that were written in the last ten
minutes, because another process may be creating the container, and looks at them
again with the first such task ten minutes later. If the engine does not list its
containers, it removes none.

# Health

The controllers of [NewExecutor] stop a container once the engine calls it
unhealthy and as many checks in a row have failed as its task or image says (3 if
neither does). Engines call a paused container unhealthy too; a controller does not
judge one while it is paused. A container that ended with its last checks failed
counts as stopped for its health, whichever process stopped it.

# Lost starts

An engine that is killed during a start forgets it. Once it is back, it shows a
container that was created, whose process may run without network and log. The
controllers of [NewExecutor] look for that before they stop or remove a container
whose start may be lost, and when the engine answers a start as if it were the
second one. They look once a second for up to 20 seconds, because containerd
reports the process for up to 15. A process that runs is stopped, and the start has
failed.

Engine 29 carries out the second start that engine 20.10 refuses; versions between are
not tested. With live-restore it may keep the first start's output open: then each
line comes twice into the container's log, and once the process has ended, the engine
reports no end and answers no request about the container, except lists. A task that
waits stays as it was. Within eight minutes of the end, by default, an inspect has run
into its time-out, and a warning says that the container is not inspected, unless the
event stream is refused. A stop or removal of such a container fails, for now, again
and again. Nothing that the engine answers before tells such a container from another.
Restart the engine: it reports the end then, and the task gets its exit code.

# Errors

  - When the context has ended: its bare error. SwarmKit's agent tries again.
  - When the engine has a fault that passes: a temporary error, see
    exec.IsTemporary. The agent tries again. Such faults are: the engine is away,
    restarting, out of reach of a proxy, without its containerd, overloaded, busy
    with an earlier create of the container; its answer does not come in time, or is
    cut short. The error is also temporary when a secret, a config or the node's
    description has not arrived yet. A pull that hangs is not among these faults: its
    error is final, after the stall time-out, because it would hang again.
  - [ErrImageRequired], [ErrContainerDestroyed], exec.ErrTaskPrepared,
    exec.ErrRuntimeUnsupported: bare.
  - All other errors are final. They say what failed on which object. The engine's
    own error is behind them, for errors.Is, errors.As and
    github.com/containerd/errdefs. A non-JSON answer is a final error: it does not
    come from an engine.

Any call may be repeated after any of these errors: if the engine carried out a
call and its answer was lost, the repeated call finds the result and succeeds. What
an engine answers is believed: a 404 to a removal or a stop means that there is
nothing to remove or stop.

The classifiers, such as [IsUnknownContainer], go by the text of an engine's error,
because engines disagree on status codes.

SwarmKit's agent requests no stop for a task that has ended, and its removal only
once. Except for refusals (400, 401, 403, 501), which are final everywhere but on
the event stream, the controllers of [NewExecutor] therefore do more:

  - Start and Wait take no answer to an inspect for the end of the container,
    except a 404 and an answer which shows that the container has ended, is being
    removed or is another task's.
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

# Log lines

All log lines go through github.com/moby/swarmkit/v2/log, to the logger of the
context. Nothing that is tried again is logged as an error. Credentials,
environment values and the payloads of secrets appear in no log line and in no
error.

	warning  the event stream was lost, or is refused: containers are then inspected
	         every ten seconds (each once an outage)
	         a followed log was lost, may have a gap, or is ended by the engine again and
	         again although the container runs
	         an inspect of a container that is waited for is not answered within the
	         request time-out, although the event stream is not refused, or, to a
	         controller, says nothing about the container (once until one does)
	         the pull failed and the image on the engine is used instead
	         a field that is warned about
	         a container cannot be stopped, or it or its network removed, for now
	         (once a call)
	info     the event stream, or a followed log, is restored, with the length of
	         the gap
	         a container is inspected again
	debug    all else

The fields are stable:

	task.id, service.id, node.id  of the task, on every line but those below
	container.id, image           where they apply
	network.name                  a network was created
	error                         what failed
	attempt                       of a pull, from 1
	layer, status, progress       of a pull: what the engine says, how far it has come
	took                          how long a pull took
	pause                         until the next attempt, of a pull or the event stream
	gap                           how long the event stream was away
	why, subscribers              events may be lost: for which reason, how many are told

The lines of the event stream belong to no task and carry none of its fields. Those
of a pull that several tasks share carry the fields of the first. The lines about
leftover files of secrets carry the fields of the caller's logger, and as task.id
the task that the files belonged to.
*/
package dockerexec
