//go:build race

package dockerexectest_test

const isRace = true
