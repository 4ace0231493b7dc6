package dockerexectest_test

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/container"
	engineapi "github.com/docker/docker/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

// lines prints each line a second after the other, to stdout and stderr in turn.
func lines(list ...string) dockerexectest.Program {
	return func(p *dockerexectest.Process) int {
		for i, line := range list {
			fmt.Fprintln([]io.Writer{p.Stdout, p.Stderr}[i%2], line)
			p.Sleep(time.Second)
		}
		return 0
	}
}

func TestLogs(t *testing.T) {
	eachDialect(t, func(t *testing.T, e *dockerexectest.Engine, c *engineapi.Client, d dockerexectest.Dialect) {
		begin := time.Now()
		running(t, e, c, "web", lines("one", "two", "three", "four"))
		at := func(d time.Duration) string { return begin.Add(d).Format(time.RFC3339Nano) }
		untilEnd(t, c, "web")
		for _, test := range []struct {
			options container.LogsOptions
			want    string
		}{
			{container.LogsOptions{}, "out: one\nerr: two\nout: three\nerr: four\n"},
			{container.LogsOptions{Follow: true}, "out: one\nerr: two\nout: three\nerr: four\n"},
			{container.LogsOptions{Tail: "2"}, "out: three\nerr: four\n"},
			{container.LogsOptions{Tail: "0"}, ""},
			{container.LogsOptions{Tail: "all"}, "out: one\nerr: two\nout: three\nerr: four\n"},
			{container.LogsOptions{Since: at(2 * time.Second)}, "out: three\nerr: four\n"}, // inclusive
			{container.LogsOptions{Since: at(2*time.Second + time.Millisecond)}, "err: four\n"},
			{container.LogsOptions{Until: at(time.Second + time.Millisecond)}, "out: one\nerr: two\n"},
			{container.LogsOptions{Since: at(time.Second), Until: at(2*time.Second + time.Millisecond)}, "err: two\nout: three\n"},
		} {
			text, err := logs(t, c, "web", test.options)
			require.NoError(t, err)
			assert.Equal(t, test.want, text, "%+v", test.options)
		}
		assert.Equal(t, "one\ntwo\nthree\nfour\n", e.Container("web").Log())
		_, err := c.ContainerLogs(t.Context(), "web", container.LogsOptions{})
		require.EqualError(t, err, "Error response from daemon: "+each(d, "must specify at least one of 'stdout' or 'stderr'",
			"Bad parameters: you must choose at least one stream", "must specify at least one of 'stdout' or 'stderr'"))
		_, err = logs(t, c, "nosuch", container.LogsOptions{})
		require.ErrorContains(t, err, each(d, "No such container: nosuch", "No such container: nosuch", `"nosuch"`))
	})
}

// One stream, with times: that of a tail counts messages of both streams.
func TestLogsOfOneStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		running(t, e, c, "web", lines("one", "two"))
		untilEnd(t, c, "web")
		body, err := c.ContainerLogs(t.Context(), "web", container.LogsOptions{ShowStdout: true, Timestamps: true})
		require.NoError(t, err)
		text, err := io.ReadAll(body)
		require.NoError(t, err)
		require.NoError(t, body.Close())
		assert.Regexp(t, `^\x01\x00\x00\x00\x00\x00\x00\x23\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z one\n$`, string(text))
		body, err = c.ContainerLogs(t.Context(), "web", container.LogsOptions{ShowStdout: true, Tail: "1"})
		require.NoError(t, err)
		text, err = io.ReadAll(body)
		require.NoError(t, err)
		require.NoError(t, body.Close())
		assert.Empty(t, text)
	})
}

func TestFollowedLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		running(t, e, c, "web", dockerexectest.Print(dockerexectest.UntilStopped(0), "one"))
		synctest.Wait()
		body, err := c.ContainerLogs(t.Context(), "web", container.LogsOptions{ShowStdout: true, ShowStderr: true, Follow: true, Tail: "0"})
		require.NoError(t, err)
		read := make(chan string, 1)
		go func() {
			text, _ := io.ReadAll(body)
			read <- string(text)
		}()
		time.Sleep(time.Minute)
		e.Container("web").Print("stderr", "two")
		time.Sleep(time.Minute)
		assert.Empty(t, read)
		e.Container("web").Exit(0)
		assert.Equal(t, "\x02\x00\x00\x00\x00\x00\x00\x04two\n", <-read)
		require.NoError(t, body.Close())
		e.Container("web").Print("stdout", "too late")
		assert.Equal(t, "one\ntwo\n", e.Container("web").Log())

		// Who follows a container that does not run gets what there is.
		text, err := logs(t, c, "web", container.LogsOptions{Follow: true})
		require.NoError(t, err)
		assert.Equal(t, "out: one\nerr: two\n", text)
	})
}

