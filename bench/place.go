package bench

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// place is a directory for volumes.
type place struct {
	name, dir, fs string

	// Directories with very many files stay until the end: ext4 is slow at making
	// files right after as many were removed, because it avoids their inodes for
	// minutes.
	used []string
}

// wrongFileSystem says why a place is not what its name says.
func (p *place) wrongFileSystem() string {
	switch {
	case p.name == "tmpfs" && p.fs != "tmpfs":
		return p.dir + " is no tmpfs but " + p.fs
	case p.name == "disk" && p.fs == "tmpfs":
		return p.dir + " is on tmpfs: name a directory on a disk with --cache"
	}
	return ""
}

// on calls do with a fresh directory in a place, and leaves the place as clean
// and as idle as it was.
func (p *place) on(do func(dir string) error) error {
	return p.keep(func(dir string) error {
		err := do(dir)
		// Removing is not part of what is measured, and neither is writing back what
		// was removed.
		p.used = slices.DeleteFunc(p.used, func(used string) bool { return used == dir })
		return errors.Join(err, os.RemoveAll(dir))
	})
}

// keep is on, but for removing the directory: that is left to clear.
func (p *place) keep(do func(dir string) error) error {
	if err := p.settle(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(p.dir, "bench.")
	if err != nil {
		return err
	}
	p.used = append(p.used, dir)
	return errors.Join(do(dir), p.settle())
}

// manyFiles is how many are not removed before the end.
const manyFiles = 10_000

// with is on for a release of few files, keep for one of very many.
func (p *place) with(files int) func(do func(dir string) error) error {
	if p.name == "disk" && files >= manyFiles {
		return p.keep
	}
	return p.on
}

// clear removes what was kept.
func (p *place) clear() error {
	var err error
	for _, dir := range p.used {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	p.used = nil
	return err
}

// settle waits until nothing is left to be written back: the sample that made
// the dirt should pay for it, not the next one.
func (p *place) settle() error {
	f, err := os.Open(p.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("cannot sync %s: %w", p.dir, err)
	}
	return nil
}

// changed returns when a directory got its name: a rename sets its time of
// change, and nothing in a release changes after.
func changed(path string) (time.Time, error) {
	var s unix.Stat_t
	if err := unix.Lstat(path, &s); err != nil {
		return time.Time{}, fmt.Errorf("cannot tell when %s was changed: %w", path, err)
	}
	return time.Unix(s.Ctim.Unix()), nil
}
