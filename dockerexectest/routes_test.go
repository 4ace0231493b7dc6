package dockerexectest

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// failures is a test that may fail without failing the real one.
type failures struct {
	testing.TB
	list []string
}

func (f *failures) Helper()        {}
func (f *failures) Cleanup(func()) {}
func (f *failures) Errorf(format string, args ...any) {
	f.list = append(f.list, fmt.Sprintf(format, args...))
}

// Whatever request is served, a query parameter that is not known fails the test by
// its name, and the engine does nothing. No route is left out.
func TestAnUnknownQueryParameterFailsTheTest(t *testing.T) {
	missing := map[string]bool{}
	for _, r := range routes {
		missing[r.method+" "+r.prefix+"web"+r.suffix] = true
	}
	f := &failures{TB: t}
	e := New(f)
	defer e.Close()
	e.LocalImage("example/web:1", UntilStopped(0))
	c := e.Client()
	for _, asked := range []string{
		"GET /_ping", "HEAD /_ping", "GET /info", "GET /version", "GET /plugins", "GET /events",
		"GET /containers/json", "POST /containers/create", "GET /containers/web/json", "GET /containers/web/logs", "POST /containers/web/start",
		"POST /containers/web/stop", "POST /containers/web/restart", "POST /containers/web/kill", "POST /containers/web/pause", "POST /containers/web/unpause",
		"POST /containers/web/rename", "POST /containers/web/wait", "DELETE /containers/web",
		"POST /images/create", "GET /images/json", "GET /images/web/json", "POST /images/web/tag", "DELETE /images/web",
		"GET /networks", "POST /networks/create", "GET /networks/web", "POST /networks/web/connect", "POST /networks/web/disconnect", "DELETE /networks/web",
		"GET /volumes", "POST /volumes/create", "GET /volumes/web", "DELETE /volumes/web",
	} {
		method, path, _ := strings.Cut(asked, " ")
		served := findRoute(&request{method: method, path: path})
		require.NotNil(t, served, asked)
		delete(missing, served.method+" "+served.prefix+"web"+served.suffix)

		f.list = nil
		sent, err := http.NewRequestWithContext(t.Context(), method, "http://engine.test/v1.51"+path+"?nosuch=1", strings.NewReader(`{"Image":"example/web:1","Name":"web"}`))
		require.NoError(t, err)
		answer, err := c.HTTPClient().Do(sent)
		require.NoError(t, err, asked)
		require.NoError(t, answer.Body.Close())
		assert.Equal(t, http.StatusNotImplemented, answer.StatusCode, asked)
		assert.Equal(t, []string{"dockerexectest: " + asked + " is not served with the query parameter nosuch"}, f.list)
	}
	assert.Empty(t, missing, "served, and not in the list")
	assert.Empty(t, e.Containers())
	assert.Empty(t, e.Networks())
	assert.Empty(t, e.Volumes())
}
