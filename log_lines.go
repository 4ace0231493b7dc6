package dockerexec

import (
	"bytes"
	"cmp"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/api"
)

// logTime is the time of a log message. The zero value is none.
type logTime struct {
	sec  int64 // since 1970
	nsec int32
}

func logTimeOf(t time.Time) logTime { return logTime{t.Unix(), int32(t.Nanosecond())} }

func (t logTime) time() time.Time { return time.Unix(t.sec, int64(t.nsec)).UTC() }

func (t logTime) compare(u logTime) int {
	if c := cmp.Compare(t.sec, u.sec); c != 0 {
		return c
	}
	return cmp.Compare(t.nsec, u.nsec)
}

func (t logTime) add(d time.Duration) logTime { return logTimeOf(t.time().Add(d)) }

// engineTime is the one form in which engines write the time of a message.
const engineTime = "2006-01-02T15:04:05.000000000Z"

// parseLogTime reads the time that a message begins with, without the space
// behind it: in the engine's form by hand, else whatever RFC 3339 allows.
func parseLogTime(text []byte) (logTime, bool) {
	if t, ok := parseEngineTime(text); ok {
		return t, true
	}
	if len(text) > len("2006-01-02T15:04:05.000000000+00:00") {
		return logTime{}, false
	}
	t, err := time.Parse(time.RFC3339Nano, string(text))
	if err != nil {
		return logTime{}, false
	}
	return logTimeOf(t), true
}

// parseEngineTime reads the engine's form alone.
func parseEngineTime(text []byte) (logTime, bool) {
	if len(text) != len(engineTime) || text[29] != 'Z' {
		return logTime{}, false
	}
	sec, ok1 := parseSeconds(text[:20])
	nano, ok2 := digits(text[20:29])
	return logTime{sec, int32(nano)}, ok1 && ok2
}

var daysBeforeMonth = [...]int64{0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365}

// parseSeconds reads "2006-01-02T15:04:05.".
func parseSeconds(text []byte) (int64, bool) {
	if text[4] != '-' || text[7] != '-' || text[10] != 'T' || text[13] != ':' || text[16] != ':' || text[19] != '.' {
		return 0, false
	}
	year, ok1 := digits(text[0:4])
	month, ok2 := digits(text[5:7])
	day, ok3 := digits(text[8:10])
	hour, ok4 := digits(text[11:13])
	minute, ok5 := digits(text[14:16])
	second, ok6 := digits(text[17:19])
	if !(ok1 && ok2 && ok3 && ok4 && ok5 && ok6) ||
		month < 1 || month > 12 || hour > 23 || minute > 59 || second > 59 {
		return 0, false
	}
	leap := year%4 == 0 && (year%100 != 0 || year%400 == 0)
	last := daysBeforeMonth[month] - daysBeforeMonth[month-1]
	if leap && month == 2 {
		last++
	}
	if day < 1 || day > last {
		return 0, false
	}
	// Days since the first of January of the year 0, which was a leap year.
	days := 365*year + (year+3)/4 - (year+99)/100 + (year+399)/400 + daysBeforeMonth[month-1] + day - 1
	if leap && month > 2 {
		days++
	}
	const daysTo1970 = 719528
	return (days-daysTo1970)*86400 + hour*3600 + minute*60 + second, true
}

func digits(text []byte) (n int64, ok bool) {
	for _, c := range text {
		c -= '0'
		if c > 9 {
			return 0, false
		}
		n = n*10 + int64(c)
	}
	return n, true
}

// logClock reads the times of messages and remembers the last second, which most
// of them share with the one before.
type logClock struct {
	second [20]byte // "2006-01-02T15:04:05."
	sec    int64
}

// cut splits a message in its time and the rest. ok is false, and rest all of the
// message, when it does not begin with a time and a space.
func (c *logClock) cut(message []byte) (t logTime, rest []byte, ok bool) {
	const space = len(engineTime)
	if len(message) > space && message[space] == ' ' && message[space-1] == 'Z' {
		if string(message[:20]) == string(c.second[:]) {
			if nano, ok := digits(message[20:29]); ok {
				return logTime{c.sec, int32(nano)}, message[space+1:], true
			}
		}
		if t, ok := parseEngineTime(message[:space]); ok {
			copy(c.second[:], message)
			c.sec = t.sec
			return t, message[space+1:], true
		}
	}
	if i := bytes.IndexByte(message, ' '); i > 0 {
		if t, ok := parseLogTime(message[:i]); ok {
			return t, message[i+1:], true
		}
	}
	return logTime{}, message, false
}

// hasLogDetails reports whether the container's log driver was told to keep
// labels, environment or a tag with each message. Only then are they asked for:
// some engines do not know the parameter, and then a line's first word would be
// taken for them.
func hasLogDetails(answer container.InspectResponse) bool {
	if answer.ContainerJSONBase == nil || answer.HostConfig == nil {
		return false
	}
	for _, option := range []string{"labels", "labels-regex", "env", "env-regex", "tag"} {
		if answer.HostConfig.LogConfig.Config[option] != "" {
			return true
		}
	}
	return false
}

// logDetails reads what stands between time and line: key=value,key=value, both
// escaped as in a URL, and a space, which is there without details too. All
// messages of a container have the same, so it remembers the last ones.
type logDetails struct {
	raw   []byte
	attrs []api.LogAttr // sorted
}

// cut splits the details off. The attributes are the caller's own.
func (d *logDetails) cut(rest []byte) (attrs []api.LogAttr, line []byte) {
	raw, line, found := bytes.Cut(rest, []byte{' '})
	if !found {
		return nil, rest
	}
	if !bytes.Equal(raw, d.raw) {
		d.raw, d.attrs = bytes.Clone(raw), parseLogDetails(string(raw))
	}
	return slices.Clone(d.attrs), line
}

func parseLogDetails(raw string) []api.LogAttr {
	var attrs []api.LogAttr
	for pair := range strings.SplitSeq(raw, ",") {
		if pair == "" {
			continue
		}
		key, value, _ := strings.Cut(pair, "=")
		attrs = append(attrs, api.LogAttr{Key: unescape(key), Value: unescape(value)})
	}
	sortLogAttrs(attrs)
	return attrs
}

func sortLogAttrs(attrs []api.LogAttr) {
	slices.SortFunc(attrs, func(a, b api.LogAttr) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Value, b.Value))
	})
}

// unescape leaves text as it is if it is not escaped as it should be.
func unescape(text string) string {
	if plain, err := url.QueryUnescape(text); err == nil {
		return plain
	}
	return text
}

// logRoom has the memory of messages: many lines share an allocation, which
// costs less than half of one for each. So a message that is kept keeps up to
// logRoomSize bytes more alive.
type logRoom struct {
	data  []byte
	times []gogotypes.Timestamp
}

const logRoomSize = 4 << 10

// clone returns a copy of line.
func (r *logRoom) clone(line []byte) []byte {
	n := len(line)
	if n > logRoomSize/4 {
		return bytes.Clone(line)
	}
	if n > len(r.data) {
		r.data = make([]byte, logRoomSize)
	}
	room := r.data[:n:n] // who appends to a line gets memory of his own
	r.data = r.data[n:]
	copy(room, line)
	return room
}

// timestamp returns t as SwarmKit has it.
func (r *logRoom) timestamp(t logTime) *gogotypes.Timestamp {
	if len(r.times) == 0 {
		r.times = make([]gogotypes.Timestamp, 32)
	}
	stamp := &r.times[0]
	r.times = r.times[1:]
	stamp.Seconds, stamp.Nanos = t.sec, t.nsec
	return stamp
}
