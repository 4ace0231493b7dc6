package dockerexec

import (
	"encoding/base64"
	"encoding/json"
	"testing"

	"github.com/docker/docker/api/types/registry"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// registryAuth is the form in which the API takes credentials.
func registryAuth(t testing.TB, user, password string) string {
	t.Helper()
	text, err := json.Marshal(registry.AuthConfig{Username: user, Password: password})
	require.NoError(t, err)
	return base64.URLEncoding.EncodeToString(text)
}

// anEvent is how an event stream begins.
const anEvent = `{"Type":"container","Action":"start","Actor":{"ID":"0123456789ab","Attributes":{"name":"nobody"}},"scope":"local","time":1700000000,"timeNano":1700000000000000000}` + "\n"
