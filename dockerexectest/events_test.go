package dockerexectest_test

import (
	"context"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	engineapi "github.com/docker/docker/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

// past returns the events that a request for the past is answered with.
func past(t *testing.T, c *engineapi.Client, options events.ListOptions) []events.Message {
	t.Helper()
	options.Until = fmt.Sprintf("%d.%09d", time.Now().Add(-1).Unix(), time.Now().Add(-1).Nanosecond())
	messages, errs := c.Events(t.Context(), options)
	var list []events.Message
	for {
		select {
		case m := <-messages:
			list = append(list, m)
		case err := <-errs:
			require.ErrorIs(t, err, io.EOF)
			return list
		}
	}
}

func nanoTime(m events.Message) string {
	return fmt.Sprintf("%d.%09d", m.TimeNano/1e9, m.TimeNano%1e9)
}

func TestSinceIsInclusive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t, dockerexectest.WithDialect(dockerexectest.DockerV20)) // 29 tells rounded times
		c := e.Client()
		running(t, e, c, "web", dockerexectest.Exit(0))
		time.Sleep(time.Second)
		all := past(t, c, events.ListOptions{Since: "0"})
		require.Len(t, all, 5)
		for i, m := range all {
			assert.Equal(t, all[i:], past(t, c, events.ListOptions{Since: nanoTime(m)}))
			if i > 0 {
				assert.Less(t, all[i-1].TimeNano, m.TimeNano)
			}
			m.TimeNano++
			assert.Equal(t, all[i+1:], append([]events.Message{}, past(t, c, events.ListOptions{Since: nanoTime(m)})...))
		}
		assert.Equal(t, all, past(t, c, events.ListOptions{})) // until alone
		assert.Equal(t, "local", all[0].Scope)
		assert.Equal(t, all[0].TimeNano/1e9, all[0].Time)
		assert.Equal(t, map[string]string{"exitCode": "0", "image": "example/web:1", "name": "web"}, all[3].Actor.Attributes)
		assert.Equal(t, e.Container("web").ID(), all[3].Actor.ID)

		_, errs := c.Events(t.Context(), events.ListOptions{Since: "5", Until: "4"})
		require.EqualError(t, <-errs, "Error response from daemon: `since` time (5) cannot be after `until` time (4)")
	})
}

func TestTheEngineKeeps256Events(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		e.LocalImage("example/web:1", nil)
		for i := range 200 {
			name := fmt.Sprint("web", i)
			create(t, c, name, "example/web:1")
			require.NoError(t, c.ContainerRemove(t.Context(), name, container.RemoveOptions{}))
		}
		time.Sleep(time.Second)
		all := past(t, c, events.ListOptions{Since: "0"})
		require.Len(t, all, 256)
		assert.Equal(t, "web72", all[0].Actor.Attributes["name"])
		assert.Equal(t, events.ActionCreate, all[0].Action)
		assert.Equal(t, "web199", all[255].Actor.Attributes["name"])
	})
}

func TestEventFilters(t *testing.T) {
	eachDialect(t, func(t *testing.T, e *dockerexectest.Engine, c *engineapi.Client, d dockerexectest.Dialect) {
		running(t, e, c, "web", dockerexectest.Exit(7), func(c *container.Config, _ *container.HostConfig) {
			c.Labels = map[string]string{"empty": "", "x": "1", "exitCode": "99", "name": "forged"}
		})
		running(t, e, c, "other", dockerexectest.UntilStopped(0))
		e.Container("other").SetHealth("healthy")
		time.Sleep(time.Second)
		for _, test := range []struct {
			filter []filters.KeyValuePair
			want   [3][]events.Action
		}{
			{[]filters.KeyValuePair{filters.Arg("type", "container"), filters.Arg("label", "empty=")}, [3][]events.Action{
				{"create", "start", "die"}, {"create", "start", "die"}, {"create", "init", "start", "die", "cleanup"}}},
			{[]filters.KeyValuePair{filters.Arg("type", "container"), filters.Arg("label", "empty")}, [3][]events.Action{
				{"create", "start", "die"}, {"create", "start", "die"}, nil}}, // Podman ignores the key
			{[]filters.KeyValuePair{filters.Arg("label", "x=2")}, [3][]events.Action{}},
			{[]filters.KeyValuePair{filters.Arg("event", "die")}, [3][]events.Action{{"die"}, {"die"}, nil}},
			{[]filters.KeyValuePair{filters.Arg("event", "died")}, [3][]events.Action{nil, nil, {"die"}}},
			{[]filters.KeyValuePair{filters.Arg("event", "create"), filters.Arg("container", "other")}, [3][]events.Action{{"create"}, {"create"}, {"create"}}},
			{[]filters.KeyValuePair{filters.Arg("event", "health_status")}, [3][]events.Action{{"health_status: healthy"}, {"health_status: healthy"}, nil}},
			{[]filters.KeyValuePair{filters.Arg("type", "network"), filters.Arg("event", "disconnect")}, [3][]events.Action{{"disconnect"}, {"disconnect"}, {"disconnect"}}},
			{[]filters.KeyValuePair{filters.Arg("image", "example/other"), filters.Arg("event", "start")}, [3][]events.Action{{"start"}, {"start"}, {"start"}}},
			{[]filters.KeyValuePair{filters.Arg("name", "nosuch"), filters.Arg("event", "start")}, [3][]events.Action{{"start", "start"}, {"start", "start"}, {"start", "start"}}}, // no such filter
		} {
			if d == dockerexectest.PodmanV4 && test.filter[0].Value == "health_status" {
				continue
			}
			var got []events.Action
			for _, m := range past(t, c, events.ListOptions{Since: "0", Filters: filters.NewArgs(test.filter...)}) {
				got = append(got, m.Action)
			}
			assert.Equal(t, test.want[d], got, "%v", test.filter)
		}
		// Labels override what the engine says, but for the name.
		died := past(t, c, events.ListOptions{Since: "0", Filters: filters.NewArgs(filters.Arg("event", each(d, "die", "die", "died")))})
		require.Len(t, died, 1)
		assert.Equal(t, "99", died[0].Actor.Attributes["exitCode"])
		assert.Equal(t, "web", died[0].Actor.Attributes["name"])
	})
}

// A client that does not read gets what its queue holds, and loses what comes once
// it is full for longer than the engine waits.
func TestAClientThatDoesNotReadEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		running(t, e, c, "web", dockerexectest.UntilStopped(0))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		messages, _ := c.Events(ctx, events.ListOptions{})
		synctest.Wait()
		burst := func() {
			for range 1000 {
				e.Container("web").Pause()
				e.Container("web").Unpause()
			}
		}
		burst()
		time.Sleep(time.Second)
		burst()
		n := 0
		for {
			select {
			case <-messages:
				n++
				continue
			case <-time.After(time.Second):
			}
			break
		}
		assert.Equal(t, 2000, n)
		e.Container("web").Pause()
		assert.Equal(t, events.ActionPause, (<-messages).Action)
	})
}

func TestEventsUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		began := time.Now()
		messages, errs := c.Events(t.Context(), events.ListOptions{Until: fmt.Sprint(time.Now().Add(time.Minute).Unix())})
		synctest.Wait()
		e.AddContainer("web", nil)
		assert.Equal(t, []events.Action{"create", "connect", "start"}, eventsUntil(t, messages, errs, "start"))
		require.ErrorIs(t, <-errs, io.EOF)
		assert.Equal(t, time.Minute, time.Since(began))
	})
}
