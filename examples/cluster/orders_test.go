package cluster

import (
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// Orders is what the first command of a host does for the driver, which is outside of the
// host's namespaces: it runs programs inside. It is the same binary, see TestMain.
type Orders struct {
	mu    sync.Mutex
	node  *exec.Cmd     // nil: none was started, or its end was asked for
	ended chan struct{} // closed once node has ended
}

// ordersFor names the folder of the host in which this process is to take orders.
const ordersFor = "DOCKEREXEC_TEST_ORDERS"

// takeOrders serves the orders of a host until it is killed.
func takeOrders(dir string) error {
	server := rpc.NewServer()
	if err := server.Register(&Orders{}); err != nil {
		return err
	}
	// The driver waits for the socket under its last name.
	path := filepath.Join(dir, "orders")
	l, err := net.Listen("unix", path+".part")
	if err != nil {
		return err
	}
	if err := os.Rename(path+".part", path); err != nil {
		return err
	}
	server.Accept(l)
	return nil
}

// Environment returns the variables that hack/session.sh has set in the host.
func (o *Orders) Environment(_ int, environment *map[string]string) error {
	*environment = map[string]string{}
	for _, variable := range os.Environ() {
		name, value, _ := strings.Cut(variable, "=")
		(*environment)[name] = value
	}
	return nil
}

// Run runs a program to its end and returns its output. A program that fails is an error.
func (o *Orders) Run(args []string, output *string) error {
	text, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	*output = string(text)
	if err != nil {
		return fmt.Errorf("%v: %w: %s", args, err, text)
	}
	return nil
}

// Start starts the host's node. The first argument is the file that gets its output.
func (o *Orders) Start(args []string, _ *bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.node != nil {
		return errors.New("the node was started already")
	}
	output, err := os.OpenFile(args[0], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer output.Close()
	node, ended := exec.Command(args[1], args[2:]...), make(chan struct{})
	node.Env = append(os.Environ(), "GORACE=exitcode=0") // the driver looks for races in the output
	node.Stdout, node.Stderr = output, output
	if err := node.Start(); err != nil {
		return err
	}
	go func() {
		defer close(ended)
		_ = node.Wait() // End reads the state
	}()
	o.node, o.ended = node, ended
	return nil
}

// End signals the host's node, and says how it ended. A node that has ended by itself is an error.
func (o *Orders) End(signal int, how *string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.node == nil {
		return errors.New("the node was not started")
	}
	select {
	case <-o.ended:
		return fmt.Errorf("the node has ended by itself: %v", o.node.ProcessState)
	default:
	}
	if err := o.node.Process.Signal(syscall.Signal(signal)); err != nil {
		return err
	}
	<-o.ended
	*how = o.node.ProcessState.String()
	o.node = nil
	return nil
}
