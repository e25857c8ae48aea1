package lyingfs

import (
	"context"
	"path/filepath"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// node is a file or directory as one machine sees it.
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
	if errno := n.m.refuses(Lookup); errno != 0 {
		return nil, errno
	}
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
	n.m.mode(&out.Mode)
	return inode, errno
}

func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if errno := n.m.refuses(Open); errno != 0 {
		return nil, 0, errno
	}
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
	if errno := n.m.refuses(Getattr); errno != 0 {
		return errno
	}
	errno := n.LoopbackNode.Getattr(ctx, f, out)
	if errno == syscall.ENOENT {
		return syscall.ESTALE
	}
	n.m.mode(&out.Mode)
	return errno
}

// Readlink is by inode, too: a link that was just replaced is stale, not absent, so
// that the kernel follows the path again.
func (n *node) Readlink(ctx context.Context) ([]byte, syscall.Errno) {
	text, errno := n.LoopbackNode.Readlink(ctx)
	if errno == syscall.ENOENT {
		return nil, syscall.ESTALE
	}
	return text, errno
}

func (n *node) Setattr(ctx context.Context, f fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if errno := n.m.refuses(Setattr); errno != 0 {
		return errno
	}
	if n.m.told().Modeless {
		in.Valid &^= fuse.FATTR_MODE
	}
	errno := n.LoopbackNode.Setattr(ctx, f, in, out)
	n.m.mode(&out.Mode)
	return errno
}

// Access allows everything: machines are root's.
func (n *node) Access(context.Context, uint32) syscall.Errno { return n.m.refuses(Access) }

func (n *node) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	if errno := n.m.refuses(Statfs); errno != 0 {
		return errno
	}
	errno := n.LoopbackNode.Statfs(ctx, out)
	if n.m.struck() {
		out.Bfree, out.Bavail = 0, 0
	}
	return errno
}

func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	if errno := n.m.refuses(Unlink); errno != 0 {
		return errno
	}
	return n.LoopbackNode.Unlink(ctx, name)
}

func (n *node) Rmdir(ctx context.Context, name string) syscall.Errno {
	if errno := n.m.refuses(Rmdir); errno != 0 {
		return errno
	}
	return n.LoopbackNode.Rmdir(ctx, name)
}

func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	if errno := n.m.refuses(Create); errno != 0 {
		return nil, nil, 0, errno
	}
	var st syscall.Stat_t
	there := syscall.Lstat(filepath.Join(n.m.server.dir, n.rel(name)), &st) == nil
	inode, f, fuseFlags, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	n.m.mode(&out.Mode)
	if there {
		n.m.made(n.rel(name), syscall.EEXIST)
	} else {
		n.m.made(n.rel(name), errno)
	}
	made := n.m.handle(f, flags)
	if h, ok := made.(*handle); ok {
		if !there {
			n.m.report(h.inode(ctx)) // what another file has lost whose number this one got
		}
		if n.m.told().Behind {
			h.behind = true
			fuseFlags |= fuse.FOPEN_DIRECT_IO // else the kernel answers
		}
	}
	return inode, made, fuseFlags, errno
}

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if errno := n.m.refuses(Mkdir); errno != 0 {
		return nil, errno
	}
	inode, errno := n.LoopbackNode.Mkdir(ctx, name, mode, out)
	n.m.made(n.rel(name), errno)
	return inode, errno
}

func (n *node) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if errno := n.m.refuses(Symlink); errno != 0 {
		return nil, errno
	}
	inode, errno := n.LoopbackNode.Symlink(ctx, target, name, out)
	n.m.made(n.rel(name), errno)
	return inode, errno
}

func (n *node) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	request := Link
	if target.EmbeddedInode().Mode() == syscall.S_IFLNK {
		request = Relink
	}
	if errno := n.m.refuses(request); errno != 0 {
		return nil, errno
	}
	inode, errno := n.LoopbackNode.Link(ctx, target, name, out)
	n.m.made(n.rel(name), errno)
	if lie := n.m.told().Link; errno == 0 && lie != 0 {
		return nil, lie
	}
	return inode, errno
}

func (n *node) Rename(ctx context.Context, name string, parent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	if errno := n.m.refuses(Renaming); errno != 0 {
		return errno
	}
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
	if errno := n.m.refuses(Opendir); errno != 0 {
		return nil, 0, errno
	}
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

func (l *listing) Fsyncdir(ctx context.Context, flags uint32) syscall.Errno {
	if errno := l.n.m.refuses(Fsyncdir); errno != 0 {
		return errno
	}
	return l.stream.Fsyncdir(ctx, flags)
}
