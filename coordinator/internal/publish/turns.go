package publish

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"syscall"
)

// turns is in how many checks each file is looked at once.
const turns = 6

// Turns is Check for who makes it again and again: it looks at all directories each
// time, at the files in turns, and reads the manifest only when it has changed. What is
// removed or added shows at once, since its directory changes; what is changed in
// place within six checks. It is for one goroutine; the zero value is ready.
type Turns struct {
	dir      string
	manifest Manifest
	stamps   map[string]stamp // of the manifest and of the directories, by path
	next     int
}

// stamp changes with what a file is, or with the names in a directory.
type stamp struct {
	inode          uint64
	size           int64
	seconds, nanos int64
}

func stampOf(info fs.FileInfo) stamp {
	s := info.Sys().(*syscall.Stat_t)
	return stamp{s.Ino, s.Size, int64(s.Mtim.Sec), int64(s.Mtim.Nsec)}
}

// Check is the function Check. The first one, and one that finds a change, looks at
// everything.
func (t *Turns) Check(root *os.Root, dir, version string) (Manifest, error) {
	if t.dir == dir && t.manifest.Version == version {
		if same, err := t.look(root); err == nil && same {
			return t.manifest, nil
		}
	}
	*t = Turns{}
	stamps := map[string]stamp{}
	note := func(release *os.Root, name string) error {
		info, err := release.Lstat(name)
		if err == nil {
			stamps[name] = stampOf(info)
		}
		return err
	}
	release, err := open(root, dir)
	if err != nil {
		return Manifest{}, err
	}
	defer release.Close()
	// Before the check: what changes beside it shows the next time.
	if err := note(release, ManifestName); err != nil {
		return Check(root, dir, version)
	}
	err = fs.WalkDir(release.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return note(release, name)
	})
	m, checkErr := Check(root, dir, version)
	if checkErr != nil || err != nil {
		return m, checkErr
	}
	*t = Turns{dir: dir, manifest: m, stamps: stamps}
	return m, nil
}

// look compares the stamps, and a part of the files.
func (t *Turns) look(root *os.Root) (same bool, err error) {
	release, err := open(root, t.dir)
	if err != nil {
		return false, err
	}
	defer release.Close()
	for name, before := range t.stamps {
		info, err := release.Lstat(name)
		if err != nil || stampOf(info) != before {
			return false, err
		}
	}
	files := t.manifest.Files
	from, to := t.next*len(files)/turns, (t.next+1)*len(files)/turns
	t.next = (t.next + 1) % turns
	// An archive lists the files of a directory one after another.
	parent, within := release, "."
	leave := func() {
		if parent != release {
			parent.Close()
		}
	}
	defer func() { leave() }()
	for _, f := range files[from:to] {
		if dir := path.Dir(f.Path); dir != within {
			leave()
			if parent, within = release, dir; dir != "." {
				if parent, err = release.OpenRoot(dir); err != nil {
					parent = release
					return false, fmt.Errorf("cannot look at the release: %w", err)
				}
			}
		}
		info, err := parent.Lstat(path.Base(f.Path))
		if err != nil {
			return false, err
		}
		link := info.Mode()&fs.ModeSymlink != 0
		if link != (f.Link != "") || !link && (info.Size() != f.Size || info.Mode() != f.Mode) {
			return false, nil
		}
	}
	return true, nil
}
