package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/klauspost/compress/gzip"
)

// floors is the least that anybody has to do to install a release, each part
// alone, in seconds, a sample a round. Who did all of them at the same time
// without one hindering another would take as long as the slowest.
type floors struct {
	download, gunzip, write []float64
	// tree is write as so many files: no part of the floor, but what a file system
	// asks for.
	tree []float64
}

// measureFloors adds one sample of each.
func (r *run) measureFloors(ctx context.Context, a archive, c contents, f *floors) error {
	s, err := timed(func() error { return r.download(ctx, a) })
	if err != nil {
		return err
	}
	f.download = append(f.download, s)
	if s, err = timed(func() error { return gunzip(a) }); err != nil {
		return err
	}
	f.gunzip = append(f.gunzip, s)
	err = r.disk.on(func(dir string) error {
		s, err := timed(func() error { return plainRelease(filepath.Join(dir, "plain"), a, c) })
		f.write = append(f.write, s)
		return err
	})
	if err != nil {
		return err
	}
	return r.disk.with(a.Files)(func(dir string) error {
		s, err := timed(func() error { return plainTree(r.disk, dir, a, c) })
		f.tree = append(f.tree, s)
		return err
	})
}

// of returns the floor in a place, with its name and what it is the slowest of.
func (f floors) of(p *place) (floor []float64, name string, parts []Series) {
	floor = slower(f.download, f.gunzip)
	parts = []Series{series("download", "s", f.download), series("gunzip", "s", f.gunzip)}
	if p.name != "disk" {
		return floor, "slower of download and gunzip", parts
	}
	return slower(floor, f.write), "slowest of download, gunzip and write+sync of one file",
		append(parts, series("write and sync one file", "s", f.write), series("write and sync as many files", "s", f.tree))
}

// download moves the archive over loopback and does nothing with it.
func (r *run) download(ctx context.Context, a archive) error {
	r.source.reset(-1)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.source.archive(a), nil)
	if err != nil {
		return err
	}
	// No proxy stands between this process and itself.
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	n, err := discard(response.Body)
	if err == nil && n != a.Size {
		err = fmt.Errorf("the download of %s has %d bytes instead of %d", a.name(), n, a.Size)
	}
	return err
}

// gunzip inflates the archive on one processor and does nothing with it.
func gunzip(a archive) error {
	f, err := os.Open(a.path)
	if err != nil {
		return err
	}
	defer f.Close()
	gz, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	_, err = discard(gz)
	return err
}

// buffer is as large as Ensure's, and stays in the processor's cache.
const buffer = 1 << 20

// discard reads to the end.
func discard(from io.Reader) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{from}, make([]byte, buffer))
}

// plainRelease puts the bytes of a release into one file and onto the disk. They
// are such bytes as the release has: a disk may be quicker with zeros.
func plainRelease(path string, a archive, c contents) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var stored int64
	for _, e := range a.entries() {
		if e.stored {
			stored += e.size
		}
	}
	return errors.Join(
		fill(f, stored, c.noise[:min(buffer, len(c.noise))]),
		fill(f, a.Unpacked-stored, c.executable[:buffer]),
		f.Sync(), f.Close())
}

// plainWrite puts so many bytes into one file and onto the disk.
func plainWrite(path string, bytes int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return errors.Join(fill(f, bytes, make([]byte, bytes)), f.Sync(), f.Close())
}

// plainTree writes files of the release's sizes, and puts all of them onto the
// disk at once.
func plainTree(p *place, dir string, a archive, c contents) error {
	for i, e := range a.entries() {
		sub := filepath.Join(dir, fmt.Sprint(i/20))
		if i%20 == 0 {
			if err := os.Mkdir(sub, 0o755); err != nil {
				return err
			}
		}
		f, err := os.Create(filepath.Join(sub, fmt.Sprint(i)))
		if err != nil {
			return err
		}
		content := c.executable[:buffer]
		if e.stored {
			content = c.noise[:buffer]
		}
		if err := errors.Join(fill(f, e.size, content), f.Close()); err != nil {
			return err
		}
	}
	return p.settle()
}

// byTools does what a shell script would.
func (r *run) byTools(ctx context.Context, curl, dir string, a archive) error {
	r.source.reset(-1)
	cmd := exec.CommandContext(ctx, "sh", "-c", `
		"$1" --noproxy '*' -fsS -O "$2" -O "$2.sha256" && sha256sum --quiet -c "$3.sha256" && tar xzf "$3"`,
		"sh", curl, r.source.archive(a), a.name())
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("curl, sha256sum and tar: %w: %s", err, out)
	}
	return nil
}
