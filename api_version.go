package dockerexec

import (
	"context"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/docker/docker/api"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/versions"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/log"
	"github.com/pkg/errors"
)

// apiVersion agrees with the engine on an API version. That happens before the Engine's
// first other request, and again when the engine refuses the version: it was upgraded
// or downgraded.
//
// The client's own negotiation is not used, for three reasons. It sets the version while
// other requests may read it: a data race. It hides a ping that failed, and then keeps a
// version that an older engine refuses. And it never raises a version.
type apiVersion struct {
	client engineapi.APIClient // the one that the Engine was given
	pinger interface {
		Ping(ctx context.Context) (types.Ping, error)
	}
	isFake bool           // the client is a fake: it gets no ping, and no request that fakes may lack
	shared *clientVersion // the version, which all Engines of the client share
	agreed atomic.Bool    // this Engine has agreed on the version, so it need not ping
	maker  atomic.Int32   // see madeBy

	optional *optionalRequests
}

func (v *apiVersion) init(e *Engine, isWrapped bool) {
	v.client, v.pinger, v.optional = e.given, e.client, &e.optional
	if _, isReal := e.given.(*engineapi.Client); !isReal && !isWrapped {
		v.isFake = true
		v.shared = newClientVersion()
		v.fix("") // the newest
		return
	}
	v.shared = clientVersions.of(e)
}

// fix sets the version without asking the engine.
func (v *apiVersion) fix(version string) {
	v.shared.store(version)
	v.agreed.Store(true)
}

// get returns the agreed version. If this Engine has not agreed on one, it pings first.
// The empty version is the newest. A failed ping is a passing fault: the next call
// tries again. The version may change after get has returned. Between enter and leave it
// does not change.
func (v *apiVersion) get(ctx context.Context, timeout time.Duration) (string, error) {
	if v.agreed.Load() {
		return v.shared.current(), nil
	}
	pingCtx, cancel := withTimeout(ctx, timeout) // its time begins here: the wait for another call's ping counts too
	defer cancel()
	failed := func(err error) (string, error) {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", exec.MakeTemporary(errors.Wrapf(err, "ping the engine at %s", cleanURL(v.client.DaemonHost())))
	}
	if err := passGate(ctx, v.shared.gate, timeout); err != nil {
		return failed(err)
	}
	defer leaveGate(v.shared.gate)
	if v.agreed.Load() {
		return v.shared.current(), nil
	}

	ping, err := v.pinger.Ping(pingCtx)
	switch {
	case err != nil && pingCtx.Err() != nil:
		return failed(requestTimeoutError(timeout))
	case forbidsRequest(err): // another answer says more: a 404, that no engine is there
		v.optional.without(ctx, "GET /_ping", err, "the API version is learnt when the engine refuses one")
		if ping.APIVersion == "" {
			ping.APIVersion = newestVersion
		}
	case isAnswer(err):
		return failed(errors.New(err.Error())) // the class is dropped: with it, the error would look like the answer to the caller's own request
	case err != nil:
		return failed(err)
	case ping.APIVersion == "":
		return failed(errors.New("its answer names no API version"))
	}
	if err := v.shared.agree(pingCtx, v.client, ping); err != nil {
		return failed(err)
	}
	v.maker.Store(int32(makerOf(ping)))
	v.agreed.Store(true)
	return v.shared.current(), nil
}

// madeBy returns whose engine has answered the ping of get.
func (v *apiVersion) madeBy() maker { return maker(v.maker.Load()) }

// enter begins a request, after get. It waits while the version is being changed. The
// version stays as it is until leave. callCtx ends early if the request must make room
// for a change: see cutBy.
func (v *apiVersion) enter(ctx context.Context) (callCtx context.Context, version string, leave func(), err error) {
	if v.isFake {
		return ctx, v.shared.current(), func() {}, nil
	}
	return v.shared.enter(ctx)
}

// refusesVersion reports whether a request failed with err because the engine does not
// speak the request's API version. The engine has not carried out that request.
func refusesVersion(err error) bool { return tooNewClient.matches(err) || tooOldClient.matches(err) }

// newestVersion is the newest API version that the client speaks.
const newestVersion = api.DefaultVersion

