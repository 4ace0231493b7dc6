/*
Package dockerexec runs SwarmKit tasks as containers on a Docker Engine, through
the engine's API client.

It mirrors SwarmKit's swarmd/dockerexec and takes its place: a swarm agent
changes one import line. Others build a swarm-style executor of their own on
its container adapter, and test that executor against a fake client.

# Usage

A swarm agent takes [NewExecutor] in place of the reference's; it makes an Engine
of its own and a controller for each task. Nothing of it needs a Close beyond what
the agent does.

For an executor of your own make one [Engine] for each client, and from it an
adapter for each task:

	engine := dockerexec.NewEngine(client)
	adapter, err := engine.Adapter(node, task, nil)
	…
	err = adapter.PullImage(ctx)
	err = adapter.CreateNetworks(ctx)
	err = adapter.CreateVolumes(ctx)
	err = adapter.Create(ctx) // exec.ErrTaskPrepared: it is there already
	err = adapter.Start(ctx)
	ended, err := adapter.Wait(ctx)
	err = dockerexec.ExitError(ended, nil)
	err = adapter.Remove(ctx)
	err = adapter.RemoveNetworks(ctx)

Neither has anything to close. Whatever runs on their behalf ends with the
contexts of the calls that asked for it; what several share, the event stream or
a pull, with the last of them.

# Engine calls

The adapter's. For a task that uses nothing beyond the reference's features each
method makes these calls on the client and no other, so that a fake needs no more:

	PullImage       ImagePull
	CreateNetworks  NetworkCreate, for each network
	RemoveNetworks  NetworkRemove, for each network that an adapter of this Engine
	                created and the last one leaves
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
	CreateNetworks  NetworkInspect, when there is a network of that name
	RemoveNetworks  NetworkInspect, for a network that no adapter of this Engine
	                asked for; on a *client.Client ContainerList: see Networks
	Create          ContainerInspect, when there is a container of that name;
	                NetworkConnect, for several networks below API 1.44 and
	                for those that a container found there lacks;
	                Info, when the engine refuses a CPU limit above its cores
	Remove          ContainerInspect, while another removal is in progress
	PublishLogs     Events, while a followed container is not started
	any             DaemonHost, Info, for the first task with secrets or configs;
	                ContainerList then, if an earlier process left files
	any             Ping, once an Engine, on a *client.Client: see below

# Controllers

The controllers of [NewExecutor] stand on the adapter, and ask the engine more,
since a controller may take up a task that another process left. A fake under them
needs these calls as well:

	Prepare           CreateNetworks, CreateVolumes, PullImage, Create;
	                  ContainerInspect first, but for a new task's first Prepare;
	                  ImageInspect, when the pull fails;
	                  CreateNetworks and Create again, when a network has vanished
	Start             ContainerInspect, Start; Wait's calls, if there is a health check;
	                  Shutdown and Wait, when it fails;
	                  CreateNetworks and Start again, when a network has vanished;
	                  ContainerInspect, Shutdown, when the engine lost an earlier start
	Wait              Wait; Shutdown, when the container is unhealthy
	Shutdown          Shutdown; ContainerInspect first, for a task with a name of its own
	                  and while a start may be lost, and after a stop that failed
	Terminate         Terminate; the same
	Remove            Shutdown, Remove, RemoveNetworks; ContainerInspect first, unless
	                  this controller made the container under a name of the task's
	                  alone, and while a create or a start may be lost
	ContainerStatus   ContainerInspect
	PortStatus        ContainerInspect, unless ContainerStatus has just asked
	Logs              PublishLogs
	Update, Close     none

Names of the adapter's methods stand for their calls above. Describe calls Info and
PluginList. A create or a start may be lost when its answer was; a start also when
another process left the task between STARTING and its end.

What creates or starts something on the engine, once begun, goes on after the context
of Prepare or Start has ended, which return at once: the engine would carry it out all
the same. The next call of the controller waits for it, as long as its own context
allows, and what it made after a Remove is removed again. [WithRequestTimeout] bounds
it.

# API version

On a *client.Client whose version the user has not fixed, an Engine pings and
negotiates once, before its first other request, and so sets the client's
version. A failed ping is a passing fault. The version is agreed for good: an engine
that is replaced by one that is too old for it answers every call with "client
version … is too new", a temporary error, until the process starts again. The client's
version cannot be changed safely while others use it. Any other client, a fake, counts
as of the newest version. A task that uses a field which the version in use does not
have is refused by the first method that would make something.

# Tasks

The caller's task and node description are never changed; an adapter works on a
copy in which templates were expanded once. The same task makes the same requests
every time. No field is dropped in silence: each is translated, or read by
schedulers only, or the task is refused with an error that names the field by its
path. Two fields are warned about instead, once a task, because the reference
runs such tasks: ingress ports, which need a routing mesh that an engine alone
does not have, and a CPU limit above the host's cores, which is capped to them.

Containers, networks and volumes are found again by name and label, so a new
adapter in a new process goes on where another one stopped. The container's name
is SwarmKit's. A container of that name is another's if its label
com.docker.swarm.task.id names another task; without a label it is the task's if
the name has the task's ID in it, and never taken for what a create was to make.
Networks made here carry the label com.dockerexec.network, and only such networks
are removed.

# Networks

A network made here stays while somebody counts on it. The engine knows of the
containers that are attached to it, and keeps it then. It does not count one that
is created and not yet started, so RemoveNetworks asks for such containers, and
leaves the network to their tasks; a client that is no *client.Client, a fake, is
not asked. Before a container is created only its Engine knows: there a task
counts on its networks from CreateNetworks to RemoveNetworks, and the last one to
leave takes the network. A network that goes in spite of all this, say between
another process's CreateNetworks and its Create, is made again by the controllers
of [NewExecutor] when a create or a start fails for want of it. One with ConfigFrom
carries no label, as engines take none there: only its own Engine removes it.

# Secrets and configs

A container sees each as a read-only file with the name, owner and mode of its
reference: secrets with a relative name under /run/secrets, configs under /. Their
templates are expanded. Create writes them to files of this host, in a directory on a
memory file system, from which the engine mounts them one by one; Start writes
those again that are missing, and Remove removes them once the container is gone.
So they are in no image, and not in the container's writable layer. A create that
fails leaves none, unless the task had some before: their container may be there.

This needs an engine on this host, reached by a socket or a loopback address, both
on Linux, and an executor that may give files away, as root may. The executor sees
the directory at the same path as the engine; see [WithSecretsDir]. An engine on
another host, a rootless one, one that remaps users and one with SELinux labels
are refused, by the first method that would make something. A config that is a
Windows container's credential spec is no file: it is part of the create's request,
and whoever may inspect the container can read it.

The directory is <secrets directory>/<engine's ID>/<task's ID>. Before the first
task with secrets or configs an Engine removes those directories there whose tasks
have no container on the engine, and none if the engine does not list its containers.

# Health

The controllers of [NewExecutor] stop a container once the engine calls it unhealthy
and as many of its checks have failed in a row as its task or image says (3 if
neither does). A pause is no reason, though engines call a paused container
unhealthy; nor is a container judged while it is paused. One that has ended with its
last checks failed counts as stopped for its health, whichever process did that.

# Lost starts

An engine that is killed within a start forgets it. Back again, it shows a container
that was created, whose process may run without network and log. The controllers of
[NewExecutor] look for that before they stop or remove a container whose start may
be lost, and when a start is answered as a second one is: once a second for up to 20
seconds, since containerd tells the engine of the process for 15. What runs is
stopped, and the start has failed.

# Errors

  - A context that ended: its bare error, which SwarmKit's agent takes for a reason
    to try again.
  - A fault of the engine that passes (away, restarting, out of reach of a proxy,
    without its containerd, overloaded, still at an earlier create, no answer in
    time, or one that is cut short), or a secret, config or description of the node that is not there yet:
    temporary, see exec.IsTemporary. The agent tries again. A pull that hangs is
    final, after its stall time-out: it would hang again.
  - [ErrImageRequired], [ErrContainerDestroyed], exec.ErrTaskPrepared,
    exec.ErrRuntimeUnsupported: bare.
  - All else: what failed on which object, with the engine's own error behind it
    for errors.Is, errors.As and github.com/containerd/errdefs.

After any of them the call may be repeated: what was carried out although its
answer was lost is found again and counts as done. What an engine answers is
believed: 404 to a removal or a stop means that there is nothing to remove. An
answer that is no JSON is an error of the last kind, as whoever gives it is no engine.

The controllers of [NewExecutor] go further, since the agent asks for no stop of a
task that has ended, and only once for its removal. But for a refusal (400, 401, 403,
501), which is final unless it is that of the event stream:

  - Start and Wait take no answer to an inspect for the end of the container but
    404, and one that shows that it has ended, is being removed or is another's.
  - Shutdown and Terminate return a temporary error for a stop that failed, unless
    the engine shows that the container has ended or is gone.
  - A stop for health goes on until the container has ended, and Remove after what
    passes, 409 and 500; both as long as their context.
  - After a create whose answer was lost, Remove looks for the container for 5
    seconds, as an engine shows it only when its volumes are filled.

The classifiers, such as [IsUnknownContainer], go by what the engine says, since
engines differ in the class they give it.

# Concurrency

Engine and ContainerAdapter are safe for concurrent use. Every method that takes
a context returns when it ends. Channels say in the comment of the method that
returns them who sends, when they close and what happens to a slow reader.

# Log lines

All go through github.com/moby/swarmkit/v2/log, with the logger of the context.
They carry the fields task.id, service.id and node.id, and where they apply
container.id, image and network.name; a pull's also attempt, layer and status.
The lines of the event stream, which belongs to no task, carry none of these.

	warning  the event stream was lost, or is refused: containers are then inspected
	         every ten seconds (once an outage)
	         a followed log was lost, or has a gap
	         the engine answers to an inspect, but says nothing about the container
	         that a controller waits for (once until it does)
	         the pull failed and the image on the engine is used instead
	         a field that is warned about
	         a container cannot be stopped, or it or its network removed, for now
	         (once a call)
	info     the event stream, or a followed log, is restored, with the length of
	         the gap
	         a container is inspected again
	debug    all else

Nothing that is tried again is logged as an error. Credentials, environment
values and the payloads of secrets appear in no log line and in no error.
*/
package dockerexec
