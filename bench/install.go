package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// installs is what rounds of install measure: seconds by the name of a place, and
// MiB.
type installs struct {
	floors
	ensure, tools map[string][]float64
	work          map[string][]float64 // processor seconds of Ensure
	before, peak  []float64
}

// install measures the first Ensure on an empty volume. Each round takes every
// measurement once, one after the other.
func install(ctx context.Context, r *run, k kind, files int) ([]Row, error) {
	a, err := r.archive(ctx, k, files, r.MB)
	if err != nil {
		return nil, err
	}
	curl, noCurl := exec.LookPath("curl")
	content := a.contents()
	// Reading the archive from a disk would count as the floor of the first round.
	if err := r.download(ctx, a); err != nil {
		return nil, err
	}
	i := installs{ensure: map[string][]float64{}, tools: map[string][]float64{}, work: map[string][]float64{}}
	for round := range r.Samples {
		r.Say("round %d of %d", round+1, r.Samples)
		if err := r.measureFloors(ctx, a, content, &i.floors); err != nil {
			return nil, err
		}
		for _, p := range []*place{r.tmpfs, r.disk} {
			if p.wrongFileSystem() != "" {
				continue
			}
			if err := p.with(files)(func(dir string) error { return i.cold(ctx, r, p, dir, a) }); err != nil {
				return nil, err
			}
			if noCurl != nil {
				continue
			}
			err = p.with(files)(func(dir string) error {
				s, err := timed(func() error { return r.byTools(ctx, curl, dir, a) })
				i.tools[p.name] = append(i.tools[p.name], s)
				return errors.Join(err, os.Remove(filepath.Join(dir, a.name())))
			})
			if err != nil {
				return nil, err
			}
		}
	}
	var rows []Row
	for _, p := range []*place{r.tmpfs, r.disk} {
		rows = append(rows, i.rows(p, a)...)
	}
	if len(i.peak) > 0 {
		before := series("before", "MiB", i.before)
		rows = append(rows, Row{
			Measure: "peak_memory", Name: "peak memory of Ensure, " + a.described(), Unit: "MiB",
			Floor: fmt.Sprintf("%.0f MiB before it begins", before.Median),
		}.of(series("peak", "MiB", i.peak), before))
	}
	return rows, nil
}

// cold adds a sample of the first Ensure on a volume.
func (i *installs) cold(ctx context.Context, r *run, p *place, dir string, a archive) error {
	o, err := r.installCold(ctx, dir, a)
	if err != nil {
		return err
	}
	i.ensure[p.name] = append(i.ensure[p.name], o.Installed[0].Seconds)
	i.work[p.name] = append(i.work[p.name], o.CPUSeconds)
	i.before = append(i.before, mib(o.RSSBefore))
	i.peak = append(i.peak, mib(o.RSSPeak))
	return nil
}

// installCold has one unit install the release on a new volume below dir.
func (r *run) installCold(ctx context.Context, dir string, a archive) (outcome, error) {
	r.source.reset(-1)
	o, err := r.ensure(ctx, task{Root: volumeBelow(dir), Version: a.version(), App: "bench", Units: 1})
	if err != nil {
		return outcome{}, err
	}
	if got := o.Installed[0]; !got.Downloaded || got.Bytes != a.Unpacked {
		return outcome{}, fmt.Errorf("%d bytes were installed instead of %d", got.Bytes, a.Unpacked)
	}
	return o, nil
}

func volumeBelow(dir string) string { return filepath.Join(dir, "volume") }

// rows compares what was measured in a place.
func (i *installs) rows(p *place, a archive) []Row {
	cold := Row{Measure: "floor_ratio." + p.name, Name: fmt.Sprintf("cold Ensure, %s, %s / floor", a.described(), p.name), Unit: "x"}
	against := Row{Measure: "tools_ratio." + p.name, Name: fmt.Sprintf("curl, sha256sum, tar / cold Ensure, %s, %s", a.described(), p.name), Unit: "x", HigherIsBetter: true}
	if why := p.wrongFileSystem(); why != "" {
		return []Row{cold.skipped(why), against.skipped(why)}
	}
	floor, name, parts := i.floors.of(p)
	least := quantile(floor, 0.5)
	ours := series("ensure", "s", i.ensure[p.name])
	cold.Floor = fmt.Sprintf("%s: %.1f s", name, least)
	if p.name == "disk" {
		cold.note("writing the same bytes as %d files, all synced at the end, takes %.1f s: with that in the floor the value is %.2f",
			a.Files, quantile(i.tree, 0.5), quantile(ratios(ours.Values, slower(floor, i.tree)), 0.5))
	}
	work := quantile(i.work[p.name], 0.5)
	cold.note("Ensure takes %.1f s of processor time, the digest in it: no less than %.1f s on %d processors, which serve the download, too",
		work, work/float64(runtime.NumCPU()), runtime.NumCPU())
	cold = cold.of(series("ratio", "x", ratios(ours.Values, floor)), append(parts, ours)...)
	if len(i.tools[p.name]) == 0 {
		return []Row{cold, against.skipped("curl is not installed")}
	}
	theirs := series("curl, sha256sum, tar", "s", i.tools[p.name])
	against.Floor = fmt.Sprintf("%.1f x if Ensure were at its floor", theirs.Median/least)
	against.note("the tools sync nothing to the disk")
	return []Row{cold, against.of(series("ratio", "x", ratios(theirs.Values, ours.Values)), theirs, ours)}
}

// described names a release in a report.
func (a *archive) described() string { return fmt.Sprintf("%s, %d files", a.Kind, a.Files) }

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }
