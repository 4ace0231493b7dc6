package dockerexec

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/go-connections/nat"
	"github.com/moby/swarmkit/v2/api"
)

// hostConfig returns the part of the create request that depends on the host.
func (c *containerConfig) hostConfig() *container.HostConfig {
	config, _ := c.translateHostConfig() // checked by translateTask
	return config
}

func (c *containerConfig) translateHostConfig() (*container.HostConfig, error) {
	spec := c.spec()
	config := &container.HostConfig{
		NetworkMode:    c.networkMode(),
		ReadonlyRootfs: spec.ReadOnly,
		GroupAdd:       cloneList(spec.Groups),
		CapAdd:         cloneList(spec.CapabilityAdd),
		CapDrop:        cloneList(spec.CapabilityDrop),
		Isolation:      isolations[spec.Isolation],
		OomScoreAdj:    int(spec.OomScoreAdj),
		LogConfig:      c.logConfig(),
	}
	if spec.OomScoreAdj < -1000 || spec.OomScoreAdj > 1000 {
		return nil, refuse("Spec.Container.OomScoreAdj", "%d is not between -1000 and 1000", spec.OomScoreAdj)
	}
	if i := slices.Index(spec.CapabilityAdd, ""); i >= 0 {
		return nil, refuse(fmt.Sprintf("Spec.Container.CapabilityAdd[%d]", i), "is empty")
	}
	if i := slices.Index(spec.CapabilityDrop, ""); i >= 0 {
		return nil, refuse(fmt.Sprintf("Spec.Container.CapabilityDrop[%d]", i), "is empty")
	}
	if spec.Init != nil {
		init := spec.Init.Value
		config.Init = &init
	}
	if dns := spec.DNSConfig; dns != nil {
		for i, server := range dns.Nameservers {
			if !isIP(server) {
				return nil, refuse(fmt.Sprintf("Spec.Container.DNSConfig.Nameservers[%d]", i), "%q is no IP address", server)
			}
		}
		config.DNS, config.DNSSearch, config.DNSOptions = cloneList(dns.Nameservers), cloneList(dns.Search), cloneList(dns.Options)
	}
	var err error
	if config.Sysctls, _, err = c.sysctls(); err != nil {
		return nil, err
	}
	if config.ExtraHosts, err = c.extraHosts(); err != nil {
		return nil, err
	}
	if config.SecurityOpt, err = c.securityOpt(); err != nil {
		return nil, err
	}
	if config.Mounts, config.Tmpfs, err = c.mounts(); err != nil {
		return nil, err
	}
	if _, config.PortBindings, err = c.ports(); err != nil {
		return nil, err
	}
	config.Resources, err = c.resources()
	return config, err
}

var isolations = map[api.ContainerSpec_Isolation]container.Isolation{
	api.ContainerIsolationDefault: container.IsolationDefault,
	api.ContainerIsolationProcess: container.IsolationProcess,
	api.ContainerIsolationHyperV:  container.IsolationHyperV,
}

// logConfig returns the zero value if the task names no log driver: the engine decides.
// Options without the name of a driver are for the engine's default driver.
func (c *containerConfig) logConfig() container.LogConfig {
	driver := c.task.LogDriver
	if driver == nil {
		driver = c.task.Spec.LogDriver
	}
	if driver == nil {
		return container.LogConfig{}
	}
	return container.LogConfig{Type: driver.Name, Config: cloneMap(driver.Options)}
}

// extraHosts translates lines of a hosts file: an address, names, a comment.
func (c *containerConfig) extraHosts() ([]string, error) {
	var hosts []string
	for i, line := range c.spec().Hosts {
		path := fmt.Sprintf("Spec.Container.Hosts[%d]", i)
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) < 2 {
			return nil, refuse(path, "is not an address with one name or more")
		}
		address := words[0]
		if address != "host-gateway" && !isIP(address) { // the engine replaces host-gateway with its own address
			return nil, refuse(path, "%q is no IP address", address)
		}
		for _, name := range words[1:] {
			if strings.Contains(name, ":") {
				return nil, refuse(path, "%q is no host name", name)
			}
			hosts = append(hosts, name+":"+address)
		}
	}
	return hosts, nil
}

