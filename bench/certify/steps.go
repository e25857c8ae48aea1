package certify

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// step is a check that has not been made yet.
type step struct {
	name, proves, means string
	needed              bool
	// after are steps without which there is no point in this one.
	after []string
	do    func(ctx context.Context, r *run, dir string) (found string, err error)
}

// steps are all checks of one machine, in their order.
var steps = []step{
	{name: "room", needed: true, do: hasRoom,
		proves: "There are space and inodes for a release and the one that follows it.",
		means:  meansFull},
	{name: "names", needed: true, do: keepsNames,
		proves: "Names of 255 bytes work, and those that differ in case only are two.",
		means:  "Files of a release would overwrite one another, or could not be made. Use a file system of Unix; over SMB mount with posix, or let the server be case sensitive."},
	{name: "modes", needed: true, do: keepsModes,
		proves: "Files keep the modes 0444 and 0555.",
		means:  "Releases are checked for their modes, and would be found damaged. Use a file system that keeps modes; over SMB mount with posix or modefromsid, and without file_mode and noperm."},
	{name: "execute", needed: true, do: executes,
		proves: "A program on the mount can be executed.",
		means:  "Concourse is started from the mount. Mount it without noexec, and with file modes that are kept."},
	{name: "symlinks", needed: true, do: symlinks,
		proves: "Symbolic links lead where they were made to, also when they are replaced by a rename.",
		means:  "The current release is a symbolic link. Use a file system that has them; over SMB mount with posix or mfsymlinks."},
	{name: "identity", needed: true, do: keepsIdentity,
		proves: "A file that nobody touches keeps its inode, size and time, in two processes.",
		means:  "The coordinator tells files apart by their inodes. Over SMB mount with serverino; use no layer over the file system that makes up inodes."},
	{name: "rename", needed: true, do: renames,
		proves: "A rename replaces a file in one step: another process never finds it missing or mixed.",
		means:  "A unit could read half of what another one writes. Use a file system of Unix, or a server that passes rename on; no sync folder and no object store mounted as one."},
	{name: "link", needed: true, do: links,
		proves: "Of several processes that link one name, one succeeds.",
		means:  "Units claim a download by a hard link: two would take it at once. Use a file system that has hard links; vfat, exFAT and most object stores have none."},
	{name: "create", do: creates,
		proves: "Of several processes that create one file exclusively, one succeeds.",
		means:  "The coordinator claims by links and is safe; other programs on the mount are not. Over NFS use version 3 or later."},
	{name: "sync", needed: true, do: syncs,
		proves: "Files and directories can be synced, and the file system reports no error.",
		means:  "A release that was reported as installed could be lost. Look into the kernel's log and at the server's disk."},
	{name: "visible", needed: true, do: visible,
		proves: "What one process writes, another one finds as it is, usually within 1.5 s.",
		means:  "A unit would work with what is no more. Mount without a cache that holds names or contents back: over NFS with lookupcache=positive, over SMB with cache=strict, over FUSE without a long entry or attribute time."},
	{name: "lock", do: locks,
		proves: "A lock of one process keeps another one out, and is free when it is given back.",
		means:  "Locks only save time, so nothing breaks: a unit that waits finds a dead one after a lease of 20 s. Over NFS mount without nolock and run the server's lock manager; keep the state of workers on disks of their own (worker-work-dir)."},
	{name: "lock of a killed process", after: []string{"lock"}, do: locksOfKilled,
		proves: "The lock of a process that is killed is free within 5 s.",
		means:  "Locks only save time, so nothing breaks: a unit that waits finds a dead one after a lease of 20 s. Look at the lock manager of the file server."},
	{name: "one download", needed: true, after: needsOfInstall, do: installsOnce,
		proves: "Several processes install one release at once, and it is downloaded once.",
		means:  "Each unit would download for itself, or none would end. See the checks that failed; the coordinator's error says what it met."},
	{name: "taking over", needed: true, after: needsOfInstall, do: takesOver,
		proves: "When the process that downloads is killed, another one goes on and ends.",
		means:  "After a crash no unit would get the release. See the checks that failed; the coordinator's error says what it met."},
	{name: "flipped byte", needed: true, after: []string{"one download"}, do: findsFlipped,
		proves: "A byte that changes in a release is found when the release is verified.",
		means:  "A damaged release would be run. The mount shows a reader old contents: mount it without a cache that holds contents back."},
}

