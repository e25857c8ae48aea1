// Package probe finds out what a mount can do. Its result decides what is tried
// and what people are told, never what is trusted: a mount can change its mind.
package probe

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Limit is how long a probe asks at most; tidying up after it may take tidied.
const (
	Limit  = 1800 * time.Millisecond
	tidied = 200 * time.Millisecond
)

// Prefix begins the names of directories in which a mount is probed. One that is
// left hung.
const Prefix = ".probe-"

// Locks says what flock is worth on a mount.
type Locks string

const (
	// Exclusive: one process keeps out another one on this machine. Whether it
	// keeps out one on another machine, one machine cannot know.
	Exclusive Locks = "exclusive on this machine, unknown between machines"
	// Shared: a unit was seen to keep out one on another machine.
	Shared Locks = "exclusive"
	// NodeLocal: a unit got the lock while one on another machine had it.
	NodeLocal Locks = "node-local"
	// Worthless: everybody gets the lock.
	Worthless Locks = "worthless"
	// Absent: flock fails.
	Absent Locks = "absent"
	// Hanging: flock does not return.
	Hanging Locks = "hanging"
)

// Useless tells whether there is no point in trying to lock.
func (l Locks) Useless() bool { return l == Worthless || l == Absent || l == Hanging }

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

// questions are what a mount is asked, and where the answers go.
func (r *Result) questions() []question {
	return []question{
		{"link", link, &r.Link},
		{"rename", rename, &r.Rename},
		{"sync of a directory", syncDir, &r.SyncDir},
		{"O_TMPFILE", tmpFile, &r.TmpFile},
		{"reflink", reflink, &r.Reflink},
		{"flock", locks, nil},
	}
}

type question struct {
	name   string
	ask    func(dir string) error
	answer *Answer // nil for locks
}

// reply is what became of a question: a line that a helper writes.
type reply struct {
	Question int    `json:"question"`            // index in questions
	Err      string `json:"err,omitempty"`       // empty: it works
	Needs    bool   `json:"needs,omitempty"`     // it could not be asked
	Useless  bool   `json:"worthless,omitempty"` // two descriptors got one lock
}

// Mount probes the mount that root is on, in a new directory below root which is
// removed again.
//
// A call that hangs cannot be interrupted. It hangs in a process of its own if
// helper is a command that calls Help with the argument that is appended to it;
// that is killed, and nobody waits for its end. Without a helper it hangs in a
// goroutine: who probes a hanging mount again and again collects those, and
// cannot exit before they return. The error is one of making the directory or of
// starting the helper, or that of ctx.
func Mount(ctx context.Context, root *os.Root, helper ...string) (Result, error) {
	start := time.Now()
	r := Result{Locks: Hanging}
	questions := r.questions()
	for _, q := range questions {
		if q.answer != nil {
			*q.answer = Hangs
		}
	}
	limited, cancel := context.WithTimeout(ctx, Limit)
	defer cancel()
	// With room for all, so that who comes late need not wait for ever.
	replies := make(chan reply, len(questions))
	ended := make(chan error, 1)
	name := Prefix + rand.Text()
	go func() {
		dir, err := root.Open(".")
		if err == nil {
			err = ask(limited, dir, name, helper, replies)
			dir.Close()
		}
		// What hung may have left something.
		ended <- errors.Join(err, root.RemoveAll(name))
	}()
	select {
	case err := <-ended:
		if err != nil && limited.Err() == nil {
			return Result{}, fmt.Errorf("cannot probe %s: %w", root.Name(), err)
		}
	case <-limited.Done():
		select {
		case <-ended: // and nothing is left
		case <-time.After(tidied):
		}
	}
	for len(replies) > 0 {
		r.take(questions, <-replies)
	}
	slices.Sort(r.Notes)
	r.Took = time.Since(start)
	return r, ctx.Err()
}

// ask puts the questions, in the directory name below dir, and passes the
// replies on. It returns when all have come, and with a helper also when ctx
// ends.
func ask(ctx context.Context, dir *os.File, name string, helper []string, replies chan<- reply) error {
	if len(helper) == 0 {
		return answer(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name), func(r reply) { replies <- r })
	}
	const inherited = "/proc/self/fd/3/" // the first of ExtraFiles
	cmd := exec.CommandContext(ctx, helper[0], append(helper[1:len(helper):len(helper)], inherited+name)...)
	cmd.ExtraFiles = []*os.File{dir}
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	for lines := json.NewDecoder(io.LimitReader(out, 1<<20)); ; {
		var r reply
		if lines.Decode(&r) != nil {
			break
		}
		replies <- r
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(complaint.Bytes()))
	}
	return nil
}

// Help is the other side of a helper: it asks the mount in the directory that
// Mount has named, and writes the answers down.
func Help(dir string, out io.Writer) error {
	var mu sync.Mutex
	lines := json.NewEncoder(out)
	var failed error
	err := answer(dir, func(r reply) {
		mu.Lock()
		defer mu.Unlock()
		failed = errors.Join(failed, lines.Encode(r))
	})
	return errors.Join(err, failed)
}

// answer makes dir, asks all questions in it at once, and removes it again.
func answer(dir string, say func(reply)) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	var all sync.WaitGroup
	for i, q := range new(Result).questions() {
		all.Go(func() {
			r := reply{Question: i}
			if err := q.ask(dir); err != nil {
				r.Err = strings.ReplaceAll(err.Error(), dir+"/", "")
				r.Needs, r.Useless = errors.Is(err, errNeeds), errors.Is(err, errWorthless)
			}
			say(r)
		})
	}
	all.Wait()
	return os.RemoveAll(dir)
}

func (r *Result) take(questions []question, got reply) {
	if got.Question < 0 || got.Question >= len(questions) {
		return // of another version of this program
	}
	q := questions[got.Question]
	switch {
	case q.answer == nil && got.Useless:
		r.Locks = Worthless
	case q.answer == nil && got.Err != "":
		r.Locks = Absent
	case q.answer == nil:
		r.Locks = Exclusive
	case got.Needs:
		*q.answer = Unknown
	case got.Err != "":
		*q.answer = Fails
	default:
		*q.answer = Works
	}
	if got.Err != "" {
		r.Notes = append(r.Notes, strings.ReplaceAll(q.name+": "+got.Err, "\n", "; "))
	}
}

var (
	// errNeeds: the question could not be asked.
	errNeeds     = errors.New("cannot prepare")
	errWorthless = errors.New("two descriptors have one lock")
)

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
