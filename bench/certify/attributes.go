package certify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// RoomForRelease is what has to be free for a release of 900 MB, in bytes: its archive,
// twice that for what is unpacked, and as much for the release that it follows.
const RoomForRelease = 5_000_000_000

// inodesForRelease is far more than the files of a release and what units leave.
const inodesForRelease = 10_000

func hasRoom(_ context.Context, r *run, dir string) (string, error) {
	free, err := r.files.Room(dir)
	if err != nil {
		return "", err
	}
	const mb = 1_000_000
	switch {
	case r.Options.Room >= 0 && free.Bytes < uint64(r.Options.Room):
		return "", fmt.Errorf("%d MB are free, %d MB are needed", free.Bytes/mb, r.Options.Room/mb)
	case !free.Countless && free.Inodes < inodesForRelease:
		return "", fmt.Errorf("%d inodes are free, %d are needed", free.Inodes, inodesForRelease)
	}
	// A quota may be less than what the file system has.
	if err := r.files.Write(filepath.Join(dir, "some"), make([]byte, 1<<20), 0o644); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d MB free", free.Bytes/mb), r.files.Sync(filepath.Join(dir, "some"))
}

func keepsNames(_ context.Context, r *run, dir string) (string, error) {
	long := strings.Repeat("n", 255)
	want := []string{long, "case", "CASE", "with space +.~"}
	for _, name := range want {
		if err := r.files.Create(filepath.Join(dir, name)); err != nil {
			return "", fmt.Errorf("cannot make a file named %.20q after others: %w", name, withoutPath(err))
		}
	}
	got, err := r.files.Names(dir)
	if err != nil {
		return "", err
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		return "", fmt.Errorf("%d files were made, and %d have their names", len(want), len(got))
	}
	return "", nil
}

func keepsModes(_ context.Context, r *run, dir string) (string, error) {
	path := filepath.Join(dir, "file")
	if err := r.files.Create(path); err != nil {
		return "", err
	}
	for _, mode := range []fs.FileMode{0o444, 0o555, 0o644} {
		if err := r.files.Chmod(path, mode); err != nil {
			return "", err
		}
		got, err := r.files.Stat(path)
		if err != nil {
			return "", err
		}
		if got.Mode != mode {
			return "", fmt.Errorf("a file has the mode %v after chmod to %v", got.Mode, mode)
		}
	}
	return "", nil
}

func executes(ctx context.Context, r *run, dir string) (string, error) {
	path := filepath.Join(dir, "program")
	if err := r.files.Write(path, []byte("#!/bin/sh\nexit 0\n"), 0o755); err != nil {
		return "", err
	}
	if err := r.files.Chmod(path, 0o555); err != nil {
		return "", err
	}
	err := r.files.Execute(path)
	// A process that is forked at the same time has the file open for a moment.
	for i := 0; i < 50 && errors.Is(err, syscall.ETXTBSY) && ctx.Err() == nil; i++ {
		time.Sleep(20 * time.Millisecond)
		err = r.files.Execute(path)
	}
	return "", err
}

func symlinks(_ context.Context, r *run, dir string) (string, error) {
	path, next := filepath.Join(dir, "current"), filepath.Join(dir, "next")
	for _, target := range []string{"../store/1", "../store/2"} {
		if err := r.files.Symlink(target, next); err != nil {
			return "", err
		}
		if err := r.files.Rename(next, path); err != nil {
			return "", err
		}
		got, err := r.files.Readlink(path)
		if err != nil {
			return "", err
		}
		if got != target {
			return "", fmt.Errorf("a symbolic link to %q leads to %q", target, got)
		}
	}
	return "", nil
}

func keepsIdentity(ctx context.Context, r *run, dir string) (string, error) {
	path := filepath.Join(dir, "file")
	if err := r.files.Write(path, []byte("untouched"), 0o644); err != nil {
		return "", err
	}
	if err := r.files.Sync(path); err != nil {
		return "", err
	}
	before, err := r.files.Stat(path)
	if err != nil {
		return "", err
	}
	other, err := r.start(ctx)
	if err != nil {
		return "", err
	}
	defer other.end()
	elsewhere, err := other.ask(request{Do: "stat", Path: path})
	if err != nil {
		return "", err
	}
	after, err := r.files.Stat(path)
	if err != nil {
		return "", err
	}
	for _, now := range []identity{elsewhere.Identity, after} {
		if now != before {
			return "", fmt.Errorf("a file that nobody touched was %+v and is %+v", before, now)
		}
	}
	return "", nil
}

func syncs(_ context.Context, r *run, dir string) (string, error) {
	path := filepath.Join(dir, "file")
	if err := r.files.Write(path, make([]byte, 64<<10), 0o644); err != nil {
		return "", err
	}
	if err := r.files.Sync(path); err != nil {
		return "", fmt.Errorf("cannot sync a file: %w", withoutPath(err))
	}
	err := r.files.Sync(dir)
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		return "directories need none", nil // as the coordinator takes it
	}
	if err != nil {
		return "", fmt.Errorf("cannot sync a directory: %w", withoutPath(err))
	}
	return "", nil
}

// withoutPath is for names that are removed again.
func withoutPath(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
