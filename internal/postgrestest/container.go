package postgrestest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/exec"
	"github.com/testcontainers/testcontainers-go/log"
	"github.com/testcontainers/testcontainers-go/wait"

	"github.com/concourse-ci-machine/concourse-ci-machine/internal/needs"
)

// image is the name of the images in Docker, with a tag for each recipe. `ccbench env down`
// knows it, too.
const image = "ccbench-postgresql"

// connect returns Docker, or ends the test.
func connect(t testing.TB) *testcontainers.DockerProvider {
	t.Helper()
	log.SetDefault(log.NewNoopLogger())
	// The container that removes others comes from a registry. Ours end by themselves.
	err := os.Setenv("TESTCONTAINERS_RYUK_DISABLED", "true")
	require.NoError(t, err)
	// The containers are on the host's network, and Docker may have no other.
	docker, err := testcontainers.NewDockerProvider(testcontainers.WithDefaultBridgeNetwork("host"))
	if err == nil {
		docker.Logger = log.NewNoopLogger()
		err = docker.Health(t.Context())
	}
	if err != nil {
		needs.Lack(t, "CHARM_REQUIRE", "docker", "needs Docker, to run a PostgreSQL: `make docker` installs and starts it (%v)", err)
	}
	return docker
}

// run starts a container of the image, which ends with the test: with its process, however
// that ends, because it is that which holds the container's standard input open.
func run(t testing.TB, docker *testcontainers.DockerProvider, env map[string]string) testcontainers.Container {
	t.Helper()
	hold := func(ctx context.Context, c testcontainers.Container) error {
		held, err := docker.Client().ContainerAttach(ctx, c.GetContainerID(), client.ContainerAttachOptions{Stream: true, Stdin: true})
		if err == nil {
			t.Cleanup(held.Close)
		}
		return err
	}
	c, err := docker.RunContainer(t.Context(), testcontainers.ContainerRequest{
		Image: build(t, docker),
		Env:   env,
		// On the host's network the server keeps its port, and who asks for it while it is
		// away is refused. Docker's own forwarding accepts first.
		HostConfigModifier: func(c *container.HostConfig) { c.NetworkMode, c.AutoRemove = "host", true },
		ConfigModifier:     func(c *container.Config) { c.OpenStdin, c.StdinOnce = true, true },
		WaitingFor:         wait.ForLog(started).WithStartupTimeout(startLimit).WithPollInterval(20 * time.Millisecond),
		LifecycleHooks:     []testcontainers.ContainerLifecycleHooks{{PreStarts: []testcontainers.ContainerHook{hold}}},
	})
	t.Cleanup(func() {
		if err := testcontainers.TerminateContainer(c, testcontainers.StopTimeout(0)); err != nil {
			t.Errorf("cannot remove PostgreSQL: %v", err)
		}
	})
	require.NoError(t, err, "cannot run PostgreSQL")
	return c
}

// build returns the image, which is made once.
func build(t testing.TB, docker *testcontainers.DockerProvider) string {
	t.Helper()
	tag := image + ":" + recipe()
	dir := filepath.Join(needs.CacheDir(t), "postgresql")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	// Other packages' tests run at the same time.
	lock := flock.New(filepath.Join(dir, ".lock"))
	_, err := lock.TryLockContext(t.Context(), 100*time.Millisecond)
	require.NoError(t, err)
	defer lock.Close()
	if _, err := docker.Client().ImageInspect(t.Context(), tag); err == nil {
		return tag
	}
	began, path := time.Now(), filepath.Join(dir, recipe()+".tar")
	require.NoError(t, writeContext(t.Context(), path))
	files, err := os.Open(path)
	require.NoError(t, err)
	defer files.Close()
	var out bytes.Buffer
	_, err = docker.BuildImage(t.Context(), &testcontainers.ContainerRequest{FromDockerfile: testcontainers.FromDockerfile{
		ContextArchive: files, Repo: image, Tag: recipe(), BuildLogWriter: &out,
		BuildOptionsModifier: func(o *client.ImageBuildOptions) { o.NetworkMode = "none" },
	}})
	require.NoError(t, err, "%s", &out)
	t.Logf("built %s in %s", tag, time.Since(began).Round(time.Second))
	return tag
}

// Run runs a program in the container, as the server's user, and returns what it prints.
func (s *Server) Run(ctx context.Context, env []string, stdin string, args ...string) (string, error) {
	if stdin != "" {
		args, env = append([]string{"sh", "-c", `printf %s "$STDIN" | "$@"`, "sh"}, args...), append(env, "STDIN="+stdin)
	}
	code, output, err := s.container.Exec(ctx, args, exec.WithEnv(env))
	if err != nil {
		return "", err
	}
	var stdout, stderr bytes.Buffer
	if _, err = stdcopy.StdCopy(&stdout, &stderr, output); err == nil && code != 0 {
		err = fmt.Errorf("%s: exit status %d: %s", args[0], code, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), err
}
