// Package hook runs one event of Juju: it gathers what is desired and what is
// there, asks reconcile for the plan, carries it out, and tells Juju. No hook
// sleeps, polls or downloads.
package hook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gruyaume/goops"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/reconcile"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/watcher"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/product"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
)

// Volume is what hooks need of a coordinator.Coordinator. None of it waits for
// another unit.
type Volume interface {
	VolumeID() string
	Installed(ctx context.Context, version string) (coordinator.Release, error)
	Current(ctx context.Context) (coordinator.Activation, error)
	Activate(ctx context.Context, version string) (coordinator.Activation, error)
	Pin(ctx context.Context, version string) (coordinator.Release, error)
	WorkerDir(ctx context.Context) (string, error)
	Leave(ctx context.Context) error
}

// Charm is the charm on one unit.
type Charm struct {
	Paths      concourse.Paths
	System     concourse.System
	Open       func(ctx context.Context, root string, o coordinator.Options) (Volume, error)
	Address    func() (string, error) // of this unit for its peers
	Hostname   string
	Executable string // of this process; the watcher is a copy of it
}

// Run handles the event that Juju's environment names. An error makes Juju
// retry; what only an operator can mend is a status instead.
func (c Charm) Run(ctx context.Context) error {
	env := goops.ReadEnv()
	notes, err := c.readNotes()
	if err != nil {
		return err
	}
	if env.HookName == "start" {
		notes.Leaving = false // a machine that comes back after it was stopped
	}
	departing := ""
	if getenv := goops.GetEnvGetter().Get; getenv("JUJU_RELATION") == relations.PeersEndpoint {
		departing = getenv("JUJU_DEPARTING_UNIT")
	}
	if notes.Leaving || departing == env.UnitName || env.HookName == "stop" || env.HookName == "remove" {
		return c.leave(ctx, env.UnitName, notes)
	}
	if err := c.prepare(ctx); err != nil {
		return err
	}
	if err := c.drainJournal(); err != nil {
		return err
	}
	desired, err := c.desired(env.UnitName)
	if err != nil {
		return err
	}
	if env.ActionName != "" {
		proceed, err := act(env.ActionName, &desired)
		if err != nil || !proceed {
			return err
		}
	}
	volume, observed, err := c.observe(ctx, desired, notes)
	if err != nil {
		return err
	}
	plan := reconcile.Make(desired, observed)
	// Even where a step fails, the watcher and the peers learn what is wanted.
	err = c.execute(ctx, volume, plan, &notes)
	err = errors.Join(err, c.tell(desired, plan))
	if departing != "" && observed.Active[concourse.ServerUnit] && desired.Leader {
		c.retirePeer(ctx, desired, notes.Running, departing)
	}
	if notes.Retire && plan.Version != "" {
		c.retirePeer(ctx, desired, notes.Running, env.UnitName)
		notes.Retire = false
		err = errors.Join(err, c.writeNotes(notes))
	}
	return err
}

// prepare makes what every later part relies on.
func (c Charm) prepare(ctx context.Context) error {
	uid, gid, err := c.System.Account(ctx, concourse.User)
	if err != nil {
		return err
	}
	// The web server's user passes through the state directory to its own
	// files; it can list nothing there.
	for _, dir := range []struct {
		path     string
		mode     os.FileMode
		uid, gid int
	}{
		{c.Paths.State, 0o710, 0, gid},
		{c.Paths.WebDir(), 0o700, uid, gid},
		{c.Paths.WorkerDir(), 0o700, 0, 0},
		{filepath.Join(c.Paths.State, "bin"), 0o700, 0, 0},
	} {
		err := os.Mkdir(dir.path, 0o700)
		if err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("make state directory: %w", err)
		}
		if err := errors.Join(chown(dir.path, dir.uid, dir.gid), os.Chmod(dir.path, dir.mode)); err != nil {
			return fmt.Errorf("make state directory: %w", err)
		}
	}
	return c.installWatcher(ctx)
}

// chown is for root; tests run as whoever they are. It follows no link: the web
// server's user could have put one in its directory.
func chown(path string, uid, gid int) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return os.Lchown(path, uid, gid)
}

