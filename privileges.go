package dockerexec

import (
	"encoding/json"
	"strings"
	"unicode/utf8"

	"github.com/moby/swarmkit/v2/api"
)

// securityOpt translates the privileges into the engine's options, in the order
// in which the executor inside the engine has them.
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

// credentialSpec is for Windows engines; others refuse it.
func (c *containerConfig) credentialSpec(path string, credentials *api.Privileges_CredentialSpec) (string, error) {
	var scheme, value string
	switch source := credentials.Source.(type) {
	case *api.Privileges_CredentialSpec_File:
		path, scheme, value = path+".File", "file://", source.File
	case *api.Privileges_CredentialSpec_Registry:
		path, scheme, value = path+".Registry", "registry://", source.Registry
	case *api.Privileges_CredentialSpec_Config: // no request is made before its payload is known
		return credentialOption + "raw://" + c.credential, nil
	}
	if value == "" {
		return "", refuse(path, "is empty")
	}
	return credentialOption + scheme + value, nil
}

const credentialOption = "credentialspec="

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

// seccompOption hands a profile's text over: the engine reads no file for it.
func seccompOption(path string, seccomp *api.Privileges_SeccompOpts) (string, error) {
	if seccomp.Mode != api.Privileges_SeccompOpts_CUSTOM && len(seccomp.Profile) > 0 {
		return "", refuse(path+".Profile", "would have no effect: Mode is %s", seccomp.Mode)
	}
	switch seccomp.Mode {
	case api.Privileges_SeccompOpts_DEFAULT:
	case api.Privileges_SeccompOpts_UNCONFINED:
		return "seccomp=unconfined", nil
	case api.Privileges_SeccompOpts_CUSTOM:
		if !utf8.Valid(seccomp.Profile) { // which the request's encoder would alter
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

// credentialConfig is the config from which a Windows container's credential
// spec is taken. nil: none is.
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
