package publish

import (
	"io/fs"
	"os"
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
	seen     map[string]fs.FileInfo // the manifest and the directories, by path
	next     int
}

// Check is the function Check. The first one, and one that finds a change, looks at
// everything.
func (t *Turns) Check(root *os.Root, dir, version string) (Manifest, error) {
	if t.dir == dir && t.manifest.Version == version && t.look(root) {
		return t.manifest, nil
	}
	*t = Turns{}
	// Before the check: what changes beside it shows the next time.
	seen := map[string]fs.FileInfo{}
	release, err := open(root, dir)
	if err != nil {
		return Manifest{}, err
	}
	defer release.Close()
	err = fs.WalkDir(release.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && (d.IsDir() || name == ManifestName) {
			seen[name], err = d.Info()
		}
		return err
	})
	m, checkErr := Check(root, dir, version)
	if checkErr == nil && err == nil {
		*t = Turns{dir: dir, manifest: m, seen: seen}
	}
	return m, checkErr
}

// look tells whether all is as it was seen, a part of the files included. Links are not
// among them: one that is changed is made anew, and its directory changes.
func (t *Turns) look(root *os.Root) (same bool) {
	release, err := open(root, t.dir)
	if err != nil {
		return false
	}
	defer release.Close()
	for name, before := range t.seen {
		now, err := release.Lstat(name)
		if err != nil || !os.SameFile(now, before) || now.Size() != before.Size() || !now.ModTime().Equal(before.ModTime()) {
			return false
		}
	}
	files := t.manifest.Files
	from, to := t.next*len(files)/turns, (t.next+1)*len(files)/turns
	t.next = (t.next + 1) % turns
	for _, f := range files[from:to] {
		info, err := release.Lstat(f.Path)
		if err != nil || f.Link == "" && (info.Size() != f.Size || info.Mode() != f.Mode) {
			return false
		}
	}
	return true
}
