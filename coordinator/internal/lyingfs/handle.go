package lyingfs

import (
	"context"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// handle is a file that one machine has open.
type handle struct {
	*fs.LoopbackFile
	m     *Machine
	flags uint32

	lost   atomic.Bool // with the lease
	behind bool        // with what it reads

	mu     sync.Mutex
	doomed []span // bytes that will not reach the server
}

type span struct{ off, len int64 }

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

// drop loses the doomed bytes, and tells whether there were any.
func (h *handle) drop(ctx context.Context) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	dropped := len(h.doomed) > 0
	for _, s := range h.doomed {
		h.LoopbackFile.Write(ctx, make([]byte, s.len), s.off)
	}
	h.doomed = nil
	return dropped
}

func (h *handle) inode(ctx context.Context) uint64 {
	var out fuse.AttrOut
	h.LoopbackFile.Getattr(ctx, &out)
	return out.Ino
}

// PassthroughFd keeps the kernel from going around this package.
func (h *handle) PassthroughFd() (int, bool) { return 0, false }

func (h *handle) Read(ctx context.Context, buf []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if h.lost.Load() {
		return nil, syscall.EIO
	}
	result, errno := h.LoopbackFile.Read(ctx, buf, off)
	if h.behind && errno == 0 {
		data, _ := result.Bytes(buf)
		return fuse.ReadResultData(make([]byte, len(data))), 0
	}
	return result, errno
}

func (h *handle) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	if h.lost.Load() {
		return 0, syscall.EIO
	}
	if h.m.full(len(data)) {
		if errno := h.m.told().Write; errno != 0 {
			return 0, errno
		}
		h.mu.Lock()
		h.doomed = append(h.doomed, span{off, int64(len(data))})
		h.mu.Unlock()
	}
	return h.LoopbackFile.Write(ctx, data, off)
}

func (h *handle) Fsync(ctx context.Context, flags uint32) syscall.Errno {
	if h.lost.Load() {
		return syscall.EIO
	}
	if lies := h.m.told(); h.drop(ctx) || h.m.report(h.inode(ctx)) {
		return max(lies.Fsync, lies.Flush)
	}
	return h.LoopbackFile.Fsync(ctx, flags)
}

// Flush is what close(2) waits for.
func (h *handle) Flush(ctx context.Context) syscall.Errno {
	if h.lost.Load() && h.flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		return syscall.EIO // only a file that was written has anything to flush
	}
	if h.drop(ctx) {
		errno := h.m.told().Flush
		if errno == 0 {
			h.m.remember(h.inode(ctx))
		}
		return errno
	}
	return h.LoopbackFile.Flush(ctx)
}

func (h *handle) Release(ctx context.Context) syscall.Errno {
	h.m.mu.Lock()
	delete(h.m.open, h)
	h.m.mu.Unlock()
	return h.LoopbackFile.Release(ctx)
}

func (h *handle) Setlk(ctx context.Context, owner uint64, lk *fuse.FileLock, flags uint32) syscall.Errno {
	if done, errno := h.lock(lk, flags); done {
		return errno
	}
	return h.LoopbackFile.Setlk(ctx, owner, lk, flags)
}

func (h *handle) Setlkw(ctx context.Context, owner uint64, lk *fuse.FileLock, flags uint32) syscall.Errno {
	if done, errno := h.lock(lk, flags); done {
		return errno
	}
	return h.LoopbackFile.Setlkw(ctx, owner, lk, flags)
}

// lock tells whether a lie answers a request for a lock, and how.
func (h *handle) lock(lk *fuse.FileLock, flags uint32) (done bool, errno syscall.Errno) {
	if h.lost.Load() {
		return true, syscall.EIO
	}
	h.m.mu.Lock()
	lie, lifted := h.m.lies.Flock, h.m.lifted
	h.m.mu.Unlock()
	if flags&fuse.FUSE_LK_FLOCK == 0 {
		return false, 0
	}
	switch {
	case lie == NoOp:
		return true, 0
	case lie == Writable && lk.Typ == syscall.F_WRLCK && h.flags&syscall.O_ACCMODE == syscall.O_RDONLY:
		return true, syscall.EBADF
	case lie == Absent:
		return true, syscall.ENOLCK
	case lie == Hanging && lk.Typ != syscall.F_UNLCK:
		<-lifted // and then the truth: a caller that gave up long ago may get the lock
	}
	return false, 0
}