// installWatcher copies this program, so that a charm upgrade replaces the
// running watcher when a hook says so and not under its feet.
func (c Charm) installWatcher(ctx context.Context) error {
	path := filepath.Join(c.Paths.State, "bin", "watcher")
	source, err := os.Stat(c.Executable)
	if err != nil {
		return fmt.Errorf("install watcher: %w", err)
	}
	installed, err := os.Stat(path)
	fresh := err == nil && installed.Size() == source.Size() && installed.ModTime().Equal(source.ModTime())
	if !fresh {
		if err := copyFile(c.Executable, path, source); err != nil {
			return fmt.Errorf("install watcher: %w", err)
		}
	}
	changed, err := c.System.Define(ctx, watcher.Unit, "[Unit]\n"+
		"Description=Watches the Concourse CI volume and services for the charm\n"+
		"After=network-online.target\nWants=network-online.target\nStartLimitIntervalSec=0\n\n"+
		"[Service]\nExecStart="+path+" watch\nRestart=always\nRestartSec=2\n\n"+
		"[Install]\nWantedBy=multi-user.target\n")
	if err != nil {
		return err
	}
	running, err := c.System.Running(ctx, watcher.Unit)
	if err != nil {
		return err
	}
	if fresh && !changed && running {
		return nil
	}
	return c.System.Restart(ctx, watcher.Unit)
}

func copyFile(from, to string, info os.FileInfo) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	if err = errors.Join(err, target.Sync(), target.Close()); err != nil {
		return err
	}
	if err := os.Chtimes(to+".new", info.ModTime(), info.ModTime()); err != nil {
		return err
	}
	return os.Rename(to+".new", to)
}

// drainJournal brings the watcher's log into Juju's.
func (c Charm) drainJournal() error {
	records, err := watcher.Files(c.Paths.State).Journal().Take()
	if err != nil {
		return err
	}
	for _, r := range records {
		switch r.Level {
		case "DEBUG":
			goops.LogDebugf("%s", r.Message)
		case "WARN":
			goops.LogWarningf("%s", r.Message)
		case "ERROR":
			goops.LogErrorf("%s", r.Message)
		default:
			goops.LogInfof("%s", r.Message)
		}
	}
	return nil
}

func (c Charm) desired(unit string) (reconcile.Desired, error) {
	d := reconcile.Desired{Unit: unit, Model: goops.ReadEnv().ModelUUID, Paths: c.Paths}
	if err := goops.GetConfig(&d.Config); err != nil {
		return d, err
	}
	if d.Config.ReleaseURL == "" {
		d.Config.ReleaseURL = product.Source
	}
	var err error
	if d.Leader, err = goops.IsLeader(); err != nil {
		return d, err
	}
	if d.WorkerKey, err = concourse.WorkerKey(c.Paths.WorkerKey()); err != nil {
		return d, err
	}
	if d.Peers, err = relations.ReadPeers(unit); err != nil || d.Peers == nil {
		return d, err
	}
	if d.Address, err = c.Address(); err != nil {
		return d, fmt.Errorf("find this unit's address: %w", err)
	}
	if !d.Leader && d.Config.Mode == "auto" {
		return d, nil // a worker has no use for the web server's secrets
	}
	if d.Database, err = relations.ReadDatabase(unit, d.Leader); err != nil {
		return d, err
	}
	d.Again = d.Database.Early
	if d.Keys, err = readKeys(d.Peers, d.Leader); err != nil && !d.Leader {
		// Like the database's, this secret is announced before it can be read.
		goops.LogWarningf("Waiting for the leader's keys: %v", err)
		d.Again, err = true, nil
	}
	return d, err
}

// readKeys has the leader make the application's keys once. Any unit that
// leads later reads the same ones, so that sessions and workers survive it.
func readKeys(peers *relations.Peers, leader bool) (*concourse.Keys, error) {
	id := peers.App[relations.KeysSecret]
	if id == "" {
		if !leader {
			return nil, nil
		}
		keys, err := concourse.NewKeys()
		if err != nil {
			return nil, err
		}
		id, err := goops.AddSecret(&goops.AddSecretOptions{
			Content: keys.Content(), Owner: goops.OwnerApplication,
			Description: "Keys of the web server and password of the first administrator",
		})
		if err != nil {
			return nil, err
		}
		return &keys, peers.Write(map[string]string{relations.KeysSecret: strings.TrimSpace(id)}, nil)
	}
	content, err := goops.GetSecretByID(id, false, true)
	if err != nil {
		return nil, fmt.Errorf("read the application's keys: %w", err)
	}
	keys, err := concourse.ParseKeys(content)
	if err != nil {
		return nil, err
	}
	return &keys, nil
}

