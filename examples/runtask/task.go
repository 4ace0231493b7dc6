package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/registry"
	"github.com/gogo/protobuf/jsonpb"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/identity"
)

// options are the flags as they were given.
type options struct {
	file, image, name, health     string
	env, volumes, ports, networks list
	args                          []string
	grace, healthInterval         time.Duration
	user, passwordFile, host      string
	keepVolumes, debug            bool
}

// list is a flag that may be given more than once.
type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(v string) error { *l = append(*l, v); return nil }

const usage = `usage: runtask -f FILE [FLAG...] [-- ARG...]
       runtask -image IMAGE [FLAG...] [-- ARG...]

Runs one SwarmKit task and exits with its container's exit code, or with 125 for
a failure of its own. It waits while the engine is away. Ctrl-C stops the task
within its grace period, and removes it. Flags come on top of the task in the
file. Values may hold templates such as {{.Service.Name}}, {{.Task.Slot}} and
{{.Node.Hostname}}.

`

func parseFlags(args []string, stderr io.Writer) (options, error) {
	var o options
	fs := flag.NewFlagSet("runtask", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprint(stderr, usage)
		fs.PrintDefaults()
	}
	fs.StringVar(&o.file, "f", "", "read the task from a JSON `FILE` with SwarmKit's field names; - is the standard input")
	fs.StringVar(&o.image, "image", "", "`IMAGE` to run")
	fs.StringVar(&o.name, "name", "", "`NAME` of the service (default \"runtask\"); the container is NAME.SLOT.TASKID")
	fs.Var(&o.env, "e", "set an environment variable, `NAME=VALUE`; repeatable")
	fs.Var(&o.volumes, "volume", "mount `SOURCE:TARGET[:ro]`, SOURCE the name of a volume or a path; repeatable")
	fs.Var(&o.ports, "p", "publish a port on the host, `PUBLISHED:TARGET[/PROTOCOL]`, 0 for any; repeatable")
	fs.Var(&o.networks, "network", "join network `NAME[,SUBNET]`, made if it is not there; repeatable")
	fs.StringVar(&o.health, "health", "", "health check: a `COMMAND` and its arguments, split at spaces, run without a shell")
	fs.DurationVar(&o.healthInterval, "health-interval", 0, "time between two health checks (default: the engine's)")
	fs.DurationVar(&o.grace, "grace", 0, "time between SIGTERM and SIGKILL when the task is stopped (default: the engine's)")
	fs.StringVar(&o.user, "user", os.Getenv("RUNTASK_USER"), "`NAME` of the user at the registry (default $RUNTASK_USER)")
	fs.StringVar(&o.passwordFile, "password-file", "", "`FILE` that holds the user's password (default: the password is $RUNTASK_PASSWORD)")
	fs.StringVar(&o.host, "host", "", "`ADDRESS` of the engine, such as unix:///run/docker.sock (default $DOCKER_HOST)")
	fs.BoolVar(&o.keepVolumes, "keep-volumes", false, "keep the volumes that the task made")
	fs.BoolVar(&o.debug, "debug", false, "log what the package does to the standard error")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	o.args = fs.Args()
	return o, nil
}

// task makes the task: the file's, if there is one, with the flags on top.
func (o options) task() (*api.Task, error) {
	task := &api.Task{}
	if o.file != "" {
		var err error
		if task, err = readTask(o.file); err != nil {
			return nil, err
		}
	}
	// What a manager would have filled in: an ID for the task, and the names
	// and numbers that the container's name and the templates are made of.
	fill(&task.ID, identity.NewID())
	fill(&task.ServiceID, identity.NewID())
	fill(&task.NodeID, identity.NewID())
	if o.name != "" {
		task.ServiceAnnotations.Name = o.name
	}
	fill(&task.ServiceAnnotations.Name, "runtask")
	if task.Slot == 0 {
		task.Slot = 1
	}
	if task.Spec.Runtime == nil {
		task.Spec.Runtime = &api.TaskSpec_Container{Container: &api.ContainerSpec{}}
	}
	spec := task.Spec.GetContainer()
	if spec == nil {
		return task, nil // another runtime, which the adapter refuses
	}

	if o.image != "" {
		spec.Image = o.image
	}
	if len(o.args) > 0 {
		spec.Args = o.args
	}
	spec.Env = append(spec.Env, o.env...)
	if o.grace != 0 {
		spec.StopGracePeriod = gogotypes.DurationProto(o.grace)
	}
	if o.health != "" {
		spec.Healthcheck = &api.HealthConfig{
			Test:     append([]string{"CMD"}, strings.Fields(o.health)...),
			Interval: gogotypes.DurationProto(o.healthInterval),
		}
	}
	for _, v := range o.volumes {
		m, err := parseVolume(v)
		if err != nil {
			return nil, err
		}
		spec.Mounts = append(spec.Mounts, m)
	}
	for _, p := range o.ports {
		port, err := parsePort(p)
		if err != nil {
			return nil, err
		}
		if task.Endpoint == nil {
			task.Endpoint = &api.Endpoint{}
		}
		task.Endpoint.Ports = append(task.Endpoint.Ports, port)
	}
	for _, n := range o.networks {
		task.Networks = append(task.Networks, parseNetwork(n))
	}
	if o.user != "" {
		auth, err := o.registryAuth(spec.Image)
		if err != nil {
			return nil, err
		}
		spec.PullOptions = &api.ContainerSpec_PullOptions{RegistryAuth: auth}
	}
	return task, nil
}

