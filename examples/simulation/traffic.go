package main

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync/atomic"

	engineapi "github.com/docker/docker/client"
)

// traffic counts what an agent sends to its engine, and the events that it gets.
type traffic struct{ requests, failed, events atomic.Int64 }

// counts is the traffic at a moment.
type counts struct{ requests, failed, events int64 }

func (t *traffic) now() counts { return counts{t.requests.Load(), t.failed.Load(), t.events.Load()} }

func (c counts) plus(o counts) counts {
	return counts{c.requests + o.requests, c.failed + o.failed, c.events + o.events}
}

func (c counts) minus(o counts) counts {
	return counts{c.requests - o.requests, c.failed - o.failed, c.events - o.events}
}

// counted has a client count its traffic. Requests that get no connection count too, which
// an engine cannot see.
func counted(t *traffic) engineapi.Opt {
	return func(c *engineapi.Client) error {
		plain := c.HTTPClient()
		plain.Transport = countedTransport{plain.Transport, t}
		return engineapi.WithHTTPClient(plain)(c)
	}
}

type countedTransport struct {
	http.RoundTripper
	traffic *traffic
}

func (c countedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	c.traffic.requests.Add(1)
	answer, err := c.RoundTripper.RoundTrip(r)
	if err != nil {
		c.traffic.failed.Add(1)
		return nil, err
	}
	if strings.HasSuffix(r.URL.Path, "/events") {
		answer.Body = countedEvents{answer.Body, c.traffic}
	}
	return answer, nil
}

// countedEvents counts the events of a stream, which are lines.
type countedEvents struct {
	io.ReadCloser
	traffic *traffic
}

func (c countedEvents) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.traffic.events.Add(int64(bytes.Count(p[:n], []byte("\n"))))
	return n, err
}
