package dockerexectest

import (
	"encoding/json"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	timetypes "github.com/docker/docker/api/types/time"
)

const (
	eventsKept    = 256                    // past events, of all kinds
	eventQueue    = 1024                   // events that wait for one client
	eventPatience = 100 * time.Millisecond // for a client whose queue is full
)

// eventLog has the engine's past events, and the clients that follow new ones.
type eventLog struct {
	ring      []events.Message
	last      int64 // time of the latest event, in nanoseconds
	followers map[*follower]bool
}

// follower is a client's queue of events. The engine's mu guards it.
type follower struct {
	passes  func(events.Message) bool
	queue   []events.Message
	taken   time.Time // when the client last took events
	arrived signal
}

// emit keeps an event and queues it for all followers. The caller holds mu.
func (e *Engine) emit(kind events.Type, action events.Action, id string, attributes map[string]string) {
	e.lastStamp = max(e.lastStamp, e.events.last+999) // events are so far apart that rounded times differ
	now := e.now()
	if e.isMute {
		return
	}
	e.events.last = now.UnixNano()
	m := events.Message{Type: kind, Action: action, Actor: events.Actor{ID: id, Attributes: attributes},
		Scope: "local", Time: now.Unix(), TimeNano: now.UnixNano()}
	switch { // what older clients read
	case kind == events.ContainerEventType:
		m.ID, m.Status, m.From = id, string(action), attributes["image"] //nolint:staticcheck // deprecated, but engines send it
	case kind == events.ImageEventType:
		m.ID, m.Status = id, string(action) //nolint:staticcheck // deprecated, but engines send it
	}
	if len(e.events.ring) >= eventsKept {
		e.events.ring = append(e.events.ring[:0:0], e.events.ring[len(e.events.ring)-eventsKept+1:]...)
	}
	e.events.ring = append(e.events.ring, m)
	for f := range e.events.followers {
		if !f.passes(m) {
			continue
		}
		if len(f.queue) >= eventQueue && time.Since(f.taken) >= eventPatience {
			continue // the client loses the event, and is not told
		}
		if len(f.queue) == 0 {
			f.taken = time.Now()
		}
		f.queue = append(f.queue, m)
		f.arrived.raise()
	}
}

// emit emits an event of the container. The container's labels override attributes, as
// with engines. The caller holds mu.
func (c *Container) emit(action events.Action, attributes map[string]string) {
	all := map[string]string{}
	if c.engine.dialect == PodmanV4 {
		all["podId"], all["containerExitCode"] = "", "0"
		if code, isEnd := attributes["exitCode"]; isEnd {
			all["containerExitCode"] = code
		}
	}
	maps.Copy(all, attributes)
	maps.Copy(all, c.config.Labels)
	if c.config.Image != "" {
		all["image"] = c.config.Image
	}
	all["name"] = c.name
	c.engine.emit(events.ContainerEventType, action, c.id, all)
}

// serveEvents is GET /events.
func serveEvents(e *Engine, r *request) (answer, error) {
	since, err := e.timeOf(r, "since", "'since'")
	if err != nil {
		return answer{}, err
	}
	until, err := e.timeOf(r, "until", "'until'")
	if err != nil {
		return answer{}, err
	}
	if !until.IsZero() && until.Before(since) {
		return answer{}, badRequest("`since` time (%s) cannot be after `until` time (%s)", r.query.Get("since"), r.query.Get("until"))
	}
	args, err := e.filters(r)
	if err != nil {
		return answer{}, err
	}

	e.mu.Lock()
	defer e.mu.Unlock()
	f := &follower{passes: func(m events.Message) bool { return e.dialect.passes(args, m) }, taken: time.Now()}
	if !since.IsZero() || !until.IsZero() {
		f.queue = e.pastEvents(f.passes, since, until)
	}
	onlyPast := !until.IsZero() && until.Before(time.Now())
	if r.query.Has("stream") {
		if e.dialect != PodmanV4 {
			return answer{}, unservedError("the query parameter stream, which Docker does not know")
		}
		onlyPast = onlyPast || r.query.Get("stream") == "false"
	}
	if !onlyPast {
		// Follow before the answer: a client that has the answer then misses no event.
		if e.events.followers == nil {
			e.events.followers = map[*follower]bool{}
		}
		e.events.followers[f] = true
	}
	return answer{stream: func(w io.Writer) error { return e.sendEvents(w, r, f, until, onlyPast) }, ended: func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.events.followers, f)
	}}, nil
}

