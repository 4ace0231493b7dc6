package main

import (
	"fmt"
	"sync"
	"testing"
)

// faults takes what an engine for tests would fail its test for, such as a request that
// it does not serve. Its other methods are those of no test: engines do not call them.
type faults struct {
	testing.TB

	mu    sync.Mutex
	first string
	all   int
}

func (*faults) Helper()        {}
func (*faults) Cleanup(func()) {} // hosts are closed one by one

func (f *faults) Errorf(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all++; f.all == 1 {
		f.first = fmt.Sprintf(format, args...)
	}
}

func (f *faults) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all == 0 {
		return nil
	}
	return fmt.Errorf("the engines found %d faults, the first one: %s", f.all, f.first)
}
