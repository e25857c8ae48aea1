package sim

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/juju"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/plan"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

// planned breaks what hooks decide.
func planned(breaks func(in *plan.Input, answer func() *plan.Plan) plan.Plan) func(*Protocol) {
	return func(p *Protocol) {
		p.Make = func(in plan.Input) plan.Plan {
			return breaks(&in, func() *plan.Plan { answer := plan.Make(in); return &answer })
		}
	}
}

// specified breaks what the supervisor is told.
func specified(breaks func(in plan.Input, spec *supervisor.Spec)) func(*Protocol) {
	return planned(func(in *plan.Input, answer func() *plan.Plan) plan.Plan {
		a := answer()
		if a.Spec != nil {
			breaks(*in, a.Spec)
		}
		return *a
	})
}

// stepped breaks what the supervisor's step sees, remembers, or decides.
func stepped(sees func(supervisor.Spec, *supervisor.Seen, *supervisor.Memory), decides func(*supervisor.Due)) func(*Protocol) {
	return func(p *Protocol) {
		p.Next = func(paths concourse.Paths, spec supervisor.Spec, seen supervisor.Seen, m supervisor.Memory) supervisor.Due {
			sees(spec, &seen, &m)
			due := supervisor.Next(paths, spec, seen, m)
			decides(&due)
			return due
		}
	}
}

func asIs(*supervisor.Due) {}

// told breaks what the supervisor's step is told.
func told(breaks func(*supervisor.Spec, supervisor.Seen)) func(*Protocol) {
	return func(p *Protocol) {
		p.Next = func(paths concourse.Paths, spec supervisor.Spec, seen supervisor.Seen, m supervisor.Memory) supervisor.Due {
			breaks(&spec, seen)
			return supervisor.Next(paths, spec, seen, m)
		}
	}
}

