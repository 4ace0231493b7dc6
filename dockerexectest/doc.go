// Package dockerexectest is an in-memory Docker Engine for tests.
package dockerexectest
