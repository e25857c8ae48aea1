// Package concoursetest has a machine for tests.
package concoursetest

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// System is a concourse.System whose systemd does at once as it is told, and notes it.
// It is what a machine does at its best: how slow or unwilling a real one is, the
// scenarios show.
type System struct {
	// Fail returns an error for what is to fail, such as "start concourse-server.service";
	// nil lets everything succeed.
	Fail func(what string) error
	// IDs are the user's and the group's of every account; 0 is whoever runs the test.
	IDs [2]int

	mu      sync.Mutex
	running map[string]bool
	atBoot  map[string]bool
	defined map[string]string
	did     []string
}

// New returns a machine without services.
func New() *System {
	return &System{running: map[string]bool{}, atBoot: map[string]bool{}, defined: map[string]string{}}
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
	delete(s.running, unit)
}

// Up returns the services that run, by name.
func (s *System) Up() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.running))
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

func (s *System) Running(_ context.Context, unit string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running[unit], nil
}

func (s *System) StartAtBoot(_ context.Context, unit string, start bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.atBoot[unit] = start
	return nil
}

func (s *System) Restart(_ context.Context, unit string) error {
	return s.do("start "+unit, func() { s.running[unit] = true })
}

func (s *System) Reload(_ context.Context, unit string) error { return s.do("reload "+unit, nil) }

func (s *System) Signal(_ context.Context, unit, signal string) error {
	return s.do(signal+" "+unit, nil)
}

func (s *System) Remove(_ context.Context, unit string) error {
	if definition, _ := s.Definition(unit); definition == "" {
		return nil
	}
	return s.do("remove "+unit, func() { delete(s.running, unit); delete(s.defined, unit) })
}

func (s *System) Execute(_ context.Context, name string, args ...string) error {
	return s.do(filepath.Base(name)+" "+strings.Join(args[:2], " "), nil)
}
