package main

import (
	"encoding/json"
	"log"

	"go.etcd.io/bbolt"
)

// record is the last that is known of an attempt. Its states are SwarmKit's, "stopped" and "unknown".
type record struct {
	ID, Name, State, Cause string
	Attempt                int
}

var ended = map[string]bool{"complete": true, "failed": true, "unknown": true}

// note writes a state into the journal, unless the attempt has ended before, and returns what is there then.
func (b *batch) note(r record, state, cause string) (last record) {
	err := b.journal.Update(func(tx *bbolt.Tx) error {
		jobs, err := tx.CreateBucketIfNotExists([]byte("jobs"))
		if last = r; err != nil || json.Unmarshal(jobs.Get([]byte(r.ID)), &last) == nil && ended[last.State] || state == "" {
			return err
		}
		last = record{ID: r.ID, Name: r.Name, Attempt: r.Attempt, State: state, Cause: cause}
		text, _ := json.Marshal(last)
		return jobs.Put([]byte(r.ID), text)
	})
	if err != nil {
		log.Fatal("batch: ", err) // before a removal: the next run finds how the job ended
	}
	return last
}
