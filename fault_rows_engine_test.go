package dockerexec

import "slices"

// What engines say with a status; the others of the matrix are a proxy's.
var (
	noContainer  = "No such container: NAME"
	noNetwork    = "network NAME not found"
	sameName     = `Conflict. The container name "/NAME" is already in use by container "0123456789ab". You have to remove (or rename) that container to be able to reuse that name.`
	beingRemoved = "removal of container NAME is already in progress"
)

// pingFault is how the errors of a ping begin, of which each comes twice: the
// client asks with GET where its HEAD fails.
const pingFault = "ping the engine at " + faultHost

// anEvent is how an event stream begins.
const anEvent = `{"Type":"container","Action":"start","Actor":{"ID":"0123456789ab","Attributes":{"name":"nobody"}},"scope":"local","time":1700000000,"timeNano":1700000000000000000}` + "\n"

// faultRows is the matrix. The kinds are in the order of faults, grouped:
// refused reset header body cut, garbled empty, 404 409 429 500 503, never slow
// lost, cancel. They follow from the package's documentation of errors.
func faultRows() []*faultRow {
	return slices.Concat(adapterFaultRows(), streamFaultRows(), controllerFaultRows())
}
