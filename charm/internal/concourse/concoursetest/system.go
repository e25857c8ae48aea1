// Package concoursetest has a machine for tests.
package concoursetest

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
)

// System is a concourse.System whose systemd does at once as it is told, and notes it.
// It is what a machine does at its best: how slow or unwilling a real one is, the
// scenarios show.
type System struct {
	// Fail returns an error for what is to fail, such as "start concourse-server.service";
	// nil lets everything succeed.
	Fail func(what string) error
	// Schemas are the newest that the releases support, by version.
	Schemas map[string]int64
	// IDs are the user's and the group's of every account; 0 is whoever runs the test.
	IDs [2]int

	mu      sync.Mutex
	pid     int                        // of the process that was started last
	states  map[string]concourse.State // of units that systemd has in hand
	program map[int]string             // by process
	words   map[string]string          // the last ones, by unit
	atBoot  map[string]bool
	defined map[string]string
	did     []string
}

// New returns a machine without services.
func New() *System {
	return &System{
		states: map[string]concourse.State{}, program: map[int]string{}, words: map[string]string{},
		atBoot: map[string]bool{}, defined: map[string]string{},
	}
}

func (s *System) do(what string, change func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Fail != nil {
		if err := s.Fail(what); err != nil {
			return err
		}
	}
	s.did = append(s.did, what)
	if change != nil {
		change()
	}
	return nil
}

// Done returns what was done since it was asked last.
func (s *System) Done() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	did := s.did
	s.did = nil
	return did
}

// Stop ends a service, as its own end does.
func (s *System) Stop(unit string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(unit)
}

func (s *System) end(unit string) {
	delete(s.program, s.states[unit].PID)
	delete(s.states, unit)
}

// Crash ends a service that systemd will start anew in a while.
func (s *System) Crash(unit, exit, words string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	restarts := s.states[unit].Restarts + 1
	s.end(unit)
	s.words[unit], s.states[unit] = words, concourse.State{Running: true, Restarts: restarts, Exit: exit}
}

// End ends a service that systemd does not start anew.
func (s *System) End(unit, exit, words string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(unit)
	s.words[unit], s.states[unit] = words, concourse.State{Exit: exit}
}

// Start has systemd start a service anew that has failed.
func (s *System) Start(unit string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.run(unit, s.states[unit].Restarts)
}

// run begins a process. The link of a release leads into the store.
func (s *System) run(unit string, restarts int) {
	s.end(unit)
	s.pid++
	s.states[unit] = concourse.State{Running: true, PID: s.pid, Restarts: restarts}
	_, command, _ := strings.Cut(s.defined[unit], "ExecStart=")
	program, _, _ := strings.Cut(command, " ")
	s.program[s.pid] = releaseLink.ReplaceAllString(program, "/store/$1.1/")
}

var releaseLink = regexp.MustCompile(`/releases/([^/]*)/`)

// Program is what the process of a unit executes; empty if there is none.
func (s *System) Program(unit string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.program[s.states[unit].PID]
}

// Execs has the process of a unit execute another program.
func (s *System) Execs(unit, program string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.program[s.states[unit].PID] = program
}

// Up returns the services that run, by name.
func (s *System) Up() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	up := maps.Clone(s.states)
	maps.DeleteFunc(up, func(_ string, state concourse.State) bool { return !state.Running })
	return slices.Sorted(maps.Keys(up))
}

// Definition returns the unit file of a service, and whether the service starts at boot.
func (s *System) Definition(unit string) (definition string, atBoot bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.defined[unit], s.atBoot[unit]
}

func (s *System) Account(context.Context, string) (uid, gid int, err error) {
	if s.IDs != [2]int{} {
		return s.IDs[0], s.IDs[1], nil
	}
	return os.Getuid(), os.Getgid(), nil
}

func (s *System) Define(_ context.Context, unit, definition string) (changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed = s.defined[unit] != definition
	s.defined[unit] = definition
	return changed, nil
}

func (s *System) State(_ context.Context, unit string) (concourse.State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.states[unit], nil
}

func (s *System) LastWords(_ context.Context, unit string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.words[unit], nil
}

func (s *System) Executable(pid int) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.program[pid] == "" {
		return "", os.ErrNotExist
	}
	return s.program[pid], nil
}

func (s *System) StartAtBoot(_ context.Context, unit string, start bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.atBoot[unit] = start
	return nil
}

func (s *System) Restart(_ context.Context, unit string) error {
	return s.do("start "+unit, func() { s.run(unit, 0) })
}

func (s *System) Reload(_ context.Context, unit string) error { return s.do("reload "+unit, nil) }

func (s *System) Signal(_ context.Context, unit, signal string) error {
	return s.do(signal+" "+unit, nil)
}

func (s *System) Remove(_ context.Context, unit string) error {
	if definition, _ := s.Definition(unit); definition == "" {
		return nil
	}
	return s.do("remove "+unit, func() { s.end(unit); delete(s.defined, unit) })
}

func (s *System) Execute(_ context.Context, name string, args ...string) error {
	return s.do(filepath.Base(name)+" "+strings.Join(args[:2], " "), nil)
}

// Output is that of a release that is asked which schema it supports.
func (s *System) Output(_ context.Context, name string, args ...string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Fail != nil {
		if err := s.Fail(filepath.Base(name) + " " + strings.Join(args, " ")); err != nil {
			return "", err
		}
	}
	return fmt.Sprintln(s.Schemas[filepath.Base(filepath.Dir(filepath.Dir(name)))]), nil
}
