package dockerexec

import (
	"fmt"

	"github.com/pkg/errors"
)

// refuse is the error of a task that cannot run as asked. path names the field
// in the task. It never shows a value that may be a secret.
func refuse(path, format string, args ...any) error {
	return errors.Errorf("dockerexec: task field %s: %s", path, fmt.Sprintf(format, args...))
}
