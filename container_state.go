package dockerexec

import (
	"context"
	stderrors "errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/pkg/errors"
)

// stateStopped is what Podman 4.3 shows for some milliseconds after a container's end, with
// its exit code. Then it shows exited, as Docker does.
const stateStopped container.ContainerState = "stopped"

// withDockersState returns the answer with exited instead of stateStopped.
func withDockersState(answer container.InspectResponse) container.InspectResponse {
	if answer.State.Status == stateStopped {
		base, state := *answer.ContainerJSONBase, *answer.State
		state.Status = container.StateExited
		base.State, answer.ContainerJSONBase = &state, &base
	}
	return answer
}

// ownGrace returns the grace period that the container was made with, in seconds; nil: none.
func ownGrace(answer container.InspectResponse) *int {
	if answer.Config == nil {
		return nil
	}
	return answer.Config.StopTimeout
}

// hasEnded reports whether the container has run and has ended.
//
// An engine that is killed during a start does not see the container's exit. It shows
// the container as running while its process runs, and afterwards as created, with
// FinishedAt set. No other created container has FinishedAt set: a start that failed
// leaves only an exit code and an error (seen with 20.10 and 29).
func hasEnded(answer container.InspectResponse) bool {
	switch answer.State.Status {
	case container.StateExited, container.StateDead:
		return true
	case container.StateCreated:
		set, _ := isSet(answer.State.FinishedAt)
		return set
	default: // running, paused, restarting, removing
		return false
	}
}

// isUnstarted reports whether the container has not been started yet. A container whose
// start failed counts as not started.
func isUnstarted(answer container.InspectResponse) bool {
	return answer.State.Status == container.StateCreated && !hasEnded(answer)
}

// atEnd reports whether the container has ended. If the container is being removed, it
// returns [ErrContainerDestroyed]. [ContainerAdapter.Wait] passes atEnd to watch.
func atEnd(answer container.InspectResponse) (bool, error) {
	if answer.State.Status == container.StateRemoving {
		return false, ErrContainerDestroyed
	}
	return hasEnded(answer), nil
}

// isSet reports whether a time in an engine's answer is set. Engines write the zero
// time, in any time zone, for a time that is not set. known is false if text is no
// time: fakes leave it empty.
func isSet(text string) (set, known bool) {
	t, err := time.Parse(time.RFC3339Nano, text)
	return err == nil && t.Year() > 1, err == nil
}

// runsUnknownToEngine reports whether the container runs although the engine lost its
// start. The engine then shows it as running, without StartedAt.
func runsUnknownToEngine(answer container.InspectResponse) bool {
	started, known := isSet(answer.State.StartedAt)
	return answer.State.Status == container.StateRunning && known && !started
}

// mayRunBeside reports whether a second container like this one may run at the same time: it
// writes to no volume, path or device of the host, and holds no port of the host. A read-only
// mount counts as one that is not written to. A fake that does not tell gets false.
func mayRunBeside(answer container.InspectResponse) bool {
	if answer.ContainerJSONBase == nil || answer.HostConfig == nil {
		return false
	}
	host := answer.HostConfig
	writes := func(m mount.Mount) bool {
		isOwn := m.Type == mount.TypeTmpfs || m.Type == mount.TypeVolume && m.Source == ""
		return !isOwn && !m.ReadOnly
	}
	return !slices.ContainsFunc(host.Mounts, writes) && len(host.Binds)+len(host.VolumesFrom) == 0 &&
		len(host.PortBindings) == 0 && !host.PublishAllPorts && !host.NetworkMode.IsHost() && !host.NetworkMode.IsContainer() &&
		!host.IpcMode.IsHost() && !host.IpcMode.IsContainer() && !host.PidMode.IsHost() && !host.PidMode.IsContainer() &&
		len(host.Devices)+len(host.DeviceRequests)+len(host.DeviceCgroupRules) == 0 && !host.Privileged
}

