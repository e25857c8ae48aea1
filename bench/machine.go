package bench

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine is what the numbers were measured on.
type Machine struct {
	CPU         string `json:"cpu"`
	Cores       int    `json:"cores"`
	MemoryBytes uint64 `json:"memory_bytes"`
	Kernel      string `json:"kernel"`
	Go          string `json:"go"`
	Disk        string `json:"disk,omitempty"`  // type of the file system of volumes on disk
	Tmpfs       string `json:"tmpfs,omitempty"` // and in memory
	Juju        string `json:"juju,omitempty"`  // version of the controller that scenarios ran on
	LXD         string `json:"lxd,omitempty"`
}

// Load is what the machine did during an experiment besides it.
type Load struct {
	Experiment  string  `json:"experiment"`
	TookSeconds float64 `json:"took_seconds"`
	Before      float64 `json:"load_before"` // average over a minute, as uptime shows it
	After       float64 `json:"load_after"`
	// Others is the share of all processors' time, 0 to 1, that went to
	// processes which are not part of the experiment.
	Others float64 `json:"others"`
}

func machine(disk, tmpfs *place) Machine {
	m := ThisMachine()
	m.Disk, m.Tmpfs = disk.fs, tmpfs.fs
	return m
}

// ThisMachine tells what is known of the machine without looking at any folder.
func ThisMachine() Machine {
	m := Machine{CPU: "unknown", Cores: cores(), Go: runtime.Version()}
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err == nil {
		m.MemoryBytes = info.Totalram * uint64(info.Unit)
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	return m
}

// Calibration is how long the same piece of work took before and after what was measured,
// in milliseconds: where the two differ, the machine's speed has changed. AfterMS is 0 if it
// did not come to that.
type Calibration struct {
	BeforeMS float64 `json:"before_ms"`
	AfterMS  float64 `json:"after_ms"`
}

// calibrate takes the median of a few digests, each of the same bytes.
func calibrate() float64 {
	work := make([]byte, 16<<20)
	var took []float64
	for range 5 {
		start := time.Now()
		sha256.Sum256(work)
		took = append(took, milliseconds(time.Since(start)))
	}
	return quantile(took, 0.5)
}

// fileSystem names the type of the file system that a directory is on.
func fileSystem(dir string) (string, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return "", fmt.Errorf("cannot look at %s: %w", dir, err)
	}
	switch s.Type {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4", nil
	case unix.XFS_SUPER_MAGIC:
		return "xfs", nil
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs", nil
	case unix.TMPFS_MAGIC:
		return "tmpfs", nil
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlayfs", nil
	case unix.NFS_SUPER_MAGIC:
		return "nfs", nil
	case 0x2fc12fc1: // not in unix
		return "zfs", nil
	}
	return fmt.Sprintf("%#x", s.Type), nil
}

// loadWatch is an experiment's Load in the making.
type loadWatch struct {
	load      Load
	start     time.Time
	busy, own time.Duration
}

func watchLoad(experiment string) (*loadWatch, error) {
	w := &loadWatch{load: Load{Experiment: experiment}, start: time.Now()}
	var err error
	if w.load.Before, err = loadAverage(); err != nil {
		return nil, err
	}
	w.busy, w.own, err = processorTime()
	return w, err
}

func (w *loadWatch) end() (Load, error) {
	took := time.Since(w.start)
	busy, own, err := processorTime()
	if err != nil {
		return Load{}, err
	}
	w.load.TookSeconds = took.Seconds()
	w.load.Others = max(0, float64((busy-w.busy)-(own-w.own))/float64(took*time.Duration(cores())))
	w.load.After, err = loadAverage()
	return w.load, err
}

func loadAverage() (float64, error) {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, fmt.Errorf("cannot read the machine's load: %w", err)
	}
	first, _, _ := strings.Cut(string(data), " ")
	return strconv.ParseFloat(first, 64)
}

// processorTime returns what all processes used so far, and what this one and
// its children that ended did.
func processorTime() (all, own time.Duration, err error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, fmt.Errorf("cannot read the machine's load: %w", err)
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	for i, field := range strings.Fields(string(line)) {
		// cpu user nice system idle iowait irq softirq steal: guests are in user.
		if i == 0 || i == 4 || i == 5 || i > 8 {
			continue
		}
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("cannot read the machine's load: %w", err)
		}
		all += time.Duration(ticks) * 10 * time.Millisecond // USER_HZ is 100 everywhere
	}
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		used, err := usage(who)
		if err != nil {
			return 0, 0, err
		}
		own += used
	}
	return all, own, nil
}

func usage(who int) (time.Duration, error) {
	var u unix.Rusage
	if err := unix.Getrusage(who, &u); err != nil {
		return 0, fmt.Errorf("cannot read the processor time used: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// resident returns this process's memory now and at its peak, in bytes.
func resident() (now, peak int64, err error) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		if key != "VmRSS" && key != "VmHWM" {
			continue
		}
		kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(value, " kB")), 10, 64)
		if err != nil {
			return 0, 0, err
		}
		if key == "VmRSS" {
			now = kb << 10
		} else {
			peak = kb << 10
		}
	}
	return now, peak, nil
}
