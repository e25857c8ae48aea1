package bench

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// written compares what cold Ensure writes to the disk with what it installs. A
// round takes an idle interval of the same length too, which shows what else is
// written meanwhile: nothing is subtracted.
func written(ctx context.Context, r *run) ([]Row, error) {
	device, why, err := deviceOf(r.disk)
	if err != nil {
		return nil, err
	}
	var rows []Row
	for _, k := range []kind{realLike, compressible} {
		a := archive{Kind: k.name, Files: 800, MB: r.MB, kind: k}
		row := Row{Measure: "share." + k.name, Name: fmt.Sprintf("bytes on the disk / bytes of the files, cold Ensure, %s", a.described()), Unit: "x", Floor: "1.00"}
		if why != "" {
			rows = append(rows, row.skipped(why))
			continue
		}
		if a, err = r.archive(ctx, k, a.Files, a.MB); err != nil {
			return nil, err
		}
		var busy, idle, share []float64
		for i := range r.Samples {
			r.Say("round %d of %d, %s", i+1, r.Samples, k.name)
			err := r.disk.on(func(dir string) error {
				var took time.Duration
				n, err := device.written(r.disk, func() error {
					start := time.Now()
					_, err := r.installCold(ctx, dir, a)
					took = time.Since(start)
					return err
				})
				if err != nil {
					return err
				}
				busy, share = append(busy, mib(n)), append(share, float64(n)/float64(a.Unpacked))
				n, err = device.written(r.disk, func() error {
					pause(ctx, took)
					return ctx.Err()
				})
				idle = append(idle, mib(n))
				return err
			})
			if err != nil {
				return nil, err
			}
		}
		others := series("written in an idle interval", "MiB", idle)
		row.note("the files have %.0f MiB; in idle intervals of the same length the device got %.1f / %.1f / %.1f MiB (min / median / max), which are part of the value",
			mib(a.Unpacked), others.Min, others.Median, others.Max)
		rows = append(rows, row.of(series("ratio", "x", share), series("written by Ensure", "MiB", busy), others))
	}
	return rows, nil
}

// device is the block device that a place is on, by the name of its statistics.
type device string

// deviceOf says why there is none that can be asked.
func deviceOf(p *place) (d device, why string, err error) {
	if why := p.wrongFileSystem(); why != "" {
		return "", why, nil
	}
	var s unix.Stat_t
	if err := unix.Stat(p.dir, &s); err != nil {
		return "", "", fmt.Errorf("cannot find the device of %s: %w", p.dir, err)
	}
	d = device(fmt.Sprintf("/sys/dev/block/%d:%d/stat", unix.Major(s.Dev), unix.Minor(s.Dev)))
	if _, err := d.sectors(); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Sprintf("%s is on %s without a block device of its own: there is no %s", p.dir, p.fs, d), nil
	} else if err != nil {
		return "", "", err
	}
	return d, "", nil
}

// sectors returns how many were written since the device is there.
func (d device) sectors() (int64, error) {
	data, err := os.ReadFile(string(d))
	if err != nil {
		return 0, fmt.Errorf("cannot tell what was written: %w", err)
	}
	// Documentation/block/stat.rst in the kernel: the seventh is write sectors.
	const writeSectors = 6
	fields := strings.Fields(string(data))
	if len(fields) <= writeSectors {
		return 0, fmt.Errorf("cannot tell what was written: %s has %d fields", d, len(fields))
	}
	return strconv.ParseInt(fields[writeSectors], 10, 64)
}

// written returns the bytes that the device got from when do began until all is
// written back.
func (d device) written(p *place, do func() error) (int64, error) {
	if err := p.settle(); err != nil {
		return 0, err
	}
	before, err := d.sectors()
	if err != nil {
		return 0, err
	}
	if err := errors.Join(do(), p.settle()); err != nil {
		return 0, err
	}
	after, err := d.sectors()
	const sector = 512 // whatever the device's own are
	return (after - before) * sector, err
}