// hasHealthcheck reports whether the engine checks the container's health. The check
// may come from the image. The task may turn it off.
func hasHealthcheck(answer container.InspectResponse) bool {
	if answer.Config == nil || answer.Config.Healthcheck == nil {
		return false
	}
	test := answer.Config.Healthcheck.Test
	return len(test) > 0 && test[0] != "NONE"
}

// isHealthy reports whether the container runs and is healthy. A container without a
// health check counts as healthy.
func isHealthy(answer container.InspectResponse) bool {
	health := answer.State.Health
	return answer.State.Status == container.StateRunning &&
		(health == nil || health.Status != container.Starting && health.Status != container.Unhealthy)
}

// defaultRetries is how many checks in a row must fail before an engine calls a
// container unhealthy, if neither the task nor the image sets a number.
const defaultRetries = 3

// failedChecks reports whether the container is unhealthy because its checks failed.
// For a container that has ended, it reports whether that was so at the end.
//
// The status alone does not tell. Engines also call a container unhealthy while they do
// not check it: while it is paused, after that until the next check, and after its end.
// But they keep the number of checks that failed in a row (seen with 20.10 and 29). If
// the log of the checks is nil, the answer comes from a fake. Then the status decides.
func failedChecks(answer container.InspectResponse) bool {
	health := answer.State.Health
	if health == nil || health.Status != container.Unhealthy {
		return false
	}
	retries := defaultRetries
	if answer.Config != nil && answer.Config.Healthcheck != nil && answer.Config.Healthcheck.Retries > 0 {
		retries = answer.Config.Healthcheck.Retries
	}
	return health.Log == nil || health.FailingStreak >= retries
}

// The times that an engine uses if neither the task nor the image sets them.
const (
	defaultCheckInterval = 30 * time.Second
	defaultCheckTimeout  = 30 * time.Second
	defaultStartInterval = 5 * time.Second
)

const (
	// missedChecks is how many checks must be missing before the checks count as stopped.
	// One check takes up to the sum of the interval and the time-out.
	missedChecks = 3
	// leastSilence is how long checks must be missing at least: a busy engine may be
	// late.
	leastSilence = time.Minute
	// longestCheck bounds an interval or a time-out, so that their sum has no overflow.
	longestCheck = 10000 * time.Hour
)

// checkSilence returns how long a running container may go without a health check. The
// engine waits for the interval after the end of a check.
func checkSilence(answer container.InspectResponse) time.Duration {
	var check container.HealthConfig
	if answer.Config != nil && answer.Config.Healthcheck != nil {
		check = *answer.Config.Healthcheck
	}
	orDefault := func(configured, byDefault time.Duration) time.Duration {
		if configured <= 0 {
			return byDefault
		}
		return min(configured, longestCheck)
	}
	interval := orDefault(check.Interval, defaultCheckInterval)
	if check.StartPeriod > 0 {
		interval = max(interval, orDefault(check.StartInterval, defaultStartInterval))
	}
	silence := max(missedChecks*(interval+orDefault(check.Timeout, defaultCheckTimeout)), leastSilence)
	if len(answer.State.Health.Log) == 0 {
		silence += orDefault(check.StartPeriod, 0)
	}
	return silence
}

// checkRecord tells whether an engine still runs the health checks of a container. An
// engine of 20.10 with live-restore forgets the checks when it restarts. From then on the
// container's health never changes. The zero value has seen nothing.
//
// The time of the last check is never compared with this host's clock, because the
// engine may have another clock. What counts is whether that time changes from one
// inspect to the next.
type checkRecord struct {
	last  checkMark
	since time.Duration // when last was first seen, on the caller's clock
	known bool          // last and since are set
}

// checkMark changes with each check, and with each start and pause of the container.
type checkMark struct {
	startedAt  string
	status     container.ContainerState
	health     container.HealthStatus
	streak     int
	begin, end int64 // of the last check, in nanoseconds
}

