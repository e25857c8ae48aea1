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
	"path/filepath"
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
	// by the fsync or close that follows first. Fsync is returned by fsync only,
	// Flush by both.
	Write, Fsync, Flush syscall.Errno
	After, Until        int64
	// Lag is how long names that other machines made stay invisible.
	Lag time.Duration
	// Broken is a path below the root that fails with EIO when it is looked up or
	// opened, whether it is there or not.
	Broken string
}

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
	written int64
	lookups int
	burst   map[string]int  // path -> further ESTALEs
	seen    map[string]bool // names of others that this machine knows
	open    map[*handle]bool
}

// Mount mounts the server's directory on dir. With nodeLocal the kernel keeps
// this machine's locks to itself, so that they exclude nobody elsewhere.
func (s *Server) Mount(dir string, nodeLocal bool) (*Machine, error) {
	m := &Machine{server: s, lifted: make(chan struct{}), burst: map[string]int{}, seen: map[string]bool{}, open: map[*handle]bool{}}
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
	m.written, m.burst = 0, map[string]int{}
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

func (m *Machine) told() Lies {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lies
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

// full counts what is written, and tells whether there is no space for it.
func (m *Machine) full(bytes int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.written += int64(bytes)
	return m.written > m.lies.After && m.written <= m.lies.Until
}

type node struct {
	fs.LoopbackNode
	m *Machine
}

// WrapChild makes the nodes below liars too.
func (n *node) WrapChild(context.Context, fs.InodeEmbedder) fs.InodeEmbedder {
	return &node{LoopbackNode: fs.LoopbackNode{RootData: n.RootData}, m: n.m}
}

// rel returns the path of a node, or of a name in it, below the root.
func (n *node) rel(name ...string) string {
	return filepath.Join(append([]string{n.Path(n.Root())}, name...)...)
}

func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	path := n.rel(name)
	if n.m.stale(path) {
		return nil, syscall.ESTALE
	}
	if n.m.broken(path) {
		return nil, syscall.EIO
	}
	if n.m.late(path) {
		return nil, syscall.ENOENT
	}
	inode, errno := n.LoopbackNode.Lookup(ctx, name, out)
	if errno == 0 {
		n.m.knows(path)
	}
	return inode, errno
}

func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if n.m.stale(n.rel()) {
		return nil, 0, syscall.ESTALE
	}
	if n.m.broken(n.rel()) {
		return nil, 0, syscall.EIO
	}
	f, fuseFlags, errno := n.LoopbackNode.Open(ctx, flags)
	if errno == syscall.ENOENT {
		// The name under which this inode was found is gone, but it may have others.
		return nil, 0, syscall.ESTALE
	}
	return n.m.handle(f, flags), fuseFlags, errno
}

func (n *node) Getattr(ctx context.Context, f fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	errno := n.LoopbackNode.Getattr(ctx, f, out)
	if errno == syscall.ENOENT {
		return syscall.ESTALE
	}
	return errno
}

func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	var st syscall.Stat_t
	there := syscall.Lstat(filepath.Join(n.m.server.dir, n.rel(name)), &st) == nil
	inode, f, fuseFlags, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	if there {
		n.m.made(n.rel(name), syscall.EEXIST)
	} else {
		n.m.made(n.rel(name), errno)
	}
	return inode, n.m.handle(f, flags), fuseFlags, errno
}

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	inode, errno := n.LoopbackNode.Mkdir(ctx, name, mode, out)
	n.m.made(n.rel(name), errno)
	return inode, errno
}

func (n *node) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	inode, errno := n.LoopbackNode.Symlink(ctx, target, name, out)
	n.m.made(n.rel(name), errno)
	return inode, errno
}

func (n *node) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	inode, errno := n.LoopbackNode.Link(ctx, target, name, out)
	n.m.made(n.rel(name), errno)
	if lie := n.m.told().Link; errno == 0 && lie != 0 {
		return nil, lie
	}
	return inode, errno
}

func (n *node) Rename(ctx context.Context, name string, parent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	from := n.rel(name)
	to := filepath.Join(parent.EmbeddedInode().Path(n.Root()), newName)
	// One at a time, so that the ledger has the order in which they took place.
	n.m.server.mu.Lock()
	errno := n.LoopbackNode.Rename(ctx, name, parent, newName, flags)
	if errno == 0 {
		n.m.server.renames = append(n.m.server.renames, Rename{from, to})
	}
	n.m.server.mu.Unlock()
	n.m.made(to, errno)
	if lie := n.m.told().Rename; errno == 0 && lie != 0 {
		return lie
	}
	return errno
}

func (n *node) OpendirHandle(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if n.m.stale(n.rel()) {
		return nil, 0, syscall.ESTALE
	}
	f, fuseFlags, errno := n.LoopbackNode.OpendirHandle(ctx, flags)
	if errno != 0 {
		return nil, 0, errno
	}
	return &listing{stream: f.(stream), n: n}, fuseFlags, 0
}

// stream is what a loopback's directory handle can do.
type stream interface {
	fs.FileReaddirenter
	fs.FileReleasedirer
	fs.FileSeekdirer
	fs.FileFsyncdirer
}

// listing leaves out the names that come late.
type listing struct {
	stream
	n *node
}

func (l *listing) Readdirent(ctx context.Context) (*fuse.DirEntry, syscall.Errno) {
	for {
		e, errno := l.stream.Readdirent(ctx)
		if e == nil || errno != 0 || !l.n.m.late(l.n.rel(e.Name)) {
			return e, errno
		}
	}
}

func (m *Machine) handle(f fs.FileHandle, flags uint32) fs.FileHandle {
	file, ok := f.(*fs.LoopbackFile)
	if !ok || file == nil {
		return nil
	}
	h := &handle{LoopbackFile: file, m: m, flags: flags}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open[h] = true
	return h
}
