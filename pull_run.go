package dockerexec

import (
	"context"
	"encoding/json"
	stderrors "errors"
	"io"
	"strconv"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/log"
	"github.com/pkg/errors"
	"golang.org/x/time/rate"
)

const (
	// The first and the longest pause between the attempts of a pull. Pauses are
	// random, so that the engines of a cluster do not ask a registry at the same time.
	pullFirstPause   = 1500 * time.Millisecond
	pullLongestPause = 30 * time.Second
	// rateLimitPauses is how many times longer the pause is after a registry's 429,
	// because registries count requests over minutes.
	rateLimitPauses = 5
)

// pullResult is how a pull ended.
type pullResult struct {
	attempt, attempts int
	err               *pullError // nil: the pull succeeded
}

// errorFor returns the error of PullImage. name is the image, as the caller's task
// names it.
func (r pullResult) errorFor(name string) error {
	if r.err == nil {
		return nil
	}
	err := errors.Wrapf(r.err, "pull image %s, attempt %d of %d", name, r.attempt, r.attempts)
	if r.err.engine && r.err.passing {
		return exec.MakeTemporary(err)
	}
	return err
}

// pullRun does the work of one shared pull.
type pullRun struct {
	pulls    *pulls
	shared   *sharedPull
	target   pullTarget
	words    wording
	scrubber scrubber
}

func newPullRun(pulls *pulls, shared *sharedPull, target pullTarget) *pullRun {
	return &pullRun{
		pulls: pulls, shared: shared, target: target,
		words: newWording(target), scrubber: target.scrubber,
	}
}

// run makes attempts until one succeeds, one fails for good, or no more are allowed. An
// attempt that stalls fails for good.
func (r *pullRun) run(ctx context.Context) pullResult {
	started := time.Now()
	pauses := backoff{first: pullFirstPause, longest: pullLongestPause, atLeastHalf: true}
	for attempt := 1; ; attempt++ {
		ctx := log.WithFields(ctx, log.Fields{"image": r.target.image, "attempt": attempt})
		err := r.once(ctx)
		result := pullResult{attempt: attempt, attempts: r.pulls.attempts, err: err}
		if err == nil {
			log.G(ctx).WithField("took", time.Since(started).Round(time.Millisecond)).Debug("image pulled")
			return result
		}
		if ctx.Err() != nil || !err.passing || attempt >= r.pulls.attempts {
			return result
		}
		pause := pauses.next()
		if err.rateLimited() {
			pause *= rateLimitPauses
		}
		log.G(ctx).WithFields(log.Fields{"error": err.Error(), "pause": pause.Round(time.Millisecond)}).Debug("image pull failed: trying again")
		if sleep(ctx, pause) != nil {
			return result
		}
		r.shared.restart(attempt + 1)
	}
}

// once makes one attempt.
func (r *pullRun) once(ctx context.Context) *pullError {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer r.watch(cancel)()

	body, err := r.pulls.open(ctx, r.target.image, r.target.options, r.scrubber.hide)
	if stalled := stallOf(ctx); stalled != nil && err != nil {
		return stalled
	}
	if err != nil {
		return r.words.requestError(rawError(err)).scrubbed(r.scrubber)
	}
	if body == nil { // only a fake does that
		return nil
	}
	closeBody := sync.OnceFunc(func() { body.Close() })
	defer closeBody()
	defer context.AfterFunc(ctx, closeBody)() // for a body that does not end with ctx

	messages, lines := newPullStream(body), newPullLog()
	for mayEnd := r.pulls.isFake; ; mayEnd = true { // a real engine sends at least one message
		message, err := messages.next()
		if stalled := stallOf(ctx); stalled != nil {
			return stalled
		}
		switch {
		case ctx.Err() != nil:
			return &pullError{text: ctx.Err().Error()} // no caller waits for the result
		case err == io.EOF && !mayEnd: //nolint:errorlint // as below
			return &pullError{text: "the engine's answer is empty", class: cerrdefs.ErrUnavailable, passing: true, engine: true}
		case err == io.EOF: //nolint:errorlint // only the bare one is the end of a whole body
			return nil
		case err != nil:
			return r.words.bodyError(err).scrubbed(r.scrubber)
		}
		if failure := message.failure(); failure != nil {
			return r.words.streamError(failure).scrubbed(r.scrubber)
		}
		r.take(ctx, message, lines)
	}
}

// take handles one message: it updates the state, wakes the observers and writes log
// lines.
func (r *pullRun) take(ctx context.Context, m *pullMessage, lines *pullLog) {
	s := r.shared
	s.mu.Lock()
	now := time.Now()
	change := s.state.add(now, m, r.scrubber)
	if change.visible || now.Sub(s.wakened) >= time.Second { // the rate changes although nothing else does
		s.wakeObservers(now)
	}
	due := lines.due(now, change)
	var progress string
	if due {
		progress = s.state.progress("", now).short()
	}
	s.mu.Unlock()

	if change.download {
		r.pulls.advanced.Store(now.UnixNano())
	}
	if due {
		lines.write(ctx, change, progress)
	}
}

