package probe

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// question is what a mount is asked, in a directory of its own.
type question struct {
	name   string
	ask    func(dir *os.Root) error
	answer *Answer // where the answer goes; nil for locks
}

// questions are told apart by their index where two versions of this program talk
// with each other: new ones come last.
func (r *Result) questions() []question {
	return []question{
		{"link", link, &r.Link},
		{"rename", rename, &r.Rename},
		{"sync of a directory", syncDir, &r.SyncDir},
		{"O_TMPFILE", tmpFile, &r.TmpFile},
		{"reflink", reflink, &r.Reflink},
		{"flock", locks, nil},
		{"modes", modes, &r.Modes},
		{"execute", execute, &r.Execute},
		{"symlink", symlink, &r.Symlink},
	}
}

// reply is what became of a question: a line that a helper writes.
type reply struct {
	Question int     `json:"question"`            // index in questions
	Err      string  `json:"err,omitempty"`       // empty: it works
	Needs    bool    `json:"needs,omitempty"`     // it could not be asked
	ReadOnly bool    `json:"read_only,omitempty"` // since nothing can be written
	Useless  bool    `json:"worthless,omitempty"` // two descriptors got one lock
	Volume   *Volume `json:"volume,omitempty"`    // no reply to a question
}

// noQuestion is the index in a reply that older versions have to ignore.
const noQuestion = -1

// answer makes the directory place, asks all questions in it at once, and removes
// it again.
func answer(place string, say func(reply)) error {
	parent, err := os.OpenRoot(filepath.Dir(place))
	if err != nil {
		return err
	}
	defer parent.Close()
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() {
		if v, _, err := volumeOf(parent); err == nil {
			say(reply{Question: noQuestion, Volume: &v})
		}
	})
	questions := new(Result).questions()
	name := filepath.Base(place)
	err = parent.Mkdir(name, 0o700)
	if errors.Is(err, unix.EROFS) {
		for i := range questions {
			say(reply{Question: i, Err: err.Error(), Needs: true, ReadOnly: true})
		}
		return nil
	}
	if err != nil {
		return err
	}
	if dir, openErr := parent.OpenRoot(name); openErr != nil {
		err = openErr
	} else {
		defer dir.Close()
		for i, q := range questions {
			all.Go(func() {
				r := reply{Question: i}
				if err := q.ask(dir); err != nil {
					r.Err, r.Needs, r.Useless = err.Error(), errors.Is(err, errNeeds), errors.Is(err, errWorthless)
				}
				say(r)
			})
		}
		all.Wait()
	}
	return errors.Join(err, parent.RemoveAll(name))
}

var (
	// errNeeds: the question could not be asked.
	errNeeds     = errors.New("cannot prepare")
	errWorthless = errors.New("two descriptors have one lock")
)

// locks takes one lock twice. Locks are those of an open file, so that one
// process is enough to see a conflict.
func locks(dir *os.Root) error {
	first, err := dir.OpenFile("lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer first.Close()
	second, err := dir.OpenFile("lock", os.O_RDWR, 0)
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

func link(dir *os.Root) error {
	for _, name := range []string{"one", "two"} {
		if err := write(dir, name); err != nil {
			return err
		}
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
	switch {
	case err == nil && os.SameFile(a, b):
		return nil
	case linkErr != nil:
		return linkErr
	case err != nil:
		return err
	}
	return fmt.Errorf("the names %q and %q of one file do not look like it", old, name)
}

// rename also looks whether anybody can see the target missing.
func rename(dir *os.Root) error {
	if err := write(dir, "target"); err != nil {
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
			if _, err := dir.Lstat("target"); err != nil {
				gone <- fmt.Errorf("a file is not there while it is replaced: %w", err)
				return
			}
		}
	}()
	err := func() error {
		for range 20 {
			if err := write(dir, "target.new"); err != nil {
				return err
			}
			if err := dir.Rename("target.new", "target"); err != nil {
				return err
			}
		}
		return nil
	}()
	close(stop)
	if err := errors.Join(err, <-gone); err != nil {
		return err
	}
	for _, name := range []string{"empty", "full/x"} {
		if err := dir.MkdirAll(name, 0o755); err != nil {
			return unprepared(err)
		}
	}
	if err := dir.Rename("empty", "full"); err == nil {
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

func tmpFile(dir *os.Root) error {
	f, err := dir.OpenFile(".", unix.O_TMPFILE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func reflink(dir *os.Root) error {
	if err := dir.WriteFile("block", make([]byte, 1<<16), 0o644); err != nil {
		return unprepared(err)
	}
	from, err := dir.Open("block")
	if err != nil {
		return unprepared(err)
	}
	defer from.Close()
	to, err := dir.Create("block.copy")
	if err != nil {
		return unprepared(err)
	}
	defer to.Close()
	return os.NewSyscallError("ioctl", unix.IoctlFileClone(int(to.Fd()), int(from.Fd())))
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
	if _, noExec, err := volumeOf(dir); err != nil {
		return unprepared(err)
	} else if noExec {
		return errors.New("it is mounted with noexec")
	}
	f, err := dir.OpenFile("program", os.O_CREATE|os.O_WRONLY, 0o555)
	if err != nil {
		return unprepared(err)
	}
	f.Close()
	d, err := dir.Open(".")
	if err != nil {
		return unprepared(err)
	}
	defer d.Close()
	return os.NewSyscallError("faccessat", unix.Faccessat(int(d.Fd()), "program", unix.X_OK, unix.AT_EACCESS))
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
