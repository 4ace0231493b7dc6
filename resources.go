package dockerexec

import (
	"fmt"
	"math"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/api"
)

// The smallest CPU limit that engines take.
const minNanoCPUs = 1e7

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
	if limit := spec.PidsLimit; limit > 0 { // 0 and -1 are the engine's default too, which Windows takes only unset
		r.PidsLimit = &limit
	}
	r.Ulimits, err = c.ulimits()
	return r, err
}

// memorySwap is what the engine calls so: memory and swap together. -1 is no
// limit, 0 the engine's default.
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