func (c Charm) observe(ctx context.Context, d reconcile.Desired, n notes) (Volume, reconcile.Observed, error) {
	o := reconcile.Observed{
		Hostname: c.Hostname, Running: n.Running, Applied: n.Applied, Active: map[string]bool{},
	}
	for _, unit := range []string{concourse.ServerUnit, concourse.WorkerUnit} {
		running, err := c.System.Running(ctx, unit)
		if err != nil {
			return nil, o, err
		}
		o.Active[unit] = running
	}
	var err error
	if o.Found, err = watcher.Files(c.Paths.State).Found(); err != nil {
		return nil, o, err
	}
	o.Volume.SeenID = n.VolumeID
	ctx, cancel := context.WithTimeout(ctx, volumeLimit)
	defer cancel()
	volume, err := c.openVolume(ctx, d, n)
	switch {
	case errors.Is(err, coordinator.ErrUnmarked):
		o.Volume.Fault, o.Volume.Detail = reconcile.Unmarked, err.Error()
	case errors.Is(err, coordinator.ErrNotMounted):
		o.Volume.Fault = reconcile.NotMounted
	case errors.Is(err, coordinator.ErrForeignVolume):
		o.Volume.Fault, o.Volume.Detail = reconcile.Foreign, err.Error()
	case err != nil:
		o.Volume.Fault, o.Volume.Detail = reconcile.Broken, product.Explain(err).Error()
	}
	if err != nil {
		return nil, o, nil
	}
	o.Volume.ID = volume.VolumeID()
	if current, err := volume.Current(ctx); err == nil {
		o.Volume.Current, o.Volume.CurrentBy = current.Version, current.Unit
	}
	for _, version := range candidates(d, o) {
		release, err := volume.Installed(ctx, version)
		// The option is about what is to be installed: versions that run, or ran
		// before it was set, have digests of their own.
		accepted := d.Config.ReleaseDigest == "" || d.Config.ReleaseDigest == release.Digest ||
			version == o.Running || d.Peers != nil && version == d.Peers.App[relations.ActiveVersion]
		if err == nil && accepted {
			o.Volume.Installed = append(o.Volume.Installed, version)
		}
	}
	if o.Volume.WorkDir, err = volume.WorkerDir(ctx); err != nil {
		o.Volume.Fault, o.Volume.Detail = reconcile.Broken, product.Explain(err).Error()
	}
	return volume, o, nil
}

// volumeLimit bounds how long a hook looks at a volume whose mount hangs.
const volumeLimit = 20 * time.Second

func (c Charm) openVolume(ctx context.Context, d reconcile.Desired, n notes) (Volume, error) {
	want := watcher.Want{
		Unit: d.Unit, Shared: d.Config.Shared(), Source: d.Config.ReleaseURL, Digest: d.Config.ReleaseDigest,
	}
	if want.Shared {
		want.VolumeID, want.Owner = n.VolumeID, d.Model
	}
	return c.Open(ctx, c.Paths.Volume, want.Options(nil, nil))
}

// candidates are the versions that a plan may want to run.
func candidates(d reconcile.Desired, o reconcile.Observed) []string {
	versions := []string{o.Running, o.Found.Newest}
	if version, err := product.ParseVersion(d.Config.Version); err == nil {
		versions = append(versions, version)
	}
	if d.Peers != nil {
		versions = append(versions, d.Peers.App[relations.TargetVersion], d.Peers.App[relations.ActiveVersion])
		for _, settings := range d.Peers.Units {
			_, version, _ := strings.Cut(settings[relations.UpgradeRequest], " ")
			versions = append(versions, version)
		}
		_, version, _ := strings.Cut(d.Peers.Self[relations.UpgradeRequest], " ")
		versions = append(versions, version)
	}
	slices.Sort(versions)
	versions = slices.Compact(versions)
	return slices.DeleteFunc(versions, func(v string) bool { return v == "" })
}

// tell brings the plan to Juju. Settings reach the peers when the hook ends well.
func (c Charm) tell(d reconcile.Desired, plan reconcile.Plan) error {
	var errs []error
	if plan.Want != nil {
		errs = append(errs, watcher.Files(c.Paths.State).PutWant(*plan.Want))
	}
	if d.Peers != nil {
		errs = append(errs, d.Peers.Write(plan.App, plan.Self))
	}
	if plan.Want != nil {
		ports := []*goops.Port{}
		for _, port := range plan.Ports {
			ports = append(ports, &goops.Port{Port: port, Protocol: goops.ProtocolTCP})
		}
		errs = append(errs, goops.SetPorts(ports))
	}
	if plan.Version != "" && d.Leader {
		errs = append(errs, goops.SetAppVersion(plan.Version))
	}
	errs = append(errs, goops.SetUnitStatus(goops.StatusName(plan.Status.Level), plan.Status.Message))
	return errors.Join(errs...)
}
