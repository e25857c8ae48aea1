package durable

import (
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// syncers is how many files are synced at a time: enough to keep a disk busy.
const syncers = 8

// flowPause is how often what was written is sent on its way to the disk. A disk
// that is slow at it is left alone for three times as long as it took.
const flowPause = 2 * time.Second

// Writes is what is written to a volume since Begin.
type Writes struct {
	root   *os.Root
	volume *os.File
	whole  bool // syncfs can be relied on
	closed chan struct{}
	failed func(error)

	mu   sync.Mutex // the disk's error is told once: to the one who syncs
	lost error
}

// Begin opens the volume of root. It has to be closed. Until then much of what is
// written goes to the disk beside the writing: the kernel itself would wait until
// a tenth of the memory is full, and Sync would have all of it to do. What the
// disk could not take is told to failed, at most once, and again by Sync.
func Begin(root *os.Root, failed func(error)) (*Writes, error) {
	volume, err := root.Open(".")
	if err != nil {
		return nil, fmt.Errorf("cannot begin to write: %w", err)
	}
	w := &Writes{root: root, volume: volume, whole: Local(root) && syncfsReports(), closed: make(chan struct{}), failed: failed}
	if w.whole {
		// An error from before that nobody was told of is told to the first who
		// syncs: it says nothing about what comes.
		_ = unix.Syncfs(int(volume.Fd()))
		go w.flow()
	}
	return w, nil
}

// Close ends what Begin began. It syncs nothing, and waits for nothing.
func (w *Writes) Close() error {
	close(w.closed)
	if w.whole {
		return nil // flow may be waiting for the disk
	}
	return w.volume.Close()
}

func (w *Writes) flow() {
	defer w.volume.Close()
	for pause := flowPause; ; {
		select {
		case <-w.closed:
			return
		case <-time.After(pause):
		}
		start := time.Now()
		if err := w.syncfs(); err != nil {
			w.failed(err)
			<-w.closed
			return
		}
		pause = max(flowPause, 3*time.Since(start))
	}
}

func (w *Writes) syncfs() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := unix.Syncfs(int(w.volume.Fd())); err != nil && w.lost == nil {
		w.lost = fmt.Errorf("cannot sync the volume: %w", err)
	}
	return w.lost
}

// Sync makes everything below a directory, and the directory, survive a power
// cut: what they hold and their names.
//
// One syncfs(2) does for all of them what takes as many fsync(2) otherwise, and
// each of those may be a commit of the file system's journal. It is used where
// it is known to wait for the disk, and to report what could not be written
// since Begin: on file systems of the kernel itself, since Linux 5.8. Everywhere
// else, network file systems among them, each file and directory is synced.
func (w *Writes) Sync(dir string) error {
	if w.whole {
		return w.syncfs()
	}
	return w.each(dir)
}

func (w *Writes) each(dir string) error {
	var group errgroup.Group
	group.SetLimit(syncers)
	err := fs.WalkDir(w.root.FS(), dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			group.Go(func() error { return SyncDir(w.root, name) })
		case d.Type().IsRegular():
			group.Go(func() error { return syncFile(w.root, name) })
		}
		return nil
	})
	if syncErr := group.Wait(); err == nil {
		err = syncErr
	}
	if err != nil {
		return fmt.Errorf("cannot sync what was written: %w", err)
	}
	return nil
}

func syncFile(root *os.Root, name string) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	err = f.Sync()
	// Network file systems report a full disk here at the latest.
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

// Local tells whether a volume is on a file system of this kernel, on which
// everyone sees a name as soon as it is there. Of others nobody knows.
func Local(root *os.Root) bool {
	dir, err := root.Open(".")
	if err != nil {
		return false
	}
	defer dir.Close()
	var s unix.Statfs_t
	if unix.Fstatfs(int(dir.Fd()), &s) != nil {
		return false
	}
	switch s.Type {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC:
		return true
	}
	return false
}

func syncfsReports() bool {
	var kernel unix.Utsname
	if unix.Uname(&kernel) != nil {
		return false
	}
	var major, minor int
	n, _ := fmt.Sscanf(unix.ByteSliceToString(kernel.Release[:]), "%d.%d", &major, &minor)
	return n == 2 && (major > 5 || major == 5 && minor >= 8)
}

// Whole tells whether Sync syncs all that was written to the volume.
func (w *Writes) Whole() bool { return w.whole }
