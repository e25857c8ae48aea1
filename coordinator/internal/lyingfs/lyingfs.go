// Package lyingfs is a file server and its clients, for tests: a directory that
// several machines mount through FUSE, each of which can be told lies about it.
//
// A Server stands for the file server, each Machine for one client's mount, so
// that what is true of one machine (its lease is lost, it sees a new name late)
// need not be true of another. Use a mount from other processes only: a process
// that serves a file system and waits for it can wait for itself.
package lyingfs

import (
	"context"
	"log"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Flock says what flock(2) is worth.
type Flock int

const (
	Exclusive Flock = iota // the truth: one holder among all machines
	NoOp                   // succeeds for everyone: Lustre without -o flock
	Writable               // exclusive, but EBADF on read-only descriptors: NFS
	Absent                 // ENOLCK: NFS without a lock manager
	Hanging                // does not return before the lie ends, not even when interrupted
)

// Lies is what one machine is told. The zero value is the truth.
type Lies struct {
	Flock Flock
	// Stale makes every n-th path fail with ESTALE when it is looked up or
	// opened, so persistently that the kernel's own second try fails too.
	Stale int
	// Link and Rename are reported after link and rename have succeeded, as
	// when the answer to a request was lost and the request repeated.
	Link, Rename syscall.Errno
	// Write, Fsync and Flush are what write, fsync and close of a file return for
	// the bytes from After up to Until of all that is written through this
	// machine. With the latter two a write succeeds and can be read, but is lost
	// by the fsync or close that follows first. Fsync is returned by fsync only, as a
	// kernel does also after a close that has told nobody; Flush by both. From After
	// on statfs tells that no space is free.
	Write, Fsync, Flush syscall.Errno
	After, Until        int64
	// Behind has who makes a file read zeros instead of what was written through the
	// same descriptor: a cache that is behind. Who opens it anew reads what is there.
	Behind bool
	// Lag is how long names that other machines made stay invisible.
	Lag time.Duration
	// Broken is a path below the root that fails with EIO when it is looked up or
	// opened, whether it is there or not.
	Broken string
	// Refused requests fail with the error, and nothing is done. Hung ones do not
	// return before the lie ends, not even when interrupted; the first Spared of them
	// do.
	Refused map[Request]syscall.Errno
	Hung    []Request
	Spared  int
	// Modeless files all have mode 0777, and chmod succeeds and changes nothing:
	// vfat, or SMB without extensions for Unix.
	Modeless bool
}

// Request is what a kernel asks a file server for.
type Request string

const (
	Lookup   Request = "lookup"
	Getattr  Request = "getattr"
	Setattr  Request = "setattr" // chmod and its like
	Access   Request = "access"
	Statfs   Request = "statfs"
	Opendir  Request = "opendir"
	Fsyncdir Request = "fsyncdir"
	Open     Request = "open"
	Create   Request = "create"
	Mkdir    Request = "mkdir"
	Symlink  Request = "symlink"
	Link     Request = "link"
	Relink   Request = "relink" // a link of a symbolic link
	Renaming Request = "rename"
	Unlink   Request = "unlink"
	Rmdir    Request = "rmdir"
)

// Server is the directory behind the mounts.
type Server struct {
	dir string
	// CountRequests, set before Mount, makes Requests count. It slows the mount.
	CountRequests bool

	mu      sync.Mutex
	born    map[string]birth
	renames []Rename
}

type birth struct {
	by *Machine
	at time.Time
}

// Rename is one that has taken place, with paths relative to the root.
type Rename struct{ From, To string }

// Serve makes dir the directory behind the mounts.
func Serve(dir string) *Server { return &Server{dir: dir, born: map[string]birth{}} }

// Renames returns those of all machines, in order.
func (s *Server) Renames() []Rename {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Rename(nil), s.renames...)
}

// Machine is one mount of a Server.
type Machine struct {
	server   *Server
	fuse     *fuse.Server
	requests requests

	mu      sync.Mutex
	lies    Lies
	lifted  chan struct{} // closed when the lies change
	spared  int
	written int64
	lookups int
	burst   map[string]int  // path -> further ESTALEs
	seen    map[string]bool // names of others that this machine knows
	open    map[*handle]bool
	lost    map[uint64]bool // inodes that lost bytes, of which nobody was told
}

