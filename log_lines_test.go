package dockerexec

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The engine's fixed form, what else RFC 3339 allows, and what is no time.
func TestParseLogTime(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]logTime{
		"1970-01-01T00:00:00.000000000Z":      {0, 0},
		"2026-11-23T19:43:01.779723584Z":      {1795462981, 779723584},
		"2024-02-29T23:59:59.999999999Z":      {1709251199, 999999999},
		"2000-03-01T00:00:00.000000001Z":      {951868800, 1},
		"1969-12-31T23:59:59.000000000Z":      {-1, 0},
		"2026-11-23T21:43:01.779723584+02:00": {1795462981, 779723584},
		"2026-11-23T19:43:01Z":                {1795462981, 0},
		"2026-11-23T19:43:01.5Z":              {1795462981, 500000000},
	} {
		got, ok := parseLogTime([]byte(text))
		assert.True(t, ok, text)
		assert.Equal(t, want, got, text)
	}
	for _, text := range []string{
		"", " ", "hello", "2026-11-23",
		"2026-13-23T19:43:01.779723584Z", "2026-00-23T19:43:01.779723584Z", "2026-11-31T19:43:01.779723584Z",
		"2026-02-29T19:43:01.779723584Z", "2026-11-00T19:43:01.779723584Z", "2026-11-23T24:43:01.779723584Z",
		"2026-11-23T19:60:01.779723584Z", "2026-11-23T19:43:60.779723584Z", "2026-11-23T19:43:01.77972358xZ",
		"2026-11-23 19:43:01.779723584Z", strings.Repeat("1", 1000),
	} {
		_, ok := parseLogTime([]byte(text))
		assert.False(t, ok, text)
	}
}

// The engine's form is read by hand: the standard library is the oracle.
func TestParseEngineTimeAgreesWithTheStandardLibrary(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for day := time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC); day.Year() < 10000; day = day.AddDate(0, 0, 1+random.IntN(200)) {
		want := day.Add(time.Duration(random.Int64N(int64(24 * time.Hour))))
		got, ok := parseEngineTime([]byte(want.Format(engineTime)))
		require.True(t, ok, want)
		require.Equal(t, logTimeOf(want), got, want)
		require.True(t, want.Equal(got.time()))
	}
}

// A message without a space, or without a time, is handed on as it is.
func TestLogClock(t *testing.T) {
	t.Parallel()
	var clock logClock
	for _, test := range []struct {
		message, rest string
		ok            bool
	}{
		{plainTime + "one\n", "one\n", true},
		{plainTime + "\n", "\n", true},
		{plainTime, "", true},
		{plainTime + "  two spaces\n", "  two spaces\n", true},
		{"2026-01-02T03:04:05Z one\n", "one\n", true},
		{"2026-01-02T03:04:05.000000006+00:00 one\n", "one\n", true},
		{"Error grabbing logs: EOF\n", "Error grabbing logs: EOF\n", false},
		{"nospace\n", "nospace\n", false},
		{" \n", " \n", false},
		{"", "", false},
		{strings.TrimSpace(plainTime), strings.TrimSpace(plainTime), false},
	} {
		_, rest, ok := clock.cut([]byte(test.message))
		assert.Equal(t, test.rest, string(rest), test.message)
		assert.Equal(t, test.ok, ok, test.message)
	}
}

// The details become attributes, unescaped and sorted; without any there is
// one more space.
func TestLogDetails(t *testing.T) {
	t.Parallel()
	var details logDetails
	for _, test := range []struct {
		rest  string
		attrs []api.LogAttr
		line  string
	}{
		{" line\n", nil, "line\n"},
		{"  indented line\n", nil, " indented line\n"},
		{" \n", nil, "\n"},
		{"a=b line\n", []api.LogAttr{{Key: "a", Value: "b"}}, "line\n"},
		{"E=%C3%A9%26,a=x+y%2C%3Dz%25,b=2 line 1\n",
			[]api.LogAttr{{Key: "E", Value: "é&"}, {Key: "a", Value: "x y,=z%"}, {Key: "b", Value: "2"}}, "line 1\n"},
		{"z=1,a%3Db=2,m= line\n", []api.LogAttr{{Key: "a=b", Value: "2"}, {Key: "m"}, {Key: "z", Value: "1"}}, "line\n"},
		{"lonely,bad=%zz line\n", []api.LogAttr{{Key: "bad", Value: "%zz"}, {Key: "lonely"}}, "line\n"},
		{"nothing else", nil, "nothing"}, // key without value
		{"nospace\n", nil, "nospace\n"},
	} {
		if test.rest == "nothing else" {
			test.attrs, test.line = []api.LogAttr{{Key: "nothing"}}, "else"
		}
		attrs, line := details.cut([]byte(test.rest))
		assert.Equal(t, test.attrs, attrs, test.rest)
		assert.Equal(t, test.line, string(line), test.rest)
	}
	// What is handed out is the receiver's own.
	first, _ := details.cut([]byte("a=b one\n"))
	first[0].Value = "changed"
	second, _ := details.cut([]byte("a=b two\n"))
	assert.Equal(t, []api.LogAttr{{Key: "a", Value: "b"}}, second)
}

func TestLogDetailsAreAskedForWhereThereAreAny(t *testing.T) {
	t.Parallel()
	assert.False(t, hasLogDetails(container.InspectResponse{}))
	assert.False(t, hasLogDetails(logContainer("running")))
	for options, want := range map[string]bool{"": false, "max-size=1m": false, "labels=": false, "labels=a": true,
		"labels-regex=a.*": true, "env=A": true, "env-regex=A.*": true, "tag={{.Name}}": true} {
		answer := logContainer("running")
		key, value, _ := strings.Cut(options, "=")
		answer.HostConfig = &container.HostConfig{LogConfig: container.LogConfig{Config: map[string]string{key: value}}}
		assert.Equal(t, want, hasLogDetails(answer), options)
	}
}
