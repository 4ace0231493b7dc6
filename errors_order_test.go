package dockerexec

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
)

// The parts of a phrase stand in its order.
func TestClassifiersHeedTheOrderOfWords(t *testing.T) {
	t.Parallel()
	assert.True(t, IsUnknownContainer(errors.New("container web not found")))
	assert.False(t, IsUnknownContainer(errors.New("not found: container web")))
	assert.True(t, IsActiveEndpointError(errors.New("network n is in use")))
	assert.False(t, IsActiveEndpointError(errors.New("in use: network n")))
	assert.True(t, IsContainerCreateNameConflict(errors.New("container web already exists")))
	assert.False(t, IsContainerCreateNameConflict(errors.New("already exists: container web")))
	assert.True(t, IsStoppedContainer(errors.New("container web is not running")))
	assert.False(t, IsStoppedContainer(errors.New("is not running: container web")))
}
