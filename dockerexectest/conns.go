package dockerexectest

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// listener hands the far ends of pipes to the server.
type listener struct {
	accepted chan net.Conn
	closed   chan struct{}
	once     sync.Once

	mu    sync.Mutex
	conns map[*engineConn]bool // that are open
}

func newListener() *listener {
	return &listener{accepted: make(chan net.Conn), closed: make(chan struct{}), conns: map[*engineConn]bool{}}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.accepted:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: "engine.test", Net: "unix"} }

func (l *listener) dial(ctx context.Context) (net.Conn, error) {
	near, far := net.Pipe()
	conn := &engineConn{Conn: far, listener: l}
	l.mu.Lock()
	l.conns[conn] = true
	l.mu.Unlock()
	select {
	case l.accepted <- conn:
		return &clientConn{Conn: near, closed: make(chan struct{})}, nil
	case <-l.closed:
		_ = conn.Close()
		return nil, refused()
	case <-ctx.Done():
		_ = conn.Close()
		return nil, ctx.Err()
	}
}

// closeConns cuts every connection.
func (l *listener) closeConns() {
	l.mu.Lock()
	conns := make([]*engineConn, 0, len(l.conns))
	for conn := range l.conns {
		conns = append(conns, conn)
	}
	l.mu.Unlock()
	for _, conn := range conns {
		_ = conn.Close()
	}
}

// engineConn is the engine's end of a connection.
type engineConn struct {
	net.Conn
	listener *listener
}

func (c *engineConn) Close() error {
	c.listener.mu.Lock()
	delete(c.listener.conns, c)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}

// clientConn is the client's end of a connection. Its errors are those of a socket.
type clientConn struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

func (c *clientConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err == io.ErrClosedPipe { //nolint:errorlint // the pipe returns it bare
		err = c.failure("write", syscall.EPIPE)
	}
	return n, err
}

func (c *clientConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == io.ErrClosedPipe { //nolint:errorlint // the pipe returns it bare
		err = c.failure("read", syscall.ECONNRESET)
	}
	return n, err
}

func (c *clientConn) failure(op string, errno syscall.Errno) error {
	err := os.NewSyscallError(op, errno)
	select {
	case <-c.closed:
		err = net.ErrClosed
	default:
	}
	return &net.OpError{Op: op, Net: "unix", Addr: address, Err: err}
}

func (c *clientConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

var address = &net.UnixAddr{Name: "engine.test", Net: "unix"}

// refused returns the error of a dial if nobody listens.
func refused() error {
	return &net.OpError{Op: "dial", Net: "unix", Addr: address, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
}

var _ net.Listener = (*listener)(nil)

// long is a time that no test waits for.
const long = 365 * 24 * time.Hour
