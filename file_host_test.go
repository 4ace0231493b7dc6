package dockerexec

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/system"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Engines whose tasks cannot have files. Nothing is written, and a Remove is
// nothing to do.
func TestFilesOnEnginesThatCannotHaveThem(t *testing.T) {
	t.Parallel()
	const before = "dockerexec: task field Spec.Container.Secrets[0]: "
	for _, test := range []struct {
		name  string
		set   func(*filesClient)
		dir   string
		want  string
		calls []string
	}{
		{name: "on another host", set: func(c *filesClient) { c.address = "tcp://user:canary@10.0.0.1:2376" },
			want: "the engine at tcp://10.0.0.1:2376 is on another host, and an engine's API has no way to hand it a file that stays in memory; run the executor on the engine's host"},
		{name: "relative folder", dir: "secrets", want: "WithSecretsDir names secrets, which is not an absolute path"},
		{name: "rootless", set: withSecurity("name=seccomp,profile=default", "name=rootless", "name=cgroupns"), calls: []string{"Info "},
			want: "the engine is rootless, and runs beside other mounts and users than those of this host"},
		{name: "remapped users", set: withSecurity("name=userns"), calls: []string{"Info "},
			want: "the engine maps the users of containers to others (userns-remap): a file would have another owner inside"},
		{name: "SELinux", set: withSecurity("name=selinux"), calls: []string{"Info "},
			want: "the engine labels containers (SELinux), and would keep them from reading a file that it has not labelled"},
		{name: "no ID", set: func(c *filesClient) {
			c.info = func(context.Context) (system.Info, error) { return system.Info{}, nil }
		}, calls: []string{"Info "}, want: "the engine has no ID that could name the folder of its files"},
		{name: "odd ID", set: func(c *filesClient) {
			c.info = func(context.Context) (system.Info, error) { return system.Info{ID: "../etc"}, nil }
		}, calls: []string{"Info "}, want: "the engine has no ID that could name the folder of its files"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			client, store := newFilesClient(t), newTestStore(t)
			if test.set != nil {
				test.set(client)
			}
			if test.dir != "" {
				store.dir = test.dir
			} else {
				require.NoError(t, os.MkdirAll(store.dir, 0o700))
			}
			client.containerCreate, client.containerStart = nil, nil // are not called
			adapter := newFilesAdapter(t, client, store, ownedTask(), stores())
			require.EqualError(t, adapter.CreateNetworks(t.Context()), before+test.want)
			require.EqualError(t, adapter.CreateVolumes(t.Context()), before+test.want)
			for range 2 {
				err := adapter.Create(t.Context())
				require.EqualError(t, err, before+test.want)
				assert.False(t, exec.IsTemporary(err))
				require.EqualError(t, adapter.Start(t.Context()), before+test.want)
			}
			require.NoError(t, adapter.Remove(t.Context()))
			assert.Equal(t, append(test.calls, "ContainerRemove web.1.taskid"), client.called())
			assert.Empty(t, tree(t, store.dir))
		})
	}
}

func withSecurity(options ...string) func(*filesClient) {
	return func(c *filesClient) {
		c.info = func(context.Context) (system.Info, error) {
			return system.Info{ID: "engine-1", SecurityOptions: options}, nil
		}
	}
}

// 20.10's IDs have colons.
func TestFilesOfAnEngineIDWithColons(t *testing.T) {
	t.Parallel()
	client, store := newFilesClient(t), newTestStore(t)
	client.info = func(context.Context) (system.Info, error) { return system.Info{ID: "B77S:VOG2"}, nil }
	require.NoError(t, newFilesAdapter(t, client, store, ownedTask(), stores()).Create(t.Context()))
	assert.Contains(t, tree(t, store.dir), "B77S:VOG2/taskid drwx------")
}

func TestOnThisHost(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]bool{
		"unix:///run/docker.sock": true, "npipe:////./pipe/docker_engine": true, "unix://@abstract": true,
		"tcp://localhost:2375": true, "tcp://127.0.0.1:2375": true, "http://127.1.2.3": true, "https://[::1]:2376": true,
		"tcp://10.0.0.1:2375": false, "http://docker.example.com": false, "tcp://[fd00::1]:2375": false, "tcp://localhost.example.com:1": false,
		"ssh://localhost": false, "": false, "fd://": false, "tcp://[": false,
	} {
		assert.Equal(t, want, onThisHost(address), address)
	}
}

// One asks the engine; the others wait for it, each as long as its context lasts.
func TestFirstTasksWithFilesAtOnce(t *testing.T) {
	t.Parallel()
	store := newTestStore(t)
	synctest.Test(t, func(t *testing.T) {
		client := newFilesClient(t)
		client.info = func(context.Context) (system.Info, error) {
			time.Sleep(time.Minute)
			return system.Info{ID: "engine-1"}, nil
		}
		engine := newFilesEngine(t, client, store)
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				task := ownedTask()
				task.ID = fmt.Sprint("task", i)
				adapter, err := engine.Adapter(nil, task, stores())
				if !assert.NoError(t, err) {
					return
				}
				ctx, cancel := t.Context(), context.CancelFunc(func() {})
				if i == 19 {
					time.Sleep(time.Second) // so that another one asks
					ctx, cancel = context.WithTimeout(ctx, time.Second)
				}
				defer cancel()
				begin := time.Now()
				err = adapter.Create(ctx)
				if i == 19 {
					assert.Equal(t, context.DeadlineExceeded, err)
					assert.Equal(t, time.Second, time.Since(begin))
					return
				}
				assert.NoError(t, err)
				assert.NoError(t, adapter.Start(ctx))
				assert.NoError(t, adapter.Remove(ctx))
			})
		}
		all.Wait()
		assert.Len(t, client.called(), 1+19*3)
		assert.Empty(t, tree(t, store.dir))
	})
}

// Nor do the others take their time-outs one after the other.
func TestTasksBehindAnEngineThatNeverTellsAreBounded(t *testing.T) {
	t.Parallel()
	store := newTestStore(t)
	synctest.Test(t, func(t *testing.T) {
		client := newFilesClient(t)
		client.info = func(ctx context.Context) (system.Info, error) {
			<-ctx.Done()
			return system.Info{}, ctx.Err()
		}
		engine := newFilesEngine(t, client, store)
		engine.options.requestTimeout = time.Minute
		begin := time.Now()
		var all sync.WaitGroup
		for n := range 100 {
			all.Go(func() {
				time.Sleep(time.Duration(n) * time.Millisecond)
				task := ownedTask()
				task.ID = fmt.Sprint("task", n)
				adapter, err := engine.Adapter(nil, task, stores())
				if !assert.NoError(t, err) {
					return
				}
				err = adapter.Create(t.Context())
				assert.True(t, exec.IsTemporary(err), err)
				assert.ErrorContains(t, err, "secrets and configs: ")
				assert.ErrorContains(t, err, "the engine did not answer within 1m0s")
			})
		}
		all.Wait()
		assert.LessOrEqual(t, time.Since(begin), 2*time.Minute+time.Second)
	})
}
