// Package probe finds out what a mount can do. Its result decides what is tried
// and what people are told, never what is trusted: a mount can change its mind.
package probe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Limit is how long a probe takes at most.
const Limit = 2 * time.Second

// Locks says what flock is worth on a mount.
type Locks string

const (
	// Exclusive: one process keeps out another one on this machine. Whether it
	// keeps out one on another machine, one machine cannot know.
	Exclusive Locks = "exclusive on this machine, unknown between machines"
	// Worthless: everybody gets the lock.
	Worthless Locks = "worthless"
	// Absent: flock fails.
	Absent Locks = "absent"
	// Hanging: flock does not return.
	Hanging Locks = "hanging"
)

// Answer says whether something works.
type Answer string

const (
	Works   Answer = "works"
	Fails   Answer = "fails"
	Hangs   Answer = "hangs"
	Unknown Answer = "unknown" // it needed something that failed
)

// Result is what a mount can do.
type Result struct {
	Locks   Locks  `json:"locks"`
	Link    Answer `json:"link"`     // a second name, refused where there is one
	Rename  Answer `json:"rename"`   // replaces a file, but no directory that is not empty
	SyncDir Answer `json:"sync_dir"` // fsync of a directory
	TmpFile Answer `json:"tmpfile"`  // O_TMPFILE
	Reflink Answer `json:"reflink"`  // copies that share their blocks
	// Notes are the errors behind what fails.
	Notes []string      `json:"notes,omitempty"`
	Took  time.Duration `json:"took_ns"`
}

// Sound tells whether the mount has what installing on it needs.
func (r Result) Sound() bool { return r.Link == Works && r.Rename == Works }

func (r Result) String() string {
	return fmt.Sprintf("locks %s; link %s, rename %s, sync of directories %s, O_TMPFILE %s, reflink %s",
		r.Locks, r.Link, r.Rename, r.SyncDir, r.TmpFile, r.Reflink)
}

// Mount probes the mount that dir is on, in a new directory below dir which it
// removes again. A call that hangs cannot be interrupted: its goroutine stays
// until the call returns, and so do its files. That costs less than a child
// process, which would hang as well and which a library cannot start without
// help of its program; who probes a hanging mount again and again collects
// goroutines. The error is one of making the directory, or of ctx.
func Mount(ctx context.Context, dir string) (Result, error) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, Limit)
	defer cancel()
	type place struct {
		dir string
		err error
	}
	made := make(chan place)
	go func() {
		private, err := os.MkdirTemp(dir, ".probe-*")
		select {
		case made <- place{private, err}:
		case <-ctx.Done():
			os.Remove(private)
		}
	}()
	var private string
	select {
	case p := <-made:
		if p.err != nil {
			return Result{}, fmt.Errorf("cannot probe %s: %w", dir, p.err)
		}
		private = p.dir
	case <-ctx.Done():
		return Result{}, fmt.Errorf("cannot probe %s: it does not answer: %w", dir, ctx.Err())
	}

	r := Result{Locks: Hanging}
	questions := []struct {
		name   string
		ask    func(dir string) error
		answer *Answer
	}{
		{"link", link, &r.Link},
		{"rename", rename, &r.Rename},
		{"sync of a directory", syncDir, &r.SyncDir},
		{"O_TMPFILE", tmpFile, &r.TmpFile},
		{"reflink", reflink, &r.Reflink},
	}
	type reply struct {
		question int
		err      error
	}
	// With room for all, so that who comes late need not wait for ever.
	replies := make(chan reply, len(questions)+1)
	for i, q := range questions {
		*q.answer = Hangs
		go func() { replies <- reply{i, q.ask(private)} }()
	}
	go func() { replies <- reply{len(questions), locks(private)} }()

	late := len(questions) + 1
	for ; late > 0; late-- {
		select {
		case got := <-replies:
			if got.question == len(questions) {
				r.Locks = worth(got.err)
				r.note("flock", got.err)
				continue
			}
			q := questions[got.question]
			*q.answer = Works
			if got.err != nil {
				*q.answer = Fails
				if errors.Is(got.err, errNeeds) {
					*q.answer = Unknown
				}
			}
			r.note(q.name, got.err)
			continue
		case <-ctx.Done():
		}
		break
	}
	if late == 0 {
		r.Took = time.Since(start)
		return r, os.RemoveAll(private)
	}
	// What hangs may hold the directory, too.
	go os.RemoveAll(private)
	r.Took = time.Since(start)
	if errors.Is(ctx.Err(), context.Canceled) {
		return r, ctx.Err()
	}
	return r, nil
}

