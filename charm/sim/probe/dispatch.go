package probe

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/sim"
)

// peers is the endpoint whose settings are read and written.
const peers = "peers"

// clients is the endpoint where the leader sets something for the other application, which
// hears of it.
const clients = "clients"

// number is the setting that a hook leaves. It is the hook's own: the millisecond at
// which it began.
const number = "number"

// mountPatience is how long the volume may take to be attached to a new machine.
const mountPatience = 2 * time.Minute

// Dispatch is one hook, action or command. Its notes are written when it begins, when it
// has read, and when it ends, so that one that is cut off leaves what it saw.
func Dispatch() error {
	if err := mounted(); err != nil {
		return err
	}
	life, err := agentStart()
	if err != nil {
		return err
	}
	// A command that juju-exec runs has no hook's name, but for the one that it gives itself.
	n := sim.Record{Unit: os.Getenv("JUJU_UNIT_NAME"), Life: life, Remote: os.Getenv("JUJU_REMOTE_UNIT"), Departing: os.Getenv("JUJU_DEPARTING_UNIT"), Begin: now()}
	n.Event = strings.TrimPrefix(os.Getenv("JUJU_DISPATCH_PATH"), "hooks/")
	switch {
	case os.Getenv("JUJU_ACTION_NAME") != "":
		n.Event = sim.Action
	case n.Event == "volume-changed":
		n.Event = sim.Command
	}
	if err := write(n); err != nil {
		return err
	}
	relation, err := look(&n)
	if err != nil {
		return err
	}
	if err := write(n); err != nil {
		return err
	}
	if relation != "" {
		if err := leave(&n, relation); err != nil {
			return err
		}
	}
	for exists(Hold) {
		time.Sleep(100 * time.Millisecond)
	}
	n.OK = !exists(Fail)
	n.End = now()
	if err := write(n); err != nil {
		return err
	}
	if !n.OK {
		return fmt.Errorf("%s is there", Fail)
	}
	return nil
}

// look reads all that the charm of the product reads of its peers.
func look(n *sim.Record) (relation string, err error) {
	var ids, units []string
	if err := tool(&n.Leader, "is-leader"); err != nil {
		return "", err
	}
	if err := tool(&ids, "relation-ids", peers); err != nil || len(ids) == 0 {
		return "", err
	}
	relation = ids[0]
	if n.App, err = numberOf(relation, n.Unit, "--app"); err != nil {
		return "", err
	}
	if n.Self, err = numberOf(relation, n.Unit); err != nil {
		return "", err
	}
	if err := tool(&units, "relation-list", "-r", relation); err != nil {
		return "", err
	}
	n.Units = map[string]int{}
	for _, unit := range units {
		if n.Units[unit], err = numberOf(relation, unit); err != nil {
			return "", err
		}
	}
	n.Read = now()
	return relation, nil
}

// leave sets this hook's number. Of the hooks that tell of others' numbers only those of
// the application's leave one, and none for the application: units would answer each
// other without end.
func leave(n *sim.Record, relation string) error {
	if n.Leader && n.Event == clients+"-relation-joined" {
		if err := run(nil, "relation-set", "--app", number+"="+strconv.Itoa(int(n.Begin/time.Millisecond))); err != nil {
			return err
		}
	}
	told := n.Event == peers+"-relation-changed"
	if told && n.Remote != "" {
		return nil
	}
	own := int(n.Begin / time.Millisecond)
	set := func(flags ...string) error {
		args := append([]string{"-r", relation}, flags...)
		return run(nil, "relation-set", append(args, number+"="+strconv.Itoa(own))...)
	}
	n.Wrote = own
	if err := set(); err != nil || told || !n.Leader {
		return err
	}
	n.WroteApp = own
	return set("--app")
}

// numberOf reads a number. Settings without one are those that Juju itself has made: 1.
// No settings are 0, as are an application's without a number.
func numberOf(relation, of string, flags ...string) (int, error) {
	var settings map[string]string
	if err := tool(&settings, "relation-get", append(append([]string{"-r", relation}, flags...), "-", of)...); err != nil {
		return 0, err
	}
	switch text, there := settings[number]; {
	case there:
		return strconv.Atoi(text)
	case len(settings) > 0:
		return 1, nil
	}
	return 0, nil
}

// tool runs one of Juju's hook tools that answers.
func tool(into any, name string, args ...string) error {
	return run(into, name, append([]string{"--format=json"}, args...)...)
}

func run(into any, name string, args ...string) error {
	out, err := exec.Command(name, args...).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	if err == nil && into != nil {
		err = json.Unmarshal(out, into)
	}
	if err != nil {
		return fmt.Errorf("%s %v: %w", name, args, err)
	}
	return nil
}

// now is on the clock that all containers of a host share.
func now() time.Duration { return time.Duration(time.Now().UnixNano()) }

// write appends a line at once, so that those of several units do not mix.
func write(n sim.Record) error {
	line, err := json.Marshal(n)
	if err != nil {
		return err
	}
	notes, err := os.OpenFile(Notes, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("note a hook: %w", err)
	}
	_, err = notes.Write(append(line, '\n'))
	return errors.Join(err, notes.Close())
}

// mounted waits for the volume.
func mounted() error {
	for deadline := time.Now().Add(mountPatience); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if exec.Command("mountpoint", "--quiet", volume).Run() == nil {
			return nil
		}
	}
	return fmt.Errorf("nothing is mounted at %s", volume)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// agentStart tells lives of Juju's agent apart: it is when the process began that has
// begun this one, in ticks since the host's boot.
func agentStart() (started int, err error) {
	for pid := os.Getpid(); pid > 1; {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, fmt.Errorf("find Juju's agent: %w", err)
		}
		// See proc_pid_stat(5): the name is in parentheses, and may have some.
		_, name, _ := strings.Cut(string(stat), "(")
		end := strings.LastIndex(name, ")")
		fields := strings.Fields(name[end+1:])
		if strings.HasPrefix(name[:end], "juju") {
			if started, err = strconv.Atoi(fields[19]); err != nil {
				return 0, fmt.Errorf("find Juju's agent: %w", err)
			}
		}
		if pid, err = strconv.Atoi(fields[1]); err != nil {
			return 0, fmt.Errorf("find Juju's agent: %w", err)
		}
	}
	if started == 0 {
		return 0, errors.New("no process of Juju's has begun this one")
	}
	return started, nil
}
