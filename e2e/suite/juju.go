package suite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/pack"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/sim/probe"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/environment"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/mirror"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/observer"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/postgresql"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/release"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/juju"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/record"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/scenarios"
)

// module is the import path of this module.
const module = "github.com/concourse-ci-machine/concourse-ci-machine"

// lookArgs tell the observer where the charm keeps what.
var lookArgs = []string{
	"-agents", "/var/lib/juju/agents",
	"-volume", "/var/lib/concourse",
	"-state", "/var/lib/concourse-ci-machine",
	"-services", "concourse-server.service,concourse-worker.service,concourse-ci-supervisor.service",
}

// JujuOptions say what is deployed on Juju. The zero value is what this module builds.
type JujuOptions struct {
	// Charm is a packed charm, by a path that is absolute or below the module's root;
	// empty packs this module's.
	Charm string
	// Previous is a packed charm as clusters are refreshed from, by such a path; empty
	// packs that of an earlier commit of this repository.
	Previous string
	// PostgreSQL is a channel of Charmhub's PostgreSQL, such as "16/stable"; empty is
	// the suite's own.
	PostgreSQL string
	// Releases is a folder with archives of Concourse and their digests, see
	// release.Open; empty builds them from source.
	Releases string
	// HostPath is a directory for volumes, see juju.Options.
	HostPath string
}

// Juju is a Host on a real Juju and LXD.
type Juju struct {
	env *environment.Environment
	o   JujuOptions

	mu       sync.Mutex
	built    *Build // nil until all of it is
	dir      string // of what is built for this process
	observer string // path of the program that looks at machines
}

var _ Host = (*Juju)(nil)

// NewJuju returns a host in an environment that is up.
func NewJuju(env *environment.Environment, o JujuOptions) *Juju { return &Juju{env: env, o: o} }

// Build builds three releases, which are cached, and packs the charms.
func (j *Juju) Build(ctx context.Context, log func(string)) (Build, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.built != nil {
		return *j.built, nil
	}
	if j.dir == "" {
		dir, err := os.MkdirTemp("", "suite-")
		if err != nil {
			return Build{}, fmt.Errorf("cannot make a folder for charms: %w", err)
		}
		j.dir = dir
	}
	root, err := moduleRoot(ctx)
	if err != nil {
		return Build{}, err
	}
	var b Build
	releases := []struct {
		version string
		into    *scenarios.Release
	}{{release.Old, &b.Old}, {release.From, &b.From}, {release.To, &b.To}}
	b.Archives = make([]string, len(releases))
	all, ctx := errgroup.WithContext(ctx)
	for i, r := range releases {
		archive, err := j.release(ctx, r.version, log)
		if err != nil {
			return Build{}, err
		}
		b.Archives[i] = archive.Path
		all.Go(func() (err error) {
			*r.into, err = describe(archive, filepath.Join(j.dir, "fly-"+r.version))
			return err
		})
	}
	all.Go(func() (err error) { b.Charm, err = j.packCharm(ctx, root); return err })
	all.Go(func() (err error) { b.Database, err = j.packDatabase(ctx); return err })
	all.Go(func() error {
		b.Probe = filepath.Join(j.dir, "probe.charm")
		return probe.Pack(ctx, b.Probe)
	})
	all.Go(func() error {
		j.observer = filepath.Join(j.dir, "observer")
		return buildProgram(ctx, root, "./e2e/fixtures/observer/cmd/observer", j.observer)
	})
	if err := all.Wait(); err != nil {
		return Build{}, err
	}
	j.built = &b
	return b, nil
}

func (j *Juju) release(ctx context.Context, version string, log func(string)) (release.Archive, error) {
	if j.o.Releases != "" {
		return release.Open(j.o.Releases, version)
	}
	return release.Build(ctx, filepath.Join(j.env.CacheDir, "releases"), version, log)
}

// Previous packs the charm of an earlier commit, which is cached, or finds the one that
// is named.
func (j *Juju) Previous(ctx context.Context, log func(string)) (string, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	root, err := moduleRoot(ctx)
	if err != nil {
		return "", err
	}
	if j.o.Previous != "" {
		return packed(root, j.o.Previous)
	}
	return packPrevious(ctx, root, filepath.Join(j.env.CacheDir, "charms"), log)
}

func (j *Juju) packCharm(ctx context.Context, root string) (path string, err error) {
	if j.o.Charm != "" {
		return packed(root, j.o.Charm)
	}
	path = filepath.Join(j.dir, "concourse-ci-machine_amd64.charm")
	return path, pack.Charm(ctx, pack.Spec{
		Dir:  filepath.Join(root, "charm"),
		Main: module + "/charm/cmd/dispatch",
		Out:  path,
	})
}

