package certify

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Prefix begins the names of the directories in which runs work.
const Prefix = ".ccbench-certify-"

// Files in such a directory.
const (
	ownerFile = "run.json"
	beatFile  = "beat" // has a new text with each sign of life
)

const program = "ccbench volume certify"

// owner says whose directory it is.
type owner struct {
	Program  string `json:"program"`
	Schema   int    `json:"schema"`
	Host     string `json:"host"`
	Machines int    `json:"machines"` // that are to meet
	process
}

// process is one among those of all machines.
type process struct {
	Boot    string `json:"boot"`          // of the kernel
	Space   string `json:"pid_namespace"` // in which the number counts
	PID     int    `json:"pid"`
	Started string `json:"started"` // of the kernel's ticks: numbers are used again
}

// place is the directory of a run, which shows that the run lives.
type place struct {
	parent, id, dir string
	pace            pace
	owner           owner
	stop, stopped   chan struct{}
}

// occupy makes the directory of a run.
func occupy(parent string, machines int, p pace) (*place, error) {
	id := strings.ToLower(rand.Text())
	l := &place{
		parent: parent, id: id, dir: filepath.Join(parent, Prefix+id), pace: p,
		stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	host, _ := os.Hostname() // for people
	l.owner = owner{Program: program, Schema: Schema, Host: host, Machines: machines, process: thisProcess()}
	if err := os.Mkdir(l.dir, 0o755); err != nil {
		return nil, err
	}
	data, err := json.Marshal(l.owner)
	if err == nil {
		err = os.WriteFile(filepath.Join(l.dir, ownerFile), append(data, '\n'), 0o644)
	}
	if err == nil {
		err = l.beat()
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(l.dir))
	}
	go l.live()
	return l, nil
}

func (l *place) live() {
	defer close(l.stopped)
	for {
		select {
		case <-l.stop:
			return
		case <-time.After(l.pace.beat):
			_ = l.beat() // the checks find out what is wrong
		}
	}
}

// beat writes in place: who opens a file gets what the server has, and a name may be
// in a cache.
func (l *place) beat() error {
	return os.WriteFile(filepath.Join(l.dir, beatFile), []byte(rand.Text()+"\n"), 0o644)
}

// leave removes the directory. Where the mount hangs it gives up.
func (l *place) leave() error {
	close(l.stop)
	removed := make(chan error, 1)
	go func() {
		<-l.stopped
		err := os.RemoveAll(l.dir)
		// A process that was killed may keep files for a moment, as NFS shows them.
		for i := 0; i < 50 && err != nil; i++ {
			time.Sleep(100 * time.Millisecond)
			err = os.RemoveAll(l.dir)
		}
		removed <- err
	}()
	select {
	case err := <-removed:
		if err != nil {
			return fmt.Errorf("cannot remove what was made: %w: remove %s", err, l.dir)
		}
		return nil
	case <-time.After(30 * time.Second):
		return fmt.Errorf("the mount does not answer: remove %s when it does", l.dir)
	}
}

func thisProcess() process {
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	space, _ := os.Readlink("/proc/self/ns/pid")
	p := process{Boot: strings.TrimSpace(string(boot)), Space: space, PID: os.Getpid()}
	p.Started, _ = startOf(p.PID)
	return p
}

// startOf returns when a process was started, in the kernel's ticks.
func startOf(pid int) (string, bool) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	// Its name, in parentheses, may have anything in it.
	after := strings.Fields(string(data)[strings.LastIndexByte(string(data), ')')+1:])
	const start = 22 - 3 // proc(5) counts from 1, and two fields are before
	if err != nil || len(after) <= start {
		return "", false
	}
	return after[start], true
}

// here tells whether this process can see another one, or its end.
func (p process) here() bool {
	me := thisProcess()
	return p.Boot != "" && p.Space != "" && p.Boot == me.Boot && p.Space == me.Space
}

func (p process) alive() bool {
	started, ok := startOf(p.PID)
	return ok && started == p.Started
}
