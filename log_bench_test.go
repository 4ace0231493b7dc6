package dockerexec

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/require"
)

// benchLog is an answer of n lines of 90 bytes.
func benchLog(n int) []byte {
	var log bytes.Buffer
	for i := range n {
		at := time.Unix(1767323045, int64(i)*1000).UTC().Format(engineTime)
		log.Write(frame(1, fmt.Sprintf("%s %010d%s\n", at, i, strings.Repeat(".", 79))))
	}
	return log.Bytes()
}

// referenceLoop is the baseline: the loop that the reference's Logs has, without
// its limiter. For each line it reads the header as one number, allocates the
// payload, splits it at the first space, has the time package parse the time and
// converts that.
func referenceLoop(ctx context.Context, body io.Reader, context api.LogContext, publisher exec.LogPublisher) error {
	in := bufio.NewReader(body)
	for {
		var header uint64
		if err := binary.Read(in, binary.BigEndian, &header); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		payload := make([]byte, header&(1<<56-1))
		if _, err := io.ReadFull(in, payload); err != nil {
			return err
		}
		parts := bytes.SplitN(payload, []byte(" "), 2)
		if len(parts) != 2 {
			return fmt.Errorf("no time in %q", payload)
		}
		at, err := time.Parse(time.RFC3339Nano, string(parts[0]))
		if err != nil {
			return err
		}
		stamp, err := gogotypes.TimestampProto(at)
		if err != nil {
			return err
		}
		if err := publisher.Publish(ctx, api.LogMessage{Context: context, Timestamp: stamp, Stream: api.LogStream(header >> 56), Data: parts[1]}); err != nil {
			return err
		}
	}
}

// BenchmarkLogLines takes the way of a line from the engine's answer to the
// publisher: this package's, and as a baseline the reference's.
func BenchmarkLogLines(b *testing.B) {
	const lines = 10_000
	text := benchLog(lines)
	count := 0
	publisher := exec.LogPublisherFunc(func(context.Context, api.LogMessage) error { count++; return nil })

	client := newFakeClient(b)
	client.containerInspect = func(context.Context, string) (container.InspectResponse, error) { return logContainer("exited"), nil }
	client.containerLogs = func(context.Context, string, container.LogsOptions) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(text)), nil
	}
	adapter := newTestAdapter(b, client, plainTask(), WithLogRate(0))
	ours := func() error {
		return adapter.PublishLogs(b.Context(), api.LogSubscriptionOptions{}, publisher)
	}
	reference := func() error {
		return referenceLoop(b.Context(), bytes.NewReader(text), api.LogContext{}, publisher)
	}
	// measure returns how long one answer takes.
	measure := func(b *testing.B, publish func() error) time.Duration {
		count = 0
		begin := time.Now()
		err := publish()
		took := time.Since(begin)
		require.NoError(b, err)
		require.Equal(b, lines, count)
		return took
	}

	b.Run("line", func(b *testing.B) {
		each := func(publish func() error) func() float64 {
			return func() float64 { return float64(measure(b, publish).Nanoseconds()) / lines }
		}
		compare(b, "ns/line", 0.5, each(ours), each(reference))
	})
	b.Run("allocations", func(b *testing.B) {
		each := func(publish func() error) func() float64 {
			return func() float64 { return testing.AllocsPerRun(5, func() { measure(b, publish) }) / lines }
		}
		compareCounts(b, "allocs/line", 0.5, each(ours), each(reference))
	})
}
