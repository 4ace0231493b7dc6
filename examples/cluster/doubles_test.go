package cluster

import (
	"testing"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/stretchr/testify/assert"
)

// What doubles finds, and what it allows: without this, a run of the scenes could find nothing
// because it looks at nothing.
func TestDoubles(t *testing.T) {
	at := func(second int64) time.Time { return time.Unix(second, 0) }
	for _, tt := range []struct {
		name string
		away []span // of host one
		seen [][]event
		want []string
	}{
		{"one after the other", nil, [][]event{{{1, "start", "a", "t1"}, {2, "die", "a", "t1"}}, {{3, "start", "b", "t2"}}}, nil},
		{"Podman's word for an end", nil, [][]event{{{1, "start", "a", "t1"}, {2, "died", "a", "t1"}}, {{3, "start", "b", "t2"}}}, nil},
		{"an event that is read twice", nil, [][]event{{{1, "start", "a", "t1"}, {1, "start", "a", "t1"}}}, nil},
		{"one beside the other", nil, [][]event{{{1, "start", "a", "t1"}, {4, "die", "a", "t1"}}, {{3, "start", "b", "t2"}}},
			[]string{"slot web.1: task t2 began on two at " + at(3).Format(time.StampMilli) + ", while task t1 ran on one, which was not away"}},
		{"beside one that still runs", nil, [][]event{{{1, "start", "a", "t1"}}, {{3, "start", "b", "t2"}}},
			[]string{"slot web.1: task t2 began on two at " + at(3).Format(time.StampMilli) + ", while task t1 ran on one, which was not away"}},
		{"beside one on a host that is away", []span{{begin: at(2)}}, [][]event{{{1, "start", "a", "t1"}}, {{3, "start", "b", "t2"}}}, nil},
		{"beside one on a host that was away", []span{{at(1), at(2)}}, [][]event{{{1, "start", "a", "t1"}}, {{3, "start", "b", "t2"}}},
			[]string{"slot web.1: task t2 began on two at " + at(3).Format(time.StampMilli) + ", while task t1 ran on one, which was not away"}},
		{"started again", nil, [][]event{{{1, "start", "a", "t1"}, {2, "die", "a", "t1"}, {3, "start", "a", "t1"}}},
			[]string{"container a of task t1 was started 2 times"}},
		{"two containers of a task", nil, [][]event{{{1, "start", "a", "t1"}, {2, "die", "a", "t1"}}, {{3, "start", "b", "t1"}}},
			[]string{"task t1 has had two containers: one a and two b"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var hosts []*host
			for i, seen := range tt.seen {
				h := &host{name: []string{"one", "two"}[i], seen: newRecorder()}
				for _, e := range seen {
					h.seen.note(e.message())
				}
				hosts = append(hosts, h)
			}
			hosts[0].away = tt.away
			assert.Equal(t, tt.want, doubles(hosts, func(string, run) bool { return false }))
			for _, wrong := range doubles(hosts, func(slot string, later run) bool { return slot == "web.1" && later.task == "t2" }) {
				assert.NotContains(t, wrong, "slot web.1")
			}
		})
	}
}

// A task may begin beside the one that it waits for if a manager began to lead meanwhile.
func TestMayHurry(t *testing.T) {
	at := func(second int64) time.Time { return time.Unix(second, 0) }
	e := elections{}
	saw := func(leader string, from, to int64) {
		for second := from; second <= to; second++ {
			e.saw(leader, at(second), at(second))
		}
	}
	saw("n1", 1, 10)
	saw("n2", 20, 100)
	assert.False(t, e.leadsAgain())
	assert.True(t, e.wereSince(at(19)))
	assert.False(t, e.wereSince(at(20)))
	saw("n1", 101, 200)
	assert.True(t, e.leadsAgain())
	e.ended("n1")
	saw("n1", 201, 210)
	saw("n1", 222, 300) // elected again
	assert.False(t, e.leadsAgain(), "in another process")
	saw("n1", 312, 320)
	assert.True(t, e.leadsAgain())
	for _, tt := range []struct {
		name        string
		made, began time.Time
		want        bool
	}{
		{"waited for another's end as the leader changed", at(5), at(21), true},
		{"was made while nobody may have led", at(15), at(21), true},
		{"began while nobody may have led", at(5), at(15), true},
		{"began before the leader changed", at(5), at(9), false},
		{"was made by the leader that leads", at(20), at(21), false},
		{"began long after", at(5), at(80), false},
		{"waited as the first leader began to lead again", at(99), at(102), true},
		{"waited as the leader was elected again", at(209), at(223), true},
		{"began before that", at(190), at(209), false},
		{"was never seen", time.Time{}, at(21), false},
	} {
		t.Run(tt.name, func(t *testing.T) { assert.Equal(t, tt.want, e.mayHurry(tt.made, tt.began)) })
	}
}

// event is one of a container of a task in slot 1 of web.
type event struct {
	second                  int64
	action, container, task string
}

func (e event) message() events.Message {
	return events.Message{Action: events.Action(e.action), TimeNano: e.second * 1e9, Actor: events.Actor{ID: e.container,
		Attributes: map[string]string{"com.docker.swarm.task.id": e.task, "com.docker.swarm.task.name": "web.1." + e.task}}}
}