// pastEvents returns the kept events from since to until, both inclusive. The search goes
// back from the newest event, and ends at the first event before since. The caller holds
// mu.
func (e *Engine) pastEvents(passes func(events.Message) bool, since, until time.Time) []events.Message {
	var found []events.Message
	for _, m := range slices.Backward(e.events.ring) {
		if !since.IsZero() && m.TimeNano < since.UnixNano() {
			break
		}
		if (until.IsZero() || m.TimeNano <= until.UnixNano()) && passes(m) {
			found = append(found, m)
		}
	}
	slices.Reverse(found)
	return found
}

func (e *Engine) sendEvents(w io.Writer, r *request, f *follower, until time.Time, onlyPast bool) error {
	wait := long
	if !until.IsZero() {
		wait = time.Until(until)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	encoder := json.NewEncoder(w)
	encode := func(m events.Message) error { return encoder.Encode(m) }
	if e.dialect == DockerV29 && !r.atLeast("1.52") {
		encode = func(m events.Message) error { return encodeRounded(encoder, m) }
	}
	for {
		e.mu.Lock()
		queue, arrived := f.queue, f.arrived.wait()
		f.queue, f.taken = nil, time.Now()
		e.mu.Unlock()
		for _, m := range queue {
			if err := encode(m); err != nil {
				return err
			}
		}
		if onlyPast {
			return nil
		}
		if len(queue) > 0 {
			continue
		}
		select {
		case <-arrived:
		case <-timer.C:
			return nil
		case <-r.ctx.Done():
			return r.ctx.Err()
		}
	}
}

// encodeRounded encodes an event as Docker 29 does for API versions below 1.52. There the
// events of containers and images also have the fields of older clients. The times of
// these events lose their last digits.
func encodeRounded(encoder *json.Encoder, m events.Message) error {
	text, err := json.Marshal(m)
	if err != nil || m.Type != events.ContainerEventType && m.Type != events.ImageEventType {
		return encoder.Encode(m)
	}
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		return err
	}
	return encoder.Encode(fields)
}

// passes reports whether a filter lets an event through.
func (d Dialect) passes(args filters.Args, m events.Message) bool {
	if d == PodmanV4 {
		for _, label := range args.Get("label") {
			if !strings.Contains(label, "=") {
				return false // with a label that has no value, Podman sends nothing
			}
		}
		if m.Type == events.ContainerEventType && args.Contains("event") {
			action := m.Action
			if action == events.ActionDie {
				action = "died"
			}
			if !args.ExactMatch("event", string(action)) {
				return false
			}
			args = args.Clone()
			for _, name := range args.Get("event") {
				args.Del("event", name)
			}
		}
	}
	match := args.ExactMatch
	for _, fuzzy := range []string{"health_status", "exec_create", "exec_start"} {
		if args.ExactMatch("event", fuzzy) && args.Contains("event") {
			match = args.FuzzyMatch
		}
	}
	attributes := m.Actor.Attributes
	image := attributes["image"]
	if m.Type == events.ImageEventType {
		image = attributes["name"]
	}
	if args.Contains("image") && !args.ExactMatch("image", m.Actor.ID) && !args.ExactMatch("image", image) &&
		!args.ExactMatch("image", withoutTag(m.Actor.ID)) && !args.ExactMatch("image", withoutTag(image)) {
		return false
	}
	for _, kind := range []events.Type{events.ContainerEventType, events.NetworkEventType, events.VolumeEventType, events.DaemonEventType, events.PluginEventType,
		events.ServiceEventType, events.NodeEventType, events.SecretEventType, events.ConfigEventType} {
		if args.Contains(string(kind)) && !args.FuzzyMatch(string(kind), m.Actor.ID) && !args.FuzzyMatch(string(kind), attributes["name"]) {
			return false
		}
	}
	return match("event", string(m.Action)) && args.ExactMatch("type", string(m.Type)) && args.ExactMatch("scope", m.Scope) &&
		(!args.Contains("label") || args.MatchKVList("label", attributes))
}

func withoutTag(ref string) string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ref
	}
	return reference.FamiliarName(named)
}

// timeOf reads a query parameter that is "SECONDS.NANOSECONDS". "" and "0" differ: only
// "" is the zero time. quoted is the parameter's name in an error.
func (e *Engine) timeOf(r *request, name, quoted string) (time.Time, error) {
	text := r.query.Get(name)
	if text == "" {
		return time.Time{}, nil
	}
	seconds, nanos, err := timetypes.ParseTimestamps(text, 0)
	if err != nil {
		whole, _, _ := strings.Cut(text, ".")
		return time.Time{}, e.dialect.badTime(quoted, text, whole)
	}
	return time.Unix(seconds, nanos), nil
}
