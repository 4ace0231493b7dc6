package dockerexec

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"unicode/utf8"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestScrubber(t *testing.T) {
	t.Parallel()
	auth := base64.URLEncoding.EncodeToString([]byte(
		`{"username":"bob","password":"p/w+d=x","auth":"` + base64.StdEncoding.EncodeToString([]byte("bob:other-secret")) + `","registrytoken":"abc","serveraddress":"registry.example"}`))
	for text, want := range map[string]string{
		"nothing to hide":                                        "nothing to hide",
		"manifest for bob/x:1 at r:5000 lost":                    "manifest for bob/x:1 at r:5000 lost",
		`Get "https://r/v2/": EOF`:                               `Get "https://r/v2/": EOF`,
		`Get "https://u:p@r/v2/x": EOF`:                          `Get "https://r/v2/x": EOF`,
		"https://u@r:5000/?a=b: 403 Forbidden":                   "https://r:5000/: 403 Forbidden",
		"HTTPS://u:a@b@r/p#f, and more":                          "HTTPS://r/p, and more",
		"https://u:a/b@r/p":                                      "https://r/p",
		"https://[::1]:5000/x@sha256:0":                          "https://[::1]:5000/x@sha256:0",
		`{"u":"https://r/t?a=1\u0026s=2<'3"}`:                    `{"u":"https://r/t"}`,
		"//u@r/x":                                                "//r/x",
		"/v2/token?scope=x&s=y z":                                "/v2/token z",
		"what? nothing":                                          "what? nothing",
		"password p/w+d=x of bob, bob: no":                       "password xxxxx of xxxxx, xxxxx: no",
		"p%2Fw%2Bd%3Dx":                                          "xxxxx",
		"other-secret, abc, abcd":                                "xxxxx, xxxxx, abcd",
		base64.StdEncoding.EncodeToString([]byte("bob:p/w+d=x")): "xxxxx",
		auth:                      "xxxxx",
		"registry.example":        "registry.example",
		"a\nb\tc\x1b[31m\u0085":   "a b c [31m ",
		strings.Repeat("é", 1025): strings.Repeat("é", 1022) + "…",
	} {
		assert.Equal(t, want, newScrubber(auth).clean(text, 2048), text)
	}
	assert.Equal(t, "the header xxxxx", newScrubber("not base64!").clean("the header not base64!", 99))
	for limit := 3; limit < 20; limit++ {
		text := newScrubber("").clean("aé日本語𝄞 and so on and on", limit)
		assert.True(t, utf8.ValidString(text) && len(text) <= limit, text)
	}
}

// A password may be any bytes, and short ones are looked for by an expression,
// which takes none that are not UTF-8.
func TestScrubberOfAPasswordThatIsNoText(t *testing.T) {
	t.Parallel()
	const auth = "eyJhdXRoIjoiZFRyLy9nPT0ifQ==" // {"auth":"dTr//g=="}, which is u:\xff\xfe
	assert.Equal(t, "it was xxxxx, or xxxxx, or xxxxx of bob", newScrubber(auth).clean("it was \xff\xfe, or %FF%FE, or dTr//g== of bob", 99))
}

// An engine takes the header's fields in any case.
func TestScrubberTakesFieldsInAnyCase(t *testing.T) {
	t.Parallel()
	auth := base64.URLEncoding.EncodeToString([]byte(`{"UserName":"bob","PASSWORD":"p/w+d=x"}`))
	for text, want := range map[string]string{
		"p/w+d=x of bob: no": "xxxxx of xxxxx: no",
		"Ym9iOnAvdytkPXg=":   "xxxxx", // bob:p/w+d=x
	} {
		assert.Equal(t, want, newScrubber(auth).clean(text, 99))
	}
}

