package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/lyingfs"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/needs"
)

// liesNoise is what of a release does not compress, in these tests.
const liesNoise = 1 << 20

// liar is a file system that lies.
type liar struct {
	name      string
	lies      lyingfs.Lies
	nodeLocal bool // locks exclude nobody on another machine
	lose      bool // all machines lose their leases when half of the release is on its way
	first     bool // a damaged release of the first layout is there already
	repair    bool // the release is there already, active, and damaged
	// harmless lies must keep nobody from success. Others may, while they last.
	harmless bool
	noSpace  bool // failures must be there, and those of Ensure be ErrNoSpace
}

// TestLyingFileSystem has two units on each of three machines install and
// activate one release at once, while their file system lies. It must be
// published and activated once, and when the lies end everyone must have it.
func TestLyingFileSystem(t *testing.T) {
	t.Parallel()
	for _, l := range liars() {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			l.install(t)
		})
	}
}

// TestLyingFileSystemInRepair has them repair a release. Until it is, and after, the
// path of the damaged one leads to its files.
func TestLyingFileSystemInRepair(t *testing.T) {
	t.Parallel()
	for _, l := range liars() {
		if l.first {
			continue
		}
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			l.repair = true
			l.install(t)
		})
	}
}

func liars() []liar {
	full := func(l lyingfs.Lies) lyingfs.Lies {
		l.After, l.Until = liesNoise/2, liesNoise*3
		return l
	}
	return []liar{
		{name: "truth", harmless: true},
		{name: "flock is a no-op", lies: lyingfs.Lies{Flock: lyingfs.NoOp}, harmless: true},
		{name: "flock is a no-op and the release is corrupt", lies: lyingfs.Lies{Flock: lyingfs.NoOp}, harmless: true, first: true},
		{name: "flock is node-local", nodeLocal: true, harmless: true},
		{name: "flock wants a writable descriptor", lies: lyingfs.Lies{Flock: lyingfs.Writable}, harmless: true},
		{name: "flock is absent", lies: lyingfs.Lies{Flock: lyingfs.Absent}, harmless: true},
		{name: "flock hangs", lies: lyingfs.Lies{Flock: lyingfs.Hanging}, harmless: true},
		{name: "link fails with EIO after success", lies: lyingfs.Lies{Link: syscall.EIO}, harmless: true},
		{name: "link fails with EEXIST after success", lies: lyingfs.Lies{Link: syscall.EEXIST}, harmless: true},
		{name: "rename fails with EIO after success", lies: lyingfs.Lies{Rename: syscall.EIO}, harmless: true},
		{name: "rename fails with EEXIST after success", lies: lyingfs.Lies{Rename: syscall.EEXIST}, harmless: true},
		{name: "rename fails with ENOENT after success", lies: lyingfs.Lies{Rename: syscall.ENOENT}, harmless: true},
		{name: "what is read is behind what is written", lies: lyingfs.Lies{Behind: true}, harmless: true},
		{name: "names of others come a second late", lies: lyingfs.Lies{Lag: time.Second}, harmless: true},
		{name: "late names and no locks", lies: lyingfs.Lies{Lag: time.Second, Flock: lyingfs.NoOp}, harmless: true},
		{name: "every 7th path is stale", lies: lyingfs.Lies{Stale: 7}},
		{name: "every 40th path is stale", lies: lyingfs.Lies{Stale: 40}},
		{name: "no space at write", lies: full(lyingfs.Lies{Write: syscall.ENOSPC}), noSpace: true},
		{name: "no space at fsync", lies: full(lyingfs.Lies{Fsync: syscall.ENOSPC}), noSpace: true},
		{name: "no space at close", lies: full(lyingfs.Lies{Flush: syscall.ENOSPC}), noSpace: true},
		{name: "all leases are lost in mid-download", lose: true},
	}
}

func (l liar) install(t *testing.T) {
	src := newSource(t, liesNoise)
	f := newFleet(t, l, src.URL)
	src.sent.Store(0)
	reached, resume := src.pause(t, src.size(newer)/2)
	if l.lose {
		go func() {
			<-reached
			for _, m := range f.machines {
				m.Lose()
			}
			resume()
		}()
	} else {
		resume()
	}
	failed := 0
	activations := map[int]coordinator.Activation{}
	one := func(a coordinator.Activation) {
		before, ok := activations[a.Generation]
		require.True(t, !ok || before == a, "generation %d is both %v and %v", a.Generation, before, a)
		activations[a.Generation] = a
	}
	for _, do := range []string{"ensure", "activate", "ensure", "activate"} {
		for _, a := range f.each(do) {
			switch {
			case do == "activate" && a.is(coordinator.ErrNotInstalled):
				// Who could not install has nothing to activate.
			case a.Err != "":
				failed++
				t.Log(a.Err)
				sentence(t, a)
				require.False(t, l.harmless, a.Err)
				require.False(t, l.noSpace && do == "ensure" && !a.is(coordinator.ErrNoSpace), "no ErrNoSpace: %s", a.Err)
			case do == "activate":
				one(a.Activation)
			}
		}
	}
	require.True(t, !l.noSpace || failed > 0, "nobody noticed")
	if l.harmless {
		require.Equal(t, src.size(newer), src.sent.Load(), "bytes of the archive")
	}

	f.tell(lyingfs.Lies{})
	by := ""
	for _, a := range f.retry("ensure") {
		require.True(t, by == "" || by == a.Release.InstalledBy, "two units see releases of two installers")
		by = a.Release.InstalledBy
	}
	for _, a := range f.each("activate") {
		require.Empty(t, a.Err)
		one(a.Activation)
	}
	f.once(t, failed)
}

