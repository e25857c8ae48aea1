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
	"slices"

	"github.com/klauspost/compress/gzip"
)

// maxMemory is what a unit's machine can spare beside what runs on it.
const maxMemory = 96 << 20

// many files are not removed before the end, see place.
const many = 10_000

// install measures the first Ensure on an empty volume. Each round takes every
// measurement once, one after the other.
func install(ctx context.Context, r *run, files int) ([]Row, error) {
	a, err := r.archive(ctx, files, r.MB)
	if err != nil {
		return nil, err
	}
	curl, noCurl := exec.LookPath("curl")

	var download, inflate, write, tree []float64
	ensure, tools := map[string][]float64{}, map[string][]float64{}
	var memory, before []float64
	places := []*place{r.tmpfs, r.disk}
	use := func(p *place) func(func(dir string) error) error {
		if p == r.disk && files >= many {
			return p.keep
		}
		return p.on
	}
	for i := range r.Samples {
		r.Say("round %d of %d", i+1, r.Samples)
		s, err := timed(func() error { return r.download(ctx, a) })
		if err != nil {
			return nil, err
		}
		download = append(download, s)
		if s, err = timed(func() error { return gunzip(a) }); err != nil {
			return nil, err
		}
		inflate = append(inflate, s)
		err = r.disk.on(func(dir string) error {
			s, err := timed(func() error { return plainWrite(filepath.Join(dir, "plain"), a.Unpacked) })
			write = append(write, s)
			return err
		})
		if err != nil {
			return nil, err
		}
		err = use(r.disk)(func(dir string) error {
			s, err := timed(func() error { return plainTree(r.disk, dir, a) })
			tree = append(tree, s)
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, p := range places {
			if p.unfit() != "" {
				continue
			}
			err := use(p)(func(dir string) error {
				r.source.reset(-1)
				o, err := r.ensure(ctx, task{Root: filepath.Join(dir, "volume"), Version: a.version(), App: "bench", Units: 1})
				if err != nil {
					return err
				}
				if got := o.Installed[0]; !got.Downloaded || got.Bytes != a.Unpacked {
					return fmt.Errorf("%d bytes were installed instead of %d", got.Bytes, a.Unpacked)
				}
				ensure[p.name] = append(ensure[p.name], o.Installed[0].Seconds)
				memory = append(memory, mib(o.RSSPeak))
				before = append(before, mib(o.RSSBefore))
				return nil
			})
			if err != nil {
				return nil, err
			}
			if noCurl != nil {
				continue
			}
			err = use(p)(func(dir string) error {
				s, err := timed(func() error { return r.byTools(ctx, curl, dir, a) })
				tools[p.name] = append(tools[p.name], s)
				return errors.Join(err, os.Remove(filepath.Join(dir, a.name())))
			})
			if err != nil {
				return nil, err
			}
		}
	}

	var rows []Row
	base := []Series{series("download", "s", download), series("gunzip", "s", inflate)}
	for _, p := range places {
		cold := Row{Name: fmt.Sprintf("cold Ensure, %d files, %s / floor", files, p.name), Unit: "x", Limit: 1.15, Floor: "slower of download and gunzip"}
		against := Row{Name: fmt.Sprintf("curl, sha256sum, tar / cold Ensure, %d files, %s", files, p.name), Unit: "x", Limit: 1.8, AtLeast: true}
		if why := p.unfit(); why != "" {
			cold.Verdict, cold.Note = Skipped, why
			against.Verdict, against.Note = Skipped, why
			rows = append(rows, cold, against)
			continue
		}
		floor, measured := slower(download, inflate), slices.Clone(base)
		if p == r.disk {
			floor, measured = slower(floor, write), append(measured, series("write and sync one file", "s", write), series("write and sync as many files", "s", tree))
			cold.Floor = "slowest of download, gunzip and write+sync of one file"
			cold.Note = fmt.Sprintf("writing the same bytes as %d files, all synced at the end, takes %.1f s", files, quantile(tree, 0.5))
		}
		ours := series("ensure", "s", ensure[p.name])
		ratio := series("ratio", "x", ratios(ours.Values, floor))
		cold.Value, cold.Series = ratio.Median, append(measured, ours, ratio)
		least := quantile(floor, 0.5)
		cold.Floor += fmt.Sprintf(": %.1f s", least)
		rows = append(rows, cold)

		if noCurl != nil {
			against.Verdict, against.Note = Skipped, "curl is not installed"
		} else {
			theirs := series("curl, sha256sum, tar", "s", tools[p.name])
			ratio := series("ratio", "x", ratios(theirs.Values, ours.Values))
			against.Value, against.Series = ratio.Median, []Series{theirs, ours, ratio}
			against.Floor = fmt.Sprintf("%.1f x if Ensure were at its floor", theirs.Median/least)
			against.Note = "the tools sync nothing to the disk"
		}
		rows = append(rows, against)
	}
	if len(memory) > 0 {
		idle := series("before", "MiB", before)
		peak := series("peak", "MiB", memory)
		rows = append(rows, Row{
			Name: fmt.Sprintf("peak memory of Ensure, %d files", files), Unit: "MiB", Value: peak.Max, Limit: mib(maxMemory),
			Floor: fmt.Sprintf("%.0f MiB before it begins", idle.Median), Series: []Series{idle, peak},
		})
	}
	return rows, nil
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

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

// discard reads to the end, with a buffer as large as Ensure's.
func discard(from io.Reader) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{from}, make([]byte, 1<<20))
}

// plainWrite puts so many bytes into one file and onto the disk.
func plainWrite(path string, bytes int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := fill(f, bytes, make([]byte, 1<<20)); err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// plainTree writes files of the archive's sizes, and puts all of them onto the
// disk at once.
func plainTree(p *place, dir string, a archive) error {
	buffer := make([]byte, 1<<20)
	for i, size := range a.sizes(a.random()) {
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
		if err := errors.Join(fill(f, size, buffer), f.Close()); err != nil {
			return err
		}
	}
	return p.settle()
}

func fill(f *os.File, bytes int64, buffer []byte) error {
	for bytes > 0 {
		n, err := f.Write(buffer[:min(int64(len(buffer)), bytes)])
		if err != nil {
			return err
		}
		bytes -= int64(n)
	}
	return nil
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
