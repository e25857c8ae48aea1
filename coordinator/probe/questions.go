package probe

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// question is what a mount is asked, in a directory of its own.
type question struct {
	name   string
	ask    func(dir *os.Root) error
	answer *Answer // where the answer goes; nil for locks
	unfit  error   // what a mount is on which this fails; nil if a release does without
}

func (r *Result) questions() []question {
	return []question{
		{"giving a file its mode", modes, &r.Modes, ErrNoModes},
		{"executing a file", execute, &r.Execute, ErrNoExec},
		{"making a symbolic link", symlink, &r.Symlink, ErrNoSymlinks},
		{"making a hard link", link, &r.Link, ErrNoLinks},
		{"replacing a file", rename, &r.Rename, nil}, // Preflight renames from directory to directory
		{"syncing a directory", syncDir, &r.SyncDir, nil},
		{"flock", locks, nil, nil},
	}
}

// answer makes the directory place, asks all questions in it at once, and removes
// it again. With each answer it tells all that is known by then.
func answer(place string, tell func(Result)) (err error) {
	parent, err := os.OpenRoot(filepath.Dir(place))
	if err != nil {
		return err
	}
	defer parent.Close()
	var all sync.WaitGroup
	defer all.Wait()
	var mu sync.Mutex
	found := allAnswered(Hangs, Hanging)
	learn := func(change func()) {
		mu.Lock()
		defer mu.Unlock()
		change()
		tell(found)
	}
	all.Go(func() {
		if v, _, err := volumeOf(parent, "."); err == nil {
			learn(func() {
				v.ReadOnly = v.ReadOnly || found.ReadOnly
				found.Volume = v
			})
		}
	})
	name := filepath.Base(place)
	err = parent.Mkdir(name, 0o700)
	if errors.Is(err, unix.EROFS) {
		learn(func() {
			v := found.Volume
			v.ReadOnly = true
			found = allAnswered(Unknown, Untried)
			found.Volume = v
		})
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, parent.RemoveAll(name)) }()
	dir, err := parent.OpenRoot(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, q := range found.questions() {
		all.Go(func() {
			err := q.ask(dir)
			learn(func() { found.record(q, err) })
		})
	}
	all.Wait()
	return nil
}

var (
	// errNeeds: the question could not be asked.
	errNeeds     = errors.New("cannot prepare")
	errWorthless = errors.New("two descriptors have one lock")
)

// locks takes one lock twice. Locks are those of an open file, so that one
// process is enough to see a conflict.
func locks(dir *os.Root) error {
	var holders [2]int
	for i := range holders {
		f, err := dir.OpenFile("lock", os.O_CREATE|os.O_RDWR, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		holders[i] = int(f.Fd())
	}
	const exclusive = unix.LOCK_EX | unix.LOCK_NB
	if err := unix.Flock(holders[0], exclusive); err != nil {
		return err
	}
	if err := unix.Flock(holders[1], exclusive); err == nil {
		return errWorthless
	} else if err != unix.EWOULDBLOCK {
		return err
	}
	// And free again?
	if err := unix.Flock(holders[0], unix.LOCK_UN); err != nil {
		return err
	}
	return unix.Flock(holders[1], exclusive)
}

func link(dir *os.Root) error {
	if err := errors.Join(write(dir, "one"), write(dir, "two")); err != nil {
		return err
	}
	if err := secondName(dir, "one", "three"); err != nil {
		return err
	}
	if err := dir.Link("two", "three"); !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("a link over a file is not refused, but: %v", err)
	}
	if dir.Symlink("one", "points") != nil {
		return nil // another question asks for that
	}
	return secondName(dir, "points", "points too")
}

// secondName makes a hard link, of a symbolic link also. It believes what it
// sees: an answer that was lost makes a network file system repeat the request,
// and report its own success as a failure.
func secondName(dir *os.Root, old, name string) error {
	linkErr := dir.Link(old, name)
	a, err := dir.Lstat(old)
	if err != nil {
		return err
	}
	b, err := dir.Lstat(name)
	if err == nil && os.SameFile(a, b) {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("the names %q and %q of one file do not look like it", old, name)
	}
	return cmp.Or(linkErr, err)
}

// rename also looks whether anybody can see the target missing.
func rename(dir *os.Root) error {
	if err := write(dir, "target"); err != nil {
		return err
	}
	var replaced atomic.Bool
	var watch errgroup.Group
	watch.Go(func() error {
		for !replaced.Load() {
			if _, err := dir.Lstat("target"); err != nil {
				return fmt.Errorf("a file is not there while it is replaced: %w", err)
			}
		}
		return nil
	})
	var err error
	for i := 0; i < 20 && err == nil; i++ {
		if err = write(dir, "target.new"); err == nil {
			err = dir.Rename("target.new", "target")
		}
	}
	replaced.Store(true)
	if err := errors.Join(err, watch.Wait()); err != nil {
		return err
	}
	if err := errors.Join(dir.MkdirAll("empty", 0o755), dir.MkdirAll("full/x", 0o755)); err != nil {
		return unprepared(err)
	}
	if dir.Rename("empty", "full") == nil {
		return errors.New("a directory that is not empty was replaced")
	}
	return nil
}

func syncDir(dir *os.Root) error {
	d, err := dir.Open(".")
	if err != nil {
		return unprepared(err)
	}
	defer d.Close()
	return d.Sync()
}

// modes wants to see again each mode that a file of a release can have.
func modes(dir *os.Root) error {
	if err := write(dir, "mode"); err != nil {
		return err
	}
	for _, mode := range []fs.FileMode{0o444, 0o555} {
		if err := dir.Chmod("mode", mode); err != nil {
			return err
		}
		info, err := dir.Lstat("mode")
		if err != nil {
			return err
		}
		if info.Mode() != mode {
			return fmt.Errorf("a file has the mode %v after chmod to %v", info.Mode(), mode)
		}
	}
	return nil
}

// execute asks what the kernel would ask before it executes a file. Of noexec a
// kernel before 5.8 tells by statfs only.
func execute(dir *os.Root) error {
	if _, noExec, err := volumeOf(dir, "."); err != nil {
		return unprepared(err)
	} else if noExec {
		return errors.New("it is mounted with noexec")
	}
	f, err := dir.OpenFile("program", os.O_CREATE|os.O_WRONLY, 0o555)
	if err != nil {
		return unprepared(err)
	}
	defer f.Close()
	program := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	return os.NewSyscallError("faccessat", unix.Faccessat(unix.AT_FDCWD, program, unix.X_OK, unix.AT_EACCESS))
}

func symlink(dir *os.Root) error {
	const target = "somewhere/else"
	if err := dir.Symlink(target, "symlink"); err != nil {
		return err
	}
	got, err := dir.Readlink("symlink")
	if err == nil && got != target {
		err = fmt.Errorf("a symbolic link to %q leads to %q", target, got)
	}
	return err
}

func write(dir *os.Root, name string) error {
	if err := dir.WriteFile(name, []byte("x"), 0o644); err != nil {
		return unprepared(err)
	}
	return nil
}

func unprepared(err error) error { return fmt.Errorf("%w: %w", errNeeds, err) }