func (r *Result) note(name string, err error) {
	if err != nil {
		r.Notes = append(r.Notes, strings.ReplaceAll(name+": "+err.Error(), "\n", "; "))
	}
}

var (
	// errNeeds: the question could not be asked.
	errNeeds     = errors.New("cannot prepare")
	errWorthless = errors.New("two descriptors have one lock")
)

func worth(err error) Locks {
	switch {
	case err == nil:
		return Exclusive
	case errors.Is(err, errWorthless):
		return Worthless
	}
	return Absent
}

// locks takes one lock twice. Locks are those of an open file, so that one
// process is enough to see a conflict.
func locks(dir string) error {
	path := filepath.Join(dir, "lock")
	first, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer first.Close()
	second, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer second.Close()
	if err := unix.Flock(int(first.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return err
	}
	err = unix.Flock(int(second.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case err == nil:
		return errWorthless
	case !errors.Is(err, unix.EWOULDBLOCK):
		return err
	}
	// And free again?
	if err := unix.Flock(int(first.Fd()), unix.LOCK_UN); err != nil {
		return err
	}
	return unix.Flock(int(second.Fd()), unix.LOCK_EX|unix.LOCK_NB)
}

func link(dir string) error {
	one, two, three := filepath.Join(dir, "one"), filepath.Join(dir, "two"), filepath.Join(dir, "three")
	if err := write(one); err != nil {
		return err
	}
	if err := write(two); err != nil {
		return err
	}
	if err := os.Link(one, three); err != nil {
		return err
	}
	if err := os.Link(two, three); !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("a link over a file is not refused, but: %v", err)
	}
	a, err := os.Lstat(one)
	if err != nil {
		return err
	}
	b, err := os.Lstat(three)
	if err != nil {
		return err
	}
	if !os.SameFile(a, b) {
		return errors.New("two names of one file do not look like it")
	}
	return nil
}

// rename also looks whether anybody can see the target missing.
func rename(dir string) error {
	target := filepath.Join(dir, "target")
	if err := write(target); err != nil {
		return err
	}
	stop, gone := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				gone <- nil
				return
			default:
			}
			if _, err := os.Lstat(target); err != nil {
				gone <- fmt.Errorf("a file is not there while it is replaced: %w", err)
				return
			}
		}
	}()
	err := func() error {
		for range 20 {
			if err := write(target + ".new"); err != nil {
				return err
			}
			if err := os.Rename(target+".new", target); err != nil {
				return err
			}
		}
		return nil
	}()
	close(stop)
	if err := errors.Join(err, <-gone); err != nil {
		return err
	}
	empty, full := filepath.Join(dir, "empty"), filepath.Join(dir, "full")
	if err := os.Mkdir(empty, 0o755); err != nil {
		return errors.Join(errNeeds, err)
	}
	if err := os.MkdirAll(filepath.Join(full, "x"), 0o755); err != nil {
		return errors.Join(errNeeds, err)
	}
	// Not os.Rename, which would refuse on its own.
	if err := unix.Rename(empty, full); err == nil {
		return errors.New("a directory that is not empty was replaced")
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return errors.Join(errNeeds, err)
	}
	defer d.Close()
	return d.Sync()
}

func tmpFile(dir string) error {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	return unix.Close(fd)
}

func reflink(dir string) error {
	path := filepath.Join(dir, "block")
	if err := os.WriteFile(path, make([]byte, 1<<16), 0o644); err != nil {
		return errors.Join(errNeeds, err)
	}
	from, err := os.Open(path)
	if err != nil {
		return errors.Join(errNeeds, err)
	}
	defer from.Close()
	to, err := os.Create(path + ".copy")
	if err != nil {
		return errors.Join(errNeeds, err)
	}
	defer to.Close()
	return os.NewSyscallError("ioctl", unix.IoctlFileClone(int(to.Fd()), int(from.Fd())))
}

func write(path string) error {
	if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
		return errors.Join(errNeeds, err)
	}
	return nil
}
