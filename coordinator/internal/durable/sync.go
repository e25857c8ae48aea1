package durable

import (
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// syncers is how many files are synced at a time: enough to keep a disk busy.
const syncers = 8

// Writes is what is written to a volume since Begin. It is for one goroutine.
type Writes struct {
	root   *os.Root
	volume *os.File
	whole  bool  // syncfs can be relied on
	lost   error // the kernel tells it once only
}

// Begin opens the volume of root. It has to be closed. Nothing is sent to the disk
// until Sync: what is removed before, as an archive is, never has to go there.
func Begin(root *os.Root) (*Writes, error) {
	volume, err := root.Open(".")
	if err != nil {
		return nil, fmt.Errorf("cannot begin to write: %w", err)
	}
	w := &Writes{root: root, volume: volume, whole: on(volume).syncfs && syncfsReports()}
	if w.whole {
		// An error from before that nobody was told of is told to the first who
		// syncs: it says nothing about what comes.
		_ = unix.Syncfs(int(volume.Fd()))
	}
	return w, nil
}

// Close ends what Begin began. It syncs nothing, and waits for nothing.
func (w *Writes) Close() error { return w.volume.Close() }

// Sync makes everything below a directory, and the directory, survive a power
// cut: what they hold and their names.
//
// One syncfs(2) does for all of them what takes as many fsync(2) otherwise, and
// each of those may be a commit of the file system's journal. It is used where
// it is known to wait for the disk, and to report what could not be written
// since Begin, since Linux 5.8. Everywhere else, on network file systems above all,
// each file and directory is synced.
func (w *Writes) Sync(dir string) error {
	if !w.whole {
		return w.each(dir)
	}
	if err := unix.Syncfs(int(w.volume.Fd())); err != nil && w.lost == nil {
		w.lost = fmt.Errorf("cannot sync the volume: %w", err)
	}
	return w.lost
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

// syncfsReports tells whether syncfs reports what could not be written since its
// descriptor was opened.
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