// packed finds a charm that somebody has packed.
func packed(root, path string) (string, error) {
	if !filepath.IsAbs(path) {
		path = filepath.Join(root, path)
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("cannot deploy the packed charm: %w", err)
	}
	return path, nil
}

func (j *Juju) packDatabase(ctx context.Context) (cluster.App, error) {
	app := cluster.App{Name: "postgresql", Charm: "ch:postgresql", Channel: j.o.PostgreSQL, Units: 1}
	if app.Channel != "" {
		return app, nil
	}
	app.Charm = filepath.Join(j.dir, "postgresql.charm")
	return app, postgresql.Pack(ctx, app.Charm)
}

// StartMirror serves at the bridge that the machines are behind.
func (j *Juju) StartMirror(b Build) (Mirror, error) {
	m, err := mirror.Start(net.JoinHostPort(j.env.BridgeAddress, "0"), b.Archives...)
	if err != nil {
		return nil, err
	}
	return served{m}, nil
}

// NewCluster makes a model.
func (j *Juju) NewCluster(ctx context.Context) (cluster.Cluster, error) {
	config := map[string]any{}
	if j.env.OwnController {
		// Its machine image is in LXD. Juju would look for others on the internet
		// first, which takes seconds where there is none, and was once seen to take
		// machines for not yet started meanwhile, and to start them again.
		config["image-metadata-defaults-disabled"] = true
	}
	c, err := juju.New(ctx, juju.Options{
		JujuData:   j.env.JujuData,
		Controller: j.env.Controller,
		Juju:       j.env.JujuBinary,
		LXDSocket:  j.env.LXDSocket,
		Pool:       j.env.Pool,
		HostPath:   j.o.HostPath,
		Config:     config,
	})
	if err != nil {
		return nil, err // Not a nil *juju.Cluster in an interface.
	}
	return c, nil
}

// Look runs the observer on the machine.
func (j *Juju) Look(ctx context.Context, m cluster.Machine, how record.Thoroughness) (observation.Machine, error) {
	j.mu.Lock()
	program := j.observer
	j.mu.Unlock()
	args := lookArgs
	switch how {
	case record.Quick:
		args = append(args[:len(args):len(args)], "-quick")
	case record.Deep:
		args = append(args[:len(args):len(args)], "-deep")
	}
	out, err := m.Run(ctx, program, args...)
	if err != nil {
		return observation.Machine{}, err
	}
	return observer.Read(out)
}

// Visit returns the command that shows a model's status.
func (j *Juju) Visit(c cluster.Cluster) string {
	return fmt.Sprintf("JUJU_DATA=%s %s status -m %s", j.env.JujuData, j.env.JujuBinary, c.Name())
}

// Close removes the charms; releases stay in the cache.
func (j *Juju) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.dir == "" {
		return nil
	}
	return os.RemoveAll(j.dir)
}

// served is the mirror fixture as scenarios see it.
type served struct{ m *mirror.Mirror }

func (s served) URL() string  { return s.m.URL() }
func (s served) Close() error { return s.m.Close() }

func (s served) Ledger() ([]byte, error) { return json.MarshalIndent(s.m.Ledger(), "", "  ") }

func (s served) Transfer(version string) cluster.Transfer { return s.m.Ledger().Transfer(version) }

func (s served) Attempts(version, address string) []time.Time {
	return s.m.Ledger().Attempts(version, address)
}

func (s served) Break(version string, fault cluster.MirrorFault) { s.m.Fault(version, fault) }

func (s served) Repair(version string) { s.m.Fault(version, cluster.MirrorFault{}) }

// moduleRoot returns the directory of this module's go.mod, below which this process was
// started.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := goCommand(ctx, "", "list", "-m", "-f", "{{.Dir}}", module)
	if err != nil {
		return "", fmt.Errorf("cannot find the source of %s (run it in a directory of its repository): %w", module, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// buildProgram builds a static program for this host's machines.
func buildProgram(ctx context.Context, root, pkg, out string) error {
	if _, err := goCommand(ctx, root, "build", "-trimpath", "-o", out, pkg); err != nil {
		return fmt.Errorf("cannot build %s: %w", pkg, err)
	}
	return nil
}

func goCommand(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil, fmt.Errorf("%w\n%s", err, exit.Stderr)
	}
	return out, err
}