func fill(field *string, value string) {
	if *field == "" {
		*field = value
	}
}

// readTask decodes a task. encoding/json cannot: it does not know which type to
// put into Spec.Runtime, a choice of three, and takes enums as numbers only.
func readTask(name string) (*api.Task, error) {
	in := io.Reader(os.Stdin)
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	decoder, task := json.NewDecoder(in), &api.Task{}
	if err := jsonpb.UnmarshalNext(decoder, task); err != nil {
		return nil, fmt.Errorf("read a task from %s: %w", name, err)
	}
	if decoder.More() {
		return nil, fmt.Errorf("read a task from %s: there is more after the task", name)
	}
	return task, nil
}

// registryAuth returns the credentials as the engine's X-Registry-Auth header
// takes them.
func (o options) registryAuth(image string) (string, error) {
	password := os.Getenv("RUNTASK_PASSWORD")
	if o.passwordFile != "" {
		content, err := os.ReadFile(o.passwordFile)
		if err != nil {
			return "", err
		}
		password = strings.TrimRight(string(content), "\r\n")
	}
	auth := registry.AuthConfig{Username: o.user, Password: password}
	// Engines with the containerd image store send credentials only to the
	// registry that they are for.
	if ref, err := reference.ParseNormalizedNamed(image); err == nil {
		auth.ServerAddress = reference.Domain(ref)
	}
	return registry.EncodeAuthConfig(auth)
}

func parseVolume(v string) (api.Mount, error) {
	parts := strings.Split(v, ":")
	if len(parts) < 2 || len(parts) > 3 || len(parts) == 3 && parts[2] != "ro" || parts[0] == "" || parts[1] == "" {
		return api.Mount{}, fmt.Errorf("-volume %s: want SOURCE:TARGET[:ro]", v)
	}
	m := api.Mount{Source: parts[0], Target: parts[1], ReadOnly: len(parts) == 3}
	if strings.HasPrefix(m.Source, "/") {
		m.Type = api.MountTypeBind
		return m, nil
	}
	m.Type = api.MountTypeVolume
	m.VolumeOptions = &api.Mount_VolumeOptions{DriverConfig: &api.Driver{Name: "local"}}
	return m, nil
}

func parsePort(p string) (*api.PortConfig, error) {
	wrong := fmt.Errorf("-p %s: want PUBLISHED:TARGET[/PROTOCOL]", p)
	published, target, found := strings.Cut(p, ":")
	target, protocol, named := strings.Cut(target, "/")
	if !named {
		protocol = "tcp"
	}
	number, known := api.PortConfig_Protocol_value[strings.ToUpper(protocol)]
	from, errFrom := strconv.ParseUint(published, 10, 16)
	to, errTo := strconv.ParseUint(target, 10, 16)
	if !found || !known || errFrom != nil || errTo != nil {
		return nil, wrong
	}
	return &api.PortConfig{
		Protocol:      api.PortConfig_Protocol(number),
		PublishedPort: uint32(from),
		TargetPort:    uint32(to),
		// Not the default: ingress is the routing mesh of a whole swarm.
		PublishMode: api.PublishModeHost,
	}, nil
}

func parseNetwork(n string) *api.NetworkAttachment {
	name, subnet, _ := strings.Cut(n, ",")
	network := &api.Network{ID: identity.NewID(), Spec: api.NetworkSpec{Annotations: api.Annotations{Name: name}}}
	if subnet != "" {
		network.IPAM = &api.IPAMOptions{Configs: []*api.IPAMConfig{{Subnet: subnet}}}
	}
	return &api.NetworkAttachment{Network: network}
}
