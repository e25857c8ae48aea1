// Package certify tells whether a mount is fit to share a release between machines.
//
// It tries what the coordinator relies on, each thing in a check of its own, and then the
// coordinator itself with a small made-up release. Processes that stand for units are
// real: they are started with Options.Helper, and one of them is killed. Several machines
// can take part; they meet through files below the path, and through nothing else.
//
// What the coordinator does not rely on is not checked. It compares no time of two
// machines, so that clocks do not matter to it.
package certify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
)

var (
	// ErrOptions: Options that cannot be meant.
	ErrOptions = errors.New("impossible options")
	// ErrRefused: nothing can be tried at the path, which says nothing about the mount: it
	// is no directory, or this user may not write there.
	ErrRefused = errors.New("nothing can be tried there")
	// ErrLeft: a machine that took part has gone before the end.
	ErrLeft = errors.New("another machine has left")
)

// MostMachines is how many machines can take part at most.
const MostMachines = 64

// Options says what is certified.
type Options struct {
	// Path is a directory on the mount. Everything happens in a new directory below it,
	// which is removed at the end.
	Path string
	// Machines is how many take part, each with a Run of its own; 0 and 1 are this one alone.
	Machines int
	// Units is how many processes on this machine install at once; 0 is 4.
	Units int
	// Room is how many bytes have to be free; 0 is what a release and the next one take,
	// less demands nothing.
	Room int64
	// Helper is a command that calls Help. It is required.
	Helper []string
	// ProbeHelper is a command that calls probe.Help with the argument that is appended.
	ProbeHelper []string
	// Ended is called with each check when it has ended.
	Ended func(Check)
	// Say is called with what is going on and takes long.
	Say func(format string, args ...any)

	files files  // tests have one that lies
	pace  pace   // tests are faster
	table []step // tests run some checks; nil is all
}

// pace is how long is waited for what.
type pace struct {
	beat  time.Duration // between two signs of life of a run
	stale time.Duration // without a sign of life, until a run of another machine is taken for dead
	check time.Duration // until a check has ended; a mount that hangs does not let it
	lease time.Duration // of the unit that is killed
}

var ordinary = pace{beat: 500 * time.Millisecond, stale: 30 * time.Second, check: 3 * time.Minute, lease: 5 * time.Second}

func (o Options) complete() (Options, error) {
	switch {
	case len(o.Helper) == 0:
		return o, fmt.Errorf("%w: there is no helper", ErrOptions)
	case o.Machines < 0 || o.Machines > MostMachines:
		return o, fmt.Errorf("%w: %d machines are not between 1 and %d", ErrOptions, o.Machines, MostMachines)
	case o.Units < 0 || o.Units == 1 || o.Units > 64:
		return o, fmt.Errorf("%w: %d units are not between 2 and 64", ErrOptions, o.Units)
	}
	if o.Units == 0 {
		o.Units = 4
	}
	o.Machines = max(o.Machines, 1)
	if o.Ended == nil {
		o.Ended = func(Check) {}
	}
	if o.Say == nil {
		o.Say = func(string, ...any) {}
	}
	if o.files == nil {
		o.files = disk{}
	}
	if o.pace == (pace{}) {
		o.pace = ordinary
	}
	if o.Room == 0 {
		o.Room = RoomForRelease
	}
	var err error
	o.Path, err = filepath.Abs(o.Path)
	return o, err
}