func TestPiecesOfLongLines(t *testing.T) {
	eachDialect(t, func(t *testing.T, e *dockerexectest.Engine, c *engineapi.Client, _ dockerexectest.Dialect) {
		for name, test := range map[string]struct {
			text string
			want []string // lengths, with "n" where a newline ends it
		}{
			"fits":       {strings.Repeat("x", 16383) + "\n", []string{"16384n"}},
			"just not":   {strings.Repeat("x", 16384) + "\n", []string{"16384", "1n"}},
			"two pieces": {strings.Repeat("x", 32768) + "\n", []string{"16384", "16384", "1n"}},
			"unended":    {"one\ntwo", []string{"4n", "3"}},
		} {
			name = strings.ReplaceAll(name, " ", "-")
			running(t, e, c, name, func(p *dockerexectest.Process) int {
				for text := test.text; text != ""; { // in odd portions
					n := min(len(text), 5000)
					fmt.Fprint(p.Stdout, text[:n])
					text = text[n:]
					p.Sleep(time.Second)
				}
				return 0
			})
			untilEnd(t, c, name)
			body, err := c.ContainerLogs(t.Context(), name, container.LogsOptions{ShowStdout: true, Timestamps: true})
			require.NoError(t, err)
			text, err := io.ReadAll(body)
			require.NoError(t, err)
			require.NoError(t, body.Close())
			var got, times []string
			for len(text) > 0 {
				n := int(text[4])<<24 | int(text[5])<<16 | int(text[6])<<8 | int(text[7])
				got = append(got, fmt.Sprint(n-31))
				times = append(times, string(text[8:38]))
				if text[8+n-1] == '\n' {
					got[len(got)-1] += "n"
				}
				text = text[8+n:]
			}
			assert.Equal(t, test.want, got, name)
			if len(got) == 3 {
				assert.Equal(t, times[0], times[2])
			}
		}
	})
}

func TestLogsOfATTY(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		running(t, e, c, "web", lines("one", "two"), func(c *container.Config, _ *container.HostConfig) { c.Tty = true })
		untilEnd(t, c, "web")
		body, err := c.ContainerLogs(t.Context(), "web", container.LogsOptions{ShowStdout: true, ShowStderr: true})
		require.NoError(t, err)
		text, err := io.ReadAll(body)
		require.NoError(t, err)
		require.NoError(t, body.Close())
		assert.Equal(t, "one\r\ntwo\r\n", string(text))
	})
}

func TestLogDrivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		driver := func(name string, options map[string]string) func(*container.Config, *container.HostConfig) {
			return func(c *container.Config, h *container.HostConfig) {
				c.Labels, c.Env = map[string]string{"a": "x y,=z%", "b": "2", "not": "asked for"}, []string{"E=é&"}
				h.LogConfig = container.LogConfig{Type: name, Config: options}
			}
		}
		running(t, e, c, "none", lines("one"), driver("none", nil))
		_, err := logs(t, c, "none", container.LogsOptions{})
		require.EqualError(t, err, "Error response from daemon: configured logging driver does not support reading")

		running(t, e, c, "details", lines("one"), driver("json-file", map[string]string{"labels": "a,b", "env": "E"}))
		untilEnd(t, c, "details")
		text, err := logs(t, c, "details", container.LogsOptions{Details: true})
		require.NoError(t, err)
		assert.Equal(t, "out: E=%C3%A9%26,a=x+y%2C%3Dz%25,b=2 one\n", text)
		text, err = logs(t, c, "none", container.LogsOptions{Details: true})
		require.Error(t, err)
		assert.Empty(t, text)

		var list []string
		for i := range 30 {
			list = append(list, fmt.Sprintf("%010d%s", i+1, strings.Repeat(".", 89)))
		}
		for files, first := range map[string]string{"1": "0000000025", "3": "0000000013"} { // as engines were seen to keep
			name := "rotates" + files
			running(t, e, c, name, lines(list...), driver("json-file", map[string]string{"max-size": "1k", "max-file": files}))
			untilEnd(t, c, name)
			log := e.Container(name).Log()
			assert.Equal(t, first, log[:10])
			assert.Equal(t, "0000000030", log[len(log)-100:len(log)-90])
		}
	})
}
