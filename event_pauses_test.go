package dockerexec

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestAnOutageThatIsOverDelaysNoLaterSubscriber(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		ctx, _ := linesOf(t.Context())
		adapter := newTestAdapter(t, client, plainTask())
		subscribe(ctx, t, adapter)
		source.refuse(engineAway{})
		source.latest().end(io.ErrUnexpectedEOF)
		time.Sleep(time.Minute)
		source.refuse(nil)
		time.Sleep(time.Minute)
		begin := time.Now()
		subscribe(ctx, t, adapter)
		assert.Equal(t, 10*time.Millisecond, time.Since(begin))
	})
}

// The pauses of an outage are not those of the next one, even if no event came in
// between.
func TestAStreamThatWasSilentForLongIsOpenedAgainAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		running(client, "running")
		ctx, _ := linesOf(t.Context())
		startWait(ctx, newTestAdapter(t, client, plainTask()))
		settled()
		source.refuse(engineAway{})
		source.latest().end(io.ErrUnexpectedEOF)
		time.Sleep(time.Minute)
		source.refuse(nil)
		time.Sleep(time.Hour)
		asked := source.requests()
		source.latest().end(io.ErrUnexpectedEOF)
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		assert.Equal(t, asked+1, source.requests())
	})
}
