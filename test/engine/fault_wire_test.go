package engine_test

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The faults are what they are called, as a client without any package sees them.
func TestFaultsOnTheWire(t *testing.T) {
	t.Parallel()
	const body = `{"Id":"0123456789","Warnings":[]}` + "\n"
	var carriedOut sync.Map
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		carriedOut.Store(string(text), true)
		_, _ = io.WriteString(w, body)
	}))
	defer upstream.Close()
	address, err := url.Parse(upstream.URL)
	require.NoError(t, err)
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", address.Host)
	}}
	defer transport.CloseIdleConnections()
	dead := deadSocket(t)

	for f, want := range map[fault]struct {
		err    error  // of the request, or of reading its answer
		status int    // 0: none came
		body   string // if there is no error
	}{
		faultRefused: {err: syscall.ECONNREFUSED},
		faultReset:   {err: syscall.ECONNRESET},
		faultHeader:  {err: io.ErrUnexpectedEOF}, // net/http forgets the reset
		faultBody:    {err: syscall.ECONNRESET, status: 200},
		faultGarbled: {status: 200, body: "<html><body>It works!</body></html>"},
		faultEmpty:   {status: 200},
		fault404:     {status: 404, body: `{"message":"not \"this\""}` + "\n"},
		fault503:     {status: 503, body: `{"message":"not \"this\""}` + "\n"},
		faultNever:   {err: context.DeadlineExceeded},
		faultSlow:    {err: context.DeadlineExceeded},
		faultLost:    {err: io.EOF},
		faultCancel:  {err: context.DeadlineExceeded},
	} {
		t.Run(string(f), func(t *testing.T) {
			p := newFaultProxy(transport, dead, rand.New(rand.NewPCG(1, 2)))
			defer p.close()
			ask := func(limit time.Duration) (status int, text string, err error) {
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://engine/v1.41/containers/create", strings.NewReader(string(f)))
				require.NoError(t, err)
				answer, err := (&http.Client{Transport: p}).Do(request)
				if err != nil {
					return 0, "", err
				}
				defer answer.Body.Close()
				all, err := io.ReadAll(answer.Body)
				return answer.StatusCode, string(all), err
			}
			hit := p.arm(&faultPlan{fault: f, target: "POST containers/create", nth: 1, message: `not "this"`})
			limit := 10 * time.Second
			if want.err == context.DeadlineExceeded {
				limit = 300 * time.Millisecond // it is waited for
			}
			status, text, err := ask(limit)
			<-hit
			assert.Equal(t, want.status, status)
			if want.err != nil {
				assert.ErrorIs(t, err, want.err)
			} else if assert.NoError(t, err) {
				assert.Equal(t, want.body, text)
			}
			_, done := carriedOut.Load(string(f))
			assert.Equal(t, f.carriedOut(), done)
			_, _, err = p.disarm()
			require.NoError(t, err)

			status, text, err = ask(10 * time.Second)
			require.NoError(t, err)
			assert.Equal(t, 200, status)
			assert.Equal(t, body, text)
			assert.Zero(t, p.settled(5*time.Second), "connections")
		})
	}

	// No cut leaves a whole answer.
	p := newFaultProxy(transport, dead, rand.New(rand.NewPCG(testSeed(t), 0)))
	defer p.close()
	for range 200 {
		p.arm(&faultPlan{fault: faultCut, target: "* containers/create"})
		answer, err := (&http.Client{Transport: p}).Post("http://engine/containers/create", "text/plain", nil)
		if err == nil {
			_, err = io.ReadAll(answer.Body)
			answer.Body.Close()
		}
		_, where, _ := p.disarm()
		assert.Error(t, err, where)
	}
}
