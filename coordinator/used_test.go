package coordinator

import (
	"bytes"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/claim"
)

// used is a volume on which there is one of everything.
//
//	7.14.1  installed anew; a unit has the old entry pinned
//	7.14.2  current
//	7.14.3  a unit that died left half of its archive
//	7.14.4  a unit that lives holds its claim
//	7.14.6  noted as a failure
type used struct {
	dir      string
	id       string
	src      *source
	archives map[string][]byte // by version
}

const usedLease = 2 * time.Second

func newUsed(t *testing.T, dir string) *used {
	u := &used{dir: dir, src: newSource(t), archives: map[string][]byte{}}
	for _, v := range []string{"7.14.1", "7.14.2", "7.14.3", "7.14.4", "7.14.6"} {
		u.archives[v] = releaseArchive(v, 4<<10)
		u.src.publish(v, u.archives[v])
	}
	sum := "concourse-7.14.6-linux-amd64.tgz.sha256"
	u.src.files[sum] = bytes.Repeat([]byte("0"), 64)
	a, b := u.open(t, "concourse-ci/0"), u.open(t, "concourse-ci/2")
	u.id = a.VolumeID()
	installed(t, a, "7.14.1", "7.14.2")
	require.NoError(t, pin(t, b, "7.14.1"))
	_, err := b.Reinstall(t.Context(), "7.14.1")
	require.NoError(t, err)
	require.NoError(t, pin(t, a, "7.14.2"))
	require.NoError(t, pin(t, u.open(t, "concourse-ci/1"), "7.14.2"))
	_, err = a.Rollback(t.Context())
	require.NoError(t, err)
	_, err = a.Activate(t.Context(), "7.14.2")
	require.NoError(t, err)
	_, err = a.Ensure(t.Context(), "7.14.6")
	require.ErrorIs(t, err, ErrDigest)
	_, err = a.Probe(t.Context())
	require.NoError(t, err)
	work, err := b.WorkerDir(t.Context())
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(work, "state"), []byte("x"), 0o600))

	// A download that broke off, whose unit died then.
	cut := &cutWriter{left: 2 << 10}
	u.src.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, ".tgz") {
			return false
		}
		cut.ResponseWriter = w
		w.Header().Set("ETag", `"x"`)
		http.ServeContent(cut, r, "", time.Time{}, bytes.NewReader(u.archives["7.14.3"]))
		return true
	})
	_, err = u.open(t, "concourse-ci/7").Ensure(t.Context(), "7.14.3")
	require.ErrorIs(t, err, ErrUnreachable)
	u.src.answer(nil)
	require.FileExists(t, filepath.Join(dir, stagingDir, "7.14.3.1.concourse-ci-7/archive.journal"))
	require.NoError(t, os.WriteFile(filepath.Join(dir, claimsDir, "7.14.3/1.beat"), []byte("X"), 0o644))
	claim := filepath.Join(dir, claimsDir, "7.14.3/1")
	text, err := os.ReadFile(claim)
	require.NoError(t, err)
	text = regexp.MustCompile(`"lease_ms":\d+`).ReplaceAll(text, []byte(`"lease_ms":50`)) // nobody wants to wait for it
	require.NoError(t, os.WriteFile(claim, text, 0o644))

	for name, text := range map[string]string{
		"pins/concourse-ci-3.999999-1.X":               "7.14.1.2\n",
		"staging/collecting-7.14.1.9/7.14.1.8/bin/old": "x",
		progressFile: `{"version":"7.14.4","state":"downloading","unit":"concourse-ci/4","bytes":7,"total":70,"started":"2026-01-02T03:04:05Z"}`,
	} {
		name = filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, []byte(text), 0o644))
	}
	return u
}

func (u *used) open(t *testing.T, unit string) *Coordinator {
	c := open(t, u.dir, unit, u.src.URL, func(o *Options) { o.Lease, o.VolumeID, o.Chunk = usedLease, u.id, minChunk })
	c.source.Connections = 1
	return c
}

// copy returns a copy of it, in which a unit holds a claim until remove.
func (u *used) copy(t *testing.T, dir string) (there *used, remove func()) {
	there = &used{dir, u.id, u.src, u.archives}
	require.NoError(t, filepath.WalkDir(u.dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := dir + strings.TrimPrefix(name, u.dir)
		info, err := d.Info()
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return errors.Join(os.MkdirAll(to, 0o755), os.Chmod(to, info.Mode()))
		case info.Mode()&fs.ModeSymlink != 0:
			text, err := os.Readlink(name)
			return errors.Join(err, os.Symlink(text, to))
		}
		data, err := os.ReadFile(name)
		return errors.Join(err, os.WriteFile(to, data, 0o644), os.Chmod(to, info.Mode()))
	}))
	v := inside(t, there.open(t, "concourse-ci/4"))
	require.NoError(t, v.root.MkdirAll(claimsDir+"/7.14.4", 0o755))
	held, err := v.claims(t.Context(), "7.14.4").Acquire(t.Context(), v.holder("7.14.4"), func(claim.Holder) error { return nil })
	require.NoError(t, err)
	return there, func() {
		held.Release() // fails if its claim was damaged
		os.RemoveAll(dir)
	}
}

// cutWriter breaks the connections off after so many bytes of all.
type cutWriter struct {
	http.ResponseWriter
	left int
}

func (w *cutWriter) Write(p []byte) (int, error) {
	n, _ := w.ResponseWriter.Write(p[:min(len(p), w.left)])
	if w.left -= n; w.left == 0 {
		http.NewResponseController(w.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, nil
}
