package dockerexec

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/moby/swarmkit/v2/api"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The rate is that of bytes a second, for as long as it takes, and not one
// byte a second after the first burst.
func TestLogRateIsSustained(t *testing.T) {
	t.Parallel()
	line := strings.Repeat("x", 999) + "\n"
	l := &fakeLog{records: slices.Repeat([]logRecord{{1, "2026-01-02T03:04:05.000000000Z", line}}, 1000)}
	for _, test := range []struct {
		name string
		opts []Option
		want time.Duration
	}{
		{"10 kB a second", []Option{WithLogRate(10_000)}, 99 * time.Second}, // 1 MB less the first second's 10 kB
		{"500 kB a second", []Option{WithLogRate(500_000)}, time.Second},
		{"the default", nil, 0}, // 10 MiB: all in the first second
		{"none", []Option{WithLogRate(0)}, 0},
		{"less than none", []Option{WithLogRate(-1)}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, adapter := publishing(t, l, []string{"exited"}, test.opts...)
				begin := time.Now()
				var sink logSink
				require.NoError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{}, &sink))
				assert.Len(t, sink.messages, 1000)
				assert.InDelta(t, test.want.Seconds(), time.Since(begin).Seconds(), 0.2)
			})
		})
	}
}

// A line greater than what the rate allows at once is waited for in slices.
func TestLogLineGreaterThanTheRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{records: []logRecord{{1, "2026-01-02T03:04:05.000000000Z", strings.Repeat("x", 9999) + "\n"}}}
		_, adapter := publishing(t, l, []string{"exited"}, WithLogRate(1000))
		begin := time.Now()
		var sink logSink
		require.NoError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{}, &sink))
		assert.Len(t, sink.messages, 1)
		assert.InDelta(t, 9, time.Since(begin).Seconds(), 0.1)
	})
}

// A wait for the rate ends with its context: at once, and not before.
func TestLogRateWaitEndsWithTheContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{records: []logRecord{{1, "2026-01-02T03:04:05.000000000Z", strings.Repeat("x", 9999) + "\n"}}}
		_, adapter := publishing(t, l, []string{"exited"}, WithLogRate(1000))
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		require.Equal(t, context.DeadlineExceeded, adapter.PublishLogs(ctx, api.LogSubscriptionOptions{}, &logSink{}))
		assert.Equal(t, 1500*time.Millisecond, time.Since(begin))
	})
}

// Following waits until the container is created and started, without
// asking again and again; also one that is created already.
func TestFollowedLogsWaitForTheStart(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]string{"unknown": "", "created": "created"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { followFromBeforeTheStart(t, first) })
		})
	}
}

func followFromBeforeTheStart(t *testing.T, status string) {
	l := &fakeLog{records: twoLines}
	client := newFakeClient(t)
	var mu sync.Mutex
	set := func(to string) { mu.Lock(); status = to; mu.Unlock() }
	client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
		mu.Lock()
		defer mu.Unlock()
		if status == "" {
			return container.InspectResponse{}, errors.New("Error response from daemon: No such container: " + taskName)
		}
		return logContainer(status), nil
	}
	stream := make(chan events.Message)
	client.events = func(context.Context, events.ListOptions) (<-chan events.Message, <-chan error) {
		return stream, make(chan error)
	}
	client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
		set("exited")
		return l.open(o, -1, nil), nil
	}
	event := func(action events.Action) {
		stream <- events.Message{Type: events.ContainerEventType, Action: action, TimeNano: time.Now().UnixNano(),
			Actor: events.Actor{ID: "c1", Attributes: map[string]string{"name": taskName, LabelTaskID: "taskid"}}}
	}
	var sink logSink
	done := make(chan error)
	go func() {
		done <- newTestAdapter(t, client, plainTask()).PublishLogs(t.Context(), api.LogSubscriptionOptions{Follow: true}, &sink)
	}()
	time.Sleep(time.Minute)
	assert.Less(t, len(client.called()), 6)
	set("created")
	event(events.ActionCreate)
	time.Sleep(time.Minute)
	assert.Less(t, len(client.called()), 10)
	assert.Empty(t, l.requests)
	set("running")
	event(events.ActionStart)
	require.NoError(t, <-done)
	assert.Equal(t, []string{"stdout one\n", "stderr two\n"}, sink.lines())
}

// Ending its context ends a follow at once, whatever the body does, and the
// body is closed.
func TestFollowedLogsEndWithTheContext(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	statuses(client, "running")
	body := newBlockingBody(frame(1, plainTime+"one\n"))
	client.containerLogs = func(context.Context, string, container.LogsOptions) (io.ReadCloser, error) { return body, nil }
	ctx, cancel := context.WithCancel(t.Context())
	sink := logSink{onLine: func(int) error { cancel(); return nil }}
	require.Equal(t, context.Canceled, newTestAdapter(t, client, plainTask()).PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true}, &sink))
	<-body.closed
	assert.Len(t, sink.messages, 1)
}