// isIP reports whether s is an IP address.
func isIP(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// cloneList and cloneMap return nil if there are no elements. To an engine, nil and empty
// are the same.
func cloneList(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	return slices.Clone(list)
}

func cloneMap(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	return maps.Clone(m)
}

// The least and the most that engines take.
const (
	minNanoCPUs = 1e7
	minMemory   = 6 << 20
	maxPids     = 4194304 // of Linux, whatever its settings
)

func (c *containerConfig) resources() (container.Resources, error) {
	var r container.Resources
	spec, requirements := c.spec(), c.task.Spec.Resources
	if requirements == nil {
		requirements = &api.ResourceRequirements{}
	}
	if limits := requirements.Limits; limits != nil {
		const path = "Spec.Resources.Limits"
		if limits.NanoCPUs < 0 || limits.NanoCPUs > 0 && limits.NanoCPUs < minNanoCPUs {
			return r, refuse(path+".NanoCPUs", "%d is less than 0.01 CPUs (%d), the least that an engine takes", limits.NanoCPUs, int64(minNanoCPUs))
		}
		if limits.MemoryBytes < 0 {
			return r, refuse(path+".MemoryBytes", "%d is negative", limits.MemoryBytes)
		}
		if limits.MemoryBytes > 0 && limits.MemoryBytes < minMemory {
			return r, refuse(path+".MemoryBytes", "%d is less than 6 MiB (%d), the least that an engine takes", limits.MemoryBytes, minMemory)
		}
		r.NanoCPUs, r.Memory = limits.NanoCPUs, limits.MemoryBytes
		if c.maxCPUs > 0 {
			r.NanoCPUs = min(r.NanoCPUs, int64(c.maxCPUs)*1e9)
		}
	}
	var err error
	if r.MemorySwap, err = memorySwap(requirements, r.Memory); err != nil {
		return r, err
	}
	if v := requirements.MemorySwappiness; v != nil && v.Value != -1 {
		if v.Value < 0 || v.Value > 100 {
			return r, refuse("Spec.Resources.MemorySwappiness", "%d is neither between 0 and 100 nor -1", v.Value)
		}
		swappiness := v.Value
		r.MemorySwappiness = &swappiness
	}
	if spec.PidsLimit < -1 {
		return r, refuse("Spec.Container.PidsLimit", "%d is less than -1, which is no limit", spec.PidsLimit)
	}
	if spec.PidsLimit > maxPids {
		return r, refuse("Spec.Container.PidsLimit", "%d is more than %d, the most that a system counts; 0 is no limit", spec.PidsLimit, maxPids)
	}
	if limit := spec.PidsLimit; limit > 0 { // 0 and -1 are the engine's default; on Windows an engine wants the field unset
		r.PidsLimit = &limit
	}
	r.Ulimits, err = c.ulimits()
	return r, err
}

// memorySwap returns the engine's MemorySwap, which is memory and swap together. -1 is
// no limit, and 0 is the engine's default.
func memorySwap(requirements *api.ResourceRequirements, memory int64) (int64, error) {
	const path = "Spec.Resources.SwapBytes"
	if requirements.SwapBytes == nil {
		return 0, nil
	}
	swap := requirements.SwapBytes.Value
	switch {
	case swap == -1:
		return -1, nil
	case swap < -1:
		return 0, refuse(path, "%d is less than -1, which is no limit", swap)
	case memory == 0:
		return 0, refuse(path, "an engine limits swap only beside memory: set Spec.Resources.Limits.MemoryBytes")
	case swap > math.MaxInt64-memory:
		return 0, refuse(path, "%d and the memory limit are too much to count", swap)
	}
	return memory + swap, nil
}

func (c *containerConfig) ulimits() ([]*container.Ulimit, error) {
	var ulimits []*container.Ulimit
	seen := map[string]bool{}
	for i, u := range c.spec().Ulimits {
		path := fmt.Sprintf("Spec.Container.Ulimits[%d]", i)
		limit := &container.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard}
		if _, err := limit.GetRlimit(); err != nil || seen[u.Name] {
			return nil, refuse(path+".Name", "%q is unknown, or is there twice", u.Name)
		}
		if u.Soft < -1 || u.Hard < -1 || u.Hard != -1 && (u.Soft == -1 || u.Soft > u.Hard) { // -1 is no limit
			return nil, refuse(path+".Soft", "the limits %d (soft) and %d (hard) do not go together", u.Soft, u.Hard)
		}
		seen[u.Name] = true
		ulimits = append(ulimits, limit)
	}
	return ulimits, nil
}

