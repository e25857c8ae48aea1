package concourse

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// State is how systemd has a unit. One between two attempts counts as running: systemd
// has it in hand.
type State struct {
	Running  bool
	PID      int    // of the main process; 0 is none
	Restarts int    // how often systemd has started the unit anew by itself
	Exit     string // how the main process has ended; empty while it runs
}

// parseState reads what systemctl show prints.
func parseState(out string) State {
	properties := map[string]string{}
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		properties[name] = value
	}
	number := func(name string) int {
		n, _ := strconv.Atoi(properties[name]) // one that systemd does not know is 0
		return n
	}
	s := State{PID: number("MainPID"), Restarts: number("NRestarts")}
	switch properties["ActiveState"] {
	case "active", "activating", "reloading":
		s.Running = true
	}
	s.Exit = exit(properties["Result"], number("ExecMainCode"), number("ExecMainStatus"))
	return s
}

// Values of ExecMainCode, as waitid(2) has them.
const (
	exited = 1
	killed = 2
	dumped = 3 // killed, and left a core dump
)

// startFailures are the statuses with which systemd itself ends a process that it cannot
// start as the unit file wants it: see systemd.exec(5).
var startFailures = map[int]string{
	203: "203/EXEC: the program cannot be executed, as the volume may be mounted noexec or not be readable",
	205: "205/LIMITS: its limits cannot be set",
	216: "216/GROUP: its group cannot be taken",
	217: "217/USER: its user cannot be taken",
	218: "218/CAPABILITIES: it cannot be allowed to use a port below 1024",
	219: "219/CGROUP: its control group cannot be made",
}

func exit(result string, code, status int) string {
	switch {
	case result == "oom-kill":
		return "killed, as memory ran out"
	case code == exited && startFailures[status] != "":
		return startFailures[status]
	case code == exited:
		return fmt.Sprintf("exit status %d", status)
	case code == killed || code == dumped:
		return "killed by " + unix.SignalName(syscall.Signal(status))
	case result != "" && result != "success":
		return "systemd cannot start it: " + result
	}
	return ""
}