// renew agrees on another version, after the engine has refused the version that a
// request was made with. refusal is the engine's answer. renew reports whether the
// request may be repeated. If no other version can be agreed on, one warning is logged.
// hide takes secrets out of the error of a ping.
func (v *apiVersion) renew(ctx context.Context, timeout time.Duration, refused string, refusal error, hide func(error) error) bool {
	if v.isFake || passGate(ctx, v.shared.gate, timeout) != nil {
		return false
	}
	defer leaveGate(v.shared.gate)
	if v.shared.current() != refused {
		return true // another call has changed the version already
	}
	ctx, cancel := withTimeout(ctx, timeout)
	defer cancel()
	var wanted string
	why := v.shared.whyFixed()
	if why == "" {
		ping, err := v.pinger.Ping(ctx)
		if err != nil && !forbidsRequest(err) {
			log.G(ctx).WithError(hide(err)).Debug("the engine refuses the API version, and no other one is agreed on yet: the ping failed")
			return false
		}
		wanted = withinLimits(ping.APIVersion, refusal)
	}
	switch {
	case why != "":
	case versions.GreaterThan(wanted, newestVersion):
		why = "the client speaks no version above " + newestVersion
	case wanted == refused:
		why = "the engine offers no other one"
	default:
		var err error
		if why, err = v.shared.set(ctx, v.client, wanted); err != nil {
			log.G(ctx).WithError(err).Debug("the API version was not changed")
			return false
		}
	}
	if why != "" {
		if v.shared.warned.CompareAndSwap(false, true) {
			log.G(ctx).WithError(refusal).Warnf("the engine refuses API version %s, and no other version can be agreed on: %s; the calls are tried again", refused, why)
		}
		return false
	}
	v.shared.warned.Store(false)
	log.G(ctx).Infof("API version %s agreed on with the engine, in place of %s", wanted, refused)
	return true
}

// versionLimit finds the limit that the engine names when it refuses a version.
var versionLimit = regexp.MustCompile(`(minimum|maximum) supported api version is (\d+\.\d+)`)

// withinLimits returns the newest version that the client and the engine speak. If the
// refusal names a minimum above that, it returns the minimum. pinged is the newest version
// of the engine, as its ping says; empty: not known. The refusal counts more than the
// ping: during an upgrade, another engine may have answered the ping.
func withinLimits(pinged string, refusal error) string {
	wanted := newestVersion
	if pinged != "" && versions.LessThan(pinged, wanted) {
		wanted = pinged
	}
	if limit := versionLimit.FindStringSubmatch(strings.ToLower(rawText(refusal))); limit != nil {
		isMinimum := limit[1] == "minimum"
		if isMinimum && versions.LessThan(wanted, limit[2]) || !isMinimum && versions.GreaterThan(wanted, limit[2]) {
			wanted = limit[2]
		}
	}
	return wanted
}

// clientVersion is the API version of one client. All Engines of the client share it,
// because a client has only one version.
type clientVersion struct {
	gate   chan struct{} // see passGate; its holder pings, and changes the version
	warned atomic.Bool   // the warning that no version can be agreed on was logged

	mu      sync.Mutex
	version string
	known   bool // version is set
	// raised says that this package has set the version with engineapi.WithVersion: only
	// that can raise a version. From then on the client ignores pings, as if its user had
	// fixed the version.
	raised bool
	fixed  bool // the client's user has fixed the version
	calls  map[*versionedCall]struct{}
	held   chan struct{} // closed when a change of the version has ended or failed; nil: there is no change
	idle   chan struct{} // closed when the last request under way has ended; nil: nobody waits for that
}

// versionedCall is a request under way that uses the version.
type versionedCall struct{ cancel context.CancelCauseFunc }

func newClientVersion() *clientVersion {
	return &clientVersion{gate: make(chan struct{}, 1), calls: map[*versionedCall]struct{}{}}
}

func (s *clientVersion) current() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version
}

func (s *clientVersion) store(version string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version, s.known = version, true
}

func (s *clientVersion) enter(ctx context.Context) (callCtx context.Context, version string, leave func(), err error) {
	for {
		s.mu.Lock()
		held := s.held
		if held == nil {
			callCtx, cancel := context.WithCancelCause(ctx)
			c := &versionedCall{cancel}
			s.calls[c] = struct{}{}
			version := s.version
			s.mu.Unlock()
			return callCtx, version, func() { s.leave(c) }, nil
		}
		s.mu.Unlock()
		select {
		case <-held:
		case <-ctx.Done():
			return ctx, "", func() {}, ctx.Err()
		}
	}
}

func (s *clientVersion) leave(c *versionedCall) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.calls, c)
	if len(s.calls) == 0 && s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
}

// versionCutError is the error of a request that was cut short because the version must
// change. Whether the engine carried out the request is not known.
type versionCutError struct{}

func (versionCutError) Error() string {
	return "cut short, because the client changes to another API version"
}

// Temporary makes the agent try again.
func (versionCutError) Temporary() bool { return true }