// watch cancels the attempt with the error of a stall if the attempt makes no progress
// for too long. The caller must call stop at the end of the attempt.
func (r *pullRun) watch(cancel context.CancelCauseFunc) (stop func()) {
	if r.pulls.stall <= 0 {
		return func() {}
	}
	s := r.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	stopped := false
	var timer *time.Timer
	timer = time.AfterFunc(r.pulls.stall, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if stopped {
			return
		}
		left, limit := s.state.untilStalled(time.Now(), r.pulls.stall, time.Unix(0, r.pulls.advanced.Load()))
		if left > 0 {
			timer.Reset(min(left, r.pulls.stall)) // the limit can become shorter
			return
		}
		cancel(stallError(limit, s.state.far()))
	})
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		stopped = true
		timer.Stop()
	}
}

// stallOf returns the error of the stall that cancelled ctx, or nil.
func stallOf(ctx context.Context) *pullError {
	var stalled *pullError
	stderrors.As(context.Cause(ctx), &stalled)
	return stalled
}

// maxMessageSize bounds one message of a pull's stream, in bytes. Engines send less
// than a kilobyte. The decoder holds up to twice this size.
const maxMessageSize = 4 << 20

var (
	errMessageTooLong = errors.Errorf("a message is longer than %d bytes", maxMessageSize)
	errNoObject       = errors.New("a message is no JSON object")
)

// pullMessage is one message of a pull's stream, as far as it is used.
type pullMessage struct {
	ID       string `json:"id"`
	Status   string `json:"status"`
	Progress struct {
		Current int64  `json:"current"`
		Total   int64  `json:"total"`
		Units   string `json:"units"` // "": bytes
	} `json:"progressDetail"`
	Error       anyText     `json:"error"`
	ErrorDetail errorDetail `json:"errorDetail"`
}

// pullFailure is an error in a pull's stream.
type pullFailure struct {
	text string
	code int // an HTTP status; 0: the engine gives none, which is usual
}

// failure returns the error that the message reports, or nil.
func (m *pullMessage) failure() *pullFailure {
	text, code := string(m.ErrorDetail.Message), int(m.ErrorDetail.Code)
	if text == "" {
		text = string(m.Error)
	}
	switch {
	case text == "" && code == 0:
		return nil
	case text == "":
		text = "the engine gives no reason"
	}
	return &pullFailure{text: text, code: code}
}

// anyText is a string. If the JSON has another type, it is that JSON as text: an error
// must not get lost because of its type.
type anyText string

func (t *anyText) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) != nil {
		text = string(data)
	}
	*t = anyText(text)
	return nil
}

// anyNumber is a whole number, or a string with one. Anything else counts as 0.
type anyNumber int

func (n *anyNumber) UnmarshalJSON(data []byte) error {
	var text anyText
	_ = text.UnmarshalJSON(data)
	number, _ := strconv.Atoi(string(text))
	*n = anyNumber(number)
	return nil
}

type errorDetail struct {
	Code    anyNumber
	Message anyText
}

func (d *errorDetail) UnmarshalJSON(data []byte) error {
	type plain errorDetail // has no UnmarshalJSON
	if json.Unmarshal(data, (*plain)(d)) != nil {
		return d.Message.UnmarshalJSON(data)
	}
	return nil
}

// pullStream reads the messages of a pull's body.
type pullStream struct {
	body    *cappedReader
	decoder *json.Decoder
	message pullMessage
}

func newPullStream(body io.Reader) *pullStream {
	capped := &cappedReader{reader: body}
	return &pullStream{body: capped, decoder: json.NewDecoder(capped)}
}

// next returns the next message, which is valid until the next call. After the last one
// it returns io.EOF. If the body ends within a message, the error is io.ErrUnexpectedEOF.
// A body that ends between two messages is complete: not all engines send a final
// message, and fakes need not.
func (s *pullStream) next() (*pullMessage, error) {
	s.message = pullMessage{} // forget the one before
	s.body.left = maxMessageSize
	err := s.decoder.Decode(&s.message)
	var wrongType *json.UnmarshalTypeError
	if stderrors.As(err, &wrongType) {
		if wrongType.Field == "" {
			return nil, errNoObject
		}
		err = nil // one field has the wrong type; the others were read
	}
	return &s.message, err
}

// cappedReader fails when more than left bytes are read.
type cappedReader struct {
	reader io.Reader
	left   int
}

func (r *cappedReader) Read(p []byte) (int, error) {
	if r.left <= 0 {
		return 0, errMessageTooLong
	}
	n, err := r.reader.Read(p[:min(len(p), r.left)])
	r.left -= n
	return n, err
}

// pullLog limits the log lines of one attempt. There is one for each change of a status, up
// to maxTurns for a layer. For all other messages there is at most one a second.
type pullLog struct {
	limiter *rate.Limiter
}

func newPullLog() *pullLog {
	return &pullLog{limiter: rate.NewLimiter(rate.Every(time.Second), 1)}
}

// due reports whether the change gets a log line now.
func (l *pullLog) due(now time.Time, change pullChange) bool {
	return change.turned || l.limiter.AllowN(now, 1)
}

func (l *pullLog) write(ctx context.Context, change pullChange, progress string) {
	fields := log.Fields{"status": change.status, "progress": progress}
	if change.layer != "" {
		fields["layer"] = change.layer
	}
	log.G(ctx).WithFields(fields).Debug("pulling image")
}