// fleet is some units that share a volume.
type fleet struct {
	backing  string // the volume, as the file server has it
	server   *lyingfs.Server
	machines []*lyingfs.Machine
	units    []*unit
	renamed  int       // times, when the installation began
	observer *observer // of the release that is there, or nil
}

// newFleet starts the units, has them open the volume, and begins to lie.
func newFleet(t *testing.T, l liar, source string) *fleet {
	const machines, units = 3, 2
	f := &fleet{backing: t.TempDir()}
	mark(t, f.backing)
	if l.first {
		damaged := filepath.Join(f.backing, "releases", newer, "bin", "concourse")
		require.NoError(t, os.MkdirAll(filepath.Dir(damaged), 0o755))
		require.NoError(t, os.WriteFile(damaged, []byte("half of it"), 0o555))
	}
	f.server = lyingfs.Serve(f.backing)
	for i := range machines {
		dir := t.TempDir()
		m, err := f.server.Mount(dir, l.nodeLocal)
		if err != nil {
			needs.Lack(t, "fuse", "cannot mount with FUSE here: %v", err)
		}
		t.Cleanup(func() {
			if err := m.Unmount(dir); err != nil {
				t.Error("cannot unmount:", err)
			}
		})
		f.machines = append(f.machines, m)
		for j := range units {
			f.units = append(f.units, start(t, dir, fmt.Sprintf("concourse-ci/%d", i*units+j), source))
		}
	}
	// Before the units are stopped, lest a lie holds them up.
	t.Cleanup(func() { f.tell(lyingfs.Lies{}) })
	if l.repair {
		f.units[0].must("ensure", newer)
		f.units[0].must("activate", newer)
		damage(t, f.backing)
		f.renamed = len(f.server.Renames())
		f.observer = startObserver(t, filepath.Join(f.backing, "releases", newer, "bin/concourse"), time.Millisecond)
	}
	if l.harmless {
		f.tell(l.lies)
	}
	id := ""
	for _, a := range f.each("open") {
		require.Empty(t, a.Err)
		require.True(t, id == "" || id == a.VolumeID, "two units have given the volume different ids")
		id = a.VolumeID
	}
	f.tell(l.lies)
	return f
}

func (f *fleet) tell(l lyingfs.Lies) {
	for _, m := range f.machines {
		m.Tell(l)
	}
}

// each gives all units the same order at once.
func (f *fleet) each(do string) []answer {
	for _, u := range f.units {
		u.tell(do, newer)
	}
	answers := make([]answer, len(f.units))
	for i, u := range f.units {
		answers[i] = u.hear()
	}
	return answers
}

// retry is each for what succeeds in the end: that there is space again is looked
// for now and then.
func (f *fleet) retry(do string) []answer {
	const noticed = 30 * time.Second
	for start := time.Now(); ; time.Sleep(time.Second) {
		answers := f.each(do)
		failed := slices.IndexFunc(answers, func(a answer) bool { return a.Err != "" })
		if failed < 0 {
			return answers
		}
		if a := answers[failed]; !a.is(coordinator.ErrNoSpace) || time.Since(start) > noticed {
			logs := ""
			for _, u := range f.units {
				logs += fmt.Sprintf("\n%s:\n%s", u.name, u.log)
			}
			f.units[0].t.Fatal(a.Err, logs)
		}
	}
}

// once demands that the release was published and activated once, and that
// nothing else is left of it. A unit that has failed may have stored it without
// linking it, and have taken it away again.
func (f *fleet) once(t *testing.T, failed int) {
	t.Helper()
	require.Equal(t, []string{newer}, unprobed(t, f.backing, "releases"))
	complete(t, f.backing, newer, liesNoise)
	active(t, f.backing, newer)
	require.NoFileExists(t, filepath.Join(f.backing, "activations", "2"), "activated twice")
	stored := 0
	for _, r := range f.server.Renames()[f.renamed:] {
		version, generation, ok := strings.Cut(strings.TrimPrefix(r.To, "store/"), newer+".")
		if ok && version == "" && generation != "0" {
			stored++
		}
	}
	require.GreaterOrEqual(t, stored, 1)
	require.LessOrEqual(t, stored, 1+failed, "entries of the store in %v", f.server.Renames())
	for _, name := range unprobed(t, f.backing, "staging") {
		require.False(t, strings.HasPrefix(name, newer), "%s is still staged", name)
	}
	f.units[0].must("collect", "")
	require.Empty(t, unprobed(t, f.backing, "staging"))
	require.Len(t, unprobed(t, f.backing, "store"), 1)
	require.NoFileExists(t, filepath.Join(f.backing, ".download_in_progress"))
	if f.observer != nil {
		t.Logf("opened %d times", f.observer.saw(1).Opens)
	}
}

// sentence demands an error that fits a status.
func sentence(t *testing.T, a answer) {
	t.Helper()
	require.Regexp(t, `^cannot [^\n]+$`, a.Err)
}
