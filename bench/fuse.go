package bench

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// mount is a directory seen through FUSE as one machine sees a network file
// system: the kernel keeps no name, attribute or lock for itself, but asks. Only
// other processes may use it: one that serves a file system and waits for it can
// wait for itself.
//
// Each machine has a mount of its own. A request names a thread, and closing
// names nobody, so that requests on one mount could not be told apart.
type mount struct {
	dir    string
	server *fuse.Server
}

// errNoFUSE: this process may not mount.
var errNoFUSE = errors.New("FUSE cannot be used here")

// mountOn shows the directory behind on dir, which is made. What the kernel asks
// for goes to count, unless that is nil.
func mountOn(dir, behind string, count *requests) (mount, error) {
	if _, err := os.Stat("/dev/fuse"); errors.Is(err, fs.ErrNotExist) {
		return mount{}, fmt.Errorf("%w: there is no /dev/fuse", errNoFUSE)
	}
	if os.Geteuid() != 0 {
		return mount{}, fmt.Errorf("%w: mounting takes root", errNoFUSE)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return mount{}, err
	}
	root, err := fusefs.NewLoopbackRoot(behind)
	if err != nil {
		return mount{}, err
	}
	options := fuse.MountOptions{
		FsName: "bench", Name: "bench",
		DirectMountStrict:    true,
		EnableLocks:          true,
		DisabledCapabilities: fuse.CAP_PASSTHROUGH, // else the kernel reads and writes by itself
	}
	if count != nil {
		// The library's log is the one place where every request passes. Splicing
		// writes to another log.
		options.Debug, options.Logger, options.DisableSplice = true, log.New(count, "", 0), true
	}
	server, err := fusefs.Mount(dir, root, &fusefs.Options{MountOptions: options})
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		return mount{}, fmt.Errorf("%w: %w", errNoFUSE, err)
	}
	if err != nil {
		return mount{}, fmt.Errorf("cannot mount %s: %w", dir, err)
	}
	return mount{dir, server}, nil
}

func (m mount) unmount() error {
	if err := m.server.Unmount(); err == nil {
		return nil
	}
	// Something still has a file open.
	if err := syscall.Unmount(m.dir, syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("cannot unmount %s: %w", m.dir, err)
	}
	return nil
}

// requests counts what a kernel asks a file system for, by operation. It takes
// the library's log, a line a write, in which a request is
//
//	rx 8: LOOKUP n1 ["head"] 5b p5874
type requests struct {
	mu    sync.Mutex
	count map[string]int
}

// housekeeping is what no network file system is asked: to forget what is no
// longer cached, and that a signal has come, as the Go runtime sends itself.
var housekeeping = []string{"FORGET", "BATCH_FORGET", "INTERRUPT"}

func (q *requests) Write(line []byte) (int, error) {
	fields := bytes.Fields(line)
	if len(fields) < 3 || string(fields[0]) != "rx" || slices.Contains(housekeeping, string(fields[2])) {
		return len(line), nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.count == nil {
		q.count = map[string]int{}
	}
	q.count[string(fields[2])]++
	return len(line), nil
}

// take returns what was counted since it was last called.
func (q *requests) take() map[string]int {
	q.mu.Lock()
	defer q.mu.Unlock()
	count := q.count
	q.count = nil
	return count
}

// perSecond lists the operations, the most frequent one first.
func perSecond(count map[string]int, seconds float64) string {
	names := slices.SortedFunc(maps.Keys(count), func(a, b string) int {
		if count[a] != count[b] {
			return count[b] - count[a]
		}
		return strings.Compare(a, b)
	})
	for i, name := range names {
		names[i] = fmt.Sprintf("%s %.1f", name, float64(count[name])/seconds)
	}
	return strings.Join(names, ", ")
}