// A stream that ends while the container runs is asked for again, with
// growing pauses; a fault that passes ends nothing and is reported once.
func TestFollowedLogsSurviveTheEngine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{records: twoLines}
		client := newFakeClient(t)
		begin := time.Now()
		away := func() bool { return time.Since(begin) < time.Minute }
		client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
			if len(l.requests) > 0 && away() {
				return container.InspectResponse{}, errDown
			}
			if len(l.requests) < 20 {
				return logContainer("running"), nil
			}
			return logContainer("exited"), nil
		}
		client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
			switch len(l.requests) {
			case 0:
				return l.open(o, 8+31+4, io.ErrUnexpectedEOF), nil
			case 10:
				l.records = append(l.records[:2:2], logRecord{1, "2026-01-02T03:04:07.000000000Z", "three\n"})
			}
			return l.open(o, -1, nil), nil
		}
		var sink logSink
		ctx, logged := logged(t)
		require.NoError(t, newTestAdapter(t, client, plainTask()).PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true}, &sink))
		assert.Equal(t, []string{"stdout one\n", "stderr two\n", "stdout three\n"}, sink.lines())
		assert.Equal(t, []string{"log stream lost; it will be resumed",
			"the engine ends the log although the container runs; it is asked again"}, logged(logrus.WarnLevel))
		require.Len(t, logged(logrus.InfoLevel), 3)
		assert.Regexp(t, `^log stream restored after 1m\d`, logged(logrus.InfoLevel)[1])
		inspects := 0
		for _, call := range client.called() {
			if strings.HasPrefix(call, "ContainerInspect") {
				inspects++
			}
		}
		assert.Less(t, inspects, 120) // an idle minute and 20 requests
		assert.Greater(t, time.Since(begin), time.Minute)
	})
}

// Following ends when the container is gone, or another one has its name.
func TestFollowedLogsEndWithTheContainer(t *testing.T) {
	t.Parallel()
	unknown := errors.New("Error response from daemon: No such container: " + taskName)
	other := logContainer("running")
	other.ContainerJSONBase.ID = "c2"
	dying := errors.New("Error response from daemon: can not get logs from container which is dead or marked for removal")
	for _, test := range []struct {
		name    string
		inspect func() (container.InspectResponse, error)
		logs    error
	}{
		{"removed", func() (container.InspectResponse, error) { return container.InspectResponse{}, unknown }, nil},
		{"another in its place", func() (container.InspectResponse, error) { return other, nil }, nil},
		{"removed after the inspect", func() (container.InspectResponse, error) { return logContainer("running"), nil }, unknown},
		{"being removed", func() (container.InspectResponse, error) { return logContainer("dead"), nil }, dying},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := &fakeLog{records: []logRecord{twoLines[0], {1, "2026-01-02T03:04:07.000000000Z", "unfinished"}}}
				client := newFakeClient(t)
				client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
					if len(l.requests) == 0 {
						return logContainer("running"), nil
					}
					return test.inspect()
				}
				client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
					if len(l.requests) > 0 {
						return nil, test.logs
					}
					return l.open(o, -1, nil), nil
				}
				var sink logSink
				require.NoError(t, newTestAdapter(t, client, plainTask()).PublishLogs(t.Context(), api.LogSubscriptionOptions{Follow: true}, &sink))
				assert.Equal(t, []string{"stdout one\n", "stdout unfinished"}, sink.lines())
			})
		})
	}
}

// A container that is renamed while it is followed is followed on, by its ID.
func TestFollowedLogsOutlastARename(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{records: twoLines}
		client := newFakeClient(t)
		client.containerInspect = func(_ context.Context, name string) (container.InspectResponse, error) {
			answer := logContainer("running")
			if len(l.requests) > 0 {
				if name != "c1" {
					return container.InspectResponse{}, cerrdefs.ErrNotFound
				}
				answer = logContainer("exited")
				answer.Name = "/renamed"
			}
			return answer, nil
		}
		client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
			return l.open(o, len(l.requests)*1000+50, nil), nil
		}
		var sink logSink
		ctx, _ := logged(t)
		require.NoError(t, newTestAdapter(t, client, plainTask()).PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true}, &sink))
		assert.Equal(t, []string{"stdout one\n", "stderr two\n"}, sink.lines())
		assert.Equal(t, []string{"ContainerInspect " + taskName, "ContainerLogs " + taskName,
			"ContainerInspect " + taskName, "ContainerInspect c1", "ContainerLogs c1"}, client.called())
	})
}

// While it waits for the start, a lost event stream or an engine that is away
// ends nothing.
func TestFollowedLogsWaitForTheStartOfAnEngineThatIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{records: twoLines}
		client := newFakeClient(t)
		begin := time.Now()
		client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
			switch since := time.Since(begin); {
			case since < 10*time.Second:
				return logContainer("created"), nil
			case since < time.Minute:
				return container.InspectResponse{}, errDown
			case since < 2*time.Minute:
				return logContainer("running"), nil
			}
			return logContainer("exited"), nil
		}
		client.events = func(_ context.Context, _ events.ListOptions) (<-chan events.Message, <-chan error) {
			errs := make(chan error, 1)
			if since := time.Since(begin); since < time.Minute {
				time.AfterFunc(20*time.Second, func() { errs <- io.ErrUnexpectedEOF })
			}
			return make(chan events.Message), errs
		}
		client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
			return l.open(o, -1, nil), nil
		}
		var sink logSink
		ctx, _ := logged(t)
		require.NoError(t, newTestAdapter(t, client, plainTask()).PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true}, &sink))
		assert.Equal(t, []string{"stdout one\n", "stderr two\n"}, sink.lines())
		assert.Less(t, time.Since(begin), 3*time.Minute)
	})
}
