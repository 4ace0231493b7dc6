package dockerexectest_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	engineapi "github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

// example is an engine with a running container. In a test, New(t) ends it.
func example(p dockerexectest.Program, opts ...dockerexectest.ImageOption) (*dockerexectest.Engine, *engineapi.Client, context.Context) {
	engine, ctx := dockerexectest.New(nil), context.Background()
	engine.LocalImage("example/web:1", p, opts...)
	c := engine.Client()
	_, _ = c.ContainerCreate(ctx, &container.Config{Image: "example/web:1"}, nil, nil, nil, "web")
	_ = c.ContainerStart(ctx, "web", container.StartOptions{})
	return engine, c, ctx
}

// The engine is away, and the container runs on and ends.
func ExampleEngine_Down() {
	engine, c, ctx := example(dockerexectest.UntilStopped(0))
	defer engine.Close()
	engine.Down()
	_, err := c.ContainerInspect(ctx, "web")
	fmt.Println("failed:", engineapi.IsErrConnectionFailed(err))
	engine.Container("web").Exit(4)
	engine.Up()
	answer, _ := c.ContainerInspect(ctx, "web")
	fmt.Println(answer.State.Status, answer.State.ExitCode)
	// Output:
	// failed: true
	// exited 4
}

// The engine starts the container, but nobody hears of it.
func ExampleLoseAnswer() {
	engine, c, ctx := example(dockerexectest.UntilStopped(0))
	defer engine.Close()
	_, _ = c.ContainerCreate(ctx, &container.Config{Image: "example/web:1"}, nil, nil, nil, "other")
	engine.FailNext("POST /containers/*/start", dockerexectest.LoseAnswer())
	err := c.ContainerStart(ctx, "other", container.StartOptions{})
	fmt.Println("failed:", err != nil)
	fmt.Println("starts:", engine.Container("other").Starts())
	// Output:
	// failed: true
	// starts: 1
}

// Somebody else has the name.
func ExampleEngine_AddContainer() {
	engine, c, ctx := example(nil)
	defer engine.Close()
	engine.AddContainer("taken", map[string]string{"owner": "somebody"})
	_, err := c.ContainerCreate(ctx, &container.Config{Image: "example/web:1"}, nil, nil, nil, "taken")
	fmt.Println("conflict:", cerrdefs.IsConflict(err))
	// Output: conflict: true
}

// The kernel ends a container that takes too much memory.
func ExampleContainer_OOM() {
	engine, c, ctx := example(dockerexectest.IgnoreStop())
	defer engine.Close()
	engine.Container("web").OOM()
	answer, _ := c.ContainerInspect(ctx, "web")
	fmt.Println(answer.State.ExitCode, answer.State.OOMKilled)
	// Output: 137 true
}

// A registry stops sending, and the client gives up.
func ExampleWithStall() {
	engine, c, ctx := example(nil)
	defer engine.Close()
	engine.Image("example/big:1", nil, dockerexectest.WithLayers(10<<20), dockerexectest.WithStall(3<<20))
	ctx, giveUp := context.WithCancel(ctx)
	defer giveUp()
	body, _ := c.ImagePull(ctx, "example/big:1", image.PullOptions{})
	defer body.Close()
	for lines := bufio.NewScanner(body); lines.Scan(); {
		if strings.Contains(lines.Text(), `"progressDetail":{"current":3145728,"total":10485760}`) {
			fmt.Println("no more than 3 MiB")
			break
		}
	}
	giveUp()
	fmt.Println(engine.Images())
	// Output:
	// no more than 3 MiB
	// [example/web:1]
}

// A registry limits the pulls.
func ExampleWithRateLimit() {
	engine, c, ctx := example(nil)
	defer engine.Close()
	engine.Image("example/popular:1", nil, dockerexectest.WithRateLimit(1))
	_, err := c.ImagePull(ctx, "example/popular:1", image.PullOptions{})
	fmt.Println("limited:", err != nil && strings.Contains(err.Error(), "429 Too Many Requests"))
	body, err := c.ImagePull(ctx, "example/popular:1", image.PullOptions{})
	fmt.Println(err)
	_, _ = io.Copy(io.Discard, body)
	_ = body.Close()
	fmt.Println(engine.Images())
	// Output:
	// limited: true
	// <nil>
	// [example/web:1 example/popular:1]
}

// A container prints, and its log is followed to its end.
func ExamplePrint() {
	engine, c, ctx := example(dockerexectest.Print(dockerexectest.UntilStopped(0), "ready"))
	defer engine.Close()
	body, _ := c.ContainerLogs(ctx, "web", container.LogsOptions{ShowStdout: true, ShowStderr: true, Follow: true})
	defer body.Close()
	first := make([]byte, 8+len("ready\n")) // a frame has eight bytes before its text
	_, _ = io.ReadFull(body, first)         // the program runs since its line has come
	fmt.Print(string(first[8:]))
	engine.Container("web").Print("stderr", "something happened")
	engine.Container("web").Exit(0)
	_, err := stdcopy.StdCopy(os.Stdout, os.Stdout, body)
	fmt.Println(err)
	// Output:
	// ready
	// something happened
	// <nil>
}

// A health check finds something else.
func ExampleContainer_SetHealth() {
	engine, c, ctx := example(dockerexectest.UntilStopped(0), dockerexectest.WithHealthcheck(container.HealthConfig{Interval: time.Minute}))
	defer engine.Close()
	for _, status := range []string{"", "healthy", "unhealthy"} {
		if status != "" {
			engine.Container("web").SetHealth(status)
		}
		answer, _ := c.ContainerInspect(ctx, "web")
		fmt.Println(answer.State.Health.Status)
	}
	// Output:
	// starting
	// healthy
	// unhealthy
}