// Run makes all checks, and leaves nothing behind, whatever happens. A mount that is not
// fit is no error. Errors are ErrOptions, ErrRefused, ErrLeft, that of ctx, and those of
// starting processes; the report then has the checks that have ended.
func Run(ctx context.Context, o Options) (r Report, err error) {
	start := time.Now()
	o, err = o.complete()
	if err != nil {
		return Report{}, err
	}
	r = Report{Schema: Schema, Path: o.Path, Started: start.UTC(), Machines: o.Machines}
	defer func() {
		r.judge(err == nil)
		r.TookSeconds = time.Since(start).Seconds()
	}()
	if err := refuse(o.Path); err != nil {
		return r, err
	}
	run := &run{Options: o, report: &r}
	alone := o.table
	if alone == nil {
		alone = steps
	}
	usable, err := run.look(ctx)
	if err != nil {
		return r, err
	}
	if !usable {
		run.skip(alone, "the mount cannot be written to")
		run.skipTogether("the mount cannot be written to")
		return r, nil
	}
	run.place, err = occupy(o.Path, o.Machines, o.pace)
	if full(err) {
		c := steps[0].check()
		c.Verdict, c.Found, c.Means = Failed, oneLine(withoutPath(err)), meansFull
		run.record(c)
		run.skip(slices.DeleteFunc(slices.Clone(alone), func(s step) bool { return s.name == c.Name }), "nothing more can be written to the mount")
		run.skipTogether("nothing more can be written to the mount")
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	defer func() {
		if leaveErr := run.place.leave(); err == nil {
			err = leaveErr
		}
	}()
	swept := run.place.sweep(ctx, o.Say)
	if err := run.all(ctx, alone); err != nil {
		return r, err
	}
	if o.Machines > 1 {
		if err := run.together(ctx); err != nil {
			return r, err
		}
	}
	return r, swept(ctx)
}

// refuse tells why nothing can be tried at a path. Of a mount that does not answer it says
// nothing.
func refuse(path string) error {
	answered := make(chan error, 1)
	go func() { answered <- unusable(path) }()
	select {
	case err := <-answered:
		return err
	case <-time.After(3 * time.Second):
		return nil
	}
}

func unusable(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w: there is no %s: name the directory where the mount is", ErrRefused, path)
	case err != nil:
		return fmt.Errorf("%w: cannot look at it: %w", ErrRefused, err)
	case !info.IsDir():
		return fmt.Errorf("%w: %s is not a directory: name the one where the mount is", ErrRefused, path)
	}
	err = unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: this user may not write to %s: run ccbench as the user that the units run as, or give this one permission", ErrRefused, path)
	}
	return nil
}

// look asks the mount what it is, from another process if there is a helper: it may hang.
// It tells whether a directory can be made on it.
func (r *run) look(ctx context.Context) (usable bool, err error) {
	const name, proves = "writable", "The mount answers, and files can be made on it."
	start := time.Now()
	found, err := coordinator.Probe(ctx, r.Path, r.ProbeHelper...)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	r.report.FileSystem, r.report.Mount = found.FileSystem, mountOf(r.Path)
	c := Check{Name: name, Proves: proves, Needed: true, Verdict: OK}
	switch {
	case errors.Is(err, coordinator.ErrHung) || err == nil && found.FileSystem == "":
		c.Verdict, c.Found = Failed, "it does not answer"
		c.Means = "Every unit would hang with it. See that the file server runs and can be reached, or mount it anew."
	case found.ReadOnly:
		c.Verdict, c.Found = Failed, "it is mounted read-only"
		c.Means = "No unit can install anything. Mount it read-write, without the option ro, and see that the server exports it so."
	case err != nil && isFull(r.Path):
		c.Verdict, c.Found = Failed, "nothing more can be written to it"
		c.Means = meansFull
	case err != nil:
		return false, fmt.Errorf("%w: %w", ErrRefused, err)
	default:
		c.Found = found.FileSystem
	}
	c.Seconds = time.Since(start).Seconds()
	r.record(c)
	return c.Verdict == OK, nil
}

// isFull tells whether a directory cannot be made for want of space. The error of a probe,
// which is that of another process, does not tell.
func isFull(path string) bool {
	dir, err := os.MkdirTemp(path, Prefix)
	if err == nil {
		err = os.Remove(dir)
	}
	return full(err)
}

// full tells the words for a full file system, of the kernel or of another process that has
// met them.
func full(err error) bool {
	if err == nil {
		return false
	}
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT} {
		if errors.Is(err, errno) || strings.Contains(err.Error(), errno.Error()) {
			return true
		}
	}
	return false
}