// ports returns the ports that the container exposes, and how the host publishes them. A
// port may be published several times. Ingress ports are left out.
func (c *containerConfig) ports() (nat.PortSet, nat.PortMap, error) {
	var exposed nat.PortSet
	var bound nat.PortMap
	taken := map[string]int{}
	var only networkConfig
	if networks := c.networks(); len(networks) == 1 {
		only = networks[0]
	}
	for i, p := range c.endpointPorts() {
		path := fmt.Sprintf("Endpoint.Ports[%d]", i)
		if p.TargetPort < 1 || p.TargetPort > math.MaxUint16 {
			return nil, nil, refuse(path+".TargetPort", "%d is not between 1 and 65535", p.TargetPort)
		}
		if p.PublishedPort > math.MaxUint16 {
			return nil, nil, refuse(path+".PublishedPort", "%d is more than 65535", p.PublishedPort)
		}
		if p.PublishMode != api.PublishModeHost {
			continue
		}
		// An engine would accept the following two mistakes and publish another port or none.
		if only.isNone() {
			return nil, nil, refuse(path+".PublishMode", "network %s publishes nothing", only.name)
		}
		if only.isHost() && p.PublishedPort != 0 && p.PublishedPort != p.TargetPort {
			return nil, nil, refuse(path+".PublishedPort", "network %s publishes each port under its own number, not %d under %d", only.name, p.TargetPort, p.PublishedPort)
		}
		binding := nat.PortBinding{} // the engine chooses the port
		if p.PublishedPort > 0 {
			binding.HostPort = fmt.Sprint(p.PublishedPort)
			host := binding.HostPort + "/" + protocol(p)
			if other, is := taken[host]; is {
				return nil, nil, refuse(path+".PublishedPort", "%s is published by Endpoint.Ports[%d] already", host, other)
			}
			taken[host] = i
		}
		if exposed == nil {
			exposed, bound = nat.PortSet{}, nat.PortMap{}
		}
		port := nat.Port(targetPort(p))
		exposed[port] = struct{}{}
		bound[port] = append(bound[port], binding)
	}
	return exposed, bound, nil
}

// isIngress reports whether n is the routing mesh's network, which managers
// attach to every task with an ingress port.
func isIngress(n *api.Network) bool {
	_, internal := n.Spec.Annotations.Labels[labelInternal]
	return n.Spec.Ingress || internal && n.Spec.Annotations.Name == "ingress"
}

// ingressWarning says what the task does not get without the routing mesh. It is empty
// if the task needs no routing mesh.
func (c *containerConfig) ingressWarning() string {
	var what []string
	for _, p := range c.endpointPorts() {
		if p.PublishMode == api.PublishModeIngress {
			what = append(what, "port "+targetPort(p)+" is not published")
		}
	}
	for _, attachment := range c.task.Networks {
		if isIngress(attachment.Network) {
			what = append(what, "network "+attachment.Network.Spec.Annotations.Name+" is not joined")
		}
	}
	if len(what) == 0 {
		return ""
	}
	return "the routing mesh exists only inside a swarm engine: " + strings.Join(what, ", ")
}

func (c *containerConfig) endpointPorts() []*api.PortConfig {
	if c.task.Endpoint == nil {
		return nil
	}
	return c.task.Endpoint.Ports
}

func protocol(p *api.PortConfig) string   { return strings.ToLower(p.Protocol.String()) }
func targetPort(p *api.PortConfig) string { return fmt.Sprintf("%d/%s", p.TargetPort, protocol(p)) }