// FuzzScrubber makes scrubbers of any credentials. None panics, and no text
// becomes longer than it may be, or is no text any more.
func FuzzScrubber(f *testing.F) {
	f.Add([]byte(`{"auth":"dTr//g=="}`), "u:\xff\xfe") // a password that is no UTF-8
	f.Add([]byte(`{"username":"bob","password":"p/w+d=x","registrytoken":"abc"}`), "bob: https://bob:p/w+d=x@r/?a=b")
	f.Add([]byte(`{"Username":"(","PASSWORD":"[a-"}`), "( [a-")
	f.Fuzz(func(t *testing.T, credentials []byte, text string) {
		scrub := newScrubber(base64.URLEncoding.EncodeToString(credentials))
		for _, limit := range []int{3, 256} {
			cleaned := scrub.clean(text, limit)
			require.LessOrEqual(t, len(cleaned), limit)
			require.True(t, utf8.ValidString(cleaned))
		}
	})
}

// Secrets are cut out before a text is cut off: half of one is a secret too.
func TestScrubberCutsOutBeforeItCutsOff(t *testing.T) {
	t.Parallel()
	scrub := newScrubber(canaryAuth(t))
	for limit := 3; limit < 60; limit++ {
		assert.NotContains(t, scrub.clean("it said canary-password and https://canary@host/x?canary", limit), "cana")
	}
}

// TestPullCanary looks for what must be seen nowhere in all that a pull says.
func TestPullCanary(t *testing.T) {
	t.Parallel()
	leaks := `Get "https://canary-user:canary-password@r/v2/x?canary=1": bearer canary-identity-token, ` + canaryAuth(t)
	quoted := strings.ReplaceAll(leaks, `"`, `\"`)
	for name, reply := range map[string]func(context.Context) (io.ReadCloser, error){
		"request":           refusal(errors.New(leaks)),
		"request, denied":   refusal(answer{"denied: " + leaks, cerrdefs.ErrInternal}),
		"request, passing":  refusal(answer{leaks + ": EOF", cerrdefs.ErrInternal}),
		"request, engine":   refusal(fmt.Errorf("%s: %w", leaks, io.ErrUnexpectedEOF)),
		"body":              cut(errors.New(leaks)),
		"body, engine":      cut(fmt.Errorf("%s: %w", leaks, io.ErrUnexpectedEOF)),
		"stream":            stream(`{"status":"`+quoted+`"}`, `{"status":"Downloading","id":"`+quoted+`"}`, `{"status":"`+quoted+`","id":"a","progressDetail":{"current":1}}`),
		"stream, error":     inStream(quoted),
		"stream, error 429": inStream("toomanyrequests: " + quoted),
		"stream, detail":    stream(`{"errorDetail":{"message":"` + quoted + `","code":401}}`),
		"stream, no string": stream(`{"error":{"x":"` + quoted + `"}}`),
		"stream, stall":     stalling(`{"status":"` + quoted + `","id":"` + quoted + `","progressDetail":{"current":1}}`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				task := pullTask("registry/x")
				spec(task).PullOptions = &api.ContainerSpec_PullOptions{RegistryAuth: canaryAuth(t)}
				spec(task).Env = []string{"SECRET=canary-environment"}
				ctx, hook := logHook(t.Context())
				var said strings.Builder
				engine := NewEngine(pulling(t, reply), WithPullObserver(func(_ context.Context, p PullProgress) { fmt.Fprintf(&said, "%+v\n", p) }))
				err := adapterOf(t, engine, task).PullImage(ctx)
				fmt.Fprintf(&said, "%v\n%+v\n%#v\n", err, err, err)
				for e := err; e != nil; e = errors.Unwrap(e) {
					fmt.Fprintf(&said, "%v\n", e)
				}
				for _, e := range hook.AllEntries() {
					line, err := e.String()
					require.NoError(t, err)
					said.WriteString(line)
				}
				assert.NotContains(t, said.String(), "canary")
				assert.NotContains(t, said.String(), canaryAuth(t))
				assert.Contains(t, said.String(), "registry/x")
			})
		})
	}
}

// stalling answers a pull with messages and then with nothing more.
func stalling(messages string) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) {
		body := &closing{closed: make(chan struct{})}
		body.Reader = io.MultiReader(strings.NewReader(messages), unending{body.closed})
		return body, nil
	}
}