// look notes the engine's latest answer. now is the time on a clock that stands still
// while the engine is away. silence is how long no check has run. stopped says whether
// that means that the checks have stopped. look returns 0 and false for a container that
// does not run or has no check, and for a fake that shows neither a check nor a start time.
func (r *checkRecord) look(answer container.InspectResponse, now time.Duration) (silence time.Duration, stopped bool) {
	health := answer.State.Health
	started, _ := isSet(answer.State.StartedAt)
	if answer.State.Status != container.StateRunning || health == nil || !hasHealthcheck(answer) || len(health.Log) == 0 && !started {
		r.forget()
		return 0, false
	}
	mark := checkMark{startedAt: answer.State.StartedAt, status: answer.State.Status, health: health.Status, streak: health.FailingStreak}
	if n := len(health.Log); n > 0 && health.Log[n-1] != nil {
		mark.begin, mark.end = health.Log[n-1].Start.UnixNano(), health.Log[n-1].End.UnixNano()
	}
	if !r.known || r.last != mark {
		*r = checkRecord{last: mark, since: now, known: true}
	}
	silence = now - r.since
	return silence, silence >= checkSilence(answer)
}

// forget makes the record begin anew.
func (r *checkRecord) forget() { *r = checkRecord{} }

// errUnseenRun is the cause of the exit error of a container that has ended, but that the
// engine shows as created with exit code 0 (see hasEnded). Engines show 0 also if the
// container's program never ran.
var errUnseenRun = errors.New("the engine ended within the start: nobody knows whether the program ran to its end")

// ExitError returns the error that a SwarmKit controller's Wait reports for a container
// that has ended. It is nil if the container exited with 0 and the engine reports no
// error of its own. An exit code of 0 is an error too if the engine lost the container's
// start: then nobody knows the true code. The error implements [exec.ExitCoder] and
// [exec.ContainerStatuser]. Return it unwrapped: SwarmKit's agent does not look behind a
// wrapper.
//
// cause is the reason for the end, such as [ErrContainerUnhealthy]. errors.Is and
// errors.Cause find it behind the error. With a cause the error is never nil, whatever
// the exit code. If cause is nil, the engine's own error is the cause, if there is one.
// If the kernel killed the container because memory ran out, the text says "out of memory".
// If ended has no State, nobody knows how the container ended: the result is an error
// without an exit code.
func ExitError(ended container.InspectResponse, cause error) error {
	if ended.ContainerJSONBase == nil || ended.State == nil {
		return errors.New("dockerexec: the engine's answer about the container has no state")
	}
	if cause == nil && ended.State.Error != "" {
		cause = errors.New(ended.State.Error)
	}
	if cause == nil && ended.State.ExitCode == 0 {
		if ended.State.Status != container.StateCreated {
			return nil
		}
		cause = errUnseenRun
	}
	return &exitError{code: ended.State.ExitCode, oom: ended.State.OOMKilled, cause: cause, status: containerStatus(ended)}
}

// exitOf returns the exit error of a container that has ended. unhealthy says that it was
// stopped for its health. If another process has stopped it for that, the engine's record
// of the checks tells.
func exitOf(ended container.InspectResponse, unhealthy bool) error {
	if unhealthy || failedChecks(ended) {
		return ExitError(ended, ErrContainerUnhealthy)
	}
	return ExitError(ended, nil)
}

// endCauseOf returns why a container has ended, from the result of a wait for it. It is
// empty if err does not tell of an end.
func endCauseOf(err error) endCause {
	var exit *exitError
	switch {
	case err == nil:
		return endExit
	case stderrors.Is(err, ErrContainerUnhealthy):
		return endUnhealthy
	case stderrors.Is(err, ErrContainerDestroyed), stderrors.Is(err, errUnseenRun):
		return endLost
	case !stderrors.As(err, &exit):
		return ""
	case exit.oom && exit.code == killedCode:
		return endOOM
	default:
		return endExit
	}
}

