package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// startNode returns once the node is ready; stop ends it and its output is in a file.
func startNode(binary, dir, socket string) (stop func() error, err error) {
	output, err := os.Create(filepath.Join(dir, "node.log"))
	if err != nil {
		return nil, err
	}
	node := exec.Command(binary, "-state-dir", filepath.Join(dir, "state"), "-control", socket, "-listen", "127.0.0.1:4242",
		"-hostname", "demo-node", "-host", os.Getenv("DOCKEREXEC_TEST_HOST"))
	node.Stderr = output
	out, err := node.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := node.Start(); err != nil {
		return nil, err
	}
	line := make([]byte, 4096)
	n, err := out.Read(line)
	if err != nil {
		text, _ := os.ReadFile(output.Name())
		return nil, fmt.Errorf("the node does not get ready: %w, its log:\n%s", node.Wait(), text)
	}
	fmt.Print(string(line[:n]))
	return func() error {
		defer output.Close()
		if err := node.Process.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		if err := node.Wait(); err != nil {
			return fmt.Errorf("the node: %w", err)
		}
		checked("the node has ended cleanly")
		return nil
	}, nil
}