// securityOpt translates the privileges into the engine's options. They have the same
// order as in the swarm executor inside the engine.
func (c *containerConfig) securityOpt() ([]string, error) {
	privileges := c.spec().Privileges
	if privileges == nil {
		return nil, nil
	}
	const path = "Spec.Container.Privileges"
	var options []string
	if credentials := privileges.CredentialSpec; credentials != nil && credentials.Source != nil {
		option, err := c.credentialSpec(path+".CredentialSpec", credentials)
		if err != nil {
			return nil, err
		}
		options = append(options, option)
	}
	if selinux := privileges.SELinuxContext; selinux != nil {
		labels := selinuxLabels(selinux)
		if selinux.Disable && len(labels) > 0 {
			return nil, refuse(path+".SELinuxContext.Disable", "the context has labels that would have no effect")
		}
		if selinux.Disable {
			labels = []string{"label=disable"}
		}
		options = append(options, labels...)
	}
	if seccomp := privileges.Seccomp; seccomp != nil {
		option, err := seccompOption(path+".Seccomp", seccomp)
		if err != nil {
			return nil, err
		}
		if option != "" {
			options = append(options, option)
		}
	}
	if apparmor := privileges.Apparmor; apparmor != nil && apparmor.Mode == api.Privileges_AppArmorOpts_DISABLED {
		options = append(options, "apparmor=unconfined")
	}
	if privileges.NoNewPrivileges {
		options = append(options, "no-new-privileges=true")
	}
	return options, nil
}

// credentialSpec returns an option for engines on Windows. Other engines refuse it.
func (c *containerConfig) credentialSpec(path string, credentials *api.Privileges_CredentialSpec) (string, error) {
	var scheme, value string
	switch source := credentials.Source.(type) {
	case *api.Privileges_CredentialSpec_File:
		path, scheme, value = path+".File", "file://", source.File
	case *api.Privileges_CredentialSpec_Registry:
		path, scheme, value = path+".Registry", "registry://", source.Registry
	case *api.Privileges_CredentialSpec_Config: // c.credential is the payload of the config
		return credentialOption + "raw://" + c.credential, nil
	}
	if value == "" {
		return "", refuse(path, "is empty")
	}
	return credentialOption + scheme + value, nil
}

func selinuxLabels(selinux *api.Privileges_SELinuxContext) []string {
	var labels []string
	for _, l := range []struct{ name, value string }{
		{"user", selinux.User},
		{"role", selinux.Role},
		{"level", selinux.Level},
		{"type", selinux.Type},
	} {
		if l.value != "" {
			labels = append(labels, "label="+l.name+":"+l.value)
		}
	}
	return labels
}

// seccompOption passes on the text of a profile: the engine reads no file for it.
func seccompOption(path string, seccomp *api.Privileges_SeccompOpts) (string, error) {
	if seccomp.Mode != api.Privileges_SeccompOpts_CUSTOM && len(seccomp.Profile) > 0 {
		return "", refuse(path+".Profile", "would have no effect: Mode is %s", seccomp.Mode)
	}
	switch seccomp.Mode {
	case api.Privileges_SeccompOpts_DEFAULT:
	case api.Privileges_SeccompOpts_UNCONFINED:
		return "seccomp=unconfined", nil
	case api.Privileges_SeccompOpts_CUSTOM:
		if !utf8.Valid(seccomp.Profile) { // the request's encoder would change it
			return "", refuse(path+".Profile", "is not valid UTF-8")
		}
		profile := strings.TrimSpace(string(seccomp.Profile))
		if !strings.HasPrefix(profile, "{") || !json.Valid(seccomp.Profile) {
			return "", refuse(path+".Profile", "is no JSON object")
		}
		return "seccomp=" + profile, nil
	}
	return "", nil
}

// credentialConfig returns the config that holds the credential spec of a Windows
// container, or nil if there is none.
func (c *containerConfig) credentialConfig() (*dependency, error) {
	privileges := c.spec().Privileges
	if privileges == nil {
		return nil, nil
	}
	source, is := privileges.CredentialSpec.GetSource().(*api.Privileges_CredentialSpec_Config)
	if !is {
		return nil, nil
	}
	const at = "Spec.Container.Privileges.CredentialSpec.Config"
	if source.Config == "" {
		return nil, refuse(at, "is empty")
	}
	for i, ref := range c.spec().Configs {
		if ref.ConfigID == source.Config {
			d := configOf(i, ref)
			return &d, nil
		}
	}
	return nil, refuse(at, "%q is none of the task's Configs", source.Config)
}
