package concourse

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// System is what the charm asks of the machine beyond files.
type System interface {
	// Account makes the system user where it is missing and returns its ids.
	Account(ctx context.Context, name string) (uid, gid int, err error)
	// Define writes a unit file; it reports whether the file changed.
	Define(ctx context.Context, unit, definition string) (changed bool, err error)
	// State says how a unit is.
	State(ctx context.Context, unit string) (State, error)
	// LastWords returns the line in which a unit has said last what is wrong, or its last
	// line; empty if it wrote none.
	LastWords(ctx context.Context, unit string) (string, error)
	// Executable returns the path of the program that a process executes.
	Executable(pid int) (string, error)
	// StartAtBoot sets whether systemd starts a unit when the machine boots.
	StartAtBoot(ctx context.Context, unit string, start bool) error
	// Restart starts a unit, or starts it anew.
	Restart(ctx context.Context, unit string) error
	// Reload asks a running unit to read its files again.
	Reload(ctx context.Context, unit string) error
	// Signal sends a signal, such as SIGUSR1, to the main process of a unit.
	Signal(ctx context.Context, unit, signal string) error
	// Remove stops and disables a unit and deletes its file. A unit that is
	// not there is no error.
	Remove(ctx context.Context, unit string) error
	// Execute runs a program to its end.
	Execute(ctx context.Context, name string, args ...string) error
	// Output runs a program to its end and returns what it prints.
	Output(ctx context.Context, name string, args ...string) (string, error)
}

// Machine is the System that systemd runs.
type Machine struct {
	Units string // directory of unit files, /etc/systemd/system
}

// Account makes a system user without a shell.
func (m Machine) Account(ctx context.Context, name string) (uid, gid int, err error) {
	account, err := user.Lookup(name)
	if errors.As(err, new(user.UnknownUserError)) {
		if err := m.Execute(ctx, "useradd", "--system", "--user-group", "--no-create-home",
			"--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", name); err != nil {
			return 0, 0, err
		}
		account, err = user.Lookup(name)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("look up user %s: %w", name, err)
	}
	uid, err = strconv.Atoi(account.Uid)
	if err == nil {
		gid, err = strconv.Atoi(account.Gid)
	}
	return uid, gid, err
}

// Define writes a unit file; systemd reads it with the next Restart.
func (m Machine) Define(ctx context.Context, unit, definition string) (changed bool, err error) {
	path := filepath.Join(m.Units, unit)
	if old, err := os.ReadFile(path); err == nil && string(old) == definition {
		return false, nil
	}
	if err := WriteFile(path, definition, 0o644); err != nil {
		return false, err
	}
	return true, nil
}

// State costs a process.
func (m Machine) State(ctx context.Context, unit string) (State, error) {
	out, err := m.ask(ctx, "systemctl", "show",
		"--property=ActiveState,MainPID,NRestarts,Result,ExecMainCode,ExecMainStatus", unit)
	if err != nil {
		return State{}, err
	}
	return parseState(out), nil
}

// LastWords costs a process.
func (m Machine) LastWords(ctx context.Context, unit string) (string, error) {
	out, err := m.ask(ctx, "journalctl", "--unit="+unit, "--lines=60", "--all", "--no-pager",
		"--output=json", "--output-fields=MESSAGE,SYSLOG_IDENTIFIER")
	return lastWords(out), err
}

// Executable asks the kernel. The path of a file that was removed ends in " (deleted)".
func (m Machine) Executable(pid int) (string, error) {
	return os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "exe"))
}

// StartAtBoot asks systemd only where something has to change: units of both the charm's
// revisions are wanted by multi-user.target.
func (m Machine) StartAtBoot(ctx context.Context, unit string, start bool) error {
	_, err := os.Lstat(filepath.Join(m.Units, "multi-user.target.wants", unit))
	switch {
	case start == (err == nil):
		return nil
	case start:
		return m.Execute(ctx, "systemctl", "enable", "--quiet", unit)
	}
	return m.Execute(ctx, "systemctl", "disable", "--quiet", unit)
}

// Restart does not wait until a service answers.
func (m Machine) Restart(ctx context.Context, unit string) error {
	if err := m.Execute(ctx, "systemctl", "daemon-reload"); err != nil {
		return err
	}
	if unit == ServerUnit {
		if err := m.stop(ctx, unit); err != nil {
			return err
		}
	}
	return m.Execute(ctx, "systemctl", "restart", unit)
}

// Reload runs the unit's ExecReload.
func (m Machine) Reload(ctx context.Context, unit string) error {
	return m.Execute(ctx, "systemctl", "reload", unit)
}

// Signal reaches no process that the unit's has started.
func (m Machine) Signal(ctx context.Context, unit, signal string) error {
	return m.Execute(ctx, "systemctl", "kill", "--kill-whom=main", "--signal="+signal, unit)
}

// Remove leaves no trace of a unit.
func (m Machine) Remove(ctx context.Context, unit string) error {
	path := filepath.Join(m.Units, unit)
	if _, err := os.Stat(path); err != nil {
		return nil
	}
	if err := m.stop(ctx, unit); err != nil {
		return err
	}
	if err := m.StartAtBoot(ctx, unit, false); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove unit %s: %w", unit, err)
	}
	return m.Execute(ctx, "systemctl", "daemon-reload")
}

// Execute puts the end of the program's output into the error.
func (m Machine) Execute(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	return explain(err, out, name, args)
}

// Output puts the end of what the program complains of into the error.
func (m Machine) Output(ctx context.Context, name string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, name, args...)
	command.WaitDelay = time.Second // for children that keep the pipe
	out, err := command.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = explain(err, exit.Stderr, name, args)
	}
	return string(out), err
}

// answerLimit is how long systemd may take to say how a unit is. All else waits meanwhile.
var answerLimit = 10 * time.Second

// ask is Output of what has its answer at once, unless systemd hangs.
func (m Machine) ask(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, answerLimit, fmt.Errorf("%s has not answered for %s", name, answerLimit))
	defer cancel()
	out, err := m.Output(ctx, name, args...)
	if err != nil {
		err = cmp.Or(context.Cause(ctx), err)
	}
	return out, err
}

func explain(err error, output []byte, name string, args []string) error {
	if err == nil {
		return nil
	}
	text := strings.TrimSpace(string(output))
	if len(text) > 400 {
		text = "..." + text[len(text)-400:]
	}
	return fmt.Errorf("%s %s: %s: %w", name, strings.Join(args, " "), text, err)
}