// Mount mounts the server's directory on dir. With nodeLocal the kernel keeps
// this machine's locks to itself, so that they exclude nobody elsewhere.
func (s *Server) Mount(dir string, nodeLocal bool) (*Machine, error) {
	m := &Machine{server: s, lifted: make(chan struct{}), burst: map[string]int{}, seen: map[string]bool{}, open: map[*handle]bool{}, lost: map[uint64]bool{}}
	var st syscall.Stat_t
	if err := syscall.Stat(s.dir, &st); err != nil {
		return nil, err
	}
	loopback := &fs.LoopbackRoot{Path: s.dir, Dev: st.Dev}
	root := &node{LoopbackNode: fs.LoopbackNode{RootData: loopback}, m: m}
	loopback.RootNode = root
	var err error
	m.fuse, err = fs.Mount(dir, root, &fs.Options{MountOptions: fuse.MountOptions{
		FsName: "lyingfs", Name: "lyingfs",
		DirectMount:        true,
		EnableLocks:        !nodeLocal,
		DisableReadDirPlus: true, // lookups have lies of their own
		Debug:              s.CountRequests,
		Logger:             log.New(&m.requests, "", 0),
	}})
	return m, err
}

// Tell replaces the lies; calls that hang return.
func (m *Machine) Tell(lies Lies) {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.lifted)
	m.lies, m.lifted = lies, make(chan struct{})
	m.written, m.spared, m.burst = 0, 0, map[string]int{}
}

// Lose ends this machine's lease: its locks are free for others at once, and
// every file that is open now fails with EIO until it is opened again.
func (m *Machine) Lose() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for h := range m.open {
		h.lost.Store(true)
		h.LoopbackFile.Setlk(context.Background(), 0, &fuse.FileLock{Typ: syscall.F_UNLCK}, fuse.FUSE_LK_FLOCK)
	}
}

// Unmount ends the mount, by force if files on it are open.
func (m *Machine) Unmount(dir string) error {
	m.Tell(Lies{})
	err := m.fuse.Unmount()
	if err != nil {
		err = syscall.Unmount(dir, syscall.MNT_DETACH)
	}
	return err
}

// remember keeps in mind that nobody was told of a loss, for the next fsync.
func (m *Machine) remember(inode uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lost[inode] = true
}

// report tells once whether something of a file was lost and nobody was told.
func (m *Machine) report(inode uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	lost := m.lost[inode]
	delete(m.lost, inode)
	return lost
}

func (m *Machine) told() Lies {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lies
}

// refuses hangs if the request is to hang, and returns the error if it is refused.
func (m *Machine) refuses(r Request) syscall.Errno {
	m.mu.Lock()
	lies, lifted := m.lies, m.lifted
	hangs := slices.Contains(lies.Hung, r)
	if hangs && m.spared < lies.Spared {
		m.spared++
		hangs = false
	}
	m.mu.Unlock()
	if hangs {
		<-lifted
	}
	return lies.Refused[r]
}

// mode is what this machine is told of a mode.
func (m *Machine) mode(mode *uint32) {
	if m.told().Modeless {
		*mode |= 0o777
	}
}

func (m *Machine) stale(path string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lies.Stale == 0 {
		return false
	}
	if m.burst[path] > 0 {
		m.burst[path]--
		return true
	}
	m.lookups++
	if m.lookups%m.lies.Stale != 0 {
		return false
	}
	m.burst[path] = 1
	return true
}

func (m *Machine) broken(path string) bool {
	broken := m.told().Broken
	return broken != "" && path == broken
}

// late tells whether this machine must not know of a name yet.
func (m *Machine) late(path string) bool {
	lag := m.told().Lag
	if lag == 0 {
		return false
	}
	m.server.mu.Lock()
	b, ok := m.server.born[path]
	m.server.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	return ok && b.by != m && time.Since(b.at) < lag && !m.seen[path]
}

// made writes down that this machine tried to make a name. Whoever succeeds knows
// it, and whoever is told that it exists looks past its cache.
func (m *Machine) made(path string, errno syscall.Errno) {
	m.knows(path)
	if errno == 0 {
		m.server.mu.Lock()
		m.server.born[path] = birth{m, time.Now()}
		m.server.mu.Unlock()
	}
}

func (m *Machine) knows(path string) {
	m.mu.Lock()
	m.seen[path] = true
	m.mu.Unlock()
}

// struck tells whether there was no space for something already.
func (m *Machine) struck() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lies.Until > 0 && m.written > m.lies.After
}

// full counts what is written, and tells whether there is no space for it.
func (m *Machine) full(bytes int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.written += int64(bytes)
	return m.written > m.lies.After && m.written <= m.lies.Until
}
