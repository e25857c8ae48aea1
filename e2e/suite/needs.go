package suite

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Needs are what this host must have for a scenario, beside Juju and LXD.
type Needs struct {
	Memory int64 // available, in bytes
}

// missing says what this host lacks; empty if it lacks nothing.
func (n Needs) missing(available func() (int64, bool)) string {
	if bytes, ok := available(); ok && bytes < n.Memory {
		return fmt.Sprintf("needs %.1f GB of memory, %.1f GB are available", float64(n.Memory)/1e9, float64(bytes)/1e9)
	}
	return ""
}

// memoryNow returns the memory that this host has available.
func memoryNow() (bytes int64, ok bool) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, false
	}
	return availableMemory(string(text))
}

// availableMemory reads proc_meminfo(5).
func availableMemory(meminfo string) (bytes int64, ok bool) {
	for line := range strings.Lines(meminfo) {
		if rest, found := strings.CutPrefix(line, "MemAvailable:"); found {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kib << 10, err == nil
		}
	}
	return 0, false
}