// cutBy returns the error of a request that was cut short for a change of the version;
// nil: it was not. callCtx is from enter.
func cutBy(callCtx context.Context) error {
	if cut, is := context.Cause(callCtx).(versionCutError); is { //nolint:errorlint // bare
		return cut
	}
	return nil
}

const (
	// drainTime is how long the requests under way have until they are cut short for a
	// change of the version.
	drainTime = 5 * time.Second
	// cutTime is how long a request that was cut may take to return. A transport that
	// ignores contexts may take longer. Then the version stays as it is.
	cutTime = 5 * time.Second
)

// change calls write while no request of the client is under way. New requests wait until
// change returns. Requests under way are cut short after drainTime. Only the holder of the
// gate may call change.
func (s *clientVersion) change(ctx context.Context, write func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	held := make(chan struct{})
	s.held = held
	defer func() {
		s.held = nil
		close(held)
	}()
	if !s.awaitIdleLocked(ctx, drainTime) && ctx.Err() == nil {
		for c := range s.calls {
			c.cancel(versionCutError{})
		}
		if !s.awaitIdleLocked(ctx, cutTime) && ctx.Err() == nil {
			return errors.Errorf("%d requests under way do not end", len(s.calls))
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	write()
	return nil
}

// awaitIdleLocked waits until no request is under way, at most for limit. It reports
// false if a request is still under way. While it waits, it unlocks s.mu.
func (s *clientVersion) awaitIdleLocked(ctx context.Context, limit time.Duration) bool {
	if len(s.calls) == 0 {
		return true
	}
	idle := make(chan struct{})
	s.idle = idle
	s.mu.Unlock()
	timer := time.NewTimer(limit)
	select {
	case <-idle:
	case <-timer.C:
	case <-ctx.Done():
	}
	timer.Stop()
	s.mu.Lock()
	s.idle = nil
	return len(s.calls) == 0
}

// agree sets the version for an Engine that has just pinged. If another Engine has set the
// client's version before, agree can only lower it.
func (s *clientVersion) agree(ctx context.Context, client engineapi.APIClient, ping types.Ping) error {
	s.mu.Lock()
	known, version, fixed := s.known, s.version, s.fixed
	s.mu.Unlock()
	if !known {
		return s.change(ctx, func() {
			client.NegotiateAPIVersionPing(ping)
			s.version, s.known = client.ClientVersion(), true
			// The negotiation lowers a version that is above the ping's, unless the user has
			// fixed it. A fixed version that is not above the ping's is found by setLocked.
			s.fixed = versions.GreaterThan(s.version, ping.APIVersion)
		})
	}
	if fixed || !versions.LessThan(ping.APIVersion, version) {
		return nil
	}
	_, err := s.set(ctx, client, ping.APIVersion) // if the version cannot be set, the user has fixed it: no error
	return err
}

const (
	userFixedVersion = "the client was made with a fixed version"
	onlyRealGoesUp   = "only a *client.Client can go to a newer one"
)

// whyFixed says why the version can never be changed, if that is known already.
func (s *clientVersion) whyFixed() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fixed {
		return userFixedVersion
	}
	return ""
}

// set changes the version to wanted. If the client does not allow that, why says why. If
// the change failed and may be tried again, set returns err.
func (s *clientVersion) set(ctx context.Context, client engineapi.APIClient, wanted string) (why string, err error) {
	if _, isReal := client.(*engineapi.Client); !isReal && versions.GreaterThan(wanted, s.current()) {
		return onlyRealGoesUp, nil // change is not called: it makes other requests wait
	}
	err = s.change(ctx, func() {
		why = s.setLocked(client, wanted)
		s.version, s.known = client.ClientVersion(), true
	})
	return why, err
}

func (s *clientVersion) setLocked(client engineapi.APIClient, wanted string) (why string) {
	typed, isReal := client.(*engineapi.Client)
	before := client.ClientVersion()
	isLower := versions.LessThan(wanted, before)
	switch {
	case wanted == before:
		return ""
	case !isLower && !isReal:
		return onlyRealGoesUp
	case !s.raised:
		// Find out whether the user has fixed the version: then a ping does not lower it.
		// The client shows that in no other way. A ping never raises a version. So if
		// wanted is higher, name the lowest version instead.
		lower := wanted
		if !isLower {
			lower = "1.0"
		}
		client.NegotiateAPIVersionPing(types.Ping{APIVersion: lower})
		if client.ClientVersion() == before {
			s.fixed = true
			return userFixedVersion
		}
	}
	if isReal && client.ClientVersion() != wanted {
		_ = engineapi.WithVersion(wanted)(typed) // cannot fail
		s.raised = true
	}
	return ""
}
