package certify

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// lie is what a file system does that is not fit: to the run, to its other processes, and
// to what units are told to install.
type lie struct {
	own, others files
	tasks       func(*install)
	pace        *time.Duration // of a check that does not end
}

var second = 2 * time.Second

var lies = map[string]lie{
	"little room":               {own: fixedRoom{free: room{Bytes: 10_000_000, Countless: true}}},
	"few inodes":                {own: fixedRoom{free: room{Bytes: 1 << 40, Inodes: 99}}},
	"a quota":                   {own: refusing{write: syscall.EDQUOT}},
	"short names":               {own: shortNames{}},
	"one case":                  {own: foldedNames{}},
	"no modes":                  {own: modeless{}},
	"no execution":              {own: refusing{execute: syscall.EACCES}},
	"no symbolic links":         {own: refusing{symlink: syscall.EPERM}},
	"symbolic links elsewhere":  {own: elsewhere{}},
	"new inodes":                {own: newInodes{}},
	"other inodes elsewhere":    {others: newInodes{}},
	"rename in two steps":       {own: twoSteps{}},
	"rename by copying":         {own: copying{}},
	"no rename":                 {own: refusing{rename: syscall.EXDEV}},
	"rename over a directory":   {own: overDirectories{}},
	"rename does nothing":       {own: idle{}},
	"links for all":             {others: linksForAll{}},
	"no links":                  {others: refusing{link: syscall.EPERM}},
	"creates for all":           {others: createsForAll{}},
	"no fsync":                  {own: refusing{sync: syscall.EIO}},
	"no fsync of directories":   {own: refusing{syncDir: syscall.EIO}},
	"fsync not for directories": {own: refusing{syncDir: syscall.EINVAL}},
	"late names":                {others: &late{by: 1700 * time.Millisecond}},
	"no names":                  {others: &late{by: time.Hour}, pace: &second},
	"late to both":              {own: &slow{by: 1700 * time.Millisecond}},
	"zeros for both":            {own: zeros{}},
	"other contents":            {others: zeros{}},
	"locks for all":             {own: locksForAll{}, others: locksForAll{}},
	"no locks":                  {own: refusing{lock: syscall.ENOLCK}, others: refusing{lock: syscall.ENOLCK}},
	"locks for nobody":          {own: locksForNobody{}, others: locksForNobody{}},
	"locks for ever":            {own: locksForNobody{}},
	"volumes apart":             {tasks: func(i *install) { i.Root += fmt.Sprint("-", os.Getpid()) }},
	"no source for the second": {tasks: func(i *install) {
		if i.Unit == unit(1) {
			i.Source = "http://127.0.0.1:1"
		}
	}},
	"no source":      {tasks: func(i *install) { i.Source = "http://127.0.0.1:1" }, pace: &second},
	"no volume":      {tasks: func(i *install) { i.Root = "/proc/none" }},
	"old contents":   {own: oldContents{}},
	"chmod hangs":    {own: hanging{}, pace: &second},
	"sync is broken": {own: refusing{sync: syscall.EIO}},
}

type fixedRoom struct {
	disk
	free room
}

func (f fixedRoom) Room(string) (room, error) { return f.free, nil }

// refusing refuses what has an error.
type refusing struct {
	disk
	write, execute, symlink, rename, link, sync, syncDir, lock syscall.Errno
}

func refused(op, path string, errno syscall.Errno, do func() error) error {
	if errno != 0 {
		return &os.PathError{Op: op, Path: path, Err: errno}
	}
	return do()
}

func (r refusing) Write(path string, data []byte, mode fs.FileMode) error {
	return refused("write", path, r.write, func() error { return r.disk.Write(path, data, mode) })
}

func (r refusing) Execute(path string) error {
	return refused("exec", path, r.execute, func() error { return r.disk.Execute(path) })
}

func (r refusing) Symlink(target, path string) error {
	return refused("symlink", path, r.symlink, func() error { return r.disk.Symlink(target, path) })
}

func (r refusing) Rename(old, path string) error {
	return refused("rename", path, r.rename, func() error { return r.disk.Rename(old, path) })
}

func (r refusing) Link(old, path string) error {
	return refused("link", path, r.link, func() error { return r.disk.Link(old, path) })
}