// A protocol without one of its rules breaks a promise in some order.
func TestBroken(t *testing.T) {
	for _, test := range []struct {
		name   string
		breaks func(*Protocol)
		rules  []error          // which may be the first to tell
		among  func(Order) bool // orders to try; nil is all
	}{
		{"workers do not wait until the web server has answered", specified(func(_ plan.Input, s *supervisor.Spec) {
			s.Run = s.Fetch
		}), []error{ErrUnproven}, func(o Order) bool { return !strings.Contains(o.Change, "paused") }},
		{"workers know the TSA by its address", func(p *Protocol) {
			p.Next = func(paths concourse.Paths, spec supervisor.Spec, seen supervisor.Seen, m supervisor.Memory) supervisor.Due {
				is := ""
				if spec.Worker != nil && spec.TSA != "" {
					worker, addresses := *spec.Worker, strings.Fields(spec.TSA)
					is, worker.TSAHost = worker.Identity(), addresses[len(addresses)-1]+":2222"
					spec.Worker = &worker
				}
				due := supervisor.Next(paths, spec, seen, m)
				due.Worker.Is = is
				return due
			}
		}, []error{ErrLost, ErrUnsettled}, nil},
		{"a worker that makes room is stopped", specified(func(_ plan.Input, s *supervisor.Spec) {
			s.Land = false
		}), []error{ErrLost}, nil},
		{"workers do not wait for a turn", specified(func(_ plan.Input, s *supervisor.Spec) {
			s.Turn = supervisor.NoTurn
		}), []error{ErrLost}, nil},
		{"workers take two turns at a time", planned(func(in *plan.Input, answer func() *plan.Plan) plan.Plan {
			in.Config.MaxUnavailable = 2
			return *answer()
		}), []error{ErrTurns}, nil},
		{"a worker is told once to land", func(p *Protocol) {
			p.Next = func(paths concourse.Paths, spec supervisor.Spec, seen supervisor.Seen, m supervisor.Memory) supervisor.Due {
				due := supervisor.Next(paths, spec, seen, m)
				if due.Worker.Verb == supervisor.Land && !m.Started[concourse.WorkerUnit].Told.IsZero() {
					due.Worker = supervisor.Task{}
				}
				return due
			}
		}, []error{ErrUnsettled}, func(o Order) bool {
			return strings.HasPrefix(o.Change, "option") && strings.HasPrefix(o.Fault, "lost connection") && !o.Early
		}},
		{"a web server stops while a worker lands", func(p *Protocol) {
			p.Next = func(paths concourse.Paths, spec supervisor.Spec, seen supervisor.Seen, m supervisor.Memory) supervisor.Due {
				due := supervisor.Next(paths, spec, seen, m)
				spec.Landing, seen.Lands = nil, false
				due.Web = supervisor.Next(paths, spec, seen, m).Web
				return due
			}
		}, []error{ErrLost}, func(o Order) bool { return o.Change == twoOptions }},
		{"ready is said of what is installed", planned(func(in *plan.Input, answer func() *plan.Plan) plan.Plan {
			a := answer()
			if run := in.Status.Run; run != "" && a.Changes.Status.Level != juju.Blocked {
				a.Changes.Status = juju.Status{Level: juju.Active, Message: "Ready (v" + run + ")"}
			}
			return *a
		}), []error{ErrNotReady}, nil},
		{"an upgrade is never taken back", planned(func(in *plan.Input, answer func() *plan.Plan) plan.Plan {
			in.Status.Overdue = ""
			if in.Juju.Peers != nil {
				for _, settings := range in.Juju.Peers.Units {
					delete(settings, relations.OverdueVersion)
				}
			}
			return *answer()
		}), []error{ErrNoWeb, ErrUnsettled}, nil},
		{"a unit that does not lead writes the application's settings", planned(func(in *plan.Input, answer func() *plan.Plan) plan.Plan {
			a := answer()
			a.Changes.App[relations.ActiveVersion] = in.Status.Run
			return *a
		}), []error{ErrHook}, nil},
		{"a web server does not read the keys of its workers", func(p *Protocol) {
			p.Needs = func(c plan.Config, e juju.Event, leader bool, app map[string]string) juju.Needs {
				needs := plan.Needs(c, e, leader, app)
				needs.Units = false
				return needs
			}
		}, []error{ErrUnsettled}, nil},
		{"a unit that was off does what it was told before, whatever the schema", stepped(func(_ supervisor.Spec, seen *supervisor.Seen, _ *supervisor.Memory) {
			seen.Stale, seen.NoSchema, seen.Schema = false, false, 0
		}, asIs), []error{ErrActivated, ErrSchema}, func(o Order) bool {
			return strings.HasPrefix(o.Fault, "power cut") && !o.Early && (o.Change == "option version" || o.Change == "action upgrade") &&
				o.Shared && o.Mode != "auto" && o.Units > 1
		}},
		{"web servers run while the schema is changed", specified(func(_ plan.Input, s *supervisor.Spec) {
			if s.Migrate != nil {
				s.Migrate.Go = true
			}
		}), []error{ErrBeside}, func(o Order) bool {
			return (o.Change == "option version" || o.Change == "action upgrade") && o.Mode != "auto" && o.Units > 1
		}},
		{"the schema is never taken down", planned(func(in *plan.Input, answer func() *plan.Plan) plan.Plan {
			if in.Juju.Peers != nil {
				delete(in.Juju.Peers.App, relations.SchemaBefore)
			}
			a := answer()
			delete(a.Changes.App, relations.SchemaBefore)
			return *a
		}), []error{ErrNoWeb, ErrUnsettled}, func(o Order) bool { return o.Change == "option version of a broken release" }},
		{"a supervisor that starts anew starts its services anew", stepped(func(_ supervisor.Spec, seen *supervisor.Seen, m *supervisor.Memory) {
			if seen.Stale {
				m.Started = nil
			}
		}, asIs), []error{ErrLost}, nil},
		{"the name of the TSA is never written", stepped(func(spec supervisor.Spec, seen *supervisor.Seen, _ *supervisor.Memory) {
			seen.TSA = spec.TSA
		}, asIs), []error{ErrUnsettled}, nil},
		{"workers that are gone are not retired", stepped(func(supervisor.Spec, *supervisor.Seen, *supervisor.Memory) {}, func(due *supervisor.Due) {
			due.Retire, due.Prune = "", ""
		}), []error{ErrUnsettled}, nil},
		{"a unit that was off forgets that it is paused", told(func(spec *supervisor.Spec, seen supervisor.Seen) {
			spec.Paused = spec.Paused && !seen.Stale
		}), []error{ErrPaused}, func(o Order) bool {
			return o.Change == pauses && o.Fault == "power cut" && o.Units > 1 && o.Mode != "web"
		}},
		{"a worker is stopped to pause it", told(func(spec *supervisor.Spec, _ supervisor.Seen) {
			if spec.Paused {
				spec.DrainTimeout = 0
			}
		}), []error{ErrLost}, func(o Order) bool { return o.Change == pauses }},
		{"the web server does not hear of pauses", planned(func(in *plan.Input, answer func() *plan.Plan) plan.Plan {
			if in.Juju.Peers != nil {
				for _, settings := range in.Juju.Peers.Units {
					delete(settings, relations.WorkerPause)
				}
			}
			return *answer()
		}), []error{ErrUnsettled}, func(o Order) bool { return o.Change == pauses && o.Units > 1 && o.Mode == "auto" }},
		{"a worker is stopped as its unit leaves", told(func(spec *supervisor.Spec, _ supervisor.Seen) {
			if spec.Leaving {
				spec.DrainTimeout = 0
			}
		}), []error{ErrLost}, func(o Order) bool { return o.Change == "unit removed" }},
		{"a service is not known to have been started", func(p *Protocol) {
			p.Did = func(m supervisor.Memory, t supervisor.Task, spec supervisor.Spec) supervisor.Memory {
				t.Service.Process += "\n" // it differs from what is described
				return m.Did(t, spec)
			}
		}, []error{ErrLost, ErrUnsettled, ErrNoWeb}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := Product()
			test.breaks(&p)
			seed, err := first(400, test.among, p)
			require.Error(t, err, "no order has found it")
			t.Logf("seed %d: %s", seed, strings.SplitN(err.Error(), "\n", 3)[1])
			var found bool
			for _, rule := range test.rules {
				found = found || errors.Is(err, rule)
			}
			require.True(t, found, "%v", err)
		})
	}
}

// first returns the first of the seeds whose order breaks a rule, and tries so many.
func first(most int, among func(Order) bool, p Protocol) (uint64, error) {
	for seed := uint64(1); most > 0; seed++ {
		if o, _, _ := newWorld(seed, p).choose(); among != nil && !among(o) {
			continue
		}
		most--
		if err := Run(seed, p); err != nil {
			return seed, err
		}
	}
	return 0, nil
}
