package dockerexec

import (
	"encoding/json"
	"io"
	"net/http"
	"syscall"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errhttp"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/stretchr/testify/assert"
)

// The table that stands in the comment of verdicts.go.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	status := func(status int) error { return answer{"no", errhttp.ToNative(status)} }
	for name, test := range map[string]struct {
		err                                       error
		passing, refusal, mayMend, again, reached bool
	}{
		"refused connection": {syscall.ECONNREFUSED, true, false, true, true, false},
		"cut short":          {io.ErrUnexpectedEOF, true, false, true, true, false},
		"no answer":          {requestTimeoutError(time.Minute), true, false, true, true, true},
		"429":                {status(http.StatusTooManyRequests), true, false, true, true, true},
		"502":                {status(http.StatusBadGateway), true, false, true, true, true},
		"503":                {status(http.StatusServiceUnavailable), true, false, true, true, true},
		"504":                {status(http.StatusGatewayTimeout), true, false, true, true, true},
		"lost containerd":    {answer{"Unavailable: error reading from server: EOF", cerrdefs.ErrInternal}, true, false, true, true, true},
		"older engine":       {answer{"client version 1.51 is too new", cerrdefs.ErrInvalidArgument}, true, true, true, true, true},
		"409":                {status(http.StatusConflict), false, false, true, true, true},
		"500":                {status(http.StatusInternalServerError), false, false, true, true, true},
		"400":                {status(http.StatusBadRequest), false, true, false, false, true},
		"401":                {status(http.StatusUnauthorized), false, true, false, false, true},
		"403":                {status(http.StatusForbidden), false, true, false, false, true},
		"501":                {status(http.StatusNotImplemented), false, true, false, false, true},
		"404":                {status(http.StatusNotFound), false, false, false, true, true},
		"405":                {status(http.StatusMethodNotAllowed), false, false, false, true, true},
		"no JSON":            {json.Unmarshal([]byte("<html>"), new(any)), false, false, false, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, test.passing, isPassing(test.err), "isPassing")
			assert.Equal(t, test.refusal, isRefusal(test.err), "isRefusal")
			assert.Equal(t, test.reached, hasReached(test.err), "hasReached")
			wrapped := engineError(t.Context(), test.err, "inspect container web")
			assert.Equal(t, test.mayMend, mayMend(wrapped), "mayMend")
			assert.Equal(t, test.again, exec.IsTemporary(tryAgain(t.Context(), wrapped)), "tryAgain")
		})
	}
}