func (r refusing) Sync(path string) error {
	errno := r.sync
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		errno = r.syncDir
	}
	return refused("fsync", path, errno, func() error { return r.disk.Sync(path) })
}

func (r refusing) Lock(path string) (lock, bool, error) {
	if r.lock != 0 {
		return nil, false, &os.PathError{Op: "flock", Path: path, Err: r.lock}
	}
	return r.disk.Lock(path)
}

type shortNames struct{ disk }

func (s shortNames) Create(path string) error {
	if len(filepath.Base(path)) > 143 { // as eCryptfs has it
		return &os.PathError{Op: "open", Path: path, Err: syscall.ENAMETOOLONG}
	}
	return s.disk.Create(path)
}

type foldedNames struct{ disk }

func (f foldedNames) Create(path string) error {
	return f.disk.Create(filepath.Join(filepath.Dir(path), strings.ToLower(filepath.Base(path))))
}

type modeless struct{ disk }

func (modeless) Chmod(string, fs.FileMode) error { return nil }

type elsewhere struct{ disk }

func (elsewhere) Readlink(string) (string, error) { return "elsewhere", nil }

type newInodes struct{ disk }

var inodes atomic.Uint64

func (n newInodes) Stat(path string) (identity, error) {
	i, err := n.disk.Stat(path)
	i.Inode += inodes.Add(1)
	return i, err
}

type twoSteps struct{ disk }

func (t twoSteps) Rename(old, path string) error {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	time.Sleep(time.Millisecond)
	return t.disk.Rename(old, path)
}

type copying struct{ disk }

func (c copying) Rename(old, path string) error {
	data, err := os.ReadFile(old)
	if err != nil {
		return c.disk.Rename(old, path)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	half := len(data) / 2
	f.Write(data[:half])
	time.Sleep(time.Millisecond)
	f.Write(data[half:])
	return os.Remove(old)
}

type overDirectories struct{ disk }

func (o overDirectories) Rename(old, path string) error {
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return o.disk.Rename(old, path)
}

type idle struct{ disk }

func (idle) Rename(string, string) error { return nil }

type linksForAll struct{ disk }

func (l linksForAll) Link(old, path string) error { _ = l.disk.Link(old, path); return nil }

type createsForAll struct{ disk }

func (c createsForAll) Create(path string) error { _ = c.disk.Create(path); return nil }

// late shows new files late.
type late struct {
	disk
	by    time.Duration
	since time.Time
}

func (l *late) Read(path string) ([]byte, error) {
	data, err := l.disk.Read(path)
	switch {
	case err != nil:
		l.since = time.Time{}
	case l.since.IsZero():
		l.since = time.Now()
	}
	if err == nil && time.Since(l.since) < l.by {
		return nil, &os.PathError{Op: "open", Path: path, Err: syscall.ENOENT}
	}
	return data, err
}

// slow shows the files by which machines measure late.
type slow struct {
	disk
	by   time.Duration
	seen sync.Map
}

func (s *slow) Read(path string) ([]byte, error) {
	data, err := s.disk.Read(path)
	name := filepath.Base(path)
	if err != nil || !strings.HasPrefix(name, "ping-") || strings.HasPrefix(name, "ping-ready") {
		return data, err
	}
	since, _ := s.seen.LoadOrStore(path, time.Now())
	if time.Since(since.(time.Time)) < s.by {
		return nil, &os.PathError{Op: "open", Path: path, Err: syscall.ENOENT}
	}
	return data, err
}

type zeros struct{ disk }

func (z zeros) Read(path string) ([]byte, error) {
	data, err := z.disk.Read(path)
	return make([]byte, len(data)), err
}

type noLock struct{}

func (noLock) Unlock() error { return nil }

type locksForAll struct{ disk }

func (locksForAll) Lock(string) (lock, bool, error) { return noLock{}, true, nil }

type locksForNobody struct{ disk }

func (locksForNobody) Lock(string) (lock, bool, error) { return nil, false, nil }

// oldContents loses what is written to a release.
type oldContents struct{ disk }

func (o oldContents) Write(path string, data []byte, mode fs.FileMode) error {
	if strings.Contains(path, "/releases/") {
		return nil
	}
	return o.disk.Write(path, data, mode)
}

type hanging struct{ disk }

func (hanging) Chmod(string, fs.FileMode) error { select {} }