// killedCode is the exit code after a SIGKILL. The kernel sends one if memory runs out.
const killedCode = 137

// exitError is the error of a task whose container failed.
type exitError struct {
	code   int
	oom    bool // the kernel killed a process of the container because memory ran out
	cause  error
	status *api.ContainerStatus
}

var (
	_ exec.ExitCoder         = (*exitError)(nil)
	_ exec.ContainerStatuser = (*exitError)(nil)
)

func (e *exitError) Error() string {
	text := fmt.Sprintf("task: non-zero exit (%d)", e.code)
	if e.code == 0 { // only the cause makes this an error
		text = "task: ended with exit code 0"
	}
	if memory := e.memory(); memory != "" {
		text += ": " + memory
	}
	if e.cause != nil {
		text += ": " + e.cause.Error()
	}
	return text
}

// memory says what the kernel killed because memory ran out. It is empty if that was nothing.
func (e *exitError) memory() string {
	switch {
	case !e.oom:
		return ""
	case e.code == killedCode:
		return "out of memory"
	default: // the program itself has ended with a code of its own
		return "a process of the container ran out of memory"
	}
}

// reason says for a person why the container failed.
func (e *exitError) reason() string {
	switch memory := e.memory(); {
	case e.code == 0: // the code is no reason
		return e.Error()
	case e.code == killedCode && memory != "":
		return memory
	case memory != "":
		return fmt.Sprintf("exit code %d: %s", e.code, memory)
	default:
		return fmt.Sprintf("exit code %d", e.code)
	}
}

// ExitCode returns the container's exit code.
func (e *exitError) ExitCode() int { return e.code }

// ContainerStatus returns the container's status at its end. So SwarmKit's agent need
// not ask the engine.
func (e *exitError) ContainerStatus(context.Context) (*api.ContainerStatus, error) {
	return e.status.Copy(), nil
}

// Cause serves [errors.Cause], which SwarmKit's agent uses.
func (e *exitError) Cause() error { return e.cause }

// Unwrap serves the standard library's errors.Is and errors.As.
func (e *exitError) Unwrap() error { return e.cause }

func idOf(answer container.InspectResponse) string {
	if answer.ContainerJSONBase == nil {
		return ""
	}
	return answer.ID
}

// shortID returns an engine's ID as the docker command shows it.
func shortID(id string) string {
	if id == "" {
		return "of unknown ID"
	}
	return id[:min(len(id), 12)]
}

func containerStatus(answer container.InspectResponse) *api.ContainerStatus {
	return &api.ContainerStatus{
		ContainerID: answer.ID,
		PID:         int32(answer.State.Pid),
		ExitCode:    int32(answer.State.ExitCode),
	}
}

// hasLogDetails reports whether the container's log driver was told to keep labels,
// environment or a tag with each message. Only then the engine is asked for details: if it
// ignored the request, the first word of each line would be taken for details.
func hasLogDetails(answer container.InspectResponse) bool {
	if answer.ContainerJSONBase == nil || answer.HostConfig == nil {
		return false
	}
	for _, option := range []string{"labels", "labels-regex", "env", "env-regex", "tag"} {
		if answer.HostConfig.LogConfig.Config[option] != "" {
			return true
		}
	}
	return false
}

// isPodmansLog reports whether the engine keeps the log in Podman's own form, which it calls
// json-file too. It counts lines where Docker counts entries, which may be pieces of a line,
// and each piece has its own time.
func isPodmansLog(answer container.InspectResponse) bool {
	return answer.ContainerJSONBase != nil && strings.HasSuffix(answer.LogPath, "/ctr.log")
}

// keepsJSONFile reports whether the engine keeps the log in a file of the driver json-file.
func keepsJSONFile(answer container.InspectResponse) bool {
	return answer.ContainerJSONBase != nil && answer.HostConfig != nil && answer.HostConfig.LogConfig.Type == "json-file"
}