const meansFull = "A release could not be installed. Make the volume larger, raise its quota, or remove what nobody needs."

var needsOfInstall = []string{"room", "modes", "execute", "symlinks", "rename", "link"}

// run is one Run.
type run struct {
	Options
	report *Report
	place  *place
}

func (r *run) record(c Check) {
	r.report.Checks = append(r.report.Checks, c)
	r.Ended(c)
}

func (s step) check() Check {
	return Check{Name: s.name, Proves: s.proves, Needed: s.needed, Verdict: NotTold}
}

func (r *run) skip(left []step, why string) {
	for _, s := range left {
		c := s.check()
		c.Found = why
		r.record(c)
	}
}

// all makes checks one after the other. The error is one of the machine or of ctx.
func (r *run) all(ctx context.Context, left []step) error {
	for i, s := range left {
		if lacks := r.lacking(s.after); lacks != "" {
			r.skip(left[i:i+1], "it needs "+lacks)
			continue
		}
		hung, err := r.one(ctx, s)
		if err != nil {
			return err
		}
		if hung {
			r.skip(left[i+1:], "the mount does not answer")
			return nil
		}
	}
	return nil
}

// lacking returns the first of some checks that was made and is not ok.
func (r *run) lacking(names []string) string {
	for _, name := range names {
		for _, c := range r.report.Checks {
			if c.Name == name && c.Verdict != OK {
				return name
			}
		}
	}
	return ""
}

// one makes a check in a directory of its own, and tells whether the mount hangs. A call
// that hangs cannot be interrupted: it is left behind in its goroutine.
func (r *run) one(ctx context.Context, s step) (hung bool, err error) {
	start := time.Now()
	limited, cancel := context.WithTimeout(ctx, r.pace.check)
	defer cancel()
	type result struct {
		found string
		err   error
	}
	ended := make(chan result, 1)
	go func() {
		dir := filepath.Join(r.place.dir, strings.ReplaceAll(s.name, " ", "-"))
		err := r.files.Mkdir(dir)
		var found string
		if err == nil {
			found, err = s.do(limited, r, dir)
		}
		ended <- result{found, err}
	}()
	c := s.check()
	var got result
	select {
	case got = <-ended:
		if limited.Err() != nil {
			got.err = errors.Join(got.err, limited.Err())
		}
	case <-limited.Done():
		select {
		case got = <-ended: // it has only been told so
		case <-time.After(2 * time.Second):
			hung = true
		}
		got.err = limited.Err()
	}
	if ctx.Err() != nil {
		return hung, ctx.Err()
	}
	var broken *brokenHarness
	switch {
	case errors.As(got.err, &broken):
		return false, fmt.Errorf("cannot check %s: %w", s.name, broken.err)
	case errors.Is(got.err, context.DeadlineExceeded):
		c.Verdict, c.Found, c.Means = Failed, fmt.Sprintf("it had not ended after %v", r.pace.check), s.means
	case got.err != nil:
		c.Verdict, c.Found, c.Means = Failed, oneLine(got.err), s.means
		if full(got.err) {
			c.Means = meansFull
		}
	default:
		c.Verdict, c.Found = OK, got.found
	}
	c.Found = strings.ReplaceAll(c.Found, r.place.dir+"/", "")
	c.Seconds = time.Since(start).Seconds()
	r.record(c)
	return hung, nil
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// brokenHarness is an error that says nothing about the mount.
type brokenHarness struct{ err error }

func (b *brokenHarness) Error() string { return b.err.Error() }
func (b *brokenHarness) Unwrap() error { return b.err }

func harness(err error) error {
	if err == nil {
		return nil
	}
	return &brokenHarness{err}
}
